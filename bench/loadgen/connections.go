package main

import (
	"fmt"
	"slices"
	"syscall"
	"time"
)

// connectResult says what opening connections cost.
type connectResult struct {
	usage
	Connections int `json:"connections"`
}

// warmUp opens and closes connections, so that what is measured is not the first use of anything.
func warmUp(b *session) error {
	conns, err := b.connect(b.spec.Clients[:b.spec.WarmUp])
	if err != nil {
		return err
	}
	if err := b.settle(300 * time.Millisecond); err != nil {
		return err
	}
	for _, c := range conns {
		c.close()
	}
	return b.rest(1500 * time.Millisecond)
}

// rest lets the server alone, still answering its pings.
func (b *session) rest(duration time.Duration) error {
	end := time.Now().Add(duration)
	return b.until("rest", duration+time.Minute, func() bool { return time.Now().After(end) })
}

// runConnect opens all connections, each authenticated, and keeps them open.
func runConnect(b *session) (*connectResult, error) {
	if err := warmUp(b); err != nil {
		return nil, err
	}
	spent, err := b.meter(func() error {
		_, err := b.connect(b.spec.Clients)
		return err
	})
	return &connectResult{usage: spent, Connections: len(b.spec.Clients)}, err
}

// idleResult says what open connections keep in memory.
type idleResult struct {
	Connections int     `json:"connections"`
	Before      int64   `json:"private_bytes_before"`
	After       int64   `json:"private_bytes_after"`
	Each        float64 `json:"bytes_per_connection"`
}

// runIdle measures what the server's private memory grows by when connections are added to the
// first WarmUp ones. Those stay open: what closing them would set free, the others would use, and
// without them the growth would contain what a server sets aside once, at its first load.
func runIdle(b *session) (*idleResult, error) {
	if _, err := b.connect(b.spec.Clients[:b.spec.WarmUp]); err != nil {
		return nil, err
	}
	before, err := b.settledMemory()
	if err != nil {
		return nil, err
	}
	added := b.spec.Clients[b.spec.WarmUp:]
	if _, err := b.connect(added); err != nil {
		return nil, err
	}
	after, err := b.settledMemory()
	if err != nil {
		return nil, err
	}
	return &idleResult{len(added), before, after, float64(after-before) / float64(len(added))}, nil
}

// settledMemory is the median of three readings, after garbage collection where the server offers
// it on SIGUSR2.
func (b *session) settledMemory() (int64, error) {
	var readings []int64
	for range 3 {
		if b.spec.Collect {
			if err := syscall.Kill(b.spec.PID, syscall.SIGUSR2); err != nil {
				return 0, fmt.Errorf("asking for a collection: %w", err)
			}
		}
		if err := b.rest(time.Second); err != nil {
			return 0, err
		}
		bytes, err := privateBytes(b.spec.PID)
		if err != nil {
			return 0, err
		}
		readings = append(readings, bytes)
	}
	slices.Sort(readings)
	return readings[1], nil
}
