package rpcauth

import (
	"encoding/base64"
	"errors"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/jwt/v2"
	"github.com/nats-io/nkeys"
)

// trust knows whose signatures count.
type trust struct {
	issuers     map[string]string // accounts by their keys; "" for the key of a user without a JWT
	issuerFuncs []func(account, key string) bool
	revoked     []func(account, user string, issued time.Time) bool
	tokens      tokens
}

// isEmpty reports whether nobody is trusted.
func (t *trust) isEmpty() bool { return len(t.issuers) == 0 && len(t.issuerFuncs) == 0 }

// identify returns who has signed: the user with a key and, if it has one, a JWT.
func (t *trust) identify(key, token string, now time.Time, skew time.Duration) (*Identity, error) {
	if token == "" {
		return t.userWithoutToken(key)
	}
	claims, known := t.tokens.get(token)
	if !known {
		var err error
		if claims, err = decodeToken(token); err != nil {
			return nil, refuse(ReasonMalformed, "the JWT is not valid: %v", err)
		}
	}
	account, issued := accountOf(claims), time.Unix(claims.IssuedAt, 0)
	switch {
	case claims.Subject != key:
		return nil, refuse(ReasonMalformed, "the JWT is that of another user")
	case !t.accepts(account, claims.Issuer):
		return nil, refuse(ReasonIssuer, "nobody who is trusted has issued the JWT")
	case claims.Expires > 0 && !now.Before(time.Unix(claims.Expires, 0).Add(skew)):
		return nil, refuse(ReasonUser, "the user has expired")
	case claims.NotBefore > 0 && now.Before(time.Unix(claims.NotBefore, 0).Add(-skew)):
		return nil, refuse(ReasonUser, "the user is not valid yet")
	case t.isRevoked(account, key, issued):
		return nil, refuse(ReasonRevoked, "the user has been revoked")
	}
	return &Identity{
		Kind: KindSigned, Account: account, User: key,
		Name: claims.Name, Tags: claims.Tags, Issuer: claims.Issuer, Claims: claims,
	}, nil
}

func (t *trust) userWithoutToken(key string) (*Identity, error) {
	switch {
	case !t.accepts("", key):
		return nil, refuse(ReasonIssuer, "the user is not known, and has no JWT")
	case t.isRevoked("", key, time.Unix(0, 0)):
		return nil, refuse(ReasonRevoked, "the user has been revoked")
	}
	return &Identity{Kind: KindSigned, User: key}, nil
}

// accepts reports whether a key speaks for an account, or for itself if that is "".
func (t *trust) accepts(account, key string) bool {
	if owner, ok := t.issuers[key]; ok && owner == account {
		return true
	}
	for _, f := range t.issuerFuncs {
		if f(account, key) {
			return true
		}
	}
	return false
}

func (t *trust) isRevoked(account, user string, issued time.Time) bool {
	for _, f := range t.revoked {
		if f(account, user, issued) {
			return true
		}
	}
	return false
}

// hasSigned reports whether a signature is that of the user.
func hasSigned(key string, signed, signature []byte) bool {
	public, err := nkeys.FromPublicKey(key)
	return err == nil && public.Verify(signed, signature) == nil
}

// decodeToken verifies and decodes a JWT. Only the JWT itself is taken, and none of the other texts
// that a lenient decoder of base64 takes for it.
func decodeToken(token string) (*jwt.UserClaims, error) {
	for part := range strings.SplitSeq(token, ".") {
		if strings.ContainsAny(part, "\r\n") {
			return nil, errors.New("it has line ends")
		}
		if _, err := base64.RawURLEncoding.Strict().DecodeString(part); err != nil {
			return nil, err
		}
	}
	return jwt.DecodeUserClaims(token)
}

// The bounds of what is remembered. Decoded, a JWT takes a few times its size.
const (
	maxTokens     = 1024
	maxTokensSize = 4 << 20
	maxTokenSize  = 64 << 10
)

// tokens remembers JWTs that have been decoded and verified. Only those are put there whose users
// have shown their key, to this service or to the NATS server.
type tokens struct {
	mu     sync.RWMutex
	claims map[string]*jwt.UserClaims
	size   int // of the keys
}

func (t *tokens) get(token string) (claims *jwt.UserClaims, ok bool) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	claims, ok = t.claims[token]
	return claims, ok
}

func (t *tokens) put(token string, claims *jwt.UserClaims) {
	if _, known := t.get(token); known || len(token) > maxTokenSize {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.claims) >= maxTokens || t.size+len(token) > maxTokensSize || t.claims == nil {
		t.claims, t.size = map[string]*jwt.UserClaims{}, 0 // seldom, so it need not be clever
	}
	if _, again := t.claims[token]; !again {
		t.size += len(token)
	}
	t.claims[strings.Clone(token)] = claims // token is a part of the request
}
