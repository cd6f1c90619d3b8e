package rpcauth_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/natscall/natscall/rpc"
	"github.com/natscall/natscall/rpc/rpcauth"
	"github.com/natscall/natscall/rpc/rpctest"
)

// setJWT is an interceptor that sets the header with the JWT.
func setJWT(token string) rpc.Interceptor {
	return func(ctx context.Context, call *rpc.Call, next rpc.Next) error {
		call.OnAttempt(func(a *rpc.Attempt) error { return a.SetHeader(rpc.ExtensionPrefix+"Jwt", token) })
		return next(ctx, call)
	}
}

// TestFullWindow: where no more signatures can be remembered no signed call passes, until the first
// have expired.
func TestFullWindow(t *testing.T) {
	nc, h, now, user := rpctest.Connect(t), newHandlers(), newClock(), newUser(t)
	v := newVerifier(t, nc, rpcauth.WithIssuers(user.public), rpcauth.WithReplayWindow(3), rpcauth.WithClock(now.Now), rpcauth.WithClockSkew(time.Second))
	serve(t, nc, h, v)
	c := dial(t, nc, signing(t, nil, rpcauth.WithSeed(user.seed(t)), rpcauth.WithClock(now.Now), rpcauth.WithLifetime(4*time.Second)))
	for range 3 {
		for range 3 {
			must(t, read(t, c))
			h.take(t, 1)
		}
		before := v.Stats()
		wantRefused(t, read(t, c), rpc.CodeResourceExhausted, v, before, rpcauth.ReasonWindow)
		must(t, read(t, dial(t, nc))) // unsigned
		h.take(t, 1)
		if n := v.Stats().Remembered; n != 3 {
			t.Errorf("%d signatures are remembered", n)
		}
		now.add(7 * time.Second) // a second more than lifetime and skew, as they are rounded up
	}
}

// TestSlowRequest: a signature that expires while the request comes, or while a rule thinks, does
// not count: a store may have forgotten it.
func TestSlowRequest(t *testing.T) {
	nc, h, now, user := rpctest.Connect(t), newHandlers(), newClock(), newUser(t)
	slow := func(context.Context, *rpc.Call, *rpcauth.Identity) bool { now.add(time.Minute); return true }
	s := &store{seen: map[string]time.Time{}}
	v := newVerifier(t, nc, rpcauth.WithIssuers(user.public), rpcauth.WithClock(now.Now), rpcauth.Allow("*", slow),
		rpcauth.WithReplayWindow(0), rpcauth.WithReplayStore(s.first))
	serve(t, nc, h, v)
	before := v.Stats()
	err := read(t, dial(t, nc, signing(t, nil, rpcauth.WithSeed(user.seed(t)), rpcauth.WithClock(now.Now))))
	wantRefused(t, err, rpc.CodeUnauthenticated, v, before, rpcauth.ReasonTime)
	if len(s.seen) > 0 {
		t.Errorf("remembered %v", s.seen)
	}
}

// TestClockSetBack: what was forgotten is not accepted again when the server's clock is set back.
func TestClockSetBack(t *testing.T) {
	now := newClock()
	w := newStolen(t, []rpcauth.SignerOption{rpcauth.WithClock(now.Now)}, rpcauth.WithClock(now.Now))
	m := w.signed(t, func() error { return read(t, w.client) })
	now.add(2 * time.Minute)
	w.replay(t, m, rpcauth.ReasonTime, nil)
	w.signed(t, func() error { return read(t, w.client) }) // makes room
	if n := w.verifier.Stats().Remembered; n != 1 {
		t.Errorf("%d signatures are remembered", n)
	}
	now.add(-2 * time.Minute)
	w.replay(t, m, rpcauth.ReasonTime, nil)
}

// TestWrongClock: a clock that was wrong for a moment keeps out the calls of that moment only.
func TestWrongClock(t *testing.T) {
	for _, jump := range []time.Duration{5*time.Minute + 30*time.Second, 24 * time.Hour, -24 * time.Hour} {
		now := newClock()
		w := newStolen(t, []rpcauth.SignerOption{rpcauth.WithClock(now.Now)}, rpcauth.WithClock(now.Now))
		before := w.signed(t, func() error { return read(t, w.client) })
		now.add(jump)
		jumped := w.signed(t, func() error { return read(t, w.client) })
		now.add(2 * time.Minute)
		w.signed(t, func() error { return read(t, w.client) }) // makes room
		now.add(-jump)
		w.replay(t, jumped, rpcauth.ReasonTime, nil)
		for range 5 {
			w.signed(t, func() error { return read(t, w.client) })
			now.add(time.Minute)
		}
		w.replay(t, before, rpcauth.ReasonTime, nil)
		now.add(jump - 7*time.Minute)
		w.replay(t, jumped, rpcauth.ReasonTime, nil) // its time has come again
	}
}

// TestBroadcast: a request that each instance gets counts once for each, and one that an instance
// of each queue group gets, once for each group, also where they share a store or a Verifier.
func TestBroadcast(t *testing.T) {
	for name, opts := range map[string][]rpc.ServiceOption{
		"no group": {rpc.WithoutQueueGroup(), rpc.WithoutQueueGroup()}, "two groups": {rpc.WithQueueGroup("a"), rpc.WithQueueGroup("b")},
		"one group": {rpc.WithQueueGroup("a"), rpc.WithQueueGroup("a")},
	} {
		nc, user, h := rpctest.Connect(t), newUser(t), newHandlers()
		s := &store{seen: map[string]time.Time{}}
		shared := newVerifier(t, nc, rpcauth.WithIssuers(user.public), rpcauth.RequireSignature("*"), rpcauth.WithReplayStore(s.first))
		other := newVerifier(t, nc, rpcauth.WithIssuers(user.public), rpcauth.RequireSignature("*"), rpcauth.WithReplayStore(s.first))
		for i, v := range []*rpcauth.Verifier{shared, shared, other, other} {
			server := rpc.NewServer(nc, rpc.WithLogger(quiet), rpc.WithInterceptors(v.Intercept))
			must(t, rpc.Register(server, &testDesc, h, []rpc.ServiceOption{opts[i%2]}, rpc.HandleOneWay(testNote, (*handlers).Note)))
			must(t, server.Start(t.Context()))
			t.Cleanup(func() { _ = server.Shutdown(context.Background()) })
		}
		must(t, testNote.Call(testContext(t), dial(t, nc, signing(t, nil, rpcauth.WithSeed(user.seed(t)))), wrapperspb.String("x")))
		want := map[string]int{"no group": 4, "two groups": 2, "one group": 1}[name]
		h.take(t, want)
		if len(s.seen) != want {
			t.Errorf("%s: %d signatures are stored, want %d", name, len(s.seen), want)
		}
		if refused := len(shared.Stats().Refused) + len(other.Stats().Refused); refused > 0 {
			t.Errorf("%s: %d calls were refused", name, refused)
		}
	}
}

// store is a store of signatures that instances share.
type store struct {
	mu   sync.Mutex
	seen map[string]time.Time
	err  error
}

func (s *store) first(_ context.Context, id string, until time.Time) (bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, again := s.seen[id]; again || s.err != nil {
		return false, s.err
	}
	s.seen[id] = until
	return true, nil
}

// TestReplayToAnotherInstance: without a store an instance does not know what another has accepted.
func TestReplayToAnotherInstance(t *testing.T) {
	for _, shared := range []bool{false, true} {
		s := &store{seen: map[string]time.Time{}}
		var opts []rpcauth.VerifierOption
		if shared {
			opts = append(opts, rpcauth.WithReplayStore(s.first), rpcauth.WithReplayWindow(0))
		}
		w := newStolen(t, nil, opts...)
		m := w.signed(t, func() error { return read(t, w.client) })
		must(t, w.server.Shutdown(context.Background()))
		h := newHandlers()
		v := newVerifier(t, w.nc, append(opts, rpcauth.WithIssuers(w.account.public))...)
		serve(t, w.nc, h, v)
		answer := exchange(t, w.nc, m)
		if shared {
			wantText(t, answer, rpcauth.ReasonReplay)
			h.take(t, 0)
		} else {
			h.take(t, 1) // docs/identity.md says so
		}
		for id, until := range s.seen {
			if at := time.Until(until); len(id) != 32 || at < 30*time.Second || at > 40*time.Second {
				t.Errorf("%s is kept until %v", id, until)
			}
		}
	}
}

// TestStoreFails: then nobody knows whether a request is a replay.
func TestStoreFails(t *testing.T) {
	nc, h, user := rpctest.Connect(t), newHandlers(), newUser(t)
	s := &store{err: errors.New("no quorum")}
	log := new(records)
	v := newVerifier(t, nc, rpcauth.WithIssuers(user.public), rpcauth.WithReplayStore(s.first), rpcauth.WithLogger(log.logger()))
	serve(t, nc, h, v)
	before := v.Stats()
	err := read(t, dial(t, nc, signing(t, nil, rpcauth.WithSeed(user.seed(t)))))
	wantRefused(t, err, rpc.CodeUnavailable, v, before, rpcauth.ReasonWindow)
	if logged := log.take(); strings.Contains(err.Error(), "quorum") || len(logged) != 1 || !strings.Contains(logged[0], "quorum") {
		t.Errorf("the error is %v, logged was %q", err, logged)
	}
}
