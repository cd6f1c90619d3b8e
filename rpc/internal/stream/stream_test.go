package stream

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/natscall/natscall/rpc/internal/buffer"
	"github.com/natscall/natscall/rpc/internal/flow"
	"github.com/natscall/natscall/rpc/internal/wire"
)

// TestEnds: each way of ending is told as it must be, both sides know why; only the first counts.
func TestEnds(t *testing.T) {
	const (
		mine     = "mine"
		theirs   = "theirs"
		eof      = "EOF"
		canceled = "stream: the client has ended it"
		byCtx    = "stream: context canceled"
		late     = "stream: context deadline exceeded"
		told     = "status theirs 1"
	)
	deadline := func(p *pair, c *ClientConfig) { c.Deadline = time.Now().Add(time.Second) }
	ctxDeadline := func(p *pair, c *ClientConfig) {
		p.ctx, p.cancel = context.WithTimeout(context.Background(), time.Second)
	}
	closed := errText(ErrClosed)
	runs := [2]string{goes, waits}
	for _, test := range []struct {
		name           string
		opening        bool // nobody has accepted the stream
		config         func(p *pair, c *ClientConfig)
		end            func(p *pair)
		up, down       string    // is published
		client, server [2]string // errors of Send and Recv
		notified       string
		ended          string // of StreamEnded
	}{
		{name: "the client ends it", end: func(p *pair) { p.client.End(errMine) },
			up: "cancel", client: [2]string{mine, mine}, server: [2]string{canceled, canceled}, notified: mine, ended: canceled},
		{name: "it closes it", end: func(p *pair) { p.client.Close(errMine) },
			up: "cancel", client: [2]string{mine, mine}, server: [2]string{canceled, canceled}, notified: mine, ended: canceled},
		{name: "it closes it without a reason", end: func(p *pair) { p.client.Close(nil) }, client: runs, server: runs},
		{name: "it rejects a message", end: func(p *pair) { _ = p.client.Reject(errMine) },
			up: "cancel", client: [2]string{mine, mine}, server: [2]string{canceled, canceled}, notified: mine, ended: canceled},
		{name: "it breaks it", end: func(p *pair) { p.client.Break(errMine) },
			client: [2]string{mine, mine}, server: runs, notified: mine},
		{name: "its context ends", end: func(p *pair) { p.cancel() },
			up: "cancel", client: [2]string{byCtx, byCtx}, server: [2]string{canceled, canceled}, notified: byCtx, ended: canceled},
		{name: "its context ends before the deadline", config: deadline, end: func(p *pair) { p.cancel() },
			up: "cancel", client: [2]string{byCtx, byCtx}, server: [2]string{canceled, canceled}, notified: byCtx, ended: canceled},
		{name: "the deadline", config: deadline, end: func(p *pair) { <-time.After(time.Second) },
			client: [2]string{late, late}, server: runs, notified: late},
		{name: "the deadline of its context", config: ctxDeadline, end: func(p *pair) { <-time.After(time.Second) },
			client: [2]string{late, late}, server: runs, notified: late},
		{name: "its table is closed", end: func(p *pair) { p.clients.Close(errMine) },
			up: "cancel", client: [2]string{mine, mine}, server: [2]string{canceled, canceled}, notified: mine, ended: canceled},
		{name: "its table is broken", end: func(p *pair) { p.clients.Break(errMine) },
			client: [2]string{mine, mine}, server: runs, notified: mine},
		{name: "it closes its half", end: func(p *pair) { p.client.CloseSend() },
			up: "end 0", client: [2]string{closed, waits}, server: [2]string{goes, eof}},

		{name: "while opening, the client ends it", opening: true, end: func(p *pair) { p.client.End(errMine) },
			up: "cancel to all", client: [2]string{mine, mine}, notified: mine},
		{name: "while opening, its context ends", opening: true, end: func(p *pair) { p.cancel() },
			up: "cancel to all", client: [2]string{byCtx, byCtx}, notified: byCtx},
		{name: "while opening, the deadline", opening: true, config: deadline, end: func(p *pair) { <-time.After(time.Second) },
			client: [2]string{late, late}, notified: late},
		{name: "while opening, it breaks it", opening: true, end: func(p *pair) { p.client.Break(errMine) },
			client: [2]string{mine, mine}, notified: mine},
		{name: "while opening, its table is closed", opening: true, end: func(p *pair) { p.clients.Close(errMine) },
			up: "cancel to all", client: [2]string{mine, mine}, notified: mine},
		{name: "while opening, the table's owner ends it", opening: true,
			end: func(p *pair) { p.clients.EachClient(func(*Client, bool) error { return errMine }) },
			up:  "cancel to all", client: [2]string{mine, mine}, notified: mine},

		{name: "the server finishes", end: func(p *pair) { p.server.Finish(nil, nil) },
			down: "end 0, nothing", client: [2]string{eof, eof}, server: [2]string{"", eof}, notified: "nil", ended: "nil"},
		{name: "it finishes with a status", end: func(p *pair) { p.server.Finish(errTheirs, nil) },
			down: "end 0 theirs, nothing", client: [2]string{eof, told}, server: [2]string{theirs, theirs}, notified: told, ended: theirs},
		{name: "it ends it", end: func(p *pair) { p.server.End(errTheirs) },
			down: "end 0 theirs, nothing", client: [2]string{eof, told}, server: [2]string{theirs, theirs}, notified: told, ended: theirs},
		{name: "it ends it now", end: func(p *pair) { p.server.EndAndWait(errTheirs) },
			down: "end 0 theirs, nothing", client: [2]string{eof, told}, server: [2]string{theirs, theirs}, notified: told, ended: theirs},
		{name: "it breaks it", end: func(p *pair) { p.server.Break(errTheirs) },
			client: runs, server: [2]string{theirs, theirs}, ended: theirs},
		{name: "its table is closed", end: func(p *pair) { p.servers.Close(errTheirs) },
			down: "end 0 theirs, nothing", client: [2]string{eof, told}, server: [2]string{theirs, theirs}, notified: told, ended: theirs},
		{name: "its table is broken", end: func(p *pair) { p.servers.Break(errTheirs) },
			client: runs, server: [2]string{theirs, theirs}, ended: theirs},
		{name: "it rejects a message", end: func(p *pair) { _ = p.server.Reject(errTheirs) },
			client: runs, server: [2]string{goes, theirs}},
		{name: "it closes it", end: func(p *pair) { p.server.doneReading(errTheirs) }, client: runs, server: runs},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := newPair(t, test.config)
				if test.opening {
					p.start()
				} else {
					p.open()
				}
				look := func(when string) {
					t.Helper()
					if got := states(&p.client.Stream); got != test.client {
						t.Errorf("%s: the client: %q", when, got)
					}
					if got := p.notifications(); got != test.notified {
						t.Errorf("%s: Notify: %s", when, got)
					}
					if p.server == nil {
						return
					}
					got := states(&p.server.Stream)
					if test.server[0] == "" {
						got[0] = ""
					}
					if got != test.server {
						t.Errorf("%s: the server: %q", when, got)
					}
					if got := p.owner.told(); got != test.ended {
						t.Errorf("%s: StreamEnded: %s", when, got)
					}
				}

				test.end(p)
				synctest.Wait()
				own, other, want := &p.client.Stream, (*Stream)(nil), test.client
				if p.server != nil {
					other = &p.server.Stream
				}
				if test.down != "" || test.up == "" && test.server != runs && other != nil {
					own, other, want = other, own, test.server
				}
				if got := states(own); got != want && want[0] != "" {
					t.Errorf("at once: %q", got)
				}
				if other != nil && states(other) != runs {
					t.Errorf("at once, the peer: %q", states(other))
				}
				up, down := p.settle()
				if strings.Join(up, ", ") != test.up || strings.Join(down, ", ") != test.down {
					t.Errorf("the client has published %q, the server %q", up, down)
				}
				look("then")
				if test.opening && <-p.opened == nil {
					t.Error("Open returns nil")
				}

				clientOver, serverOver := isOver(&p.client.Stream), p.server != nil && isOver(&p.server.Stream)
				if clientOver {
					p.client.CloseSend()
					p.client.End(errOther)
					p.client.Break(errOther)
					p.client.Close(errOther)
					p.cancel()
					p.clients.Close(errOther)
					p.client.deliver(p.answer(endFrame(0, "late")))
					p.client.deliver(p.answer(dataFrame(0, "late")))
					p.client.deliver(p.noResponders())
				}
				if serverOver {
					p.server.Finish(errOther, nil)
					p.server.EndAndWait(errOther)
					p.server.Break(errOther)
					p.servers.Close(errOther)
					p.server.deliver(p.frame(endFrame(0, "")))
					p.server.deliver(p.frame(dataFrame(0, "late")))
					p.server.deliver(p.frame(wire.AppendFrame(nil, wire.KindStreamCancel, 0)))
				}
				if clientOver || serverOver {
					if up, down := p.up.published(), p.down.published(); up != "" || down != "" {
						t.Errorf("later the client has published %q, the server %q", up, down)
					}
				}
				look("later")
			})
		})
	}
}

// TestMessagesBeforeEnd: messages before the end are read before it, and Notify waits for that.
func TestMessagesBeforeEnd(t *testing.T) {
	for _, test := range []struct {
		name     string
		finish   error
		status   string
		read     func(p *pair, stop func())
		notified string
	}{
		{"the reader reads on", nil, "EOF", func(p *pair, _ func()) { _ = recvErr(&p.client.Stream) }, "nil"},
		{"it gets the status", errTheirs, "status theirs 1", func(p *pair, _ func()) { _ = recvErr(&p.client.Stream) }, "status theirs 1"},
		{"it closes", errTheirs, "status theirs 1", func(p *pair, _ func()) { p.client.Close(errMine) }, "status theirs 1"},
		{"it closes without a reason", nil, "EOF", func(p *pair, _ func()) { p.client.Close(nil) }, "nil"},
		{"it rejects", nil, "mine", func(p *pair, _ func()) { _ = p.client.Reject(errMine) }, "mine"},
		{"its context ends", errTheirs, "status theirs 1", func(_ *pair, stop func()) { stop() }, "status theirs 1"},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := newPair(t, nil)
				ctx, stop := context.WithCancel(context.Background())
				defer stop()
				p.client.Notify(ctx, p.notify) // instead of newPair's
				p.open()
				p.mustSend(&p.server.Stream, "a", "", "c")
				p.server.Finish(test.finish, nil)
				p.settle()
				if got := sendState(&p.client.Stream); got != "EOF" || p.notifications() != "" {
					t.Fatalf("Send: %s, Notify: %v", got, p.notified)
				}
				p.mustRecv(&p.client.Stream, "a", "", "c")
				if p.notifications() != "" {
					t.Fatal("Notify before the reader has the end:", p.notified)
				}
				test.read(p, stop)
				synctest.Wait()
				if got := p.notifications(); got != test.notified {
					t.Errorf("Notify: %q", got)
				}
				if err := recvErr(&p.client.Stream); errText(err) != test.status {
					t.Error("Recv:", err)
				}
			})
		})
	}
}

// TestNotifyLate: Notify runs at once if the stream is over, and never waits beyond its context.
func TestNotifyLate(t *testing.T) {
	inPair(t, func(p *pair) {
		p.client.Break(errMine)
		var late []error
		p.client.Notify(context.Background(), func(err error) { late = append(late, err) })
		p.client.Close(nil)
		if errTexts(late) != "mine" || p.notifications() != "mine" {
			t.Error("it ran with", late, p.notified)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t, nil)
		ctx, stop := context.WithCancel(context.Background())
		p.client.Notify(ctx, p.notify)
		p.open()
		stop()
		synctest.Wait()
		if p.notifications() != "" || isOver(&p.client.Stream) {
			t.Fatal("the stream is over:", p.notified)
		}
		p.mustSend(&p.server.Stream, "unread")
		p.server.Finish(nil, nil)
		p.settle()
		if p.notifications() != "nil" {
			t.Error("Notify:", p.notified)
		}
		p.mustRecv(&p.client.Stream, "unread")
	})
}

// TestUnreadIsLost: without an end frame what is unread is lost, as more may have been.
func TestUnreadIsLost(t *testing.T) {
	inPair(t, func(p *pair) {
		large := strings.Repeat("x", maxMessage) // to read it would be time for more credit
		p.mustSend(&p.server.Stream, large)
		p.mustSend(&p.client.Stream, large)
		p.settle()
		p.client.Break(errMine)
		p.server.Break(errTheirs)
		for range 2 {
			p.toClient(p.answer(nil)) // too late
			if c, s := states(&p.client.Stream), states(&p.server.Stream); c != [2]string{"mine", "mine"} || s != [2]string{"theirs", "theirs"} {
				t.Errorf("the client %q, the server %q", c, s)
			}
		}
		if up, down := p.up.published(), p.down.published(); up != "" || down != "" {
			t.Errorf("the client has published %q, the server %q", up, down)
		}
	})
}

// TestHalfCloseThenEnd: a server reads what came before the half-close, whatever ends the stream.
func TestHalfCloseThenEnd(t *testing.T) {
	inPair(t, func(p *pair) {
		p.mustSend(&p.client.Stream, "a", "b")
		p.client.CloseSend()
		p.client.CloseSend()
		if err := sendText(&p.client.Stream, "c"); err != ErrClosed {
			t.Error("Send:", err)
		}
		p.settle()
		p.mustRecv(&p.server.Stream, "a")
		p.client.End(errMine)
		p.settle()
		p.mustRecv(&p.server.Stream, "b")
		for range 2 {
			if err := recvErr(&p.server.Stream); err != ErrCanceled {
				t.Error("Recv:", err)
			}
		}
	})
	inPair(t, func(p *pair) {
		p.mustSend(&p.client.Stream, "a")
		p.client.CloseSend()
		p.settle()
		p.mustRecv(&p.server.Stream, "a")
		for range 2 {
			if err := recvErr(&p.server.Stream); err != io.EOF {
				t.Error("Recv:", err)
			}
		}
		p.mustSend(&p.server.Stream, "b")
		p.settle()
		p.mustRecv(&p.client.Stream, "b")
	})
}

// TestWaitersWake: whatever ends a stream wakes who waits in Send or Recv.
func TestWaitersWake(t *testing.T) {
	for _, test := range []struct {
		name           string
		end            func(p *pair)
		client, server string // errors of both
	}{
		{"Break", func(p *pair) { p.client.Break(errMine); p.server.Break(errTheirs) }, "mine", "theirs"},
		{"End", func(p *pair) { p.client.End(errMine); p.settle() }, "mine", "stream: the client has ended it"},
		{"the context", func(p *pair) { p.cancel(); p.settle() }, "stream: context canceled", "stream: the client has ended it"},
		// The client's Recv has a message.
		{"the server's End", func(p *pair) { p.server.End(errTheirs); p.settle() }, "EOF/nil", "theirs"},
	} {
		t.Run(test.name, func(t *testing.T) {
			inPair(t, func(p *pair) {
				p.up.lose = func(*nats.Msg) int { return 0 } // so no credit comes back
				send := begin(func() error { return fill(&p.client.Stream) })
				recv := begin(func() error { return recvErr(&p.client.Stream) })
				serverSend := begin(func() error { return fill(&p.server.Stream) })
				serverRecv := begin(func() error { return recvErr(&p.server.Stream) })
				if send.state() != waits || recv.state() != waits || serverSend.state() != waits || serverRecv.state() != waits {
					t.Fatal("they do not wait")
				}
				p.up.lose = nil
				test.end(p)
				client := send.state()
				if recv.state() != client {
					client += "/" + recv.state()
				}
				server := serverSend.state()
				if serverRecv.state() != server {
					server += "/" + serverRecv.state()
				}
				if client != test.client || server != test.server {
					t.Errorf("the client: %s, the server: %s", client, server)
				}
			})
		})
	}
}

// fill sends until that fails.
func fill(s *Stream) error {
	for range 2000 {
		if err := send(s, make([]byte, 10<<10)); err != nil {
			return err
		}
	}
	return errors.New("it never waits")
}

// TestExpired: a client whose context has ended neither sends nor reads, even if nobody noticed.
func TestExpired(t *testing.T) {
	for _, test := range []struct {
		name     string
		deadline bool
		do       func(p *pair) error
		err      string
	}{
		{"Send", false, func(p *pair) error { return sendText(&p.client.Stream, "late") }, "stream: context canceled"},
		{"Recv", false, func(p *pair) error { return recvErr(&p.client.Stream) }, "stream: context canceled"},
		{"CloseSend", false, func(p *pair) error { p.client.CloseSend(); return nil }, "nil"},
		{"Send, with a deadline", true, func(p *pair) error { return sendText(&p.client.Stream, "late") }, "stream: context canceled"},
		{"CloseSend, with a deadline", true, func(p *pair) error { p.client.CloseSend(); return nil }, "nil"},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx := newLateContext()
				p := newPair(t, func(p *pair, c *ClientConfig) {
					p.ctx = ctx
					if test.deadline {
						c.Deadline = time.Now().Add(time.Hour)
					}
				})
				p.open()
				p.mustSend(&p.server.Stream, "unread")
				p.settle()
				ctx.end(context.Canceled)
				if err := test.do(p); errText(err) != test.err {
					t.Error(err)
				}
				if up := p.up.published(); up != "cancel" || p.notifications() != "stream: context canceled" {
					t.Errorf("%q is published, Notify: %v", up, p.notified)
				}
			})
		})
	}
}

// lateContext is a context whose functions of AfterFunc never run, as if they were late.
type lateContext struct {
	context.Context
	mu    sync.Mutex
	done  chan struct{}
	err   error
	funcs int // of AfterFunc that have not been stopped
}

func newLateContext() *lateContext {
	return &lateContext{Context: context.Background(), done: make(chan struct{})}
}

func (c *lateContext) Done() <-chan struct{} { return c.done }

func (c *lateContext) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

func (c *lateContext) end(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.err = err
	close(c.done)
}

// AfterFunc is what package context uses.
func (c *lateContext) AfterFunc(func()) (stop func() bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.funcs++
	return func() bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.funcs--
		return true
	}
}

// TestContextEndsInNewClient: a stream whose context ends while it is made leaves the table.
func TestContextEndsInNewClient(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t, nil)
		ctx, cancel := context.WithTimeout(context.Background(), 0)
		defer cancel()
		var making sync.WaitGroup
		for range 16 { // they wait for each other at the table, and others may be faster
			making.Go(func() {
				for range 1000 {
					c := p.clientConfig()
					c.ID = wire.NewID()
					NewClient(ctx, c)
				}
			})
		}
		making.Wait()
		synctest.Wait()
		if n := len(p.clients.All()); n != 1 { // the pair's own
			t.Errorf("%d streams are left in the table", n-1)
		}
	})
}

// TestFinishThenEnd: End replaces what is queued and an unsent status, but not one that is sent.
func TestFinishThenEnd(t *testing.T) {
	for _, finish := range []error{nil, errOther} {
		inPair(t, func(p *pair) {
			p.up.lose = func(m *nats.Msg) int { return 0 } // no credit
			sending := begin(func() error { return fill(&p.server.Stream) })
			p.settle()
			if sending.state() != waits {
				t.Fatal("Send:", sending.err)
			}
			p.server.Finish(finish, nil)
			if got := sending.state(); got != errText(cmp.Or(finish, ErrClosed)) {
				t.Error("the waiting Send:", got)
			}
			p.server.Finish(errMine, nil)
			if _, down := p.settle(); len(down) > 0 || isOver(&p.server.Stream) || p.owner.told() != "" {
				t.Fatalf("without credit the server has published %q", down)
			}
			if got, want := sendState(&p.server.Stream), errText(finish); got != want && (finish != nil || got != errText(ErrClosed)) {
				t.Errorf("after Finish, Send: %s", got)
			}
			p.down.block = make(chan struct{})
			p.server.End(errTheirs)
			if got := sendState(&p.server.Stream); got != "theirs" || isOver(&p.server.Stream) {
				t.Error("after End, Send:", got)
			}
			close(p.down.block)
			if _, down := p.settle(); len(down) != 2 || !strings.HasSuffix(down[0], " theirs") {
				t.Fatalf("the server has published %q", down)
			}
			if p.owner.told() != "theirs" {
				t.Error("StreamEnded:", p.owner.told())
			}
			for {
				if err := recvErr(&p.client.Stream); err != nil {
					if errText(err) != "status theirs 1" {
						t.Error("Recv:", err)
					}
					break
				}
			}
		})
	}
	inPair(t, func(p *pair) {
		p.down.block = make(chan struct{})
		p.server.Finish(errTheirs, nil)
		synctest.Wait()
		p.server.End(errOther)
		if got := sendState(&p.server.Stream); got != "theirs" || isOver(&p.server.Stream) {
			t.Errorf("while the status is sent, Send: %s", got)
		}
		now := begin(func() error { p.server.EndAndWait(errMine); return nil })
		if now.state() != waits {
			t.Error("EndAndWait does not wait for the end")
		}
		close(p.down.block)
		if now.state() == waits || p.owner.told() != "theirs" {
			t.Error("StreamEnded:", p.owner.told())
		}
		if _, down := p.settle(); strings.Join(down, ", ") != "end 0 theirs, nothing" {
			t.Errorf("the server has published %q", down)
		}
	})
}

// TestFinishBehindQueue: the end frame follows what is queued, when credit comes.
func TestFinishBehindQueue(t *testing.T) {
	inPair(t, func(p *pair) {
		const size, count = 20 << 10, 54 // more than a Window
		for range count {
			if err := send(&p.server.Stream, make([]byte, size)); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
		}
		p.server.Finish(nil, nil)
		p.settle()
		if isOver(&p.server.Stream) || isOver(&p.client.Stream) {
			t.Fatal("the stream is over without credit")
		}
		for i := range count {
			r := begin(func() error { _, err := p.client.Recv(); return err })
			p.settle()
			if r.state() != "nil" {
				t.Fatalf("message %d: %s", i, r.state())
			}
			p.settle()
		}
		if err := recvErr(&p.client.Stream); err != io.EOF || !isOver(&p.server.Stream) {
			t.Error("Recv:", err)
		}
	})
}

// TestCutMessage: the status says why a message is cut off; without one that is an error.
func TestCutMessage(t *testing.T) {
	for _, test := range []struct{ status, err, notified string }{
		{"theirs", "status theirs 0", "status theirs 0"},
		{"", flow.ErrPartial.Error(), flow.ErrPartial.Error()},
	} {
		inPair(t, func(p *pair) {
			cut := dataFrame(0, "whole", "cut off")
			p.toClient(p.answer(cut[:len(cut)-1]))
			p.toClient(p.answer(endFrame(1, test.status)))
			p.mustRecv(&p.client.Stream, "whole")
			for range 2 {
				if err := recvErr(&p.client.Stream); errText(err) != test.err {
					t.Errorf("status %q: Recv: %v", test.status, err)
				}
			}
			if got := p.notifications(); got != test.notified {
				t.Errorf("status %q: Notify: %v", test.status, got)
			}
		})
	}
}

// TestHeaders: the header is in the first frame, the trailer and that of the status in the last.
func TestHeaders(t *testing.T) {
	header := func() nats.Header { return nats.Header{"Key": {"header"}} }
	trailer := func() nats.Header { return nats.Header{wire.TrailerPrefix + "Key": {"trailer"}} }
	for _, test := range []struct {
		name     string
		run      func(s *Server)
		want     []string // keys of each frame
		h, t     bool     // the client has them
		messages int
	}{
		{"a message each", func(s *Server) {
			s.SetHeader(header())
			_ = sendText(&s.Stream, "a")
			synctest.Wait()
			_ = sendText(&s.Stream, "b")
			s.Finish(nil, trailer())
		}, []string{"Key", "", "T"}, true, true, 2},
		{"a message in a frame of its own", func(s *Server) {
			s.SetHeader(header())
			_ = send(&s.Stream, make([]byte, minAlone))
			_ = send(&s.Stream, make([]byte, minAlone))
			s.Finish(errTheirs, trailer())
		}, []string{"Key", "", "E T"}, true, true, 2},
		{"no message", func(s *Server) {
			s.SetHeader(header())
			s.Finish(errTheirs, trailer())
		}, []string{"E Key T"}, true, true, 0},
		{"no header", func(s *Server) {
			_ = sendText(&s.Stream, "a")
			s.Finish(nil, trailer())
		}, []string{"", "T"}, true, true, 1},
		{"no trailer", func(s *Server) {
			s.SetHeader(header())
			s.End(errTheirs)
		}, []string{"E Key"}, true, true, 0},
		{"nothing", func(s *Server) { s.Finish(nil, nil) }, []string{""}, true, true, 0},
		{"an early header", func(s *Server) {
			s.SendHeader(header())
			_ = sendText(&s.Stream, "a")
			s.Finish(nil, trailer())
		}, []string{"Key", "Key", "T"}, true, true, 1},
		{"an early header without messages", func(s *Server) {
			s.SendHeader(header())
			s.Finish(nil, trailer())
		}, []string{"Key", "Key T"}, true, true, 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			inPair(t, func(p *pair) {
				// A heartbeat and a credit have no headers.
				<-time.After(heartbeat)
				synctest.Wait()
				if h, tr := p.client.Headers(); h != nil || tr != nil {
					t.Error("the client has metadata")
				}
				test.run(p.server)
				synctest.Wait()
				var got []string
				for _, m := range p.down.take() {
					p.toClient(m)
					if what(m) == "heartbeat" || what(m) == "nothing" {
						if len(m.Header) > 0 {
							t.Errorf("%s: %v", what(m), m.Header)
						}
						continue
					}
					var keys []string
					for key := range m.Header {
						keys = append(keys, map[string]string{"Key": "Key", "Nats-Error": "E", wire.TrailerPrefix + "Key": "T"}[key])
					}
					slices.Sort(keys)
					got = append(got, strings.Join(keys, " "))
				}
				if !slices.Equal(got, test.want) {
					t.Errorf("the frames have %q", got)
				}
				for range test.messages {
					if _, err := p.client.Recv(); err != nil {
						t.Error(err)
					}
				}
				h, tr := p.client.Headers()
				if (h != nil) != test.h || (tr != nil) != test.t {
					t.Errorf("the client has %v, %v", h, tr)
				}
				all := strings.Join(test.want, " ")
				if strings.Contains(all, "Key") != (len(h["Key"]) == 1) || strings.Contains(all, "T") != (len(tr["Key"]) == 1) ||
					len(h) > 1 || len(tr) > 1 {
					t.Errorf("the client has %v, %v", h, tr)
				}
			})
		})
	}
}

// TestFaults: what the network or a peer that means harm may do to frames, and what follows.
func TestFaults(t *testing.T) {
	beat := func(next, credit uint64) []byte { return wire.AppendHeartbeat(nil, next, credit) }
	credit := func(n uint64) []byte { return wire.AppendFrame(nil, wire.KindCredit, n) }
	big := make([]byte, flow.Window)
	for _, test := range []struct {
		name   string
		frames [][]byte
		read   string // the messages that can be read afterwards
		// Why the stream is over, on the client and on the server; waits if it is not.
		client, server error
	}{
		{"in order", [][]byte{dataFrame(0, "a"), dataFrame(1, "b", "c")}, "a b c", nil, nil},
		{"the first is lost", [][]byte{dataFrame(1, "b")}, "", flow.ErrLost, flow.ErrLost},
		{"one is lost", [][]byte{dataFrame(0, "a"), dataFrame(2, "c")}, "", flow.ErrLost, flow.ErrLost},
		{"one comes twice", [][]byte{dataFrame(0, "a"), dataFrame(0, "a")}, "", flow.ErrLost, flow.ErrLost},
		{"the wrong order", [][]byte{dataFrame(1, "b"), dataFrame(0, "a")}, "", flow.ErrLost, flow.ErrLost},
		{"data is lost before the end", [][]byte{endFrame(1, "")}, "", flow.ErrLost, flow.ErrLost},
		{"data is lost before a status", [][]byte{endFrame(1, "x")}, "", flow.ErrLost, flow.ErrLost},
		{"the last is lost", [][]byte{dataFrame(0, "a"), beat(2, 0)}, "", flow.ErrLost, flow.ErrLost},
		{"a heartbeat in time", [][]byte{dataFrame(0, "a"), beat(1, 0)}, "a", nil, nil},
		{"a heartbeat is late", [][]byte{dataFrame(0, "a"), dataFrame(1, "b"), beat(1, 0)}, "a b", nil, nil},
		{"a heartbeat comes twice", [][]byte{beat(0, 0), beat(0, 0), dataFrame(0, "a")}, "a", nil, nil},
		{"a heartbeat is early", [][]byte{beat(1, 0), dataFrame(0, "a")}, "", flow.ErrLost, flow.ErrLost},
		{"a heartbeat without credit", [][]byte{wire.AppendFrame(nil, wire.KindHeartbeat, 0)}, "", wire.ErrFrame, wire.ErrFrame},
		{"credits in the wrong order", [][]byte{credit(2 << 20), credit(0), credit(2 << 20)}, "", nil, nil},
		{"no data", [][]byte{dataFrame(0)}, "", flow.ErrEmpty, flow.ErrEmpty},
		{"more than the credit", [][]byte{append(dataFrame(0), big...)}, "", flow.ErrCredit, flow.ErrCredit},
		{"another version", [][]byte{{0, 2, 17, 0, 0}}, "", wire.ErrVersion, wire.ErrVersion},
		{"an unknown kind", [][]byte{{0, 1, 99, 0, 0}}, "", wire.ErrUnsupported, wire.ErrUnsupported},
		{"an unknown flag", [][]byte{{0, 1, 17, 1 << 5, 0, 1}}, "", wire.ErrUnsupported, wire.ErrUnsupported},
		{"what is ignored", [][]byte{{0, 1, 24, 0xff}, {0, 1, 31, 0, 1, 2, 3}, dataFrame(0, "a")}, "a", nil, nil},
		{"no number", [][]byte{{0, 1, 17, 0}}, "", wire.ErrFrame, wire.ErrFrame},
		{"a second accept", [][]byte{wire.AppendAccept(nil, wire.NewID(), 1<<30, "other"), dataFrame(0, "a")}, "a", nil, nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			for _, atServer := range []bool{false, true} {
				inPair(t, func(p *pair) {
					s, want, told := &p.client.Stream, test.client, "cancel"
					take := func() string { return p.up.published() }
					if atServer {
						s, want = &p.server.Stream, test.server
						take = func() string { return p.down.published() }
					}
					for _, f := range test.frames {
						if atServer {
							p.toServer(p.frame(f))
						} else {
							p.toClient(p.answer(f))
						}
					}
					got := take()
					if want == nil {
						for _, text := range strings.Fields(test.read) {
							p.mustRecv(s, text)
						}
						if isOver(s) || got != "" {
							t.Fatalf("at the server: %v: it is over: %v, %q is published", atServer, s.err, got)
						}
						return
					}
					if atServer {
						told = "end 0 " + errText(s.err) + ", nothing"
					}
					if !errors.Is(s.err, want) || got != told {
						t.Errorf("at the server: %v: %v, %q is published", atServer, s.err, got)
					}
					if recvErr(s) != s.err {
						t.Error("Recv:", recvErr(s))
					}
				})
			}
		})
	}
}

// TestFaultsOfOneSide: what only one of the sides may get.
func TestFaultsOfOneSide(t *testing.T) {
	cancel := wire.AppendFrame(nil, wire.KindStreamCancel, 0)
	for _, test := range []struct {
		name string
		run  func(p *pair)
		err  string // why the stream is over; "" if it is not
		told string
	}{
		{"nothing, but no end", func(p *pair) { p.toClient(p.answer(nil)) }, "a frame was lost, or came twice: the end", "cancel"},
		{"nothing, with a header", func(p *pair) {
			m := p.answer(nil)
			m.Header = nats.Header{"Key": {"x"}}
			p.toClient(m)
		}, "", ""},
		{"no responders", func(p *pair) { p.toClient(p.noResponders()) }, errText(ErrGone), ""},
		{"a foreign reply", func(p *pair) { p.toClient(p.answer([]byte("text"))) }, "", ""},
		{"another call's answer", func(p *pair) { p.toClient(p.answer(wire.AppendResponse(nil, wire.NewID(), 0, wire.FlagError))) }, "", ""},
		{"an answer", func(p *pair) { p.toClient(p.answer(wire.AppendResponse(nil, p.id, 0, 0))) },
			"reply: the reply is not valid: a response instead of an accept", "cancel"},
		{"a cancel to the client", func(p *pair) { p.toClient(p.answer(cancel)) }, "", ""},
		{"an unknown stream", func(p *pair) {
			for i := range uint64(3) {
				p.toClient(p.answer(dataFrame(i, "x")))
			}
			p.toClient(p.answer(endFrame(0, unknown)))
		}, errUnknown.Error(), ""},
		{"an unknown stream, at the start", func(p *pair) { p.toClient(p.answer(endFrame(0, unknown))) }, errUnknown.Error(), ""},
		{"an unknown stream, with a number", func(p *pair) { p.toClient(p.answer(endFrame(1, unknown))) },
			"a frame was lost, or came twice: frame 1 came instead of 0", "cancel"},
		{"number 0, another status", func(p *pair) {
			p.toClient(p.answer(dataFrame(0, "x")))
			p.toClient(p.answer(endFrame(0, "other")))
		}, "a frame was lost, or came twice: frame 0 came instead of 1", "cancel"},
	} {
		t.Run(test.name, func(t *testing.T) {
			inPair(t, func(p *pair) {
				test.run(p)
				if up := p.up.published(); up != test.told {
					t.Errorf("%q is published", up)
				}
				if isOver(&p.client.Stream) != (test.err != "") || test.err != "" && errText(p.client.err) != test.err {
					t.Error("it is over:", p.client.err)
				}
				want := test.err
				if strings.Contains(test.name, "unknown") && test.told == "" {
					want = "EOF"
				}
				if got := sendState(&p.client.Stream); test.err != "" && got != want {
					t.Error("Send:", got)
				}
			})
		})
	}
	for _, test := range []struct {
		name   string
		frames [][]byte
		err    error
	}{
		{"data after the half-close", [][]byte{endFrame(0, ""), dataFrame(1, "x")}, flow.ErrAfterEnd},
		{"two half-closes", [][]byte{endFrame(0, ""), endFrame(0, "")}, flow.ErrLost},
		{"a cancel", [][]byte{cancel}, ErrCanceled},
		{"two cancels", [][]byte{cancel, cancel}, ErrCanceled},
	} {
		t.Run(test.name, func(t *testing.T) {
			inPair(t, func(p *pair) {
				for _, f := range test.frames {
					p.toServer(p.frame(f))
				}
				if synctest.Wait(); !errors.Is(p.server.err, test.err) {
					t.Error("it is over:", p.server.err)
				}
			})
		})
	}
}

// TestServerIgnores: a server that has finished ignores data and ends, while credit counts.
func TestServerIgnores(t *testing.T) {
	inPair(t, func(p *pair) {
		p.up.lose = func(*nats.Msg) int { return 0 }
		sending := begin(func() error { return fill(&p.server.Stream) })
		p.settle()
		p.server.Finish(nil, nil)
		for _, f := range [][]byte{
			dataFrame(0, "a"), dataFrame(7, "b"), dataFrame(1), endFrame(9, ""), endFrame(0, ""),
			wire.AppendHeartbeat(nil, 12, 0),
		} {
			p.toServer(p.frame(f))
		}
		if _, down := p.settle(); len(down) > 0 || isOver(&p.server.Stream) {
			t.Fatalf("%q is published: %v", down, p.server.err)
		}
		m := p.frame(wire.AppendFrame(nil, wire.KindCredit, 3<<20))
		m.Reply = fmt.Sprintf("%ss%v-77", inbox, p.id)
		p.toServer(m)
		if got := sending.state(); got != "EOF" && got != errText(ErrClosed) { // sooner or later
			t.Error("Send:", got)
		}
		sent := p.down.take()
		if n := len(sent); n < 2 || !strings.HasPrefix(what(sent[n-2]), "end ") || sent[0].Subject != m.Reply {
			t.Errorf("%q is published", whats(sent))
		}
		for range 2 {
			if err := recvErr(&p.server.Stream); err != io.EOF {
				t.Error("Recv:", err)
			}
		}
	})
}

// TestReplySubjects: credits and heartbeats renew the reply subject; a server uses the latest.
func TestReplySubjects(t *testing.T) {
	inPair(t, func(p *pair) {
		seen := map[string]bool{}
		latest := ""
		for range 3 {
			for len(seen) == 0 || latest == "" {
				<-time.After(heartbeat / 4)
				synctest.Wait()
				p.down.take()
				for _, m := range p.up.take() {
					if what(m) != "heartbeat" || seen[m.Reply] || m.Reply == fmt.Sprintf("%ss%v-1", inbox, p.id) {
						t.Fatalf("%s with the reply subject %q", what(m), m.Reply)
					}
					seen[m.Reply], latest = true, m.Reply
					p.toServer(m)
				}
			}
			p.mustSend(&p.server.Stream, "x")
			synctest.Wait()
			if got := p.down.take(); len(got) != 1 || got[0].Subject != latest {
				t.Errorf("the server has published to %q", got[0].Subject)
			}
			latest = ""
		}
		p.client.publishControl(wire.KindCredit, 0)
		if m := p.up.take()[0]; m.Reply == "" || seen[m.Reply] {
			t.Errorf("a credit with the reply subject %q", m.Reply)
		}
		p.mustSend(&p.client.Stream, "x")
		p.client.End(errMine)
		synctest.Wait()
		for _, m := range p.up.take() {
			if m.Reply != "" {
				t.Errorf("%s with the reply subject %q", what(m), m.Reply)
			}
		}
	})
}

// TestHeartbeats: both sides send one in each interval, whatever else, and keep an idle stream.
func TestHeartbeats(t *testing.T) {
	inPair(t, func(p *pair) {
		up, down := p.pass(10 * heartbeat)
		for _, all := range [][]string{up, down} {
			if n := len(only(all, "heartbeat")); n < 10 || n > 14 || n != len(all) {
				t.Errorf("in ten intervals: %q", all)
			}
		}
		for range 20 { // every second
			p.mustSend(&p.client.Stream, "a")
			p.mustSend(&p.server.Stream, "b")
			u, d := p.pass(time.Second)
			up, down = append(up, u...), append(down, d...)
			p.mustRecv(&p.client.Stream, "b")
			p.mustRecv(&p.server.Stream, "a")
		}
		if u, d := len(only(up, "heartbeat")), len(only(down, "heartbeat")); u < 12 || d < 12 {
			t.Errorf("%d and %d heartbeats", u, d)
		}
		if isOver(&p.client.Stream) || isOver(&p.server.Stream) {
			t.Error("the stream is over:", p.client.err, p.server.err)
		}
	})
}

// TestHeartbeatRepeatsCredit: a credit that is lost comes again with the next heartbeat.
func TestHeartbeatRepeatsCredit(t *testing.T) {
	inPair(t, func(p *pair) {
		p.up.lose = func(m *nats.Msg) int {
			if what(m) == "credit" {
				return 0
			}
			return 1
		}
		p.down.lose = func(m *nats.Msg) int {
			if what(m) == "credit" {
				return 0
			}
			return 1
		}
		for _, s := range [][2]*Stream{{&p.client.Stream, &p.server.Stream}, {&p.server.Stream, &p.client.Stream}} {
			from, to := s[0], s[1]
			const count = 3 * flow.Window / (10 << 10)
			got := 0
			sending := begin(func() error {
				for range count {
					if err := send(from, make([]byte, 10<<10)); err != nil {
						return err
					}
				}
				return nil
			})
			receiving := begin(func() error {
				for got < count {
					if _, err := to.Recv(); err != nil {
						return err
					}
					got++
				}
				return nil
			})
			p.settle()
			if receiving.state() != waits {
				t.Fatalf("%d messages without credit", got)
			}
			p.pass(20 * heartbeat)
			if sending.state() != "nil" || receiving.state() != "nil" {
				t.Errorf("Send: %s, Recv: %s after %d", sending.state(), receiving.state(), got)
			}
		}
	})
}

// TestSilence: a peer from which nothing comes for three heartbeats is dead, on either side.
func TestSilence(t *testing.T) {
	for _, atServer := range []bool{false, true} {
		inPair(t, func(p *pair) {
			p.pass(3 * heartbeat / 4) // both have just sent one
			lost, s, told := p.down, &p.client.Stream, "cancel"
			if atServer {
				lost, s, told = p.up, &p.server.Stream, "end 0 stream: nothing came for 30s"
			}
			lost.lose = func(*nats.Msg) int { return 0 }
			up, down := p.pass(3 * heartbeat)
			if isOver(s) {
				t.Error("over too early:", s.err)
			}
			u, d := p.pass(heartbeat / 4)
			up, down = append(up, u...), append(down, d...)
			var silence *SilenceError
			if !errors.As(s.err, &silence) || silence.For != 3*heartbeat || recvErr(s) != s.err || sendText(s, "x") != s.err {
				t.Error("then:", s.err)
			}
			sent := up
			if atServer {
				sent = down
			}
			if len(only(sent, told)) != 1 {
				t.Errorf("%q is published, not %s", sent, told)
			}
		})
	}
}

// TestSilenceWhileOpening: a client waits three heartbeats for an answer; if queued, for ever.
func TestSilenceWhileOpening(t *testing.T) {
	for _, queued := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			p := newPair(t, func(_ *pair, c *ClientConfig) { c.Queued = queued })
			p.start()
			<-time.After(3*heartbeat - time.Second)
			if isOver(&p.client.Stream) {
				t.Error("it is over:", p.client.err)
			}
			<-time.After(heartbeat)
			synctest.Wait()
			var silence *SilenceError
			if !queued {
				if !errors.As(p.client.err, &silence) || silence.For != 3*heartbeat || <-p.opened != p.client.err {
					t.Error("it is over:", p.client.err)
				}
				if up := p.up.published(); up != "cancel to all" {
					t.Errorf("%q is published", up)
				}
				return
			}
			<-time.After(100 * heartbeat)
			if up := p.up.published(); isOver(&p.client.Stream) || up != "" {
				t.Errorf("it is over: %v; %q is published", p.client.err, up)
			}
			p.client.Break(errMine)
			if <-p.opened != errMine {
				t.Error("Open returns nil")
			}
		})
	}
}

// TestSilenceWhileQueued: what counts for a server is the time since it accepted the stream.
func TestSilenceWhileQueued(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t, func(_ *pair, c *ClientConfig) { c.Queued = true })
		m := p.start()
		s := NewServer(p.handler, p.serverConfig(), &p.owner, wire.Open{Credit: flow.Window})
		<-time.After(10 * heartbeat)
		p.server = s
		err := s.Accept(m.Reply, func(credit uint64) error {
			return p.down.Publish(m.Reply, wire.AppendAccept(nil, p.id, credit, instance))
		})
		if err != nil {
			t.Fatal(err)
		}
		p.pass(heartbeat)
		if isOver(&p.server.Stream) || isOver(&p.client.Stream) || <-p.opened != nil {
			t.Error("it is over:", p.client.err, p.server.err)
		}
	})
}

// TestFetch: a large response waits for the client's credit, which names the subject to send to.
func TestFetch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t, nil)
		p.server = NewServer(p.handler, p.serverConfig(), &p.owner, wire.Open{})
		var granted uint64
		if err := p.server.Accept("", func(credit uint64) error { granted = credit; return nil }); err != nil {
			t.Fatal(err)
		}
		if p.server.Accepted() || granted != flow.Window {
			t.Errorf("the stream is open, with the credit %d", granted)
		}
		large := bytes.Repeat([]byte("large"), 20<<10)
		buf := &buffer.Buffer{B: slices.Clone(large)}
		if err := p.server.Send(buf, 0); err != nil {
			t.Fatal(err)
		}
		p.server.Finish(nil, nil)
		if down := p.down.published(); down != "" || isOver(&p.server.Stream) {
			t.Fatalf("without credit %q is published", down)
		}
		p.client.Fetch(instance, granted)
		if !p.client.Accepted() {
			t.Error("the client's stream is not open")
		}
		sent := p.up.take()
		if len(sent) != 1 || what(sent[0]) != "credit" || sent[0].Reply != fmt.Sprintf("%ss%v-1", inbox, p.id) {
			t.Fatalf("%q is published", whats(sent))
		}
		p.toServer(sent[0])
		p.settle()
		if m, err := p.client.Recv(); err != nil || !bytes.Equal(m.Bytes, large) {
			t.Errorf("Recv: %d bytes, %v", len(m.Bytes), err)
		}
		if err := recvErr(&p.client.Stream); err != io.EOF || p.owner.told() != "nil" {
			t.Error("Recv:", err)
		}
	})
}

// TestFetchTimeout: a large response that nobody fetches is given up, and nobody told.
func TestFetchTimeout(t *testing.T) {
	for _, finished := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			p := newPair(t, nil)
			p.server = NewServer(p.handler, p.serverConfig(), &p.owner, wire.Open{})
			if err := p.server.Accept("", func(uint64) error { return nil }); err != nil {
				t.Fatal(err)
			}
			if finished {
				p.mustSend(&p.server.Stream, "response")
				p.server.Finish(nil, nil)
			}
			<-time.After(fetchTimeout)
			if synctest.Wait(); isOver(&p.server.Stream) {
				t.Error("it is over too early:", p.server.err)
			}
			<-time.After(heartbeat / 4)
			synctest.Wait()
			if got := p.owner.told(); got != "stream: nothing came for 4s" || p.down.published() != "" {
				t.Error("StreamEnded:", got)
			}
		})
	}
}

// TestEndBeforeFetch: a server's End of a stream that is not open just ends it.
func TestEndBeforeFetch(t *testing.T) {
	for _, end := range []func(s *Server){
		func(s *Server) { s.End(errTheirs) },
		func(s *Server) { s.EndAndWait(errTheirs) },
		func(s *Server) { s.Finish(nil, nil); s.End(errTheirs) },
		func(s *Server) { s.Table.Close(errTheirs) },
	} {
		synctest.Test(t, func(t *testing.T) {
			p := newPair(t, nil)
			p.server = NewServer(p.handler, p.serverConfig(), &p.owner, wire.Open{})
			_ = p.server.Accept("", func(uint64) error { return nil })
			p.mustSend(&p.server.Stream, "response")
			end(p.server)
			if p.owner.told() != "theirs" || p.down.published() != "" {
				t.Error("StreamEnded:", p.owner.told())
			}
		})
	}
}

// TestMaxMessage: a message that is too large ends a client's stream, and fails a server's Recv.
func TestMaxMessage(t *testing.T) {
	inPair(t, func(p *pair) {
		fits, tooLarge := make([]byte, maxMessage), make([]byte, maxMessage+1)
		for _, s := range [][2]*Stream{{&p.client.Stream, &p.server.Stream}, {&p.server.Stream, &p.client.Stream}} {
			if err := send(s[0], fits); err != nil {
				t.Fatal(err)
			}
			p.settle()
			if m, err := s[1].Recv(); err != nil || len(m.Bytes) != maxMessage {
				t.Errorf("Recv: %d bytes, %v", len(m.Bytes), err)
			}
			p.settle()
		}
		_ = send(&p.client.Stream, tooLarge)
		p.mustSend(&p.client.Stream, "next")
		p.settle()
		for range 2 {
			if err := recvErr(&p.server.Stream); !errors.Is(err, flow.ErrTooLarge) || isOver(&p.server.Stream) {
				t.Error("Recv:", err)
			}
		}
		if err := p.server.Reject(errOther); !errors.Is(err, flow.ErrTooLarge) {
			t.Error("Reject:", err)
		}
		p.settle()
		_ = send(&p.server.Stream, tooLarge)
		p.settle()
		for range 2 {
			if err := recvErr(&p.client.Stream); !errors.Is(err, flow.ErrTooLarge) || !isOver(&p.client.Stream) {
				t.Error("Recv:", err)
			}
		}
		if got := p.up.published(); got != "cancel" || !errors.Is(p.notified[0], flow.ErrTooLarge) {
			t.Errorf("%q is published", got)
		}
	})
}

// TestReaderErrorIsTold: Notify has the error of the reader, which is more precise than the status.
func TestReaderErrorIsTold(t *testing.T) {
	inPair(t, func(p *pair) {
		p.toClient(p.answer(append(dataFrame(0, "a"), 2, 0, 0, 0, 0)))
		p.toClient(p.answer(endFrame(1, "theirs")))
		p.mustRecv(&p.client.Stream, "a")
		if err := recvErr(&p.client.Stream); !errors.Is(err, flow.ErrPrefix) {
			t.Error("Recv:", err)
		}
		if len(p.notified) != 1 || !errors.Is(p.notified[0], flow.ErrPrefix) {
			t.Error("Notify:", p.notified)
		}
	})
	inPair(t, func(p *pair) {
		if first, second := p.client.Reject(errMine), p.client.Reject(errOther); first != errMine || second != errMine {
			t.Error("Reject:", first, second)
		}
	})
}

// TestCredit: without a reader a sender waits, with a bounded queue, and goes on when there is one.
func TestCredit(t *testing.T) {
	for _, atServer := range []bool{false, true} {
		for _, size := range []int{100, 10 << 10, 100 << 10} {
			inPair(t, func(p *pair) {
				from, to := &p.server.Stream, &p.client.Stream
				if atServer {
					from, to = to, from
				}
				var sent atomic.Int64
				sending := begin(func() error {
					for {
						if err := send(from, make([]byte, size)); err != nil {
							return err
						}
						sent.Add(int64(size + wire.MessagePrefix))
					}
				})
				p.settle()
				if sending.state() != waits {
					t.Fatal("Send:", sending.err)
				}
				unread := to.recv.Granted()
				if n := sent.Load(); n < flow.Window/2 || n > int64(flow.Window+highWater+size+wire.MessagePrefix) || unread != flow.Window {
					t.Errorf("size %d: %d bytes are sent without a reader", size, n)
				}
				if queued := from.send.Buffered(); queued <= highWater || queued > 2*flow.MaxBody+size+wire.MessagePrefix {
					t.Errorf("size %d: %d bytes are queued", size, queued)
				}
				var credits int
				before := sent.Load()
				for range 2 * flow.Window / size {
					if _, err := to.Recv(); err != nil {
						t.Fatal(err)
					}
					up, down := p.settle()
					credits += len(only(up, "credit")) + len(only(down, "credit"))
				}
				if n := sent.Load() - before; n < flow.Window {
					t.Errorf("size %d: %d bytes more are sent to a reader", size, n)
				}
				if credits < 8 || credits > 40 {
					t.Errorf("size %d: %d credits", size, credits)
				}
				from.Break(errMine)
				if sending.state() != "mine" {
					t.Error("Send:", sending.state())
				}
			})
		}
	}
}

// TestFrames: messages that wait share a frame; large ones and answers have one of their own.
func TestFrames(t *testing.T) {
	inPair(t, func(p *pair) {
		c, s := &p.client.Stream, &p.server.Stream
		large := strings.Repeat("x", minAlone)

		p.up.block = make(chan struct{})
		p.mustSend(c, "a") // its flusher waits
		synctest.Wait()
		p.mustSend(c, "b", "c", large)
		close(p.up.block)
		if up := p.up.published(); up != "data 0, data 1" {
			t.Errorf("queued messages: %s", up)
		}
		p.mustSend(c, large)
		if up := whats(p.up.take()); strings.Join(up, ", ") != "data 2" {
			t.Errorf("a large message: %q", up)
		}

		// What a sender publishes itself it waits for.
		alone := func(text string) bool {
			p.up.block = make(chan struct{})
			sending := begin(func() error { return sendText(c, text) })
			waited := sending.state() == waits
			close(p.up.block)
			if sending.state() != "nil" || len(p.up.take()) != 1 {
				t.Errorf("%s: %s", text, sending.state())
			}
			return waited
		}
		p.toClient(p.answer(dataFrame(0, "q1", "q2")))
		p.mustRecv(c, "q1")
		if alone("r1") {
			t.Error("an answer with another question unread is published by its sender")
		}
		p.mustRecv(c, "q2")
		if !alone("r2") {
			t.Error("an answer is not published by its sender")
		}
		if alone("r3") {
			t.Error("what is no answer is published by its sender")
		}

		buf := &buffer.Buffer{B: []byte(large)} // without the room for a frame
		if err := s.Send(buf, 0); err != nil || string(buf.B) != large {
			t.Error("Send:", err)
		}
		if down := p.down.published(); down != "data 0" {
			t.Errorf("the server has published %s", down)
		}
	})
}

// TestOnePublisher: nothing overtakes what is being published; what comes meanwhile follows.
func TestOnePublisher(t *testing.T) {
	large := strings.Repeat("x", minAlone)
	for _, first := range []string{"small", large} {
		inPair(t, func(p *pair) {
			p.up.block = make(chan struct{})
			begin(func() error { return sendText(&p.client.Stream, first) })
			if len(first) < minAlone { // or the sender still waits
				if r := begin(func() error { return sendText(&p.client.Stream, large) }); r.state() != "nil" {
					t.Error("a second goroutine publishes")
				}
			}
			p.client.CloseSend()
			close(p.up.block)
			if up := p.up.published(); up != "data 0, data 1, end 2" && (up != "data 0, end 1" || len(first) < minAlone) {
				t.Errorf("%q is published", up)
			}
		})
	}
	inPair(t, func(p *pair) { // what is queued does not follow the cancel
		p.up.block = make(chan struct{})
		p.mustSend(&p.client.Stream, "a")
		synctest.Wait()
		p.mustSend(&p.client.Stream, "b")
		begin(func() error { p.client.End(errMine); return nil })
		close(p.up.block)
		if up := p.up.published(); up != "data 0, cancel" && up != "cancel, data 0" {
			t.Errorf("%q is published", up)
		}
	})
}

// TestWindow: a reader that keeps up with a sender that has waited grants it more.
func TestWindow(t *testing.T) {
	for _, flags := range []wire.Flags{0, wire.FlagWaited} {
		inPair(t, func(p *pair) {
			f := dataFrame(0, "a")
			f[wire.FlagsOffset] = byte(flags)
			p.toClient(p.answer(f))
			p.mustRecv(&p.client.Stream, "a")
			if up := p.up.published(); (up == "credit") != (flags != 0) || (p.client.recv.Granted() > 2*flow.Window) != (flags != 0) {
				t.Errorf("flags %v: %q is published, the credit is %d", flags, up, p.client.recv.Granted())
			}
		})
	}
}

// TestRelease: a stream that is over leaves nothing behind in its context.
func TestRelease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := newLateContext()
		p := newPair(t, func(p *pair, _ *ClientConfig) { p.ctx = ctx })
		p.client.Notify(ctx, p.notify)
		if ctx.funcs != 2 {
			t.Errorf("the context has %d functions", ctx.funcs)
		}
		p.client.Break(errMine)
		if ctx.funcs != 0 {
			t.Errorf("the context has %d functions left", ctx.funcs)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t, func(_ *pair, c *ClientConfig) { c.Deadline = time.Now().Add(time.Hour) })
		own := *p.client.ctx.Load()
		p.client.Break(errMine)
		if own.Err() == nil || p.ctx.Err() != nil {
			t.Error("the timer of the deadline is left")
		}
	})
}

// TestCompressed: a message is received as compressed if it was sent so.
func TestCompressed(t *testing.T) {
	inPair(t, func(p *pair) {
		for _, size := range []int{10, minAlone} {
			for _, compressed := range []bool{true, false} {
				buf := &buffer.Buffer{B: make([]byte, flow.FrameRoom+size), Compressed: compressed}
				if err := p.client.Send(buf, flow.FrameRoom); err != nil {
					t.Fatal(err)
				}
				p.settle()
				if m, err := p.server.Recv(); err != nil || m.Compressed != compressed || len(m.Bytes) != size || m.Whole < size {
					t.Errorf("%d bytes, compressed: %v, of %d, %v", len(m.Bytes), m.Compressed, m.Whole, err)
				}
			}
		}
	})
}

// TestSmallPayload: frames, headers included, fit into a small max_payload.
func TestSmallPayload(t *testing.T) {
	for _, limit := range []int64{1, 100, 1000, 10000} {
		synctest.Test(t, func(t *testing.T) {
			p := newPair(t, func(p *pair, _ *ClientConfig) { p.up.limit, p.down.limit = limit, limit })
			p.mustSend(&p.client.Stream, strings.Repeat("o", 50))
			p.open()
			long := strings.Repeat("x", 500)
			p.mustSend(&p.client.Stream, long, "")
			p.mustSend(&p.server.Stream, long, "")
			synctest.Wait()
			for _, m := range append(p.up.take(), p.down.take()...) {
				if f, err := wire.ParseFrame(m.Data); err != nil || int64(len(f.Body)) > max(1, limit/2) {
					t.Errorf("limit %d: a frame of %d bytes, %v", limit, len(m.Data), err)
				}
				if m.Subject[:len(inbox)] == inbox {
					p.toClient(m)
				} else {
					p.toServer(m)
				}
			}
			p.settle()
			p.mustRecv(&p.client.Stream, long, "")
			p.mustRecv(&p.server.Stream, strings.Repeat("o", 50), long, "")
		})
	}
}

// TestOwnBody: a body that shares its memory with headers is copied, others are not.
func TestOwnBody(t *testing.T) {
	inPair(t, func(p *pair) {
		for i, header := range []nats.Header{{"Key": {"x"}}, nil} {
			m := p.answer(dataFrame(uint64(i), "message"))
			m.Header = header
			p.toClient(m)
			got, err := p.client.Recv()
			if err != nil {
				t.Fatal(err)
			}
			copied := &got.Bytes[0] != &m.Data[len(m.Data)-len(got.Bytes)]
			if copied != (header != nil) {
				t.Errorf("header %v: copied: %v", header, copied)
			}
		}
	})
}

// TestPublishError: a frame that cannot be published ends the stream, and nobody is told.
func TestPublishError(t *testing.T) {
	refused := errors.New("refused")
	want := "stream: publish: refused"
	for _, test := range []struct {
		name string
		run  func(s *Stream) error // the error of Send, if it knows
		err  string
	}{
		{"a message", func(s *Stream) error { return sendText(s, "x") }, "nil"},
		{"a message in a frame of its own", func(s *Stream) error { return send(s, make([]byte, minAlone)) }, "nil"},
		{"a heartbeat", func(*Stream) error { <-time.After(heartbeat); return nil }, "nil"},
	} {
		t.Run(test.name, func(t *testing.T) {
			inPair(t, func(p *pair) {
				p.up.fail(refused)
				p.down.fail(refused)
				for _, s := range []*Stream{&p.client.Stream, &p.server.Stream} {
					if got := errText(test.run(s)); got != test.err {
						t.Error("Send:", got)
					}
					synctest.Wait()
					var unsent *PublishError
					if !errors.As(s.err, &unsent) || unsent.Err != refused || states(s) != [2]string{want, want} {
						t.Errorf("it is over: %v, %q", s.err, states(s))
					}
				}
				if p.notifications() != want || p.owner.told() != want {
					t.Error("Notify:", p.notifications(), "StreamEnded:", p.owner.told())
				}
			})
		})
	}
	inPair(t, func(p *pair) { // the end of the server's
		p.down.fail(refused)
		p.server.EndAndWait(errTheirs)
		if p.owner.told() != want {
			t.Error("StreamEnded:", p.owner.told())
		}
	})
	inPair(t, func(p *pair) { // a credit
		p.down.fail(refused)
		p.server.publishControl(wire.KindCredit, 1)
		if isOver(&p.server.Stream) {
			t.Error("it is over:", p.server.err)
		}
	})
}

// TestWaitUnder: the context that a server's Send and Recv wait under ends them, not the stream.
func TestWaitUnder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t, nil)
		ctx, cancel := context.WithCancel(context.Background())
		p.handler = ctx
		p.open()
		s := &p.server.Stream
		p.up.lose = func(*nats.Msg) int { return 0 }
		sending := begin(func() error { return fill(s) })
		receiving := begin(func() error { return recvErr(s) })
		if sending.state() != waits || receiving.state() != waits {
			t.Fatal("they do not wait")
		}
		cancel()
		var ended *ContextError
		for _, r := range []*result{sending, receiving} {
			if r.state() != "stream: context canceled" || !errors.As(r.err, &ended) || ended.Ctx != ctx {
				t.Error("they return", r.state())
			}
		}
		p.up.lose = nil
		p.toServer(p.frame(dataFrame(0, "a")))
		if err := sendText(s, "x"); !errors.Is(err, context.Canceled) {
			t.Error("Send:", err)
		}
		if err := recvErr(s); !errors.Is(err, context.Canceled) || isOver(s) {
			t.Error("Recv:", err)
		}

		other, cancelOther := context.WithCancel(context.Background())
		if before := s.WaitUnder(other); before != ctx {
			t.Error("WaitUnder returns", before)
		}
		p.mustRecv(s, "a")
		receiving = begin(func() error { return recvErr(s) })
		if before := s.WaitUnder(context.Background()); before != other {
			t.Error("WaitUnder returns", before)
		}
		cancelOther()
		if receiving.state() != waits {
			t.Error("Recv, whose context has been replaced:", receiving.state())
		}
		p.toServer(p.frame(dataFrame(1, "b")))
		if receiving.state() != "nil" {
			t.Error("Recv:", receiving.state())
		}

		s.WaitUnder(ctx)
		s.Break(errTheirs) // says more than the context
		if got := states(s); got != [2]string{"theirs", "theirs"} {
			t.Errorf("of a stream that is over: %q", got)
		}
	})
}

// slowContext is the context of a call, whose owner knows whether it has ended.
type slowContext struct {
	context.Context
	ended error
}

// Err is not to be called while the context has not ended.
func (c *slowContext) Err() error {
	if c.ended == nil {
		panic("Err is called")
	}
	return c.ended
}

// TestContextEnded: the owner is asked about its own context.
func TestContextEnded(t *testing.T) {
	ctx := &slowContext{Context: context.Background()}
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t, func(p *pair, _ *ClientConfig) {
			p.handler, p.owner.contextEnded = ctx, func() error { return ctx.ended }
		})
		p.open()
		p.toServer(p.frame(dataFrame(0, "a", "b")))
		p.mustRecv(&p.server.Stream, "a")
		p.mustSend(&p.server.Stream, "x")
		ctx.ended = context.DeadlineExceeded
		if err := recvErr(&p.server.Stream); errText(err) != "stream: context deadline exceeded" {
			t.Error("Recv:", err)
		}
		if err := sendText(&p.server.Stream, "y"); errText(err) != "stream: context deadline exceeded" {
			t.Error("Send:", err)
		}
	})
}

// TestAbandoned: a stream that ends at its deadline is abandoned if nobody has accepted it. One
// that is open has a peer with the same deadline, and one that is canceled tells all.
func TestAbandoned(t *testing.T) {
	for _, test := range []struct {
		name      string
		begin     func(p *pair)
		end       func(p *pair)
		abandoned int64
	}{
		{"opens, deadline", func(p *pair) { p.start() }, func(*pair) { <-time.After(time.Minute) }, 1},
		{"opens, canceled", func(p *pair) { p.start() }, func(p *pair) { p.cancel() }, 0},
		{"open, deadline", (*pair).open, func(*pair) { <-time.After(time.Minute) }, 0},
	} {
		synctest.Test(t, func(t *testing.T) {
			p := newPair(t, func(_ *pair, c *ClientConfig) { c.Queued, c.Deadline = true, time.Now().Add(time.Minute) })
			test.begin(p)
			test.end(p)
			synctest.Wait()
			if got := p.abandoned.Load(); got != test.abandoned || !isOver(&p.client.Stream) {
				t.Errorf("%s: abandoned %d times", test.name, got)
			}
		})
	}
}

// TestFetchWhenOver: an instance that has announced a large response is told if nobody fetches it.
func TestFetchWhenOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t, func(_ *pair, c *ClientConfig) { c.Refuse = func() error { return errMine } })
		p.client.Fetch(instance, 1<<20)
		if up := p.up.published(); up != "cancel" {
			t.Errorf("the client has published %q", up)
		}
	})
}

// TestSendAfterCleanEnd: on a server Send says the same before and after the end frame is
// published.
func TestSendAfterCleanEnd(t *testing.T) {
	inPair(t, func(p *pair) {
		p.down.block = make(chan struct{})
		p.server.Finish(nil, nil)
		before := sendText(&p.server.Stream, "x")
		close(p.down.block)
		synctest.Wait()
		if after := sendText(&p.server.Stream, "x"); before != ErrClosed || after != ErrClosed {
			t.Errorf("before it is %v, after it %v", before, after)
		}
	})
}

// TestWaitingSendIsClosed: a Send that waits for credit returns when its half is closed.
func TestWaitingSendIsClosed(t *testing.T) {
	inPair(t, func(p *pair) {
		fromClient := begin(func() error { return fill(&p.client.Stream) })
		fromServer := begin(func() error { return fill(&p.server.Stream) })
		p.settle()
		p.client.CloseSend()
		p.server.Finish(nil, nil)
		if a, b := fromClient.state(), fromServer.state(); a != errText(ErrClosed) || b != a {
			t.Errorf("on the client it returns %s, on the server %s", a, b)
		}
	})
}

// TestRefusalAfterAccept: where a second instance refuses a stream, the one that has accepted it is
// told.
func TestRefusalAfterAccept(t *testing.T) {
	inPair(t, func(p *pair) {
		p.toClient(p.answer(append(wire.AppendResponse(nil, p.id, 0, wire.FlagError), "x"...)))
		if up := p.up.published(); up != "cancel" || !isOver(&p.client.Stream) {
			t.Errorf("the client has published %q", up)
		}
	})
}

// TestEndDuringAccept: Accept returns the error of a stream that ends while its accept is
// published.
func TestEndDuringAccept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t, nil)
		m := p.start()
		server := NewServer(p.handler, p.serverConfig(), &p.owner, wire.Open{Credit: 1 << 20})
		err := server.Accept(m.Reply, func(uint64) error {
			p.servers.Break(errTheirs)
			return nil
		})
		if err != errTheirs || server.Accepted() {
			t.Errorf("Accept: %v, open %v", err, server.Accepted())
		}
	})
	// An end of this side has its frame behind the accept.
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t, nil)
		m := p.start()
		server := NewServer(p.handler, p.serverConfig(), &p.owner, wire.Open{Credit: 1 << 20})
		err := server.Accept(m.Reply, func(credit uint64) error {
			server.End(errTheirs)
			return p.down.Publish(m.Reply, wire.AppendAccept(nil, p.id, credit, instance))
		})
		if down := p.down.published(); err != nil || down != "accept, end 0 theirs, nothing" {
			t.Errorf("Accept: %v, the server has published %q", err, down)
		}
	})
}

// TestLateAccept: an accept does not open a stream that has ended.
func TestLateAccept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t, nil)
		p.start()
		p.client.Break(errMine)
		p.client.takeAnswer(&nats.Msg{Data: wire.AppendAccept(nil, p.id, 1<<20, instance)})
		synctest.Wait()
		if err := <-p.opened; err != errMine || p.client.Accepted() {
			t.Errorf("Open: %v, open %v", err, p.client.Accepted())
		}
	})
}

// TestHeaderWaits: Header returns when the first frame that carries the header has come, whichever
// that is, when its ctx ends, and when the stream does.
func TestHeaderWaits(t *testing.T) {
	early := nats.Header{"Key": {"early"}}
	wait := func(ctx context.Context, p *pair) *result {
		return begin(func() error {
			h, err := p.client.Header(ctx)
			if err == nil && len(h["Key"]) == 1 {
				err = errors.New(h["Key"][0])
			}
			return err
		})
	}
	for _, test := range []struct {
		name string
		run  func(p *pair)
		want string
	}{
		{"a header frame", func(p *pair) { p.server.SendHeader(early) }, "early"},
		{"a header frame, twice", func(p *pair) { p.server.SendHeader(early); p.server.SendHeader(nats.Header{"Key": {"late"}}) }, "early"},
		{"a message", func(p *pair) { p.server.SetHeader(early); p.mustSend(&p.server.Stream, "a") }, "early"},
		{"the end", func(p *pair) { p.server.SetHeader(early); p.server.Finish(errTheirs, nil) }, "early"},
		{"an empty header frame", func(p *pair) { p.server.SendHeader(nil) }, "nil"},
		{"a message without a header", func(p *pair) { p.mustSend(&p.server.Stream, "a") }, "nil"},
		{"a break", func(p *pair) { p.client.Break(errMine) }, "mine"},
	} {
		t.Run(test.name, func(t *testing.T) {
			inPair(t, func(p *pair) {
				ctx, cancel := context.WithCancel(context.Background())
				gone, waiting := wait(ctx, p), []*result{wait(context.Background(), p), wait(context.Background(), p)}
				cancel()
				if got := gone.state(); got != errText(&ContextError{ctx}) {
					t.Errorf("ctx has ended, and Header returns %s", got)
				}
				test.run(p)
				p.settle()
				for _, r := range append(waiting, wait(context.Background(), p)) {
					if got := r.state(); got != test.want {
						t.Errorf("Header returns %s", got)
					}
				}
			})
		})
	}
}

// TestHeaderOfLostFrame: if the first data frame is lost, there is no header that might be empty.
func TestHeaderOfLostFrame(t *testing.T) {
	for _, then := range []func(p *pair){
		func(p *pair) { p.mustSend(&p.server.Stream, "b") },
		func(p *pair) { p.server.Finish(nil, nil) },
	} {
		inPair(t, func(p *pair) {
			p.server.SetHeader(nats.Header{"Key": {"x"}})
			p.mustSend(&p.server.Stream, "a")
			synctest.Wait()
			p.down.take()
			then(p)
			p.settle()
			if h, err := p.client.Header(context.Background()); !errors.Is(err, flow.ErrLost) {
				t.Errorf("Header: %v, %v", h, err)
			}
		})
	}
}

// TestHeaderBeforeContext: a header that has come counts, also if ctx has ended.
func TestHeaderBeforeContext(t *testing.T) {
	ended, cancel := context.WithCancel(context.Background())
	cancel()
	inPair(t, func(p *pair) {
		p.server.SendHeader(nats.Header{"Key": {"x"}})
		p.settle()
		for range 100 { // the choice of a select is random
			if h, err := p.client.Header(ended); err != nil || len(h["Key"]) != 1 {
				t.Fatalf("Header: %v, %v", h, err)
			}
		}
	})
}

// panickingContext is what a nil context does.
type panickingContext struct{ context.Context }

func (panickingContext) Done() <-chan struct{} { panic("nil") }

// TestHeaderPanics: a context that panics leaves no lock behind.
func TestHeaderPanics(t *testing.T) {
	inPair(t, func(p *pair) {
		func() {
			defer func() {
				if recover() == nil {
					t.Error("no panic")
				}
			}()
			_, _ = p.client.Header(panickingContext{context.Background()})
		}()
		p.mustSend(&p.client.Stream, "a")
	})
}

// TestEarlyHeaderIsApart: what an end frame adds to the header is not in a header frame that is
// still being published.
func TestEarlyHeaderIsApart(t *testing.T) {
	inPair(t, func(p *pair) {
		p.down.block = make(chan struct{})
		go p.server.SendHeader(nats.Header{"Key": {"early"}})
		synctest.Wait()
		p.server.End(errTheirs)
		synctest.Wait()
		close(p.down.block)
		synctest.Wait()
		for _, m := range p.down.take() {
			f, err := wire.ParseFrame(m.Data)
			if err == nil && f.Kind == wire.KindHeader && len(m.Header) != 1 {
				t.Errorf("the header frame has %v", m.Header)
			}
		}
	})
}
