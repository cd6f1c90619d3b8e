package main

import (
	"context"
	"net"
	"strings"
	"testing"

	"github.com/natscall/natscall/cmd/natscall/internal/problem"
)

// TestInterruptedConnecting: Ctrl-C ends the tool while it waits for a server that says nothing.
func TestInterruptedConnecting(t *testing.T) {
	t.Parallel()
	mute, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer mute.Close()
	ctx, interrupt := context.WithCancel(testContext(t))
	go func() {
		if conn, err := mute.Accept(); err == nil {
			defer conn.Close()
			interrupt()
			<-t.Context().Done()
		}
	}()
	r := runAt(ctx, "nats://"+mute.Addr().String(), strings.NewReader(""), "ls", "--timeout", "1h")
	if r.status != problem.StatusFailure || r.stderr != "natscall ls: interrupted while connecting\n" {
		t.Errorf("exit status %d: %s", r.status, r.stderr)
	}
}
