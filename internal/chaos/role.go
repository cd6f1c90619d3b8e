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
	"sync"
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
	Pinned    bool          // the process uses the URLs alone, and no node that others tell it of

	Sample time.Duration // how often it says what it uses, 0 for never

	load
	Seed     uint64
	Batching bool

	Slots int    // of a replica or worker; 0 for the default
	Store string // of a replica: the address
}

// load is what a client does.
type load struct {
	Callers   int           // of unary methods
	Streamers int           // of streaming methods
	Registers int           // callers of methods of registers
	Pause     time.Duration // between two calls of a caller, at most
	Work      time.Duration // how long handlers of unary methods work, about; 0 for a mix
	Deadline  time.Duration // of calls that may run twice, beside their work; 0 for that of all
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
	stalls := threadWaits{}
	go watchStalls(context.Background(), j, stalls.longest) // until the process ends
	before := runtime.NumGoroutine() - 1                    // the one of ctx ends with the signal
	nc, err := connect(a)
	if err != nil {
		return err
	}
	var watches sync.WaitGroup
	watching, unwatch := context.WithCancel(ctx)
	watches.Go(func() { watchUse(watching, a.Sample, nc, j) })
	switch a.Role {
	case roleClient:
		err = a.runClient(ctx, nc, j)
	case roleWorker:
		err = a.runWorker(ctx, nc)
	default:
		err = a.runReplica(ctx, nc, j)
	}
	unwatch()
	watches.Wait()
	nc.Close()
	stop() // where there was no signal
	count, stacks := leftGoroutines(before)
	j.write(record{Kind: exits, Count: count, Text: stacks})
	return err
}

// connect connects to the process's own node, and to another one when that is gone.
func connect(a assignment) (*nats.Conn, error) {
	options := []nats.Option{nats.DontRandomize(), nats.MaxReconnects(-1), nats.Name(a.Name)}
	if a.Pinned {
		options = append(options, nats.IgnoreDiscoveredServers())
	}
	if a.Role == roleClient || a.Role == roleReplica {
		options = append(options, nats.UserInfo(a.Role, password))
	}
	nc, err := nats.Connect(strings.Join(a.URLs, ","), options...)
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
