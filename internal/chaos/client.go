package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/natscall/natscall/rpc"

	"github.com/natscall/natscall/internal/chaos/gen/chaos/v1/chaosv1nats"
)

const (
	// patience is the deadline of most calls: so long that no fault makes a call reach it.
	patience = 15 * time.Second
	// impatience is below the deadlines of calls that wait for a fault to pass. A call with an
	// earlier deadline may miss it in any scenario.
	impatience = 5 * time.Second
	// batchBytes is what docs/performance.md recommends.
	batchBytes = 16 << 10
)

// runClient calls until ctx ends, and returns when every call has ended. The runner kills a
// process that does not get there.
func (a assignment) runClient(ctx context.Context, nc *nats.Conn, j *journal) error {
	client := rpc.NewClient(nc, a.clientOptions()...)
	defer client.Close()
	var callers sync.WaitGroup
	number := 0
	start := func(n int, call func(*caller)) {
		for range n {
			c := &caller{
				j: j, api: chaosv1nats.NewChaosServiceClient(client), load: a.load,
				name: fmt.Sprintf("%s.%d", a.Name, number), random: rand.New(rand.NewPCG(a.Seed, uint64(number))),
			}
			number++
			callers.Go(func() { c.run(ctx, call) })
		}
	}
	start(a.Callers, (*caller).callUnary)
	start(a.Streamers, (*caller).callStream)
	start(a.Registers, (*caller).callRegister)
	callers.Wait()
	return nil
}

func (a assignment) clientOptions() (out []rpc.ClientOption) {
	out = append(out, rpc.WithHeartbeat(a.Heartbeat))
	if a.Batching {
		out = append(out, rpc.WithBatching(batchBytes))
	}
	return out
}

// caller makes one call after the other.
type caller struct {
	j      *journal
	api    chaosv1nats.ChaosServiceClient
	name   string
	random *rand.Rand
	load   load
	calls  int
	seen   Operation // the last answer about the register that it uses
}

func (c *caller) run(ctx context.Context, call func(*caller)) {
	for sleep(ctx, c.upTo(c.load.Pause)) == nil {
		call(c)
	}
}

// chance is true in so many of 100 cases.
func (c *caller) chance(percent int) bool { return c.random.IntN(100) < percent }

func (c *caller) upTo(d time.Duration) time.Duration { return time.Duration(c.random.Int64N(int64(d))) }

// timeout is patience for most calls, and short for some.
func (c *caller) timeout() time.Duration {
	if c.chance(10) {
		return time.Millisecond + c.upTo(300*time.Millisecond)
	}
	return patience
}

// callOptions are the ways in which a call may travel.
func (c *caller) callOptions() (out []rpc.CallOption) {
	switch c.random.IntN(10) {
	case 0:
		out = append(out, rpc.WithCompression(rpc.CompressionGzip))
	case 1:
		out = append(out, rpc.WithCompression(rpc.CompressionZstd))
	case 2:
		out = append(out, rpc.WithCodec(rpc.CodecJSON))
	}
	return out
}

// call is a call from its first record to its last.
type call struct {
	j          *journal
	id, method string
	ctx        context.Context
	cancel     context.CancelFunc
	gaveUp     atomic.Int64 // an instant, or 0
}

// begin records that a call is about to be made; r has its method.
func (c *caller) begin(r record, timeout time.Duration) *call {
	c.calls++
	begin := time.Now()
	k := &call{j: c.j, id: fmt.Sprintf("%s.%d", c.name, c.calls), method: r.Method}
	k.ctx, k.cancel = context.WithDeadline(context.Background(), begin.Add(timeout))
	r.At, r.Kind, r.Call, r.Deadline = at(begin), began, k.id, at(begin.Add(timeout))
	k.j.write(r)
	return k
}

// giveUp cancels the call, for its caller.
func (k *call) giveUp() {
	k.gaveUp.Store(int64(now()))
	k.cancel()
}

// open is true until the caller has given up or the deadline has passed.
func (k *call) open() bool { return k.ctx.Err() == nil }

// end records how the call has ended, and when, unless r says so.
func (k *call) end(r record, err error) {
	if r.At == 0 {
		r.At = now()
	}
	r.Kind, r.Call, r.Method = ended, k.id, k.method
	r.GaveUp = instant(k.gaveUp.Load())
	r.Code = rpc.CodeOf(err).String()
	k.cancel()
	var e *rpc.Error
	switch {
	case errors.As(err, &e):
		r.Claim, r.Text = e.Execution().String(), e.Message()
		if e.Code() == rpc.CodeAborted { // see aborted
			r.Run = e.Message()
		}
	case err != nil:
		r.Wrong = fmt.Sprintf("an error that is no *rpc.Error: %v", err)
	}
	k.j.write(r)
}
