package main

import (
	"fmt"
	"time"
)

const (
	// stall is how long nothing may arrive before what is missing counts as dropped.
	stall = 2 * time.Second
	// quiet is how long nothing may arrive before what was published counts as delivered.
	quiet = 500 * time.Millisecond
	// publishers is how many members of a room take turns.
	publishers = 10
)

// fanout publishes to rooms in a closed loop: each room has a window of events in flight, and its
// members take turns to publish.
type fanout struct {
	*session
	acked  bool
	rooms  []*room
	factor int64 // deliveries of one event
	window int64
}

// fanoutResult is what one window yielded. Counts are of the measured time alone.
type fanoutResult struct {
	usage
	Connections int     `json:"connections"`
	Rooms       int     `json:"rooms"`
	Window      int64   `json:"window"`
	Factor      int64   `json:"deliveries_per_event"`
	Deliveries  int64   `json:"deliveries"`
	Published   int64   `json:"published"`
	Acked       int64   `json:"acked"`
	BytesEach   float64 `json:"bytes_per_delivery"` // everything received, divided by deliveries
	Latency     float64 `json:"mean_latency_ms"`    // from publishing to the last delivery, or to the ack
	Missing     int64   `json:"missing"`            // deliveries that never came, warm-up included
	Expected    int64   `json:"expected"`
}

func runFanout(b *session) ([]*fanoutResult, error) {
	f := &fanout{session: b, acked: b.spec.Scenario == "acked"}
	conns, err := b.connect(b.spec.Clients)
	if err != nil {
		return nil, err
	}
	f.assign(conns)
	if err := b.settle(quiet); err != nil {
		return nil, err
	}
	if err := f.calibrate(); err != nil {
		return nil, err
	}
	var results []*fanoutResult
	for _, window := range b.spec.Windows {
		f.window = int64(window)
		result, err := f.measure()
		if err != nil {
			return nil, err
		}
		result.Connections = len(conns)
		results = append(results, result)
	}
	return results, nil
}

// measure drives one window: first unmeasured, to reach its steady state, then measured, then
// until all that was published has arrived or is known to be lost.
func (f *fanout) measure() (*fanoutResult, error) {
	start := f.totals()
	if err := f.drive(f.spec.WarmSeconds); err != nil {
		return nil, err
	}
	before := f.totals()
	spent, err := f.meter(func() error { return f.drive(f.spec.Seconds) })
	if err != nil {
		return nil, err
	}
	after := f.totals()
	f.stopTyping()
	if err := f.settle(quiet); err != nil {
		return nil, err
	}
	end := f.totals()
	if f.acked && end.acked != end.published {
		return nil, fmt.Errorf("%d of %d messages were never acknowledged",
			end.published-end.acked, end.published)
	}
	// Those waited for in vain must not narrow the next window.
	f.giveUp()
	r := &fanoutResult{
		usage:      spent,
		Rooms:      len(f.rooms),
		Window:     f.window,
		Factor:     f.factor,
		Deliveries: after.received - before.received,
		Published:  after.published - before.published,
		Acked:      after.acked - before.acked,
		Expected:   (end.published - start.published) * f.factor,
	}
	r.Missing = r.Expected - (end.received - start.received)
	if r.Deliveries > 0 {
		r.BytesEach = float64(after.bytes-before.bytes) / float64(r.Deliveries)
		// Little's law: what is in flight, divided by the rate at which it completes.
		inFlight := float64(f.window * int64(len(f.rooms)))
		r.Latency = 1000 * inFlight * float64(f.factor) * spent.Wall / float64(r.Deliveries)
	}
	return r, nil
}

// assign gives each connection to the room it publishes to.
func (f *fanout) assign(conns []*conn) {
	byName := make(map[string]*room)
	for _, c := range conns {
		name := c.client.Rooms[0]
		r := byName[name]
		if r == nil {
			r = &room{name: name}
			byName[name] = r
			f.rooms = append(f.rooms, r)
		}
		r.members = append(r.members, c)
		c.client.room = r
	}
}

// calibrate publishes once in each room and counts whom it reaches: every member, or every member
// but the publisher. Anything else is not the traffic this scenario is about.
func (f *fanout) calibrate() error {
	for _, r := range f.rooms {
		r.received = 0
		f.put(r)
	}
	if err := f.settle(quiet); err != nil {
		return err
	}
	f.factor = f.rooms[0].received
	for _, r := range f.rooms {
		size := int64(len(r.members))
		if r.received != f.factor || (r.received != size && r.received != size-1) {
			return fmt.Errorf("one event in a room of %d was delivered %d times (%d in the first room)",
				size, r.received, f.factor)
		}
		if f.acked && r.answered != 1 {
			return fmt.Errorf("a message was acknowledged %d times", r.answered)
		}
	}
	f.stopTyping()
	return f.settle(quiet)
}

func (f *fanout) put(r *room) {
	publisher := r.members[r.turn]
	r.turn = (r.turn + 1) % min(len(r.members), publishers)
	r.sent++
	if f.acked {
		f.protocol.send(publisher)
	} else {
		f.protocol.publish(publisher)
	}
}

// fill publishes what the window of a room has place for.
func (f *fanout) fill(r *room) {
	for {
		done := r.answered
		if !f.acked {
			done = r.received / f.factor
		}
		// What comes after it was given up counts as in time again.
		r.forgiven = min(r.forgiven, r.sent-done)
		if r.sent-done-r.forgiven >= f.window {
			return
		}
		f.put(r)
	}
}

// drive keeps all windows full for the given time.
func (f *fanout) drive(seconds float64) error {
	for _, r := range f.rooms {
		f.fill(r)
	}
	now := time.Now()
	end := now.Add(time.Duration(seconds * float64(time.Second)))
	for checked, seen := now, f.received; now.Before(end); now = time.Now() {
		if err := f.loop.turn(10 * time.Millisecond); err != nil {
			return err
		}
		if f.err != nil {
			return f.err
		}
		for _, r := range f.dirty {
			r.dirty = false
			f.fill(r)
		}
		f.dirty = f.dirty[:0]
		if now.Sub(checked) > stall {
			if f.received == seen {
				f.giveUp()
				for _, r := range f.rooms {
					f.fill(r)
				}
			}
			checked, seen = now, f.received
		}
	}
	return nil
}

// stopTyping leaves nobody in a state that the server would end by itself, with events that were
// not published here.
func (f *fanout) stopTyping() {
	for _, r := range f.rooms {
		for _, c := range r.members {
			if c.toggle {
				r.sent++
				f.protocol.publish(c)
			}
		}
	}
}

// giveUp stops waiting for volatile events that the server dropped, as it may. Acks are waited for
// without end.
func (f *fanout) giveUp() {
	if f.acked {
		return
	}
	for _, r := range f.rooms {
		r.forgiven = r.sent - r.received/f.factor
	}
}

type totals struct {
	published, received, acked, bytes int64
}

func (f *fanout) totals() totals {
	t := totals{bytes: f.loop.bytes}
	for _, r := range f.rooms {
		t.published += r.sent
		t.acked += r.answered
		t.received += r.received
	}
	return t
}
