package rpcauth

import (
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
		if claims, err = jwt.DecodeUserClaims(token); err != nil { // verifies the JWT too
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
	if !known {
		t.tokens.put(token, claims)
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

// maxTokens is how many JWTs are remembered, of up to some KiB each. Only those of trusted users
// are.
const maxTokens = 1024

// tokens remembers JWTs that have been decoded and verified.
type tokens struct {
	mu     sync.RWMutex
	claims map[string]*jwt.UserClaims
}

func (t *tokens) get(token string) (claims *jwt.UserClaims, ok bool) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	claims, ok = t.claims[token]
	return claims, ok
}

func (t *tokens) put(token string, claims *jwt.UserClaims) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.claims) >= maxTokens || t.claims == nil {
		t.claims = map[string]*jwt.UserClaims{} // seldom, so it need not be clever
	}
	t.claims[token] = claims
}
