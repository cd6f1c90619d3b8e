package loglimit

import (
	"testing"
	"testing/synctest"
	"time"
)

// TestLimit: the first record of each second is let through, and knows of the others.
func TestLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var l Limit
		for i, test := range []struct {
			after    time.Duration
			unlogged int
			ok       bool
		}{
			{0, 0, true},
			{0, 0, false},
			{time.Second / 2, 0, false},
			{time.Second / 2, 2, true},
			{time.Second, 0, true},
			{time.Second - 1, 0, false},
			{time.Hour, 1, true},
		} {
			<-time.After(test.after)
			if unlogged, ok := l.Next(); unlogged != test.unlogged || ok != test.ok {
				t.Errorf("record %d: %d, %v", i, unlogged, ok)
			}
		}
	})
}
