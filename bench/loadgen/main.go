// Command loadgen drives one benchmark scenario against one server on the loopback interface.
//
// It reads a JSON description of the scenario from standard input, and writes the result as JSON to
// standard output. The scenario "paced" then goes on reading orders and answering each with a line.
// An error is one line on standard error and exit code 1.
package main

import (
	"encoding/json"
	"fmt"
	"os"
	"runtime"
)

func main() {
	// The event loop is one thread; a second one only serves the collector.
	runtime.LockOSThread()
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run() error {
	var s spec
	input := json.NewDecoder(os.Stdin)
	if err := input.Decode(&s); err != nil {
		return fmt.Errorf("the scenario: %w", err)
	}
	b, err := newSession(&s)
	if err != nil {
		return err
	}
	if s.Scenario == "paced" {
		return runPaced(b, input)
	}
	result, err := dispatch(b)
	if err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(result)
}

func dispatch(b *session) (any, error) {
	switch b.spec.Scenario {
	case "volatile", "acked":
		return runFanout(b)
	case "connect":
		return runConnect(b)
	case "idle":
		return runIdle(b)
	case "history":
		return runHistory(b)
	default:
		return nil, fmt.Errorf("unknown scenario %q", b.spec.Scenario)
	}
}
