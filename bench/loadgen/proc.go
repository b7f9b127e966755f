package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"
)

// clockTicks is USER_HZ, which Linux fixes at 100 for everything in /proc.
const clockTicks = 100

// cpuSeconds is the user and system time of a process with all its threads, to 10 ms.
func cpuSeconds(pid int) (float64, error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, fmt.Errorf("cpu time of the server: %w", err)
	}
	// The command name may contain anything, so fields are counted from its closing bracket.
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	user, err := strconv.ParseInt(fields[11], 10, 64)
	if err != nil {
		return 0, err
	}
	system, err := strconv.ParseInt(fields[12], 10, 64)
	if err != nil {
		return 0, err
	}
	return float64(user+system) / clockTicks, nil
}

// privateBytes is the memory that would be freed if the process ended.
func privateBytes(pid int) (int64, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	if err != nil {
		return 0, fmt.Errorf("memory of the server: %w", err)
	}
	var total int64
	for _, line := range strings.Split(string(text), "\n") {
		if strings.HasPrefix(line, "Private_Clean:") || strings.HasPrefix(line, "Private_Dirty:") {
			kilobytes, err := strconv.ParseInt(strings.Fields(line)[1], 10, 64)
			if err != nil {
				return 0, err
			}
			total += kilobytes << 10
		}
	}
	return total, nil
}

// usage is what was spent between two moments.
type usage struct {
	Wall      float64 `json:"wall_seconds"`
	Server    float64 `json:"server_cpu_seconds"`
	Generator float64 `json:"generator_cpu_seconds"`
}

type meter struct {
	pid               int
	wall              time.Time
	server, generator float64
}

// meter measures what work costs the server. The profiler, if there is one, runs meanwhile.
func (b *session) meter(work func() error) (usage, error) {
	var profiler *exec.Cmd
	if len(b.spec.Profiler) > 0 {
		profiler = exec.Command(b.spec.Profiler[0], b.spec.Profiler[1:]...)
		profiler.Stderr = os.Stderr
		if err := profiler.Start(); err != nil {
			return usage{}, fmt.Errorf("the profiler: %w", err)
		}
	}
	m, err := startMeter(b.spec.PID)
	if err != nil {
		return usage{}, err
	}
	workErr := work()
	spent, err := m.stop()
	if profiler != nil {
		_ = profiler.Process.Signal(os.Interrupt) // it may have ended by itself
		_ = profiler.Wait()                       // what it wrote is judged by who asked for it
	}
	return spent, errors.Join(workErr, err)
}

func startMeter(pid int) (*meter, error) {
	server, err := cpuSeconds(pid)
	if err != nil {
		return nil, err
	}
	generator, err := cpuSeconds(os.Getpid())
	if err != nil {
		return nil, err
	}
	return &meter{pid: pid, wall: time.Now(), server: server, generator: generator}, nil
}

func (m *meter) stop() (usage, error) {
	end, err := startMeter(m.pid)
	if err != nil {
		return usage{}, err
	}
	return usage{
		Wall:      end.wall.Sub(m.wall).Seconds(),
		Server:    end.server - m.server,
		Generator: end.generator - m.generator,
	}, nil
}
