package main

import (
	"bufio"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/natscall/natscall/cmd/natscall/internal/problem"
	"github.com/natscall/natscall/rpc"
)

// TestInterrupt: Ctrl-C cancels a call in a process of its own, which ends in good order.
func TestInterrupt(t *testing.T) {
	t.Parallel()
	if runtime.GOOS == "windows" {
		t.Log("Windows has no signal that a process can send to another one")
		return
	}
	c := newConsole(t)
	c.ok("call", "AddStock", `{"productId": "apple", "quantity": 1}`)
	self, err := os.Executable()
	must(t, err)
	cmd := exec.CommandContext(testContext(t), self, "call", "WatchStock", "--server", c.url)
	cmd.Env = append(os.Environ(), asTool+"=1")
	var stderr strings.Builder
	cmd.Stderr = &stderr
	stdout, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	if line, err := bufio.NewReader(stdout).ReadString('\n'); err != nil || !strings.Contains(line, "apple") {
		t.Errorf("%v: %s", err, line)
	}
	must(t, cmd.Process.Signal(os.Interrupt))
	_ = cmd.Wait() // the status is looked at next
	if got, want := cmd.ProcessState.ExitCode(), problem.StatusCall+int(rpc.CodeCanceled); got != want {
		t.Errorf("exit status %d, want %d: %s", got, want, &stderr)
	}
	if lines := strings.Count(stderr.String(), "\n"); lines > 2 || !strings.HasPrefix(stderr.String(), "natscall call: canceled: ") {
		t.Errorf("it says %s", &stderr)
	}
}

// TestTLS: a server whose certificate comes from an authority of its own.
func TestTLS(t *testing.T) {
	t.Parallel()
	certificate, authority := selfSigned(t)
	s := newShop(t, func(o *server.Options) {
		o.TLSConfig = &tls.Config{Certificates: []tls.Certificate{certificate}, MinVersion: tls.VersionTLS12}
		o.TLSTimeout = patience.Seconds()
	})
	url := strings.Replace(s.srv.URL(), "nats://", "tls://", 1)
	check(t, url, []mistake{{"unknown authority", []string{"ls"}, "", 1, "TLS with " + url + " fails: ", "--tlsca"}})
	if r := runAt(testContext(t), url, nil, "ls", "--tlsca", authority); r.status != problem.StatusOK {
		t.Errorf("exit status %d: %s", r.status, r.stderr)
	}
}

// selfSigned returns a certificate for this machine, and a file with it as its own authority.
func selfSigned(t *testing.T) (tls.Certificate, string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	must(t, err)
	file := filepath.Join(t.TempDir(), "ca.pem")
	must(t, os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600))
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, file
}
