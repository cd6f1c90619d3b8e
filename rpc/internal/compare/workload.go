package main

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// shape is what a workload does.
type shape string

const (
	unary        shape = "unary"         // calls, by so many callers at once
	fresh        shape = "fresh"         // the same without deadlines, by a new client process
	serverStream shape = "server-stream" // messages one way, to the client
	clientStream shape = "client-stream" // messages one way, to the server
	pingPong     shape = "ping-pong"     // round trips on a stream
)

// workload is a cell of the comparison, together with a system.
type workload struct {
	Shape   shape
	Size    int // bytes of a message's data
	Callers int // callers, or streams, at once
}

// String is the name that the flag -workloads matches.
func (w workload) String() string {
	size := fmt.Sprintf("%dB", w.Size)
	if w.Size >= 1<<10 {
		size = fmt.Sprintf("%dKiB", w.Size>>10)
	}
	if w.calls() {
		return fmt.Sprintf("%s-%s-%d", w.Shape, size, w.Callers)
	}
	return fmt.Sprintf("%s-%s", w.Shape, size)
}

// calls reports whether the workload is unary calls.
func (w workload) calls() bool { return w.Shape == unary || w.Shape == fresh }

// timed reports whether the workload has latencies.
func (w workload) timed() bool { return w.calls() || w.Shape == pingPong }

// stretch is how many times longer than others the workload is measured: with 16 MiB or 10,000
// calls in flight a call takes a hundred milliseconds and more, with 100,000 calls a second and
// more, and the window of -short would have but one or two of each caller.
func (w workload) stretch() time.Duration {
	switch {
	case w.Callers >= 100_000:
		return 16
	case w.Size*w.Callers >= 16<<20 || w.Callers >= 10_000:
		return 4
	}
	return 1
}

// smallCall is the size of the smallest messages.
const smallCall = 60

func workloads() []workload {
	var all []workload
	for _, size := range []int{smallCall, 4 << 10, 256 << 10} {
		for _, callers := range []int{1, 16, 64, 256} {
			all = append(all, workload{unary, size, callers})
		}
	}
	for _, callers := range []int{1, 16, 64} {
		all = append(all, workload{fresh, smallCall, callers})
	}
	for _, s := range []shape{serverStream, clientStream} {
		for _, size := range []int{60, 100, 16 << 10} {
			all = append(all, workload{s, size, 1})
		}
	}
	for _, size := range []int{60, 16 << 10} {
		all = append(all, workload{pingPong, size, 1})
	}
	return all
}

var errWrong = errors.New("a wrong answer")

// run does the work of one caller until its gauge says that it is enough.
func (w workload) run(ctx context.Context, p peer, g *gauge) error {
	switch w.Shape {
	case unary, fresh:
		return w.exchange(ctx, g, func(data []byte) ([]byte, error) { return p.echo(ctx, data) })
	case serverStream:
		return w.download(ctx, p, g)
	case clientStream:
		return w.upload(ctx, p, g)
	case pingPong:
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		exchange, err := p.chat(ctx)
		if err != nil {
			return err
		}
		return w.exchange(ctx, g, exchange)
	}
	return fmt.Errorf("there is no shape %q", w.Shape)
}

// exchange makes round trips. A failed one is counted and the next one made.
func (w workload) exchange(ctx context.Context, g *gauge, exchange exchange) error {
	data := newData(w.Size)
	for g.more() && ctx.Err() == nil {
		n := g.number()
		setNumber(data, n)
		start := time.Now()
		answer, err := exchange(data)
		switch {
		case err != nil:
			g.fail(err)
		case !valid(answer, w.Size) || number(answer) != n:
			g.fail(errWrong)
		default:
			g.done(time.Since(start))
		}
	}
	return nil
}

// download counts a gap in the numbers of the messages as lost.
func (w workload) download(ctx context.Context, p peer, g *gauge) error {
	expected := uint64(0)
	return p.download(ctx, w.Size, uint64(g.load.count), func(data []byte) bool {
		if !valid(data, w.Size) || number(data) < expected {
			g.fail(errWrong)
			return false
		}
		g.lost += number(data) - expected
		expected = number(data) + 1
		g.done(0)
		return g.load.count > 0 || g.more()
	})
}

// upload counts as lost what the server has not received at the end.
func (w workload) upload(ctx context.Context, p peer, g *gauge) error {
	data := newData(w.Size)
	sent := uint64(0)
	received, err := p.upload(ctx, func() []byte {
		if !g.more() || ctx.Err() != nil {
			return nil
		}
		setNumber(data, sent)
		sent++
		g.done(0)
		return data
	})
	if err == nil {
		g.lost += sent - received
	}
	return err
}
