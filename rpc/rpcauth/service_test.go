package rpcauth_test

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/jwt/v2"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nkeys"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/natscall/natscall/rpc"
	"github.com/natscall/natscall/rpc/rpcauth"
)

// The service of the tests, as generated code would describe it.
var testDesc = rpc.ServiceDesc{
	Name: "test.v1.Test", MicroName: "Test", Version: "1.0.0", File: wrapperspb.File_google_protobuf_wrappers_proto,
}

type text = wrapperspb.StringValue

var (
	testDo      = rpc.NewUnaryMethod[text, text](&testDesc, rpc.MethodDesc{Name: "Do"})
	testRead    = rpc.NewUnaryMethod[text, text](&testDesc, rpc.MethodDesc{Name: "Read", Idempotency: rpc.IdempotencyNoSideEffects})
	testNote    = rpc.NewOneWayMethod[text](&testDesc, rpc.MethodDesc{Name: "Note", Subject: "notes.new"})
	testWatch   = rpc.NewServerStreamMethod[text, text](&testDesc, rpc.MethodDesc{Name: "Watch"})
	testCollect = rpc.NewClientStreamMethod[text, text](&testDesc, rpc.MethodDesc{Name: "Collect"})
	testChat    = rpc.NewBidiMethod[text, text](&testDesc, rpc.MethodDesc{Name: "Chat"})
)

// handlers are the service: they record who has called.
type handlers struct {
	mu  sync.Mutex
	ran []rpcauth.Identity
	did chan struct{} // has room
}

func newHandlers() *handlers { return &handlers{did: make(chan struct{}, 1000)} }

func (h *handlers) record(ctx context.Context) {
	id := rpcauth.FromContext(ctx)
	h.mu.Lock()
	h.ran = append(h.ran, id)
	h.mu.Unlock()
	h.did <- struct{}{}
}

// take returns who has called since the last take, when that were n.
func (h *handlers) take(t testing.TB, n int) []rpcauth.Identity {
	t.Helper()
	timeout := time.After(30 * time.Second)
	for range n {
		select {
		case <-h.did:
		case <-timeout:
			t.Fatalf("%d calls have not come", n)
		}
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	ran := h.ran
	h.ran = nil
	if len(ran) != n {
		t.Fatalf("%d handlers ran, want %d: %v", len(ran), n, ran)
	}
	return ran
}

// all returns who has called since the last take or all, of the calls that have been answered.
func (h *handlers) all() []rpcauth.Identity {
	h.mu.Lock()
	defer h.mu.Unlock()
	ran := h.ran
	h.ran = nil
	for range ran {
		<-h.did
	}
	return ran
}

func (h *handlers) Do(ctx context.Context, req *text) (*text, error) { h.record(ctx); return req, nil }
func (h *handlers) Read(ctx context.Context, req *text) (*text, error) {
	h.record(ctx)
	return req, nil
}
func (h *handlers) Note(ctx context.Context, _ *text) error { h.record(ctx); return nil }

func (h *handlers) Watch(ctx context.Context, req *text, to *rpc.Sender[*text]) error {
	h.record(ctx)
	return to.Send(req)
}

func (h *handlers) Collect(ctx context.Context, from *rpc.Receiver[*text]) (*text, error) {
	h.record(ctx)
	all := ""
	for m, err := range from.All() {
		if err != nil {
			return nil, err
		}
		all += m.GetValue()
	}
	return wrapperspb.String(all), nil
}

func (h *handlers) Chat(ctx context.Context, with *rpc.BidiStream[*text, *text]) error {
	h.record(ctx)
	for m, err := range with.All() {
		if err != nil {
			return err
		}
		if err := with.Send(m); err != nil {
			return err
		}
	}
	return nil
}

// serve serves the service behind a verifier until the test ends.
func serve(t testing.TB, nc *nats.Conn, h *handlers, v *rpcauth.Verifier, more ...rpc.Interceptor) *rpc.Server {
	t.Helper()
	s := rpc.NewServer(nc, rpc.WithLogger(quiet), rpc.WithInterceptors(append([]rpc.Interceptor{v.Intercept}, more...)...))
	must(t, rpc.Register(s, &testDesc, h, nil,
		rpc.HandleUnary(testDo, (*handlers).Do),
		rpc.HandleUnary(testRead, (*handlers).Read),
		rpc.HandleOneWay(testNote, (*handlers).Note),
		rpc.HandleServerStream(testWatch, (*handlers).Watch),
		rpc.HandleClientStream(testCollect, (*handlers).Collect),
		rpc.HandleBidi(testChat, (*handlers).Chat),
	))
	must(t, s.Start(t.Context()))
	t.Cleanup(func() {
		if err := s.Shutdown(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return s
}

func newVerifier(t testing.TB, nc *nats.Conn, opts ...rpcauth.VerifierOption) *rpcauth.Verifier {
	t.Helper()
	v, err := rpcauth.NewVerifier(nc, append([]rpcauth.VerifierOption{rpcauth.WithLogger(quiet)}, opts...)...)
	must(t, err)
	return v
}

// signing is the option of a client that signs.
func signing(t testing.TB, nc *nats.Conn, opts ...rpcauth.SignerOption) rpc.ClientOption {
	t.Helper()
	signer, err := rpcauth.NewSigner(nc, opts...)
	must(t, err)
	return rpc.WithInterceptors(signer)
}

func dial(t testing.TB, nc *nats.Conn, opts ...rpc.ClientOption) *rpc.Client {
	c := rpc.NewClient(nc, opts...)
	t.Cleanup(func() { _ = c.Close() })
	return c
}

func testContext(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

func read(t testing.TB, c *rpc.Client, opts ...rpc.CallOption) error {
	t.Helper()
	_, err := testRead.Call(testContext(t), c, wrapperspb.String("x"), opts...)
	return err
}

// shapes makes a call of each shape.
var shapes = map[string]func(context.Context, *rpc.Client) error{
	"unary": func(ctx context.Context, c *rpc.Client) error {
		_, err := testDo.Call(ctx, c, wrapperspb.String("x"))
		return err
	},
	"empty": func(ctx context.Context, c *rpc.Client) error {
		_, err := testDo.Call(ctx, c, wrapperspb.String(""))
		return err
	},
	"JSON": func(ctx context.Context, c *rpc.Client) error {
		_, err := testDo.Call(ctx, c, wrapperspb.String("x"), rpc.WithCodec(rpc.CodecJSON))
		return err
	},
	"compressed": func(ctx context.Context, c *rpc.Client) error {
		_, err := testDo.Call(ctx, c, wrapperspb.String(strings.Repeat("x", 10_000)), rpc.WithCompression(rpc.CompressionZstd))
		return err
	},
	"large": func(ctx context.Context, c *rpc.Client) error {
		_, err := testDo.Call(ctx, c, wrapperspb.String(strings.Repeat("x", 2<<20)))
		return err
	},
	"plain": func(ctx context.Context, c *rpc.Client) error {
		_, err := testDo.Call(ctx, c, wrapperspb.String("x"), rpc.WithPlainRequests())
		return err
	},
	"one-way": func(ctx context.Context, c *rpc.Client) error { return testNote.Call(ctx, c, wrapperspb.String("x")) },
	"server stream": func(ctx context.Context, c *rpc.Client) error {
		r, err := testWatch.Call(ctx, c, wrapperspb.String("x"))
		if err != nil {
			return err
		}
		return drain(r.All())
	},
	"client stream": func(ctx context.Context, c *rpc.Client) error {
		s, err := testCollect.Call(ctx, c)
		if err != nil {
			return err
		}
		if err := s.Send(wrapperspb.String("x")); err != nil && err != io.EOF {
			return err
		}
		_, err = s.CloseAndRecv()
		return err
	},
	"bidi": func(ctx context.Context, c *rpc.Client) error {
		s, err := testChat.Call(ctx, c)
		if err != nil {
			return err
		}
		if err := s.Send(wrapperspb.String("x")); err != nil && err != io.EOF {
			return err
		}
		s.CloseSend()
		return drain(s.All())
	},
}

func drain(all func(func(*text, error) bool)) error {
	for _, err := range all {
		if err != nil {
			return err
		}
	}
	return nil
}

// keyPair is a new key of an account or user.
type keyPair struct {
	nkeys.KeyPair
	public string
}

func newKey(t testing.TB, create func() (nkeys.KeyPair, error)) keyPair {
	t.Helper()
	pair, err := create()
	must(t, err)
	public, err := pair.PublicKey()
	must(t, err)
	return keyPair{pair, public}
}

func newUser(t testing.TB) keyPair    { t.Helper(); return newKey(t, nkeys.CreateUser) }
func newAccount(t testing.TB) keyPair { t.Helper(); return newKey(t, nkeys.CreateAccount) }

func (k keyPair) seed(t testing.TB) []byte {
	t.Helper()
	seed, err := k.Seed()
	must(t, err)
	return seed
}

// token makes a user's JWT, signed by the key of an account.
func (k keyPair) token(t testing.TB, issuer keyPair, change func(*jwt.UserClaims)) string {
	t.Helper()
	claims := jwt.NewUserClaims(k.public)
	claims.Name = "alice"
	claims.Tags.Add("warehouse", "eu")
	if change != nil {
		change(claims)
	}
	token, err := claims.Encode(issuer)
	must(t, err)
	return token
}

// credentials writes a file with a user's JWT and key.
func (k keyPair) credentials(t testing.TB, token string) string {
	t.Helper()
	contents, err := jwt.FormatUserConfig(token, k.seed(t))
	must(t, err)
	return write(t, "user.creds", contents)
}

// write writes a file that others may not read, and returns its name.
func write(t testing.TB, name string, contents []byte) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), name)
	must(t, os.WriteFile(file, contents, 0o600))
	return file
}

// wantRefused checks that a call failed with a code, was not run, and is counted under a reason
// alone.
func wantRefused(t testing.TB, err error, code rpc.Code, v *rpcauth.Verifier, before rpcauth.Stats, reason rpcauth.Reason) {
	t.Helper()
	var e *rpc.Error
	if !errors.As(err, &e) || e.Code() != code || e.Execution() != rpc.ExecutionNotRun {
		t.Errorf("the error is %v, want %v, not run", err, code)
	}
	wantCounted(t, v, before, reason)
}

// wantCounted checks that a call has been refused, perhaps again and again, for one reason.
func wantCounted(t testing.TB, v *rpcauth.Verifier, before rpcauth.Stats, reason rpcauth.Reason) {
	t.Helper()
	after := v.Stats()
	for r := range rpcauth.ReasonPattern + 1 {
		if more := after.Refused[r] - before.Refused[r]; (more > 0) != (r == reason) {
			t.Errorf("%d calls more were refused because of %q, want that because of %q", more, r, reason)
		}
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// quiet is the logger of what is meant to be refused.
var quiet = slog.New(slog.DiscardHandler)

// records collects what is logged.
type records struct {
	mu  sync.Mutex
	all []string
}

func (r *records) logger() *slog.Logger { return slog.New(slog.NewTextHandler(r, nil)) }

func (r *records) Write(b []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.all = append(r.all, string(b))
	return len(b), nil
}

// take returns the records since the last take.
func (r *records) take() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	all := r.all
	r.all = nil
	return all
}

// clock is a clock that tests set.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func newClock() *clock { return &clock{now: time.Now()} }

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) add(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}
