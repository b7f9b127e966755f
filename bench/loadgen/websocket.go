package main

import (
	"bytes"
	"errors"
	"fmt"
)

// protocol is what is spoken inside the WebSocket.
type protocol interface {
	// path is requested at the upgrade.
	path() string
	// opened is called when the upgrade is done.
	opened(c *conn)
	// text handles one message of the server.
	text(c *conn, payload []byte) error
	// publish sends one event to the client's room, asking for no answer.
	publish(c *conn)
	// send sends one message to the client's room to be stored and acknowledged.
	send(c *conn)
}

// websocket is the handler of a WebSocket connection. It offers no extension, so nothing is
// compressed.
type websocket struct {
	session *session
}

func (w *websocket) greeting(c *conn) []byte {
	return fmt.Appendf(nil, "GET %s HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nUpgrade: websocket\r\n"+
		"Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"+
		"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
		w.session.protocol.path(), c.port)
}

func (w *websocket) read(c *conn, data []byte) ([]byte, error) {
	if !c.upgraded {
		head, rest, ok := httpHead(data)
		if !ok {
			return data, nil
		}
		if !bytes.HasPrefix(head, []byte("HTTP/1.1 101")) {
			return nil, fmt.Errorf("upgrade refused: %.300s", data)
		}
		c.upgraded, data = true, rest
		w.session.protocol.opened(c)
	}
	for {
		opcode, final, payload, rest, ok := nextFrame(data)
		if !ok {
			return data, nil
		}
		data = rest
		switch {
		case !final:
			return nil, errors.New("a fragmented message, which this generator does not read")
		case opcode == opText:
			if err := w.session.protocol.text(c, payload); err != nil {
				return nil, err
			}
		case opcode == opPing:
			c.write(appendFrame(nil, opPong, payload))
		case opcode == opPong:
		case opcode == opClose:
			return nil, fmt.Errorf("close frame: %q", payload)
		default:
			return nil, fmt.Errorf("unexpected opcode %d", opcode)
		}
		if c.closed {
			return nil, nil
		}
	}
}

func (w *websocket) ended(c *conn, err error) {
	w.session.fail(fmt.Errorf("connection %d: %w", c.index, err))
}
