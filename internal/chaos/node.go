package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/nats-io/nats.go"
)

// maxPayload of the nodes is small, so that large messages are cheap.
const maxPayload = 64 << 10

// nodeConfig is a node's configuration. Its ports are free ones of the loopback interface, which
// the node writes into a file. A node that is a lame duck drops a connection a second after
// lame_duck_grace_period; 30 s is the shortest duration that it takes.
const nodeConfig = `server_name: %[1]q
listen: "127.0.0.1:-1"
http: "127.0.0.1:-1"
ports_file_dir: %[2]q
max_payload: %[3]d
lame_duck_duration: "30s"
lame_duck_grace_period: "500ms"
no_auth_user: runner
authorization: {users: [
  {user: runner, password: %[4]s}
  {user: client, password: %[4]s%[5]s}
  {user: replica, password: %[4]s%[6]s}
]}
%[7]s
`

// clusterConfig is added for a node of a cluster, which finds the others through any of them.
const clusterConfig = `cluster {
  name: chaos
  listen: "127.0.0.1:-1"
  routes: [%s]
}
`

// password is that of all users.
const password = "chaos"

// rules are what reloads of a node's configuration change. The zero value has none.
type rules struct {
	denyPublish   string // a subject that clients must not publish to
	denySubscribe string // a subject that replicas must not subscribe to
	more          string // lines of configuration
}

func (r rules) permissions(verb, subject string) string {
	if subject == "" {
		return ""
	}
	return fmt.Sprintf(", permissions: {%s: {deny: %q}}", verb, subject)
}

// node is a real nats-server.
type node struct {
	*process // the one of now

	j         *journal
	program   string
	dir, name string
	clustered bool
	routes    []string // to the other nodes, when it was started
	starts    int
	down      bool

	mu      sync.Mutex
	address string // for clients, host:port
	route   string
	monitor string // a URL
}

// buildNATS builds the nats-server of this module's go.mod.
func buildNATS(ctx context.Context, dir string) (program string, err error) {
	program = filepath.Join(dir, "nats-server")
	cmd := exec.CommandContext(ctx, "go", "build", "-o", program, "github.com/nats-io/nats-server/v2")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build nats-server: %w\n%s", err, out)
	}
	return program, nil
}

// start starts a node, again if it is down. Others are the nodes of its cluster that it may know.
func (n *node) start(ctx context.Context, others []*node) error {
	ports := filepath.Join(n.dir, n.name)
	if err := os.MkdirAll(ports, 0o700); err != nil {
		return err
	}
	n.routes = nil
	for _, other := range others {
		if other != n && !other.down {
			n.routes = append(n.routes, fmt.Sprintf("%q", other.route))
		}
	}
	if err := n.configure(rules{}); err != nil {
		return err
	}
	name := n.name
	if n.starts > 0 {
		name = fmt.Sprintf("%s.%d", n.name, n.starts)
	}
	n.starts++
	p, err := startProcess(n.j, n.dir, name, exec.Command(n.program, "-c", n.config()))
	if err != nil {
		return err
	}
	n.process, n.down = p, false
	return p.await(ctx, "listening", func() error { return n.readPorts(ports) })
}

func (n *node) config() string { return filepath.Join(n.dir, n.name+".conf") }

// configure writes the configuration.
func (n *node) configure(r rules) error {
	text := fmt.Sprintf(nodeConfig, n.name, filepath.Join(n.dir, n.name), maxPayload, password,
		r.permissions("publish", r.denyPublish), r.permissions("subscribe", r.denySubscribe), r.more)
	if n.clustered {
		text += fmt.Sprintf(clusterConfig, strings.Join(n.routes, ", "))
	}
	return os.WriteFile(n.config(), []byte(text), 0o600)
}

// reload makes the node read a configuration, and returns when it has.
func (n *node) reload(ctx context.Context, r rules) error {
	path := filepath.Join(n.dir, n.process.name+".log")
	before, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if err := errors.Join(n.configure(r), n.signal(syscall.SIGHUP)); err != nil {
		return err
	}
	return n.await(ctx, "reloaded", func() error {
		log, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if log = log[len(before):]; !bytes.Contains(log, []byte("Reloaded server configuration")) {
			return fmt.Errorf("%s says %q", path, log)
		}
		return nil
	})
}

func (n *node) readPorts(dir string) error {
	data, err := os.ReadFile(filepath.Join(dir, fmt.Sprintf("nats-server_%d.ports", n.cmd.Process.Pid)))
	if err != nil {
		return err
	}
	var ports struct{ Nats, Cluster, Monitoring []string }
	if err := json.Unmarshal(data, &ports); err != nil {
		return err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.address = strings.TrimPrefix(ports.Nats[0], "nats://")
	n.monitor = ports.Monitoring[0]
	if len(ports.Cluster) > 0 {
		n.route = ports.Cluster[0]
		if !strings.Contains(n.route, "://") {
			n.route = "nats://" + n.route
		}
	}
	return nil
}

// now is where the node is to be found by clients. It may be called concurrently.
func (n *node) now() string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.address
}

func (n *node) url() string { return "nats://" + n.now() }

// awaitCluster returns when a request from each node is answered at each other one.
func awaitCluster(ctx context.Context, nodes []*node) error {
	var conns []*nats.Conn
	for _, n := range nodes {
		nc, err := nats.Connect(n.url())
		if err != nil {
			return err
		}
		defer nc.Close()
		if _, err := nc.Subscribe("probe."+n.name, func(m *nats.Msg) { _ = m.Respond(nil) }); err != nil {
			return err
		}
		conns = append(conns, nc)
	}
	for _, nc := range conns {
		for _, n := range nodes {
			err := n.await(ctx, "part of the cluster", func() error {
				_, err := nc.Request("probe."+n.name, nil, time.Second)
				return err
			})
			if err != nil {
				return err
			}
		}
	}
	return nil
}
