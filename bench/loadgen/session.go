package main

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"
)

// spec is what the driver asks for: one scenario against one running server.
type spec struct {
	Protocol    string   `json:"protocol"` // plain, parley or centrifuge
	Scenario    string   `json:"scenario"` // volatile, acked, connect, idle, history or paced
	Port        int      `json:"port"`     // of clients that name none
	PID         int      `json:"pid"`
	Namespaces  []string `json:"namespaces"`
	Clients     []client `json:"clients"`
	Payload     int      `json:"payload"` // bytes
	Seconds     float64  `json:"seconds"`
	WarmSeconds float64  `json:"warm_seconds"`
	Windows     []int    `json:"windows"` // events in flight in each room, one after the other
	InFlight    int      `json:"in_flight"`
	WarmUp      int      `json:"warm_up"`  // connections opened before the measured ones
	Collect     bool     `json:"collect"`  // the server collects its garbage on SIGUSR2
	Profiler    []string `json:"profiler"` // a command that runs during the measurement, until SIGINT
}

// client is one connection to make. The first of its rooms is the one it publishes to.
type client struct {
	Token string   `json:"token"`
	Rooms []string `json:"rooms"`
	Paths []string `json:"paths"` // what the history scenario asks for
	Port  int      `json:"port"`  // of its node

	room *room
}

// room is what is known of one room's traffic.
type room struct {
	name     string
	members  []*conn
	turn     int // whose turn it is to publish
	sent     int64
	answered int64 // acks
	received int64 // deliveries, all members together
	forgiven int64 // events no longer waited for
	dirty    bool
}

// session is one scenario being run: its connections and what the protocols report about them.
type session struct {
	spec     *spec
	loop     *loop
	protocol protocol
	payload  []byte
	run      string // makes client ids of this run unlike those of any other
	received int64
	ready    int
	onReady  func(*conn)
	dirty    []*room
	err      error
}

func newSession(s *spec) (*session, error) {
	l, err := newLoop(s.Port)
	if err != nil {
		return nil, err
	}
	b := &session{
		spec:    s,
		loop:    l,
		payload: []byte(strings.Repeat("x", s.Payload)),
		run:     fmt.Sprintf("%x", time.Now().UnixNano()),
		onReady: func(*conn) {},
	}
	switch s.Protocol {
	case "plain", "parley":
		b.protocol = newSocketIO(b, s.Protocol == "parley", s.Scenario == "acked")
	case "centrifuge":
		b.protocol = &centrifuge{session: b}
	default:
		return nil, fmt.Errorf("unknown protocol %q", s.Protocol)
	}
	return b, nil
}

// fail ends the run; the first reason is the one reported.
func (b *session) fail(err error) {
	if b.err == nil {
		b.err = err
	}
}

// delivered counts events that reached a connection.
func (b *session) delivered(c *conn, n int64) {
	b.received += n
	if r := c.client.room; r != nil {
		r.received += n
		b.touch(r)
	}
}

// acknowledged counts the answer to one send.
func (b *session) acknowledged(c *conn) {
	c.client.room.answered++
	b.touch(c.client.room)
}

func (b *session) touch(r *room) {
	if !r.dirty {
		r.dirty = true
		b.dirty = append(b.dirty, r)
	}
}

// established marks a connection as ready for its scenario.
func (b *session) established(c *conn) {
	if !c.ready {
		c.ready = true
		b.ready++
		b.onReady(c)
	}
}

// until runs the loop until done answers true, or fails after the given time.
func (b *session) until(what string, limit time.Duration, done func() bool) error {
	for deadline := time.Now().Add(limit); !done(); {
		if err := b.loop.turn(20 * time.Millisecond); err != nil {
			return err
		}
		if b.err != nil {
			return b.err
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%s: not done after %s", what, limit)
		}
	}
	return nil
}

// settle runs the loop until nothing was received for the given time.
func (b *session) settle(quiet time.Duration) error {
	last, since := b.loop.bytes, time.Now()
	return b.until("silence", 60*time.Second, func() bool {
		if b.loop.bytes != last {
			last, since = b.loop.bytes, time.Now()
		}
		return time.Since(since) > quiet
	})
}

// connect opens a connection for each of the clients, at most InFlight at a time, and returns when
// all of them are ready.
func (b *session) connect(clients []client) ([]*conn, error) {
	conns := make([]*conn, 0, len(clients))
	target := b.ready + len(clients)
	err := b.until("connecting", 120*time.Second, func() bool {
		for len(conns) < len(clients) && len(conns)-(b.ready-(target-len(clients))) < b.spec.InFlight {
			c, err := b.loop.open(&websocket{b}, &clients[len(conns)])
			if err != nil {
				b.fail(err)
				return true
			}
			conns = append(conns, c)
		}
		return b.ready == target
	})
	if err == nil {
		err = b.err
	}
	return conns, err
}

func quoted(text string) []byte {
	encoded, _ := json.Marshal(text) // a string always has an encoding
	return encoded
}
