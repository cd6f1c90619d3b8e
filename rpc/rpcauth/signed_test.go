package rpcauth_test

import (
	"bytes"
	"context"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/jwt/v2"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/natscall/natscall/rpc"
	"github.com/natscall/natscall/rpc/rpcauth"
	"github.com/natscall/natscall/rpc/rpctest"
)

// TestSignedCalls: calls of every shape and form pass, signed with a key from wherever it may come
// from, and the handler knows the user.
func TestSignedCalls(t *testing.T) {
	account, user := newAccount(t), newUser(t)
	token := user.token(t, account, nil)
	file := user.credentials(t, token)
	srv := rpctest.NewServer(t, rpctest.WithServerOptions(func(o *server.Options) {
		o.Nkeys = []*server.NkeyUser{{Nkey: user.public}}
		o.Users = []*server.User{{Username: "x", Password: "x"}}
	}))
	open := rpctest.NewServer(t)
	withNkey, err := nats.NkeyOptionFromSeed(write(t, "user.nk", user.seed(t)))
	must(t, err)
	for _, test := range []struct {
		name    string
		srv     *rpctest.Server
		login   nats.Option
		opts    []rpcauth.SignerOption
		account string
	}{
		{"the connection's NKey", srv, withNkey, nil, ""},
		{"the connection's credentials", open, nats.UserCredentials(file), nil, account.public},
		{"a seed", srv, nats.UserInfo("x", "x"), []rpcauth.SignerOption{rpcauth.WithSeed(user.seed(t))}, ""},
		{"a file of credentials", srv, nats.UserInfo("x", "x"), []rpcauth.SignerOption{rpcauth.WithCredentials(file)}, account.public},
	} {
		t.Run(test.name, func(t *testing.T) {
			h := newHandlers()
			nc := test.srv.Connect(test.login)
			v := newVerifier(t, nc, rpcauth.WithIssuers(account.public, user.public), rpcauth.RequireSignature("*"))
			serve(t, nc, h, v)
			c := dial(t, nc, signing(t, nc, test.opts...), rpc.WithHeader("tenant", "acme"))
			for shape, call := range shapes {
				if err := call(testContext(t), c); err != nil {
					t.Fatalf("%s: %v", shape, err)
				}
				id := h.take(t, 1)[0]
				if id.Kind != rpcauth.KindSigned || id.User != user.public || id.Account != test.account || id.Issuer != test.account || id.Connection != nil {
					t.Errorf("%s: the identity is %+v", shape, id)
				}
				if jwt := test.account != ""; jwt != (id.Name == "alice") || jwt != slices.Equal(id.Tags, []string{"warehouse", "eu"}) || jwt != (id.Claims != nil) {
					t.Errorf("%s: the user is %q with %v", shape, id.Name, id.Tags)
				}
			}
			if s := v.Stats(); s.Accepted[rpcauth.KindSigned] != uint64(len(shapes)) || len(s.Refused) > 0 || s.Remembered != len(shapes) {
				t.Errorf("the numbers are %+v", s)
			}
		})
	}
}

// TestUnsigned: a method that requires a signature refuses calls of every shape without one, and
// any other takes them.
func TestUnsigned(t *testing.T) {
	nc := rpctest.Connect(t)
	h := newHandlers()
	v := newVerifier(t, nc, rpcauth.WithIssuers(newUser(t).public), rpcauth.RequireSignature("/test.v1.Test/*"))
	serve(t, nc, h, v)
	c := dial(t, nc)
	for shape, call := range shapes {
		if shape == "one-way" {
			continue
		}
		before := v.Stats()
		err := call(testContext(t), c)
		if wantRefused(t, err, rpc.CodeUnauthenticated, v, before, rpcauth.ReasonUnsigned); t.Failed() {
			t.Fatal(shape)
		}
	}
	before := v.Stats()
	_, err := nc.Request("notes.new", nil, 30*time.Second) // the reply says when it is refused
	must(t, err)
	wantCounted(t, v, before, rpcauth.ReasonUnsigned)
	h.take(t, 0)

	other := rpctest.Connect(t)
	serve(t, other, h, newVerifier(t, other, rpcauth.WithIssuers(newUser(t).public), rpcauth.RequireSignature("/test.v1.Test/Do")))
	must(t, read(t, dial(t, other)))
	if id := h.take(t, 1)[0]; id.Kind != rpcauth.KindNone {
		t.Errorf("the identity is %+v", id)
	}
}

// stolen is a NATS server with a service that requires signatures, and somebody who listens.
type stolen struct {
	*handlers
	nc       *nats.Conn
	user     keyPair
	account  keyPair
	token    string
	verifier *rpcauth.Verifier
	server   *rpc.Server
	client   *rpc.Client
	heard    chan *nats.Msg
}

func newStolen(t *testing.T, client []rpcauth.SignerOption, opts ...rpcauth.VerifierOption) *stolen {
	t.Helper()
	w := &stolen{handlers: newHandlers(), nc: rpctest.Connect(t), user: newUser(t), account: newAccount(t), heard: make(chan *nats.Msg, 100)}
	w.token = w.user.token(t, w.account, nil)
	w.verifier = newVerifier(t, w.nc, append([]rpcauth.VerifierOption{rpcauth.WithIssuers(w.account.public), rpcauth.RequireSignature("*")}, opts...)...)
	w.server = serve(t, w.nc, w.handlers, w.verifier)
	w.client = dial(t, w.nc, rpc.WithHeader("Tenant", "acme"), signing(t, w.nc, append(client, rpcauth.WithCredentials(w.user.credentials(t, w.token)), rpcauth.WithSignedHeaders("tenant"))...))
	for _, subject := range []string{"test.v1.Test.*", "test.v1.Test._i.*.call.*", "notes.new"} {
		_, err := w.nc.ChanSubscribe(subject, w.heard)
		must(t, err)
	}
	must(t, w.nc.Flush())
	return w
}

// signed makes a call and returns its request, as somebody else has heard it.
func (w *stolen) signed(t *testing.T, call func() error) *nats.Msg {
	t.Helper()
	must(t, w.nc.Flush())
	for len(w.heard) > 0 { // replays of before
		<-w.heard
	}
	must(t, call())
	w.take(t, 1)
	select {
	case m := <-w.heard:
		return m
	case <-time.After(30 * time.Second):
		t.Fatal("nothing was heard")
		return nil
	}
}

// replay sends a request, changed, and checks that it is refused for a reason.
func (w *stolen) replay(t *testing.T, m *nats.Msg, reason rpcauth.Reason, change func(*nats.Msg)) {
	t.Helper()
	again := &nats.Msg{Subject: m.Subject, Header: nats.Header{}, Data: slices.Clone(m.Data)}
	for key, values := range m.Header {
		again.Header[key] = slices.Clone(values)
	}
	if change != nil {
		change(again)
	}
	wantText(t, exchange(t, w.nc, again), reason)
	w.take(t, 0)
}

// exchange sends a request until it is answered, and returns the answer as text. A request whose id
// is that of a call that is just about to leave the server is dropped without an answer.
func exchange(t *testing.T, nc *nats.Conn, m *nats.Msg) string {
	t.Helper()
	inbox := nc.NewInbox()
	answers, err := nc.SubscribeSync(inbox)
	must(t, err)
	defer func() { must(t, answers.Unsubscribe()) }()
	for range 300 {
		must(t, nc.PublishMsg(&nats.Msg{Subject: m.Subject, Reply: inbox, Header: m.Header, Data: m.Data}))
		for {
			answer, err := answers.NextMsg(100 * time.Millisecond)
			if err != nil {
				break
			}
			const accept = "\x00\x01\x10" // of a stream; its end says more
			if !bytes.HasPrefix(answer.Data, []byte(accept)) {
				return answer.Header.Get("Nats-Service-Error") + string(answer.Data)
			}
		}
	}
	t.Fatal("there is no answer")
	return ""
}

// texts are parts of what callers are told.
var texts = map[rpcauth.Reason]string{
	rpcauth.ReasonUnsigned:  "the call has to be signed",
	rpcauth.ReasonMalformed: "unknown version|more than once|that of another user|has no nonce",
	rpcauth.ReasonTime:      "the signature has expired|is from the future|clock was set back",
	rpcauth.ReasonAudience:  "the signature is for another audience",
	rpcauth.ReasonIssuer:    "the user is not known, and has no JWT",
	rpcauth.ReasonSignature: "the signature is not of this request",
	rpcauth.ReasonReplay:    "the request has come before",
}

// wantText checks that an answer is a refusal for a reason.
func wantText(t *testing.T, answer string, reason rpcauth.Reason) {
	t.Helper()
	if !regexp.MustCompile(texts[reason]).MatchString(answer) || texts[reason] == "" {
		t.Errorf("the answer is %q, want a refusal because of %q", answer, reason)
	}
}

// TestStolenSignature: a request that somebody has heard is of no use, as it is or changed.
func TestStolenSignature(t *testing.T) {
	w := newStolen(t, nil)
	doer := func() error {
		_, err := testDo.Call(testContext(t), w.client, wrapperspb.String("x"))
		return err
	}
	m := w.signed(t, doer)
	const sig, token = "Natscall-Ext-Signature", "Natscall-Ext-Jwt"
	part := func(i int, value string) func(*nats.Msg) {
		return func(m *nats.Msg) {
			parts := strings.Split(m.Header.Get(sig), ";")
			parts[i] = value
			m.Header.Set(sig, strings.Join(parts, ";"))
		}
	}
	later := time.Now().Add(30 * time.Second)
	for name, test := range map[string]struct {
		reason rpcauth.Reason
		change func(*nats.Msg)
	}{
		"as it is":           {rpcauth.ReasonReplay, nil},
		"another body":       {rpcauth.ReasonSignature, func(m *nats.Msg) { m.Data[len(m.Data)-1] = 'y' }},
		"another method":     {rpcauth.ReasonSignature, func(m *nats.Msg) { m.Subject = "test.v1.Test.Read" }},
		"another id":         {rpcauth.ReasonSignature, func(m *nats.Msg) { m.Data[10]++ }},
		"another encoding":   {rpcauth.ReasonSignature, func(m *nats.Msg) { m.Data[3] ^= 1 }},
		"to an instance":     {rpcauth.ReasonSignature, func(m *nats.Msg) { m.Subject = "test.v1.Test._i." + w.server.Instance("test.v1.Test") + ".call.Do" }},
		"another header":     {rpcauth.ReasonSignature, func(m *nats.Msg) { m.Header["Tenant"] = []string{"evil"} }},
		"a second header":    {rpcauth.ReasonSignature, func(m *nats.Msg) { m.Header["Tenant"] = []string{"acme", "evil"} }},
		"a header's case":    {rpcauth.ReasonSignature, func(m *nats.Msg) { m.Header["tenant"] = []string{"evil"} }},
		"without the header": {rpcauth.ReasonSignature, func(m *nats.Msg) { delete(m.Header, "Tenant") }},
		"fewer headers":      {rpcauth.ReasonSignature, part(6, "")},
		"a later time":       {rpcauth.ReasonSignature, part(3, millis(later))},
		"another user":       {rpcauth.ReasonMalformed, part(1, newUser(t).public)},
		"with a nonce":       {rpcauth.ReasonMalformed, part(4, "AAAAAAAAAAAAAAAAAAAAAA")},
		"another audience":   {rpcauth.ReasonAudience, part(5, "prod")},
		"another JWT": {rpcauth.ReasonSignature, func(m *nats.Msg) {
			m.Header.Set(token, w.user.token(t, w.account, func(c *jwt.UserClaims) { c.Name = "bob" }))
		}},
		"without the JWT":     {rpcauth.ReasonIssuer, func(m *nats.Msg) { delete(m.Header, token) }},
		"without a signature": {rpcauth.ReasonUnsigned, func(m *nats.Msg) { delete(m.Header, sig) }},
		"two signatures":      {rpcauth.ReasonMalformed, func(m *nats.Msg) { m.Header.Add(sig, m.Header.Get(sig)) }},
		"another case":        {rpcauth.ReasonMalformed, func(m *nats.Msg) { m.Header[strings.ToLower(sig)] = m.Header[sig]; delete(m.Header, sig) }},
		"no signature at all": {rpcauth.ReasonMalformed, func(m *nats.Msg) { m.Header.Set(sig, "") }},
	} {
		t.Run(name, func(t *testing.T) { w.replay(t, m, test.reason, test.change) })
	}
}

func millis(at time.Time) string { return rpcauth.Millis(at) }

// TestStolenInstance: a call to one instance is not accepted by another, or as one to any of them.
func TestStolenInstance(t *testing.T) {
	w := newStolen(t, nil)
	m := w.signed(t, func() error { return read(t, w.client, rpc.WithInstance(w.server.Instance("test.v1.Test"))) })
	w.replay(t, m, rpcauth.ReasonSignature, func(m *nats.Msg) { m.Subject = "test.v1.Test.Read" })
	w.replay(t, m, rpcauth.ReasonReplay, nil)

	h, account := newHandlers(), rpcauth.WithIssuers(w.account.public)
	v := newVerifier(t, w.nc, account, rpcauth.RequireSignature("*"))
	other := serve(t, w.nc, h, v)
	m.Subject = strings.Replace(m.Subject, w.server.Instance("test.v1.Test"), other.Instance("test.v1.Test"), 1)
	wantText(t, exchange(t, w.nc, m), rpcauth.ReasonSignature)
	h.take(t, 0)
}

// TestReplaysOfAllForms: also requests without a call id, and opens of streams, count once.
func TestReplaysOfAllForms(t *testing.T) {
	for shape, call := range shapes {
		if shape == "large" {
			continue // its open is not the whole request
		}
		t.Run(shape, func(t *testing.T) {
			w := newStolen(t, nil)
			m := w.signed(t, func() error { return call(testContext(t), w.client) })
			for range 2 {
				w.replay(t, m, rpcauth.ReasonReplay, nil)
			}
		})
	}
}

// TestAudience: a signature is for one deployment.
func TestAudience(t *testing.T) {
	nc, user := rpctest.Connect(t), newUser(t)
	h := newHandlers()
	v := newVerifier(t, nc, rpcauth.WithIssuers(user.public), rpcauth.WithAudience("prod"))
	serve(t, nc, h, v)
	for audience, ok := range map[string]bool{"prod": true, "staging": false, "": false} {
		before := v.Stats()
		err := read(t, dial(t, nc, signing(t, nil, rpcauth.WithSeed(user.seed(t)), rpcauth.WithAudience(audience))))
		if ok {
			must(t, err)
			h.take(t, 1)
		} else {
			wantRefused(t, err, rpc.CodeUnauthenticated, v, before, rpcauth.ReasonAudience)
		}
	}
}

// TestCoveredHeaders: a server may demand that a header is signed, whether or not it is there.
func TestCoveredHeaders(t *testing.T) {
	nc, user := rpctest.Connect(t), newUser(t)
	h := newHandlers()
	v := newVerifier(t, nc, rpcauth.WithIssuers(user.public), rpcauth.WithCoveredHeaders("Tenant", "region"))
	serve(t, nc, h, v)
	must(t, read(t, dial(t, nc, signing(t, nil, rpcauth.WithSeed(user.seed(t)), rpcauth.WithSignedHeaders("region", "TENANT", "x")), rpc.WithHeader("tenant", "acme"))))
	h.take(t, 1)
	before := v.Stats()
	err := read(t, dial(t, nc, signing(t, nil, rpcauth.WithSeed(user.seed(t)), rpcauth.WithSignedHeaders("tenant"))))
	wantRefused(t, err, rpc.CodeUnauthenticated, v, before, rpcauth.ReasonHeaders)
}

// TestClockSkew: clocks may differ by the skew, in both directions, and by no more.
func TestClockSkew(t *testing.T) {
	nc, user := rpctest.Connect(t), newUser(t)
	server := newClock()
	h := newHandlers()
	v := newVerifier(t, nc, rpcauth.WithIssuers(user.public), rpcauth.WithClock(server.Now), rpcauth.WithClockSkew(30*time.Second))
	serve(t, nc, h, v)
	for _, test := range []struct {
		ahead    time.Duration // of the client
		lifetime time.Duration
		ok       bool
	}{
		{0, 10 * time.Second, true},
		{30*time.Second - time.Millisecond, 10 * time.Second, true},
		{30*time.Second + 10*time.Millisecond, 10 * time.Second, false},
		{time.Hour, 10 * time.Second, false},
		{-40*time.Second + 10*time.Millisecond, 10 * time.Second, true},
		{-40*time.Second - 10*time.Millisecond, 10 * time.Second, false},
		{-time.Hour, 10 * time.Second, false},
		{0, time.Minute, true},
		{0, time.Minute + time.Millisecond, false},
	} {
		client := newClock()
		client.now = server.Now().Add(test.ahead)
		before := v.Stats()
		err := read(t, dial(t, nc, signing(t, nil, rpcauth.WithSeed(user.seed(t)), rpcauth.WithClock(client.Now), rpcauth.WithLifetime(test.lifetime))))
		if test.ok {
			if err != nil {
				t.Errorf("%+v: %v", test, err)
			} else {
				h.take(t, 1)
			}
		} else if wantRefused(t, err, rpc.CodeUnauthenticated, v, before, rpcauth.ReasonTime); t.Failed() {
			t.Fatalf("%+v", test)
		}
	}
}

// retryInfo says that another try may succeed, at once.
var retryInfo = &anypb.Any{TypeUrl: "type.googleapis.com/google.rpc.RetryInfo", Value: []byte{1<<3 | 2, 0}}

// TestAttemptsAreSignedAnew: each attempt is a request of its own, so a retry is no replay.
func TestAttemptsAreSignedAnew(t *testing.T) {
	nc, user := rpctest.Connect(t), newUser(t)
	h := newHandlers()
	v := newVerifier(t, nc, rpcauth.WithIssuers(user.public), rpcauth.RequireSignature("*"))
	attempts := 0
	serve(t, nc, h, v, func(ctx context.Context, call *rpc.Call, next rpc.Next) error {
		if attempts++; attempts < 4 {
			return rpc.NewError(rpc.CodeUnavailable, "not yet", retryInfo)
		}
		return next(ctx, call)
	})
	must(t, read(t, dial(t, nc, signing(t, nil, rpcauth.WithSeed(user.seed(t))))))
	if h.take(t, 1); attempts != 4 || v.Stats().Accepted[rpcauth.KindSigned] != 4 {
		t.Errorf("%d attempts, %+v", attempts, v.Stats())
	}
}

// TestNonCanonicalBody: a body that only looks the same is another one.
func TestNonCanonicalBody(t *testing.T) {
	w := newStolen(t, nil)
	m := w.signed(t, func() error { return read(t, w.client) })
	body, err := proto.Marshal(wrapperspb.String("x"))
	must(t, err)
	w.replay(t, m, rpcauth.ReasonSignature, func(m *nats.Msg) {
		if !bytes.HasSuffix(m.Data, body) {
			t.Fatal("the request has another body")
		}
		m.Data = append(m.Data, body...) // the last value of a field counts
	})
}
