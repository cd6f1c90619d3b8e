package rpcauth

import (
	"fmt"
	"strings"
	"testing"

	"github.com/nats-io/jwt/v2"
)

// TestTokens: what is remembered is bounded in number and size, and is no part of the request.
func TestTokens(t *testing.T) {
	var tokens tokens
	claims := new(jwt.UserClaims)
	for i := range 3 * maxTokens {
		tokens.put(fmt.Sprint(i), claims)
		if len(tokens.claims) > maxTokens {
			t.Fatalf("%d JWTs are remembered", len(tokens.claims))
		}
	}
	for i := range 3 * maxTokensSize / maxTokenSize {
		token := fmt.Sprintf("%0*d", maxTokenSize, i)
		tokens.put(token, claims)
		tokens.put(token, claims)
		sum := 0
		for key := range tokens.claims {
			sum += len(key)
		}
		if _, ok := tokens.get(token); !ok || sum != tokens.size || sum > maxTokensSize {
			t.Fatalf("%d bytes are remembered, counted as %d", sum, tokens.size)
		}
	}
	tokens.put(strings.Repeat("x", maxTokenSize+1), claims)
	if _, ok := tokens.get(strings.Repeat("x", maxTokenSize+1)); ok {
		t.Error("a large JWT is remembered")
	}
}
