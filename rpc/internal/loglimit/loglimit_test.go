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
		l = Limit{Every: time.Minute}
		l.Next()
		<-time.After(time.Minute - 1)
		_, early := l.Next()
		<-time.After(1)
		if unlogged, ok := l.Next(); early || !ok || unlogged != 1 {
			t.Errorf("a record a minute: early %v, %v with %d", early, ok, unlogged)
		}
	})
}
