package rpcauth

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/nats-io/jwt/v2"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nkeys"

	"github.com/natscall/natscall/rpc"
)

// NewSigner returns an interceptor for clients that signs each attempt of a call, and adds the
// signature, and the user's JWT, to its header. The key is that with which the connection logs in
// (nats.Nkey, nats.UserCredentials and the like) unless an option names another. Where there is
// none, NewSigner returns an error.
//
// Give it to [rpc.WithInterceptors] after interceptors that set headers, or change them in
// attempts. Calls that cannot be signed fail with CodeUnauthenticated.
func NewSigner(nc *nats.Conn, opts ...SignerOption) (rpc.Interceptor, error) {
	s := &signer{common: common{now: time.Now}, lifetime: defaultLifetime, methods: patterns[bool]{}}
	for _, opt := range opts {
		if opt == nil {
			return nil, errors.New("rpcauth: an option is nil")
		}
		if err := opt.applySigner(s); err != nil {
			return nil, fmt.Errorf("rpcauth: %w", err)
		}
	}
	if s.source == nil {
		var err error
		if s.source, err = newConnectionKey(nc); err != nil {
			return nil, fmt.Errorf("rpcauth: NewSigner: %w", err)
		}
	}
	return s.intercept, nil
}

// signer signs the calls of clients.
type signer struct {
	common
	source   source
	lifetime time.Duration
	headers  []string
	methods  patterns[bool] // empty for all
}

// source is where a key comes from.
type source interface {
	// user returns the public key of the user, and its JWT or "".
	user(now time.Time) (key, token string, err error)
	sign([]byte) ([]byte, error)
}

func (s *signer) intercept(ctx context.Context, call *rpc.Call, next rpc.Next) error {
	if call.OnServer() {
		return rpc.Errorf(rpc.CodeInternal, "%s: a signer is for clients, a Verifier for servers", call.Method())
	}
	if _, ok := s.methods.find(call.Method()); ok || len(s.methods) == 0 {
		call.OnAttempt(func(a *rpc.Attempt) error { return s.attempt(call, a) })
	}
	return next(ctx, call)
}

// attempt signs an attempt.
func (s *signer) attempt(call *rpc.Call, a *rpc.Attempt) error {
	now := s.now()
	key, token, err := s.source.user(now)
	if err != nil {
		return rpc.Errorf(rpc.CodeUnauthenticated, "%s: the call cannot be signed: %w", call.Method(), err)
	}
	out := signature{key: key, issued: now, expires: now.Add(s.lifetime), audience: s.audience, headers: s.headers}
	if a.ID() == "" {
		var nonce [nonceBytes]byte
		_, _ = rand.Read(nonce[:]) // never fails
		out.nonce = base64url.EncodeToString(nonce[:])
	}
	signed := appendSigned(nil, &out, &request{
		method: call.Method(), subject: a.Subject(), id: a.ID(), codec: call.Peer().Codec,
		data: a.Data(), streams: streams(call.Kind()), header: a.Header(), jwt: token,
	})
	if out.signature, err = s.source.sign(signed); err != nil {
		return rpc.Errorf(rpc.CodeUnauthenticated, "%s: the call cannot be signed: %w", call.Method(), err)
	}
	if token != "" {
		if err := a.SetHeader(jwtHeader, token); err != nil {
			return err
		}
	}
	return a.SetHeader(signatureHeader, out.String())
}

// staticKey is a key that does not change.
type staticKey struct {
	key, token string
	private    ed25519.PrivateKey
}

// newStaticKey returns a source with a pair of keys, and the JWT of their user if that has one.
func newStaticKey(pair nkeys.KeyPair, token string) (*staticKey, error) {
	seed, err := pair.Seed()
	if err != nil {
		return nil, err
	}
	prefix, raw, err := nkeys.DecodeSeed(seed)
	if err != nil {
		return nil, err
	}
	if prefix != nkeys.PrefixByteUser {
		return nil, errors.New("the seed is not that of a user")
	}
	key, err := pair.PublicKey()
	if err != nil {
		return nil, err
	}
	if token != "" {
		if owner, err := userOf(token); err != nil {
			return nil, err
		} else if owner != key {
			return nil, errors.New("the JWT and the seed are those of two users")
		}
	}
	return &staticKey{key, token, ed25519.NewKeyFromSeed(raw)}, nil
}

func (k *staticKey) user(time.Time) (key, token string, err error) { return k.key, k.token, nil }

func (k *staticKey) sign(b []byte) ([]byte, error) { return ed25519.Sign(k.private, b), nil }

// userOf returns the public key of the user of a JWT.
func userOf(token string) (string, error) {
	claims, err := jwt.DecodeUserClaims(token)
	if err != nil {
		return "", fmt.Errorf("the JWT of the user: %w", err)
	}
	if claims.BearerToken { // every listener would get it with the request
		return "", errors.New("the JWT of the user is a bearer token: whoever sees it can log in")
	}
	return claims.Subject, nil
}

// tokenRefresh is how long the JWT of a connection is used before the connection is asked for it
// again, as it may read it from a file.
const tokenRefresh = 5 * time.Second

// connectionKey is the key with which a connection logs in.
type connectionKey struct {
	signature nats.SignatureHandler
	userJWT   nats.UserJWTHandler // nil for a user without a JWT

	mu         sync.Mutex
	key, token string
	until      time.Time // when the JWT is to be read again
}

func newConnectionKey(nc *nats.Conn) (*connectionKey, error) {
	if nc == nil {
		return nil, errors.New("there is no connection, and no other key (WithSeed, WithCredentials)")
	}
	o := &nc.Opts
	if o.SignatureCB == nil || o.UserJWT == nil && o.Nkey == "" {
		return nil, errors.New("the connection does not log in with an NKey; WithSeed or WithCredentials name another key")
	}
	k := &connectionKey{signature: o.SignatureCB, userJWT: o.UserJWT, key: o.Nkey}
	_, _, err := k.user(time.Now())
	return k, err
}

func (k *connectionKey) user(now time.Time) (key, token string, err error) {
	if k.userJWT == nil {
		return k.key, "", nil
	}
	k.mu.Lock()
	key, token = k.key, k.token
	left := k.until.Sub(now)
	k.mu.Unlock()
	if left > 0 && left <= tokenRefresh { // or the clock was set back
		return key, token, nil
	}
	read, err := k.userJWT() // the user's code, perhaps by several goroutines
	if err != nil {
		return "", "", err
	}
	if read != token {
		if key, err = userOf(read); err != nil {
			return "", "", err
		}
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.key, k.token, k.until = key, read, now.Add(tokenRefresh)
	return key, read, nil
}

func (k *connectionKey) sign(b []byte) ([]byte, error) { return k.signature(b) }
