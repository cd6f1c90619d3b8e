package main

import (
	"context"
	"encoding/json"
	"os"
	"testing"
	"testing/synctest"
	"time"
)

// TestWatchStalls: whatever the watchdog is at when its process stops, the stall is recorded, once.
func TestWatchStalls(t *testing.T) {
	for _, test := range []struct {
		name         string
		looks, waits time.Duration // how long the third look at threads takes, and what it finds
		stalled      time.Duration
	}{
		{name: "no stall", looks: stall},
		{name: "the process stops at a look", looks: 3 * time.Second, stalled: 3 * time.Second},
		{name: "a thread waits", waits: time.Second, stalled: time.Second},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				j, err := openJournal(t.TempDir(), "client-0")
				if err != nil {
					t.Fatal(err)
				}
				defer j.file.Close()
				ctx, cancel := context.WithCancel(t.Context())
				looks := 0
				go watchStalls(ctx, j, func() time.Duration {
					if looks++; looks != 3 {
						return 0
					}
					<-time.After(test.looks)
					return test.waits
				})
				<-time.After(time.Minute)
				cancel()
				synctest.Wait()
				text, err := os.ReadFile(j.file.Name())
				if err != nil {
					t.Fatal(err)
				}
				var r record
				if len(text) > 0 {
					if err := json.Unmarshal(text, &r); err != nil { // there is one
						t.Fatal(err)
					}
				}
				if d := time.Duration(r.At-r.Since) * time.Microsecond; d != test.stalled {
					t.Errorf("it records a stall of %v, want %v", d, test.stalled)
				}
			})
		})
	}
}
