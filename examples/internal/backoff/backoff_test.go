package backoff

import (
	"context"
	"testing"
	"testing/synctest"
	"time"
)

func TestAttempts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := Policy{First: 10 * time.Millisecond, Limit: 50 * time.Millisecond, Max: 6}
		began, n := time.Now(), 0
		for i := range p.Attempts(t.Context()) {
			if i != n {
				t.Errorf("attempt %d, want %d", i, n)
			}
			n++
		}
		if most := (10 + 20 + 40 + 50 + 50) * time.Millisecond; n != 6 || time.Since(began) > most {
			t.Errorf("%d attempts in %v, want 6 in at most %v", n, time.Since(began), most)
		}
	})
}

func TestAttemptsEndWithContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		began := time.Now()
		for range (Policy{First: time.Hour, Limit: time.Hour}).Attempts(ctx) {
			// The first attempt comes at once.
		}
		if waited := time.Since(began); waited > time.Second {
			t.Errorf("waited %v", waited)
		}
		for range (Policy{}).Attempts(ctx) {
			t.Error("an attempt after the end")
		}
	})
}
