package rpcauth

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"time"

	"github.com/nats-io/jwt/v2"
	"github.com/nats-io/nkeys"

	"github.com/natscall/natscall/rpc"
)

// VerifierOption is an option of [NewVerifier].
type VerifierOption interface{ applyVerifier(*Verifier) error }

// SignerOption is an option of [NewSigner].
type SignerOption interface{ applySigner(*signer) error }

// Option is an option of both.
type Option interface {
	VerifierOption
	SignerOption
}

type verifierOption func(*Verifier) error

func (o verifierOption) applyVerifier(v *Verifier) error { return o(v) }

type signerOption func(*signer) error

func (o signerOption) applySigner(s *signer) error { return o(s) }

// common is what both sides are told.
type common struct {
	audience string
	now      func() time.Time
}

type option func(*common) error

func (o option) applyVerifier(v *Verifier) error { return o(&v.common) }
func (o option) applySigner(s *signer) error     { return o(&s.common) }

// WithAudience says for whom signatures are meant: a text that clients and servers share, such as
// the name of a deployment whose users exist in another one too. It has at most 255 letters, digits
// and "._:/-". The default is "".
func WithAudience(audience string) Option {
	return option(func(c *common) error { c.audience = audience; return checkAudience(audience) })
}

// WithVulnerableServers says what to do about calls from other accounts while the connection is to
// a NATS server on which clients can forge who they are (CVE-2026-33223). The default is [Refuse].
func WithVulnerableServers(action Action) VerifierOption {
	return verifierOption(func(v *Verifier) error {
		v.onVulnerable = action
		if action > Warn {
			return fmt.Errorf("WithVulnerableServers(%d)", action)
		}
		return nil
	})
}

// Action is what to do about calls whose identity may be forged.
type Action uint8

const (
	// Refuse gives such callers no identity, and logs that once a minute. Whether they may call is
	// up to the rules.
	Refuse Action = iota
	// Warn only logs.
	Warn
)

// WithUserNames makes [Identity].User the user that the NATS server names, of callers in other
// accounts that have no JWT. Without it they are known by their account only, since a client that
// logs in as one user can make the server name another one, unless
//
//   - the NATS servers have a user with an NKey, in whatever account, so that an NKey that a client
//     sends has to be its own, or
//   - an auth callout decides about the user, and puts its name into the JWT.
//
// Users with JWTs are known by these, with or without WithUserNames.
func WithUserNames() VerifierOption {
	return verifierOption(func(v *Verifier) error { v.info.userNames = true; return nil })
}

// WithIssuers says whose signatures are trusted: public keys of accounts (A...), whose users show a
// JWT that the account has signed, and of users (U...) without a JWT. Several WithIssuers add up.
// Without any issuer, signatures are not looked at.
func WithIssuers(keys ...string) VerifierOption {
	return verifierOption(func(v *Verifier) error {
		for _, key := range keys {
			account := key
			if nkeys.IsValidPublicUserKey(key) {
				account = ""
			} else if !nkeys.IsValidPublicAccountKey(key) {
				return fmt.Errorf("WithIssuers: %q is no public key of an account or user", key)
			}
			if owner, ok := v.trust.issuers[key]; ok && owner != account {
				return fmt.Errorf("WithIssuers: %q is a signing key of %q too", key, owner)
			}
			v.trust.issuers[key] = account
		}
		return nil
	})
}

// WithSigningKeys adds signing keys (A...) of an account, by which JWTs of its users may be signed.
// The account's own key is not added. What scopes the account's JWT gives to its signing keys is
// not looked at: each of these keys vouches for any user of the account, with any name and tags.
func WithSigningKeys(account string, keys ...string) VerifierOption {
	return verifierOption(func(v *Verifier) error {
		for _, key := range append([]string{account}, keys...) {
			if !nkeys.IsValidPublicAccountKey(key) {
				return fmt.Errorf("WithSigningKeys: %q is no public key of an account", key)
			}
		}
		for _, key := range keys {
			if owner, ok := v.trust.issuers[key]; ok && owner != account {
				return fmt.Errorf("WithSigningKeys: %q is a key of %q too", key, owner)
			}
			v.trust.issuers[key] = account
		}
		return nil
	})
}

// WithIssuerFunc adds a function that reports whether a key is trusted. For the JWT of a user, key
// has signed it and account is that for which it speaks, the same if it is no signing key. For a
// user without a JWT, key is the user's and account is "". The function is called for each signed
// call whose issuer no other option accepts, before the signature is verified, so attackers have it
// called too and it must be quick. It may be called concurrently.
func WithIssuerFunc(trusted func(account, key string) bool) VerifierOption {
	return verifierOption(func(v *Verifier) error {
		v.trust.issuerFuncs = append(v.trust.issuerFuncs, trusted)
		return notNil("WithIssuerFunc", trusted != nil)
	})
}

// WithRevocations adds the revocations of an account, as its JWT has them: users, or all ("*"),
// whose JWTs were issued at or before a time. For users without a JWT the account is "", and they
// are revoked whatever the time is.
func WithRevocations(account string, list jwt.RevocationList) VerifierOption {
	return verifierOption(func(v *Verifier) error {
		copied := jwt.RevocationList{}
		for user, at := range list {
			copied[user] = at
		}
		v.trust.revoked = append(v.trust.revoked, func(of, user string, issued time.Time) bool {
			return of == account && copied.IsRevoked(user, issued)
		})
		return nil
	})
}

// WithRevoked adds a function that reports whether a user is revoked, for revocations that change.
// issued is when the user's JWT was issued; for a user without one it is the beginning of 1970, and
// account is "".
func WithRevoked(revoked func(account, user string, issued time.Time) bool) VerifierOption {
	return verifierOption(func(v *Verifier) error {
		v.trust.revoked = append(v.trust.revoked, revoked)
		return notNil("WithRevoked", revoked != nil)
	})
}

// WithClockSkew sets how far the clocks of callers, and of those that issue JWTs, may differ from
// the server's. The default is 30 s.
func WithClockSkew(d time.Duration) VerifierOption {
	return verifierOption(func(v *Verifier) error {
		v.limits.skew = d
		return inRange("WithClockSkew", d, 0, time.Hour)
	})
}

// WithMaxLifetime sets for how long a signature may be valid at most, without the clock skew; one
// that is valid for longer is refused. The default is a minute. The replay window has to hold what
// comes in this time.
func WithMaxLifetime(d time.Duration) VerifierOption {
	return verifierOption(func(v *Verifier) error {
		v.limits.lifetime = d
		return inRange("WithMaxLifetime", d, time.Millisecond, 24*time.Hour)
	})
}

// WithReplayWindow sets how many accepted signatures are remembered at a time. When there are more,
// signed calls are refused with CodeResourceExhausted. The default is 1,048,576. 0 remembers none,
// so that requests can be replayed until they expire; it is for [WithReplayStore].
func WithReplayWindow(n int) VerifierOption {
	return verifierOption(func(v *Verifier) error {
		v.window = newWindow(n)
		if n < 0 {
			return fmt.Errorf("WithReplayWindow(%d)", n)
		}
		return nil
	})
}

// WithReplayStore adds a store of accepted signatures that the instances of a service share, so
// that a request cannot be replayed to another instance, or to one that has restarted. first
// reports whether id, 32 hexadecimal digits, was not there, and adds it; it may be forgotten after
// until. If it returns an error, the call is refused with CodeUnavailable, and the error is logged.
// It runs last, after the rules.
//
// An id is that of a signature in a queue group. Where each instance gets the request, as there is
// no queue group or it was sent to one of them, it is that of a signature at an instance; an
// instance that has restarted is another one, and takes such a request again.
func WithReplayStore(first func(ctx context.Context, id string, until time.Time) (bool, error)) VerifierOption {
	return verifierOption(func(v *Verifier) error {
		v.store = first
		return notNil("WithReplayStore", first != nil)
	})
}

// WithSubject sets a function that returns the subject to which a request was published, where
// imports or mappings rename it. The default is [rpc.Call.Subject], the subject that it has come
// to.
func WithSubject(published func(*rpc.Call) string) VerifierOption {
	return verifierOption(func(v *Verifier) error {
		v.subject = published
		return notNil("WithSubject", published != nil)
	})
}

// WithCoveredHeaders names headers that signatures have to cover ([WithSignedHeaders]), also where
// a request does not have them.
func WithCoveredHeaders(names ...string) VerifierOption {
	return verifierOption(func(v *Verifier) (err error) {
		v.covered, err = canonicalNames(append(v.covered, names...))
		return err
	})
}

// RequireSignature makes methods refuse calls that are not signed. A pattern is the full name of a
// method, as in "/order.v1.OrderService/PlaceOrder", "/order.v1.OrderService/*", or "*". It applies
// beside the rules of [Allow].
func RequireSignature(patterns ...string) VerifierOption {
	return verifierOption(func(v *Verifier) error {
		for _, pattern := range patterns {
			if err := v.required.add(pattern, true); err != nil {
				return fmt.Errorf("RequireSignature: %w", err)
			}
		}
		return nil
	})
}

// Allow lets pass calls of methods that one of the rules accepts, and refuses the others. The most
// specific pattern ([RequireSignature] has the forms) counts, alone. A method without one may be
// called by anybody: Allow("*", ...) is for all those that have no pattern of their own. Without
// rules nobody may call.
func Allow(pattern string, rules ...Rule) VerifierOption {
	return verifierOption(func(v *Verifier) error {
		for _, rule := range rules {
			if rule == nil {
				return fmt.Errorf("Allow(%q): a rule is nil", pattern)
			}
		}
		if err := v.rules.add(pattern, rules); err != nil {
			return fmt.Errorf("Allow: %w", err)
		}
		return nil
	})
}

// WithLogger sets where refusals are logged, as warnings, one a second for each reason. The default
// is [slog.Default].
func WithLogger(l *slog.Logger) VerifierOption {
	return verifierOption(func(v *Verifier) error { v.logger = l; return notNil("WithLogger", l != nil) })
}

// WithSeed signs with the key of a user without a JWT: its seed (SU...).
func WithSeed(seed []byte) SignerOption {
	return signerOption(func(s *signer) error {
		pair, err := nkeys.FromSeed(seed)
		if err == nil {
			s.source, err = newStaticKey(pair, "")
		}
		return prefixed("WithSeed", err)
	})
}

// WithCredentials signs with the JWT and key in a file of credentials, which is read once. A
// connection with nats.UserCredentials reads it at each use instead, and so sees a new one.
func WithCredentials(file string) SignerOption {
	return signerOption(func(s *signer) error {
		contents, err := os.ReadFile(file)
		if err != nil {
			return prefixed("WithCredentials", err)
		}
		pair, err := nkeys.ParseDecoratedUserNKey(contents)
		if err != nil {
			return prefixed("WithCredentials", err)
		}
		token, err := nkeys.ParseDecoratedJWT(contents)
		if err == nil {
			s.source, err = newStaticKey(pair, token)
		}
		return prefixed("WithCredentials", err)
	})
}

// WithLifetime sets for how long signatures are valid. It must be enough for the way to the service
// and the wait in its queue. The default is 10 s.
func WithLifetime(d time.Duration) SignerOption {
	return signerOption(func(s *signer) error {
		s.lifetime = d
		return inRange("WithLifetime", d, time.Millisecond, 24*time.Hour)
	})
}

// WithSignedHeaders names headers that are signed, in any case of letters. That a request does not
// have one of them is signed too.
func WithSignedHeaders(names ...string) SignerOption {
	return signerOption(func(s *signer) (err error) {
		s.headers, err = canonicalNames(append(s.headers, names...))
		return err
	})
}

// WithMethods says which calls are signed, by patterns as those of [RequireSignature]. The default
// is all.
func WithMethods(patterns ...string) SignerOption {
	return signerOption(func(s *signer) error {
		for _, pattern := range patterns {
			if err := s.methods.add(pattern, true); err != nil {
				return fmt.Errorf("WithMethods: %w", err)
			}
		}
		return nil
	})
}

var errNil = errors.New("nil")

func notNil(option string, ok bool) error {
	if ok {
		return nil
	}
	return prefixed(option, errNil)
}

func prefixed(option string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", option, err)
}

func inRange(option string, d, lowest, highest time.Duration) error {
	if d < lowest || d > highest {
		return fmt.Errorf("%s(%v): it is from %v to %v", option, d, lowest, highest)
	}
	return nil
}
