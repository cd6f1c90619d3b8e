package rpc

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/textproto"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
)

// fakeNATS is as much of a NATS server as one connection needs that publishes: it keeps the
// messages, and delivers none. A fuzzer is several times as fast with it as with a real one, and
// its coverage is that of this package.
type fakeNATS struct {
	maxPayload int
	served     sync.WaitGroup

	mu   sync.Mutex
	sent []*nats.Msg
	err  error
}

// connectFake connects to a server that ends with the test.
func connectFake(t testing.TB, maxPayload int) (*fakeNATS, *nats.Conn) {
	t.Helper()
	f := &fakeNATS{maxPayload: maxPayload}
	nc, err := nats.Connect("", nats.InProcessServer(f), nats.NoReconnect())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		nc.Close()
		f.served.Wait()
	})
	return f, nc
}

// InProcessConn implements nats.InProcessConnProvider.
func (f *fakeNATS) InProcessConn() (net.Conn, error) {
	near, far := net.Pipe()
	f.served.Go(func() {
		defer far.Close()
		if err := f.serve(bufio.NewReader(far), far); err != nil && err != io.EOF {
			f.mu.Lock()
			defer f.mu.Unlock()
			f.err = err
		}
	})
	return near, nil
}

// serve runs until the client has closed the connection.
func (f *fakeNATS) serve(from *bufio.Reader, to io.Writer) error {
	_, err := fmt.Fprintf(to, "INFO {\"headers\":true,\"proto\":1,\"max_payload\":%d}\r\n", f.maxPayload)
	for err == nil {
		var line string
		if line, err = from.ReadString('\n'); err != nil {
			return err
		}
		switch fields := strings.Fields(line); fields[0] {
		case "PING":
			_, err = io.WriteString(to, "PONG\r\n")
		case "PUB", "HPUB":
			err = f.keep(fields, from)
		}
	}
	return err
}

// keep takes a message, whose size is in the last field. The size of its header, if it has one, is
// in the field before.
func (f *fakeNATS) keep(fields []string, from *bufio.Reader) error {
	last := len(fields) - 1
	size, err := strconv.Atoi(fields[last])
	if err != nil {
		return fmt.Errorf("%q: %w", fields, err)
	}
	data := make([]byte, size+len("\r\n"))
	if _, err := io.ReadFull(from, data); err != nil {
		return err
	}
	m := &nats.Msg{Subject: fields[1], Data: data[:size]}
	if fields[0] == "HPUB" {
		last--
		header, err := strconv.Atoi(fields[last])
		if err != nil || header > size {
			return fmt.Errorf("%q: the size of the header", fields)
		}
		_, text, _ := bytes.Cut(m.Data[:header], []byte("\r\n")) // the version
		h, err := textproto.NewReader(bufio.NewReader(bytes.NewReader(text))).ReadMIMEHeader()
		if err != nil {
			return fmt.Errorf("%q: %w", text, err)
		}
		m.Header, m.Data = nats.Header(h), m.Data[header:]
	}
	if last == 3 {
		m.Reply = fields[2]
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.sent = append(f.sent, m)
	return nil
}

// take returns what nc has published, and forgets it.
func (f *fakeNATS) take(t testing.TB, nc *nats.Conn) []*nats.Msg {
	t.Helper()
	if err := nc.FlushTimeout(time.Minute); err != nil {
		t.Fatal(err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.err != nil {
		t.Fatal(f.err)
	}
	sent := f.sent
	f.sent = nil
	return sent
}
