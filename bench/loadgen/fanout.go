package main

import (
	"fmt"
	"time"
)

// stall is how long a room may be silent before what is missing in it counts as dropped.
const stall = 500 * time.Millisecond

// fanout publishes to rooms in a closed loop: each room has a window of events in flight, and its
// members take turns to publish.
type fanout struct {
	*session
	acked  bool
	rooms  []*room
	factor int64 // deliveries of one event
	window int64
}

// fanoutResult is counted from the start of the measured time to its end, except the totals.
type fanoutResult struct {
	usage
	Connections   int     `json:"connections"`
	Rooms         int     `json:"rooms"`
	Deliveries    int64   `json:"deliveries"`
	Published     int64   `json:"published"`
	Acked         int64   `json:"acked"`
	BytesEach     float64 `json:"bytes_per_delivery"` // everything received, divided by deliveries
	Window        int64   `json:"window"`
	Factor        int64   `json:"deliveries_per_event"`
	TotalMissing  int64   `json:"missing"` // of all that was published, warm-up included
	TotalExpected int64   `json:"expected"`
	Probes        []probe `json:"probes"`
}

// probe is the short run that tries one window.
type probe struct {
	Window     int64   `json:"window"`
	PerCPU     float64 `json:"deliveries_per_cpu_second"`
	Busy       float64 `json:"server_busy"`
	Deliveries int64   `json:"deliveries"`
}

func runFanout(b *session) (*fanoutResult, error) {
	f := &fanout{session: b, acked: b.spec.Scenario == "acked"}
	conns, err := b.connect(b.spec.Clients)
	if err != nil {
		return nil, err
	}
	f.assign(conns)
	if err := b.settle(300 * time.Millisecond); err != nil {
		return nil, err
	}
	if err := f.calibrate(); err != nil {
		return nil, err
	}
	probes, err := f.chooseWindow()
	if err != nil {
		return nil, err
	}
	// Reach the steady state of the chosen window before the clock starts.
	if _, _, err := f.drive(b.spec.Probe); err != nil {
		return nil, err
	}
	published, received, acked, bytes := f.totals()
	spent, err := b.measure(func() error {
		_, _, err := f.drive(b.spec.Seconds)
		return err
	})
	if err != nil {
		return nil, err
	}
	published2, received2, acked2, bytes2 := f.totals()
	if err := b.settle(stall); err != nil {
		return nil, err
	}
	allPublished, allReceived, allAcked, _ := f.totals()
	if f.acked && allAcked != allPublished {
		return nil, fmt.Errorf("%d of %d messages were never acknowledged", allPublished-allAcked, allPublished)
	}
	return &fanoutResult{
		usage:         spent,
		Connections:   len(conns),
		Rooms:         len(f.rooms),
		Deliveries:    received2 - received,
		Published:     published2 - published,
		Acked:         acked2 - acked,
		BytesEach:     float64(bytes2-bytes) / float64(max(received2-received, 1)),
		Window:        f.window,
		Factor:        f.factor,
		TotalMissing:  allPublished*f.factor - allReceived,
		TotalExpected: allPublished * f.factor,
		Probes:        probes,
	}, nil
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
	if err := f.settle(500 * time.Millisecond); err != nil {
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
	return nil
}

func (f *fanout) put(r *room) {
	publisher := r.members[r.turn]
	r.turn = (r.turn + 1) % len(r.members)
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
		if r.sent-done-r.forgiven >= f.window {
			return
		}
		f.put(r)
	}
}

// drive keeps all windows full for the given time and reports what it cost.
func (f *fanout) drive(seconds float64) (usage, int64, error) {
	start := f.received
	m, err := startMeter(f.spec.PID)
	if err != nil {
		return usage{}, 0, err
	}
	for _, r := range f.rooms {
		f.fill(r)
	}
	end := m.wall.Add(time.Duration(seconds * float64(time.Second)))
	checked, seen := m.wall, f.received
	for now := m.wall; now.Before(end); now = time.Now() {
		if err := f.loop.turn(10 * time.Millisecond); err != nil {
			return usage{}, 0, err
		}
		if f.err != nil {
			return usage{}, 0, f.err
		}
		for _, r := range f.dirty {
			r.dirty = false
			f.fill(r)
		}
		f.dirty = f.dirty[:0]
		if now.Sub(checked) > stall {
			if f.received == seen && !f.acked {
				f.giveUp()
			}
			checked, seen = now, f.received
		}
	}
	spent, err := m.stop()
	return spent, f.received - start, err
}

// giveUp stops waiting for volatile events that the server dropped, as it may.
func (f *fanout) giveUp() {
	for _, r := range f.rooms {
		r.forgiven = r.sent - r.received/f.factor
		f.fill(r)
	}
}

func (f *fanout) totals() (published, received, acked, bytes int64) {
	for _, r := range f.rooms {
		published += r.sent
		acked += r.answered
		received += r.received
	}
	return published, received, acked, f.loop.bytes
}

// chooseWindow tries each window and keeps the one that yields most deliveries per server
// CPU-second among those that keep the server (nearly) as busy as any does. Every server is so
// measured at the load that suits it best.
func (f *fanout) chooseWindow() ([]probe, error) {
	var probes []probe
	busiest := 0.0
	for _, window := range f.spec.Windows {
		f.window = int64(window)
		spent, deliveries, err := f.drive(f.spec.Probe)
		if err != nil {
			return nil, err
		}
		p := probe{Window: f.window, Deliveries: deliveries, Busy: spent.Server / spent.Wall}
		if spent.Server > 0 {
			p.PerCPU = float64(deliveries) / spent.Server
		}
		busiest = max(busiest, p.Busy)
		probes = append(probes, p)
		if err := f.settle(stall); err != nil {
			return nil, err
		}
	}
	best := -1.0
	for _, p := range probes {
		if p.Busy >= 0.9*busiest && p.PerCPU > best {
			best, f.window = p.PerCPU, p.Window
		}
	}
	return probes, nil
}
