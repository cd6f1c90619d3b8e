package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
)

// maxPayload of the nodes is small, so that large messages are cheap.
const maxPayload = 64 << 10

// nodeConfig is a node's configuration. Its ports are free ones of the loopback interface, which
// the node writes into a file. A node that is a lame duck drops a connection a second after
// lame_duck_grace_period; 30 s is the shortest duration that it takes.
const nodeConfig = `server_name: %q
listen: "127.0.0.1:-1"
ports_file_dir: %q
max_payload: %d
lame_duck_duration: "30s"
lame_duck_grace_period: "500ms"
`

// clusterConfig is added for a node of a cluster. The others find each other through the first.
const clusterConfig = `cluster {
  name: chaos
  listen: "127.0.0.1:-1"
  routes: [%s]
}
`

// node is a process of the real nats-server.
type node struct {
	*process
	url   string
	route string
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

// startNode starts a node; first is the first one of its cluster, or nil.
func startNode(ctx context.Context, j *journal, program, dir, name string, clustered bool, first *node) (*node, error) {
	ports := filepath.Join(dir, name)
	if err := os.Mkdir(ports, 0o700); err != nil {
		return nil, err
	}
	text := fmt.Sprintf(nodeConfig, name, ports, maxPayload)
	if clustered {
		route := ""
		if first != nil {
			route = first.route
		}
		text += fmt.Sprintf(clusterConfig, route)
	}
	config := filepath.Join(dir, name+".conf")
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		return nil, err
	}
	p, err := startProcess(j, dir, name, exec.Command(program, "-c", config))
	if err != nil {
		return nil, err
	}
	n := &node{process: p}
	return n, p.await(ctx, "listening", func() error { return n.readPorts(ports) })
}

func (n *node) readPorts(dir string) error {
	data, err := os.ReadFile(filepath.Join(dir, fmt.Sprintf("nats-server_%d.ports", n.cmd.Process.Pid)))
	if err != nil {
		return err
	}
	var ports struct{ Nats, Cluster []string }
	if err := json.Unmarshal(data, &ports); err != nil {
		return err
	}
	n.url = ports.Nats[0]
	if len(ports.Cluster) > 0 {
		n.route = ports.Cluster[0]
		if !strings.Contains(n.route, "://") {
			n.route = "nats://" + n.route
		}
	}
	return nil
}

// awaitCluster returns when a request from each node is answered at each other one.
func awaitCluster(ctx context.Context, nodes []*node) error {
	var conns []*nats.Conn
	for _, n := range nodes {
		nc, err := nats.Connect(n.url)
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
