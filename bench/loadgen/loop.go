package main

import (
	"bytes"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// conn is one TCP connection to the server under test.
type conn struct {
	fd       int
	port     int
	index    int
	loop     *loop
	handler  handler
	rest     []byte // the start of something whose end has not arrived
	out      []byte // what the socket did not take yet
	upgraded bool
	closed   bool

	// What the protocols and scenarios keep with a connection.
	client    *client
	ready     bool
	connected int // namespaces that answered
	joined    int // rooms that answered
	nextID    int
	toggle    bool
}

// handler is told what happens on a connection. Nothing it is given may be kept after it returns.
type handler interface {
	// greeting is what the client says first: an HTTP request.
	greeting(c *conn) []byte
	// read consumes whole units from data and returns what is left over.
	read(c *conn, data []byte) (rest []byte, err error)
	// ended is called once when the server closed the connection.
	ended(c *conn, err error)
}

// loop drives all connections from one thread with epoll. A goroutine for each connection would
// spend most of the core on waking and parking at the rates measured here.
type loop struct {
	epoll  int
	port   int
	conns  map[int]*conn
	buffer []byte
	events []unix.EpollEvent
	opened int
	bytes  int64 // received in total
}

// sources is how many loopback addresses connections come from, so that repeated runs do not run
// out of ephemeral ports.
const sources = 16

func newLoop(port int) (*loop, error) {
	epoll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("epoll: %w", err)
	}
	return &loop{
		epoll:  epoll,
		port:   port,
		conns:  make(map[int]*conn),
		buffer: make([]byte, 1<<20),
		events: make([]unix.EpollEvent, 512),
	}, nil
}

// open starts a connection; its greeting is sent as soon as it is established.
func (l *loop) open(h handler, owner *client) (*conn, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("socket: %w", err)
	}
	c := &conn{fd: fd, port: l.port, index: l.opened, loop: l, handler: h, client: owner}
	if owner.Port != 0 {
		c.port = owner.Port
	}
	l.opened++
	source := &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, byte(1 + c.index%sources)}}
	_ = unix.SetsockoptInt(fd, unix.SOL_IP, unix.IP_BIND_ADDRESS_NO_PORT, 1)
	if err := unix.Bind(fd, source); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("bind: %w", err)
	}
	_ = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1)
	address := &unix.SockaddrInet4{Port: c.port, Addr: [4]byte{127, 0, 0, 1}}
	if err := unix.Connect(fd, address); err != nil && !errors.Is(err, unix.EINPROGRESS) {
		unix.Close(fd)
		return nil, fmt.Errorf("connect: %w", err)
	}
	c.out = append(c.out, h.greeting(c)...)
	l.conns[fd] = c
	event := unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLOUT, Fd: int32(fd)}
	if err := unix.EpollCtl(l.epoll, unix.EPOLL_CTL_ADD, fd, &event); err != nil {
		return nil, fmt.Errorf("epoll: %w", err)
	}
	return c, nil
}

func (c *conn) watch(events uint32) {
	event := unix.EpollEvent{Events: events, Fd: int32(c.fd)}
	_ = unix.EpollCtl(c.loop.epoll, unix.EPOLL_CTL_MOD, c.fd, &event)
}

// write sends data, or keeps what the socket does not take at once.
func (c *conn) write(data []byte) {
	if c.closed {
		return
	}
	if len(c.out) > 0 {
		c.out = append(c.out, data...)
		return
	}
	n, err := unix.Write(c.fd, data)
	if err != nil {
		if !errors.Is(err, unix.EAGAIN) {
			return // the reader learns of it
		}
		n = 0
	}
	if n < len(data) {
		c.out = append(c.out, data[n:]...)
		c.watch(unix.EPOLLIN | unix.EPOLLOUT)
	}
}

func (c *conn) sendText(payload []byte) {
	c.write(appendFrame(make([]byte, 0, len(payload)+14), opText, payload))
}

// close ends the connection from this side, without telling the handler.
func (c *conn) close() {
	if c.closed {
		return
	}
	c.closed = true
	delete(c.loop.conns, c.fd)
	unix.Close(c.fd)
}

func (c *conn) fail(err error) {
	if c.closed {
		return
	}
	c.close()
	c.handler.ended(c, err)
}

// turn waits for events no longer than the given time and handles them.
func (l *loop) turn(wait time.Duration) error {
	n, err := unix.EpollWait(l.epoll, l.events, int(wait.Milliseconds()))
	if err != nil {
		if errors.Is(err, unix.EINTR) {
			return nil
		}
		return fmt.Errorf("epoll: %w", err)
	}
	for _, event := range l.events[:n] {
		c := l.conns[int(event.Fd)]
		if c == nil {
			continue
		}
		if event.Events&unix.EPOLLOUT != 0 {
			c.flush()
		}
		if event.Events&(unix.EPOLLIN|unix.EPOLLHUP|unix.EPOLLERR) != 0 && !c.closed {
			c.receive()
		}
	}
	return nil
}

func (c *conn) flush() {
	if len(c.out) > 0 {
		n, err := unix.Write(c.fd, c.out)
		if err != nil && !errors.Is(err, unix.EAGAIN) {
			c.fail(err)
			return
		}
		if n > 0 {
			c.out = c.out[:copy(c.out, c.out[n:])]
		}
	}
	if len(c.out) == 0 {
		c.out = nil
		c.watch(unix.EPOLLIN)
	}
}

func (c *conn) receive() {
	l := c.loop
	kept := copy(l.buffer, c.rest)
	n, err := unix.Read(c.fd, l.buffer[kept:])
	if err != nil {
		if !errors.Is(err, unix.EAGAIN) && !errors.Is(err, unix.EINTR) {
			c.fail(err)
		}
		return
	}
	if n == 0 {
		c.fail(errors.New("closed by the server"))
		return
	}
	l.bytes += int64(n)
	rest, err := c.handler.read(c, l.buffer[:kept+n])
	if err != nil {
		c.fail(err)
		return
	}
	if len(rest) == len(l.buffer) {
		c.fail(errors.New("a frame larger than the buffer"))
		return
	}
	if len(rest) == 0 {
		c.rest = c.rest[:0]
	} else {
		c.rest = append(c.rest[:0], rest...)
	}
}

// httpHead splits an HTTP response head off data. ok is false while it is incomplete.
func httpHead(data []byte) (head, rest []byte, ok bool) {
	end := bytes.Index(data, []byte("\r\n\r\n"))
	if end < 0 {
		return nil, data, false
	}
	return data[:end+2], data[end+4:], true
}
