package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"strings"
	"syscall"
	"time"

	"github.com/nats-io/nats.go"
)

// roleVariable is the environment variable that makes this program a replica or a client.
const roleVariable = "NATSCALL_CHAOS_ROLE"

// assignment says what a process is to be.
type assignment struct {
	Role      string
	Name      string
	Dir       string        // of the journals
	URLs      []string      // of the NATS nodes, its own first
	Heartbeat time.Duration // of streams

	// Of a client.
	Seed      uint64
	Callers   int // of unary methods
	Streamers int // of streaming methods
	Batching  bool

	Slots int // of a worker; 0 for the default
}

const (
	roleReplica = "replica"
	roleClient  = "client"
	roleWorker  = "worker"
)

// runRole runs the process that the environment asks for, if it does, until SIGTERM.
func runRole() (ran bool, err error) {
	text := os.Getenv(roleVariable)
	if text == "" {
		return false, nil
	}
	var a assignment
	if err := json.Unmarshal([]byte(text), &a); err != nil {
		return true, err
	}
	j, err := openJournal(a.Dir, a.Name)
	if err != nil {
		return true, err
	}
	return true, errors.Join(a.run(j), j.close())
}

func (a assignment) run(j *journal) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	go watchStalls(context.Background(), j) // until the process ends
	before := runtime.NumGoroutine() - 1    // the one of ctx ends with the signal
	nc, err := connect(a)
	if err != nil {
		return err
	}
	switch a.Role {
	case roleClient:
		err = a.runClient(ctx, nc, j)
	case roleWorker:
		err = a.runWorker(ctx, nc)
	default:
		err = a.runReplica(ctx, nc, j)
	}
	nc.Close()
	stop() // where there was no signal
	count, stacks := leftGoroutines(before)
	j.write(record{Kind: exits, Count: count, Text: stacks})
	return err
}

// connect connects to the process's own node, and to another one when that is gone.
func connect(a assignment) (*nats.Conn, error) {
	nc, err := nats.Connect(strings.Join(a.URLs, ","), nats.DontRandomize(), nats.MaxReconnects(-1), nats.Name(a.Name))
	if err != nil {
		return nil, fmt.Errorf("connect to %v: %w", a.URLs, err)
	}
	return nc, nil
}

// leavingTime is how long goroutines may take to end after what they belong to has been closed.
const leavingTime = 5 * time.Second

// leftGoroutines waits until no more goroutines run than before, and returns how many do
// nevertheless, and all stacks.
func leftGoroutines(before int) (count int, stacks string) {
	for end := time.Now().Add(leavingTime); ; time.Sleep(tick) {
		count = runtime.NumGoroutine() - before
		if count <= 0 {
			return 0, ""
		}
		if time.Now().After(end) {
			buf := make([]byte, 64<<10)
			return count, string(buf[:runtime.Stack(buf, true)])
		}
	}
}

// sleep waits for d, or until ctx ends.
func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
