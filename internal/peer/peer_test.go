package main

import (
	"bytes"
	"io"
	"strings"
	"testing"

	"github.com/natscall/natscall/rpc"
	"github.com/natscall/natscall/rpc/rpctest"
)

// TestPeer: a peer passes its own checks. Tests of releases let it talk to those of other versions.
func TestPeer(t *testing.T) {
	srv := rpctest.NewServer(t)
	serving, input := io.Pipe()
	output, lines := io.Pipe()
	nc := srv.Connect()
	served := make(chan error, 1)
	go func() { served <- serve(t.Context(), nc, "peers.test", serving, lines) }()
	if _, err := output.Read(make([]byte, 100)); err != nil {
		t.Fatal(err)
	}
	nc = srv.Connect()
	client := rpc.NewClient(nc, rpc.WithSubjectPrefix("peers.test"))
	defer client.Close()
	var said bytes.Buffer
	if err := call(t.Context(), nc, client, "peers.test", &said); err != nil {
		t.Error(err)
	}
	if n := strings.Count(said.String(), "ok "); n < 19 {
		t.Errorf("it made %d kinds of calls:\n%s", n, &said)
	}
	if err := input.Close(); err != nil {
		t.Error(err)
	}
	if err := <-served; err != nil {
		t.Error(err)
	}
}

// TestNobody: a peer that nobody answers says so of every call.
func TestNobody(t *testing.T) {
	srv := rpctest.NewServer(t)
	nc := srv.Connect()
	client := rpc.NewClient(nc, rpc.WithSubjectPrefix("peers.test"), rpc.WithoutRetry())
	defer client.Close()
	var said bytes.Buffer
	err := call(t.Context(), nc, client, "peers.test", &said)
	if said.Len() > 0 || err == nil {
		t.Errorf("got %v, and\n%s", err, &said)
	}
}
