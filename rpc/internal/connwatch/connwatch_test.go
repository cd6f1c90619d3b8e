package connwatch

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/nats-io/nats.go"
)

// TestListen: listeners come and go in front of the user's handler, which is called too and
// is there again in the end, also where the user has set another one meanwhile.
func TestListen(t *testing.T) {
	for _, replaced := range []bool{false, true} {
		nc := &nats.Conn{}
		var heard []string
		handler := func(name string) nats.ErrHandler {
			return func(*nats.Conn, *nats.Subscription, error) { heard = append(heard, name) }
		}
		listener := func(name string) *Listener {
			l := Listener(func(*nats.Subscription, error) { heard = append(heard, name) })
			return &l
		}
		hears := func(want ...string) {
			t.Helper()
			heard = nil
			if f := nc.ErrorHandler(); f != nil {
				f(nc, nil, errors.New("x"))
			}
			if !slices.Equal(heard, want) {
				t.Errorf("replaced %v: %v heard it, want %v", replaced, heard, want)
			}
		}
		first, second := listener("first"), listener("second")
		nc.SetErrorHandler(handler("user"))
		Listen(nc, first)
		hears("first", "user")
		user := "user"
		if replaced {
			user = "another"
			nc.SetErrorHandler(handler(user))
			hears(user)
		}
		Listen(nc, second)
		hears("first", "second", user)
		Unlisten(nc, first)
		hears("second", user)
		Unlisten(nc, first) // again
		Unlisten(nc, second)
		hears(user)
		if len(hooks.conns) > 0 {
			t.Error("a connection is remembered")
		}
	}
}

// TestUnlistenBehindUser: a handler that the user sets last stays.
func TestUnlistenBehindUser(t *testing.T) {
	nc := &nats.Conn{}
	l := Listener(func(*nats.Subscription, error) {})
	Listen(nc, &l)
	called := false
	nc.SetErrorHandler(func(*nats.Conn, *nats.Subscription, error) { called = true })
	Unlisten(nc, &l)
	if nc.ErrorHandler()(nc, nil, nil); !called {
		t.Error("the user's handler has gone")
	}
}

func refused(what, subject string) error {
	return fmt.Errorf("%w: nats: permissions violation: Permissions Violation for %s to %q", nats.ErrPermissionViolation, what, subject)
}

func TestViolation(t *testing.T) {
	for _, test := range []struct {
		err     error
		what    string
		subject string
		ok      bool
	}{
		{refused(ToPublish, "a.b"), ToPublish, "a.b", true},
		{refused(ToPublish, "a.b"), ToSubscribe, "", false},
		{refused(ToSubscribe, "a.>"), ToSubscribe, "a.>", true},
		{fmt.Errorf("%w: of a newer server", nats.ErrPermissionViolation), ToPublish, "", false},
		{errors.New(`Permissions Violation for Publish to "a.b"`), ToPublish, "", false},
	} {
		if subject, ok := Violation(test.err, test.what); subject != test.subject || ok != test.ok {
			t.Errorf("%v, %s: %q, %v", test.err, test.what, subject, ok)
		}
	}
}

// TestRefusals: of all violations up to the last one, which the handler may tell late, those
// count that are about the subscriptions.
func TestRefusals(t *testing.T) {
	subs := []*Subscription{{Subject: "a"}, {Subject: "b"}, {Subject: "c"}}
	a, other, publish, c := refused(ToSubscribe, "a"), refused(ToSubscribe, "z"), refused(ToPublish, "b"), refused(ToSubscribe, "c")
	for _, test := range []struct {
		name    string
		heard   []error
		last    error
		want    []string
		waiting time.Duration
	}{
		{"none of them", []error{other, publish}, publish, nil, 0},
		{"two of them", []error{a, publish, c, other}, other, []string{`"a"`, `"c"`}, 0},
		{"the handler has been replaced", nil, c, []string{`"c"`}, refusalWait},
	} {
		synctest.Test(t, func(t *testing.T) {
			var r Refusals
			r.Add(a) // before: it is none of ours
			r.Begin()
			defer r.End()
			go func() {
				for _, err := range test.heard {
					synctest.Wait()
					r.Add(err)
				}
			}()
			start := time.Now()
			err := r.Of(context.Background(), subs, test.last)
			if waited := time.Since(start); waited != test.waiting {
				t.Errorf("%s: it waited for %v", test.name, waited)
			}
			if test.want == nil {
				if err != nil {
					t.Errorf("%s: %v", test.name, err)
				}
				return
			}
			if !errors.Is(err, nats.ErrPermissionViolation) || !strings.Contains(err.Error(), strings.Join(test.want, ", ")+":") {
				t.Errorf("%s: %v", test.name, err)
			}
		})
	}
}

// TestClosedError: the reason is there if nats.go has one.
func TestClosedError(t *testing.T) {
	if err := ClosedError(&nats.Conn{}); !errors.Is(err, nats.ErrConnectionClosed) {
		t.Error(err)
	}
}

// TestAwaitEnds: the wait for a connection ends with its context, and says what it waited for.
func TestAwaitEnds(t *testing.T) {
	nc, err := nats.Connect("nats://127.0.0.1:1", nats.RetryOnFailedConnect(true))
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	ctx, cancel := context.WithCancelCause(context.Background())
	reason := errors.New("enough")
	cancel(reason)
	err = Await(ctx, nc)
	if !errors.Is(err, reason) || !strings.Contains(err.Error(), "the NATS connection is reconnecting") {
		t.Errorf("the error is %v", err)
	}
	nc.Close()
	if err := Await(context.Background(), nc); !errors.Is(err, nats.ErrConnectionClosed) {
		t.Errorf("the error of a closed connection is %v", err)
	}
}

// TestListenBehindChain: a user's handler that calls the one before it, which is ours, does not
// make listeners hear twice.
func TestListenBehindChain(t *testing.T) {
	nc := &nats.Conn{}
	heard := 0
	first, second := Listener(func(*nats.Subscription, error) { heard++ }), Listener(func(*nats.Subscription, error) {})
	Listen(nc, &first)
	before := nc.ErrorHandler()
	nc.SetErrorHandler(func(nc *nats.Conn, sub *nats.Subscription, err error) { before(nc, sub, err) })
	Listen(nc, &second)
	if nc.ErrorHandler()(nc, nil, errors.New("x")); heard != 1 {
		t.Errorf("it heard an error %d times", heard)
	}
	Unlisten(nc, &first)
	Unlisten(nc, &second)
}

// TestRefusalsOfAnother: what came in one collection, or between two, is not in the next.
func TestRefusalsOfAnother(t *testing.T) {
	var r Refusals
	r.Begin()
	r.Add(refused(ToSubscribe, "a"))
	r.End()
	if errs, came := r.soFar(); errs != nil || came != nil {
		t.Error("it keeps errors while nothing is collected")
	}
	r.Add(refused(ToSubscribe, "b"))
	r.Begin()
	defer r.End()
	if errs, _ := r.soFar(); len(errs) > 0 {
		t.Errorf("it begins with %v", errs)
	}
}

// gate is a dialer that fails while it is closed.
type gate struct{ open atomic.Bool }

func (g *gate) Dial(network, address string) (net.Conn, error) {
	if !g.open.Load() {
		return nil, errors.New("the gate is closed")
	}
	return net.Dial(network, address)
}

// connectByGate returns a connection to a server that is behind a gate, which is closed.
func connectByGate(t *testing.T) (*nats.Conn, *gate) {
	t.Helper()
	s, err := server.NewServer(&server.Options{Host: "127.0.0.1", Port: -1, NoSigs: true})
	if err != nil {
		t.Fatal(err)
	}
	s.Start()
	t.Cleanup(s.Shutdown)
	if !s.ReadyForConnections(10 * time.Second) {
		t.Fatal("the server is not ready")
	}
	g := &gate{}
	nc, err := nats.Connect(s.ClientURL(), nats.RetryOnFailedConnect(true), nats.SetCustomDialer(g),
		nats.ReconnectWait(time.Millisecond), nats.MaxReconnects(-1))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	return nc, g
}

// TestAwait: the wait ends when the connection comes up, and where it drains; the end of a context
// says what it waited for.
func TestAwait(t *testing.T) {
	nc, g := connectByGate(t)
	gone, cancel := context.WithCancel(context.Background())
	cancel()
	if err := Await(gone, nc); !errors.Is(err, context.Canceled) || !strings.Contains(err.Error(), "the NATS connection is reconnecting") {
		t.Errorf("while it is down: %v", err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	up := make(chan error)
	go func() { up <- Await(ctx, nc) }()
	g.open.Store(true)
	if err := <-up; err != nil {
		t.Errorf("when it is up: %v", err)
	}
	busy, goOn := make(chan struct{}), make(chan struct{})
	if _, err := nc.Subscribe("a", func(*nats.Msg) { close(busy); <-goOn }); err != nil {
		t.Fatal(err)
	}
	if err := nc.Publish("a", nil); err != nil {
		t.Fatal(err)
	}
	<-busy
	if err := nc.Drain(); err != nil {
		t.Fatal(err)
	}
	if err := Await(ctx, nc); !errors.Is(err, nats.ErrConnectionDraining) {
		t.Errorf("while it drains: %v", err)
	}
	close(goOn)
}
