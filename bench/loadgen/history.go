package main

import (
	"bytes"
	"fmt"
	"strconv"
	"time"
)

// historyResult counts REST responses.
type historyResult struct {
	usage
	Connections int     `json:"connections"`
	Pages       int64   `json:"pages"`
	BytesEach   float64 `json:"bytes_per_page"`
}

// reader asks for one page after another on a keep-alive connection.
type reader struct {
	session *session
	pages   *int64
}

func (r *reader) greeting(c *conn) []byte {
	path := c.client.Paths[c.nextID%len(c.client.Paths)]
	c.nextID++
	return fmt.Appendf(nil, "GET %s HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nAuthorization: Bearer %s\r\n"+
		"Accept: application/json\r\n\r\n", path, c.port, c.client.Token)
}

func (r *reader) read(c *conn, data []byte) ([]byte, error) {
	head, body, ok := httpHead(data)
	if !ok {
		return data, nil
	}
	if !bytes.HasPrefix(head, []byte("HTTP/1.1 200")) {
		return nil, fmt.Errorf("history refused: %.500s", data)
	}
	length, err := contentLength(head)
	if err != nil {
		return nil, err
	}
	if len(body) < length {
		return data, nil
	}
	if !bytes.Contains(body[:length], []byte(`"items":[{`)) {
		return nil, fmt.Errorf("not a page of messages: %.300s", body)
	}
	*r.pages++
	c.write(r.greeting(c))
	return body[length:], nil
}

func (r *reader) ended(c *conn, err error) {
	r.session.fail(fmt.Errorf("connection %d: %w", c.index, err))
}

func contentLength(head []byte) (int, error) {
	const name = "\r\ncontent-length:"
	at := bytes.Index(bytes.ToLower(head), []byte(name))
	if at < 0 {
		return 0, fmt.Errorf("a response without Content-Length: %s", head)
	}
	value, _, _ := bytes.Cut(head[at+len(name):], []byte("\r\n"))
	return strconv.Atoi(string(bytes.TrimSpace(value)))
}

// runHistory fetches pages in a closed loop on one connection for each client.
func runHistory(b *session) (*historyResult, error) {
	var pages int64
	for i := range b.spec.Clients {
		if _, err := b.loop.open(&reader{b, &pages}, &b.spec.Clients[i]); err != nil {
			return nil, err
		}
	}
	if err := b.rest(time.Duration(b.spec.WarmSeconds * float64(time.Second))); err != nil {
		return nil, err
	}
	pagesBefore, bytesBefore := pages, b.loop.bytes
	spent, err := b.meter(func() error {
		return b.rest(time.Duration(b.spec.Seconds * float64(time.Second)))
	})
	return &historyResult{
		usage:       spent,
		Connections: len(b.spec.Clients),
		Pages:       pages - pagesBefore,
		BytesEach:   float64(b.loop.bytes-bytesBefore) / float64(max(pages-pagesBefore, 1)),
	}, err
}
