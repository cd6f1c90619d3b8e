package main

import (
	"bytes"
	"errors"
	"io"
	"net"
	"syscall"
	"testing"
	"time"
)

// ends are a network and both ends of a link that goes through it.
type ends struct {
	*network
	process, node net.Conn
}

// testLimit is how long these tests wait for what must come.
const testLimit = 30 * time.Second

func newEnds(t *testing.T) ends {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	n, err := openNetwork([]func() string{func() string { return listener.Addr().String() }})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(n.close)
	process, err := net.Dial("tcp", n.listeners[0].Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	node, err := listener.Accept()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []net.Conn{process, node} {
		t.Cleanup(func() { c.Close() })
		if err := c.SetDeadline(time.Now().Add(testLimit)); err != nil {
			t.Fatal(err)
		}
	}
	return ends{n, process, node}
}

// passes sends text from one end and reads it at the other.
func passes(t *testing.T, from, to net.Conn, text string) {
	t.Helper()
	if _, err := io.WriteString(from, text); err != nil {
		t.Fatal(err)
	}
	reads(t, to, text)
}

func reads(t *testing.T, from net.Conn, text string) {
	t.Helper()
	buf := make([]byte, len(text))
	if _, err := io.ReadFull(from, buf); err != nil || string(buf) != text {
		t.Fatalf("%q, %v", buf, err)
	}
}

// TestNetworkHold: bytes of one direction wait, in their order, and those of the other pass.
func TestNetworkHold(t *testing.T) {
	for _, held := range []direction{toNode, toProcess} {
		t.Run(held.String(), func(t *testing.T) {
			e := newEnds(t)
			from, to := e.process, e.node
			if held == toProcess {
				from, to = to, from
			}
			passes(t, from, to, "before")
			var w weather
			w.hold[held] = true
			e.set(w)
			if _, err := io.WriteString(from, "held,"); err != nil {
				t.Fatal(err)
			}
			passes(t, to, from, "the other direction")
			got := make(chan byte)
			go func() {
				var b [1]byte
				_, _ = to.Read(b[:]) // an error is a zero
				got <- b[0]
			}()
			if _, err := io.WriteString(from, " all of it"); err != nil {
				t.Fatal(err)
			}
			passes(t, to, from, "again")
			select {
			case b := <-got:
				t.Fatalf("%q has passed", b)
			default:
			}
			e.set(weather{})
			if b := <-got; b != 'h' {
				t.Fatalf("%q", b)
			}
			reads(t, to, "eld, all of it")
		})
	}
}

// TestNetworkCut: both ends get a reset, and the process may connect again.
func TestNetworkCut(t *testing.T) {
	e := newEnds(t)
	passes(t, e.process, e.node, "x")
	e.cut()
	for _, c := range []net.Conn{e.process, e.node} {
		if _, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
			t.Error(err)
		}
	}
	again, err := net.Dial("tcp", e.listeners[0].Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	again.Close()
}

// TestNetworkEnd: what one end has sent before it closes its connection arrives, and then the end.
func TestNetworkEnd(t *testing.T) {
	e := newEnds(t)
	e.set(weather{hold: [2]bool{true, true}})
	text := bytes.Repeat([]byte("all "), 10_000)
	if _, err := e.process.Write(text); err != nil {
		t.Fatal(err)
	}
	e.process.Close()
	e.set(weather{})
	got, err := io.ReadAll(e.node)
	if err != nil || !bytes.Equal(got, text) {
		t.Errorf("%d bytes of %d, %v", len(got), len(text), err)
	}
}

// TestNetworkLatency: bytes take at least as long as they are told to.
func TestNetworkLatency(t *testing.T) {
	for name, w := range map[string]weather{
		"latency":  {latency: 50 * time.Millisecond},
		"throttle": {rate: 20}, // a byte takes 50 ms
	} {
		t.Run(name, func(t *testing.T) {
			e := newEnds(t)
			e.set(w)
			begin := time.Now()
			passes(t, e.process, e.node, "x")
			passes(t, e.node, e.process, "y")
			if took := time.Since(begin); took < 100*time.Millisecond {
				t.Errorf("there and back in %v", took)
			}
		})
	}
}

// TestNetworkClose: close returns while bytes are held.
func TestNetworkClose(t *testing.T) {
	e := newEnds(t)
	e.set(weather{hold: [2]bool{true, true}})
	if _, err := io.WriteString(e.process, "x"); err != nil {
		t.Fatal(err)
	}
	e.close()
	e.close()
	if _, err := e.node.Read(make([]byte, 1)); err == nil {
		t.Error("bytes have passed")
	}
}

// TestNetworkNodeDown: a process whose node is down is told so.
func TestNetworkNodeDown(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	listener.Close()
	n, err := openNetwork([]func() string{func() string { return listener.Addr().String() }})
	if err != nil {
		t.Fatal(err)
	}
	defer n.close()
	c, err := net.Dial("tcp", n.listeners[0].Addr().String())
	if err != nil {
		return // told already
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(testLimit)); err != nil {
		t.Fatal(err)
	}
	var timeout net.Error
	if _, err := c.Read(make([]byte, 1)); err == nil || errors.As(err, &timeout) && timeout.Timeout() {
		t.Errorf("%v", err)
	}
}
