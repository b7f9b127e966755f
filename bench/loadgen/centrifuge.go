package main

import (
	"bytes"
	"fmt"
	"strconv"
)

// centrifuge speaks the JSON form of centrifuge's bidirectional client protocol: commands and
// replies are JSON objects, one a line, several in a frame.
type centrifuge struct {
	session *session
}

func (p *centrifuge) path() string { return "/connection/websocket" }

func (p *centrifuge) opened(c *conn) {
	c.nextID = 1
	c.sendText(fmt.Appendf(nil, `{"id":1,"connect":{"token":%s}}`, quoted(c.client.Token)))
}

var (
	pushStart  = []byte(`{"push":`)
	errorField = []byte(`"error":`)
)

func (p *centrifuge) text(c *conn, payload []byte) error {
	var deliveries int64
	for len(payload) > 0 {
		line := payload
		if end := bytes.IndexByte(payload, '\n'); end >= 0 {
			line, payload = payload[:end], payload[end+1:]
		} else {
			payload = nil
		}
		switch {
		case bytes.HasPrefix(line, pushStart):
			deliveries++
		case len(line) == 2: // {}, a ping
			c.sendText([]byte("{}"))
		case len(line) == 0:
		default:
			if bytes.Contains(line[:min(len(line), 40)], errorField) {
				return fmt.Errorf("refused: %.300s", line)
			}
			p.reply(c)
		}
	}
	if deliveries > 0 {
		p.session.delivered(c, deliveries)
	}
	return nil
}

// reply counts the answers: one to connect, one to each subscribe, then those to sends.
func (p *centrifuge) reply(c *conn) {
	switch {
	case c.ready:
		p.session.acknowledged(c)
		return
	case c.connected == 0:
		c.connected = 1
		for _, room := range c.client.Rooms {
			c.nextID++
			c.sendText(fmt.Appendf(nil, `{"id":%d,"subscribe":{"channel":%s}}`, c.nextID, quoted(room)))
		}
	default:
		c.joined++
	}
	if c.joined == len(c.client.Rooms) {
		p.session.established(c)
	}
}

// publish uses centrifuge's asynchronous message, which is not answered.
func (p *centrifuge) publish(c *conn) {
	out := append(make([]byte, 0, 256), `{"send":{"data":{"room":"`...)
	out = append(append(out, c.client.Rooms[0]...), `","data":"`...)
	out = append(append(out, p.session.payload...), `"}}}`...)
	c.sendText(out)
}

func (p *centrifuge) send(c *conn) {
	c.nextID++
	out := append(make([]byte, 0, 256), `{"id":`...)
	out = strconv.AppendInt(out, int64(c.nextID), 10)
	out = append(append(out, `,"publish":{"channel":"`...), c.client.Rooms[0]...)
	out = append(append(append(out, `","data":"`...), p.session.payload...), `"}}`...)
	c.sendText(out)
}
