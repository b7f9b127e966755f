package main

import (
	"encoding/binary"
	"errors"
	"io"
	"log"
	"net"
	"sync"
)

// MongoDB wire protocol: https://www.mongodb.com/docs/manual/reference/mongodb-wire-protocol/
const (
	headerSize  = 16
	maxMessage  = 48_000_000
	opMsg       = 2013
	moreToCome  = 1 << 1
	flagsOffset = headerSize
)

var errFrame = errors.New("not a message of the MongoDB wire protocol")

// proxy forwards the commands of all its clients, one at a time.
type proxy struct {
	backend string // path of a Unix socket
	turn    sync.Mutex
}

// serve forwards one client's commands until either side closes.
func (p *proxy) serve(client net.Conn) {
	defer client.Close()
	server, err := net.Dial("unix", p.backend)
	if err != nil {
		log.Print(err)
		return
	}
	defer server.Close()
	for {
		request, err := readMessage(client)
		if err != nil {
			return
		}
		replies, err := p.exchange(server, request)
		if err != nil {
			return
		}
		if _, err := client.Write(replies); err != nil {
			return
		}
	}
}

// exchange sends a request and reads what answers it, while no other client's is under way. The
// turn lasts until the backend is done, even if the client has gone meanwhile.
func (p *proxy) exchange(server net.Conn, request []byte) ([]byte, error) {
	p.turn.Lock()
	defer p.turn.Unlock()
	if _, err := server.Write(request); err != nil {
		return nil, err
	}
	if hasMore(request) { // an unacknowledged write has no reply
		return nil, nil
	}
	var replies []byte
	for {
		reply, err := readMessage(server)
		if err != nil {
			return nil, err
		}
		replies = append(replies, reply...)
		if !hasMore(reply) {
			return replies, nil
		}
	}
}

// hasMore tells whether a message's flags promise another one after it, without a reply between.
func hasMore(message []byte) bool {
	if binary.LittleEndian.Uint32(message[12:]) != opMsg || len(message) < flagsOffset+4 {
		return false
	}
	return binary.LittleEndian.Uint32(message[flagsOffset:])&moreToCome != 0
}

func readMessage(from io.Reader) ([]byte, error) {
	var header [headerSize]byte
	if _, err := io.ReadFull(from, header[:]); err != nil {
		return nil, err
	}
	size := binary.LittleEndian.Uint32(header[:])
	if size < headerSize || size > maxMessage {
		return nil, errFrame
	}
	message := make([]byte, size)
	copy(message, header[:])
	_, err := io.ReadFull(from, message[headerSize:])
	return message, err
}
