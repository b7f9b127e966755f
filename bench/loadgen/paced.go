package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"time"
)

// paced publishes at a constant rate whatever the servers do: an open loop. The rate is that of all
// rooms together, which take turns, and the members of a room take turns in it. It runs for as long
// as orders come on standard input, and answers each with a line, so that whoever gives them can
// look at the servers before and after.
type paced struct {
	*fanout
	next   int    // the room whose turn it is
	halved []bool // by room: its member has started and not stopped
}

// order is one stretch of publishing.
type order struct {
	Rate    float64 `json:"rate"` // events per second
	Seconds float64 `json:"seconds"`
}

// pacedResult is the answer to an order.
type pacedResult struct {
	Published  int64   `json:"published"`
	Deliveries int64   `json:"deliveries"`
	Expected   int64   `json:"expected"`
	Took       float64 `json:"publishing_seconds"`
	Behind     float64 `json:"seconds_behind"` // from the last event published to the last delivery
	Generator  float64 `json:"generator_cpu_seconds"`
}

// pacedReady is the first line: everybody is connected, and an event reaches all it must.
type pacedReady struct {
	Connections int   `json:"connections"`
	Rooms       int   `json:"rooms"`
	Factor      int64 `json:"deliveries_per_event"`
}

func runPaced(b *session, input *json.Decoder) error {
	p := &paced{fanout: &fanout{session: b}}
	conns, err := b.connect(b.spec.Clients)
	if err != nil {
		return err
	}
	p.assign(conns)
	if err := b.settle(quiet); err != nil {
		return err
	}
	if err := p.calibrate(); err != nil {
		return err
	}
	p.halved = make([]bool, len(p.rooms))
	answers := json.NewEncoder(os.Stdout)
	ready := pacedReady{Connections: len(conns), Rooms: len(p.rooms), Factor: p.factor}
	if err := answers.Encode(ready); err != nil {
		return err
	}
	orders := make(chan order)
	unread := make(chan error, 1)
	go func() {
		for {
			var o order
			if err := input.Decode(&o); err != nil {
				unread <- err
				return
			}
			orders <- o
		}
	}()
	for {
		select {
		case o := <-orders:
			result, err := p.carryOut(o)
			if err != nil {
				return err
			}
			if err := answers.Encode(result); err != nil {
				return err
			}
		case err := <-unread:
			if errors.Is(err, io.EOF) {
				return nil
			}
			return fmt.Errorf("an order: %w", err)
		default: // pings are to be answered meanwhile
			if err := b.loop.turn(5 * time.Millisecond); err != nil {
				return err
			}
			if b.err != nil {
				return b.err
			}
		}
	}
}

func (p *paced) carryOut(o order) (*pacedResult, error) {
	// An even number in each room: what a member starts it also stops.
	each := 2 * max(1, int64(o.Rate*o.Seconds/float64(len(p.rooms))/2+0.5))
	count := each * int64(len(p.rooms))
	cpu, err := cpuSeconds(os.Getpid())
	if err != nil {
		return nil, err
	}
	before, start := p.totals(), time.Now()
	if err := p.publishAll(count, o.Rate); err != nil {
		return nil, err
	}
	published := time.Now()
	last, expected := published, before.received+count*p.factor
	seen := p.received
	err = p.until("deliveries", 30*time.Second, func() bool {
		if p.received != seen {
			seen, last = p.received, time.Now()
		}
		return p.totals().received >= expected || time.Since(last) > stall
	})
	if err != nil {
		return nil, err
	}
	spent, err := cpuSeconds(os.Getpid())
	if err != nil {
		return nil, err
	}
	return &pacedResult{
		Published:  count,
		Deliveries: p.totals().received - before.received,
		Expected:   count * p.factor,
		Took:       published.Sub(start).Seconds(),
		Behind:     last.Sub(published).Seconds(),
		Generator:  spent - cpu,
	}, nil
}

// publishAll publishes so many events, each when it is due. Who is late catches up.
func (p *paced) publishAll(count int64, rate float64) error {
	start := time.Now()
	for sent := int64(0); sent < count; {
		for due := int64(time.Since(start).Seconds()*rate) + 1; sent < min(due, count); sent++ {
			p.publishNext()
		}
		if err := p.loop.turn(time.Millisecond); err != nil {
			return err
		}
		if p.err != nil {
			return p.err
		}
	}
	return nil
}

// publishNext lets the next room's member publish: each does so twice, then it is the next one's
// turn. To Parley the first one starts something and the second stops it.
func (p *paced) publishNext() {
	r := p.rooms[p.next]
	r.sent++
	p.protocol.publish(r.members[r.turn])
	if p.halved[p.next] {
		r.turn = (r.turn + 1) % min(len(r.members), publishers)
	}
	p.halved[p.next] = !p.halved[p.next]
	p.next = (p.next + 1) % len(p.rooms)
}
