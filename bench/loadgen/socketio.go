package main

import (
	"bytes"
	"fmt"
	"strconv"
)

// socketIO speaks Socket.IO protocol 5 over Engine.IO 4, as much of it as a client under load
// meets. With parley it speaks that server's commands; otherwise those of the small peer servers:
// join(room), pub(room, payload), send(room, payload) and the event msg(payload).
type socketIO struct {
	session  *session
	parley   bool
	delivery []byte // how a counted event begins
	prefix   []byte // how a packet of the first namespace begins, after its type
}

func newSocketIO(b *session, parley, acked bool) *socketIO {
	event := "msg"
	if parley {
		event = "typing.changed"
		if acked {
			event = "message.created"
		}
	}
	s := &socketIO{session: b, parley: parley, prefix: []byte(b.spec.Namespaces[0] + ",")}
	s.delivery = fmt.Appendf(nil, "42%s[%q", s.prefix, event)
	return s
}

func (s *socketIO) path() string { return "/socket.io/?EIO=4&transport=websocket" }

func (s *socketIO) opened(*conn) {}

func (s *socketIO) text(c *conn, payload []byte) error {
	if bytes.HasPrefix(payload, s.delivery) {
		s.session.delivered(c, 1)
		return nil
	}
	if len(payload) == 0 {
		return fmt.Errorf("an empty packet")
	}
	switch payload[0] {
	case '0': // Engine.IO open: ask for the namespaces
		for _, namespace := range s.session.spec.Namespaces {
			c.sendText(fmt.Appendf(nil, `40%s,{"token":%s}`, namespace, quoted(c.client.Token)))
		}
	case '2': // ping
		c.sendText([]byte("3"))
	case '1':
		return fmt.Errorf("Engine.IO close")
	case '4':
		return s.packet(c, payload[1:])
	}
	return nil
}

func (s *socketIO) packet(c *conn, packet []byte) error {
	if len(packet) == 0 {
		return fmt.Errorf("an empty Socket.IO packet")
	}
	switch packet[0] {
	case '0':
		c.connected++
		// Parley says `ready` on its first namespace when the client has all it is entitled to.
		if c.connected == len(s.session.spec.Namespaces) && !s.parley {
			s.join(c)
		} else if s.parley {
			s.established(c)
		}
	case '2':
		if s.parley && bytes.HasPrefix(packet[1:], append(s.prefix, `["ready"`...)) {
			c.joined = 1
			s.established(c)
		} else if bytes.Contains(packet[:min(len(packet), 40)], []byte(`["closing"`)) {
			return fmt.Errorf("the server is closing: %s", packet)
		}
	case '3':
		return s.ack(c, packet)
	case '1', '4':
		return fmt.Errorf("refused: %.300s", packet)
	}
	return nil
}

func (s *socketIO) established(c *conn) {
	if c.connected == len(s.session.spec.Namespaces) && c.joined == 1 {
		s.session.established(c)
	}
}

func (s *socketIO) join(c *conn) {
	for _, room := range c.client.Rooms {
		s.command(c, `["join",%s]`, quoted(room))
	}
	if len(c.client.Rooms) == 0 {
		s.session.established(c)
	}
}

// command sends an event that wants an ack.
func (s *socketIO) command(c *conn, format string, args ...any) {
	c.nextID++
	c.sendText(fmt.Appendf(fmt.Appendf(nil, "42%s%d", s.prefix, c.nextID), format, args...))
}

func (s *socketIO) ack(c *conn, packet []byte) error {
	start := bytes.IndexByte(packet, '[')
	if start < 0 || !bytes.HasPrefix(packet[start:], []byte(`[{"ok":true`)) {
		return fmt.Errorf("refused: %.300s", packet)
	}
	if c.ready {
		s.session.acknowledged(c)
	} else if c.joined++; c.joined == len(c.client.Rooms) {
		s.session.established(c)
	}
	return nil
}

func (s *socketIO) publish(c *conn) {
	out := make([]byte, 0, 256)
	out = append(append(out, "42"...), s.prefix...)
	if s.parley {
		// Starting twice says nothing new, so a client alternates.
		c.toggle = !c.toggle
		if c.toggle {
			out = append(out, `["typing.start",{"conversation":"`...)
		} else {
			out = append(out, `["typing.stop",{"conversation":"`...)
		}
		out = append(append(out, c.client.Rooms[0]...), `"}]`...)
	} else {
		out = append(append(out, `["pub","`...), c.client.Rooms[0]...)
		out = append(append(append(out, `","`...), s.session.payload...), `"]`...)
	}
	c.sendText(out)
}

func (s *socketIO) send(c *conn) {
	c.nextID++
	out := make([]byte, 0, 384)
	out = append(append(out, "42"...), s.prefix...)
	out = strconv.AppendInt(out, int64(c.nextID), 10)
	if s.parley {
		out = append(append(out, `["message.send",{"conversation":"`...), c.client.Rooms[0]...)
		out = append(append(out, `","client_id":"`...), s.session.run...)
		out = strconv.AppendInt(append(out, '-'), int64(c.index), 10)
		out = strconv.AppendInt(append(out, '-'), int64(c.nextID), 10)
		out = append(append(append(out, `","body":"`...), s.session.payload...), `"}]`...)
	} else {
		out = append(append(out, `["send","`...), c.client.Rooms[0]...)
		out = append(append(append(out, `","`...), s.session.payload...), `"]`...)
	}
	c.sendText(out)
}
