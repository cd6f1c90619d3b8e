package rpcvalidate

import (
	"testing"
	"testing/synctest"
	"time"
)

// TestLimit: one record a second is let through, and knows how many were not.
func TestLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var l limit
		for i, test := range []struct {
			after    time.Duration
			unlogged int
			ok       bool
		}{
			{0, 0, true},
			{0, 0, false},
			{time.Second - 1, 0, false},
			{1, 2, true},
			{time.Hour, 0, true},
		} {
			<-time.After(test.after)
			if unlogged, ok := l.next(); unlogged != test.unlogged || ok != test.ok {
				t.Errorf("%d: %d, %v", i, unlogged, ok)
			}
		}
	})
}
