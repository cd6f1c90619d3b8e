package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"runtime/pprof"
	"slices"
	"time"

	"github.com/nats-io/nats-server/v2/server"
)

// roleVariable is the environment variable that makes this program one of the processes that are
// measured.
const roleVariable = "NATSCALL_COMPARE_ROLE"

// assignment says what a process is to be.
type assignment struct {
	Role    string // roleBroker, roleServer, roleClient
	System  string
	NATS    string // URL
	Address string // of the system's server

	Replicas  int    // a server: so many of them, each with a connection of its own; 0 is one
	Holding   string // hold these, instead of serving and calling for a system
	Clustered bool   // a broker: be part of a cluster
	Node      int    // its number in the cluster, from 0
	Route     string // URL of the cluster's node 0
}

const (
	roleBroker = "broker"
	roleServer = "server"
	roleClient = "client"
)

// command is a line on the standard input of a process.
type command struct {
	Do       string // doStart, doOpen, doClose, doStop, doHold, doWeigh
	Workload workload
	Count    int           // messages of each caller, where 0 is until doStop; or of what is held
	Limit    time.Duration // after which calls fail
	Profile  string        // file for a CPU profile of the window, or ""
}

const (
	doStart = "start" // collect garbage; a client starts its callers
	doOpen  = "open"  // the window; the answer has the usage
	doClose = "close" // the window; the answer has the usage
	doStop  = "stop"  // the callers; the answer has the result
	doHold  = "hold"  // so many more; it is answered when they are held
	doWeigh = "weigh" // collect garbage; the answer has the memory
)

// answer is a line on the standard output of a process: the first when it is ready, then one to
// each command.
type answer struct {
	Error   string
	Address string // on which it serves
	Route   string // on which a broker's cluster finds it
	Usage   usage
	Result  result
	Memory  memory
}

// runRole runs the process that the environment asks for, if it does, until its standard input
// ends.
func runRole() (ran bool, err error) {
	text := os.Getenv(roleVariable)
	if text == "" {
		return false, nil
	}
	var a assignment
	if err := json.Unmarshal([]byte(text), &a); err != nil {
		return true, err
	}
	out := json.NewEncoder(os.Stdout)
	os.Stdout = os.Stderr // for whoever prints
	r := &role{}
	ready, err := r.begin(a)
	if err != nil {
		return true, errors.Join(err, out.Encode(answer{Error: err.Error()}))
	}
	if err := out.Encode(ready); err != nil {
		return true, err
	}
	for c := range commands(os.Stdin) {
		reply, err := r.obey(c)
		if err != nil {
			reply.Error = err.Error()
		}
		if err := out.Encode(reply); err != nil {
			return true, err
		}
	}
	return true, nil
}

// commands reads in. The process ends with it, even in the middle of a command: the parent is gone.
func commands(in io.Reader) <-chan command {
	lines := make(chan command)
	go func() {
		for d := json.NewDecoder(in); ; {
			var c command
			if d.Decode(&c) != nil {
				os.Exit(0)
			}
			lines <- c
		}
	}()
	return lines
}

// role is the state of a process.
type role struct {
	peer    peer // of a client
	load    *load
	hold    hold // of one that holds
	profile *os.File
}

func (r *role) begin(a assignment) (ready answer, err error) {
	if a.Role == roleBroker {
		return startBroker(a)
	}
	if a.Holding != "" {
		r.hold, err = startHolding(a)
		return ready, err
	}
	s, err := findSystem(a.System, slices.Concat(systems(), growthSystems()))
	if err != nil {
		return ready, err
	}
	if a.Role == roleClient {
		r.peer, err = s.dial(a.NATS, a.Address)
		if err == nil {
			err = awaitServer(r.peer)
		}
		return ready, err
	}
	for range max(1, a.Replicas) {
		if ready.Address, err = s.serve(a.NATS); err != nil {
			return ready, err
		}
	}
	return ready, nil
}

// awaitServer returns when a call has come back: the news of a server takes a moment to cross a
// cluster.
func awaitServer(p peer) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	for {
		_, err := p.echo(ctx, newData(smallCall))
		if err == nil {
			return nil
		}
		if sleep(ctx, 10*time.Millisecond) != nil {
			return fmt.Errorf("the server does not answer: %w", err)
		}
	}
}

// maxPending is twice what the largest workload has in flight. That is the default, at which the
// broker closes the connection of whoever falls behind, as a busy machine lets a process do.
const maxPending = 128 << 20

// startBroker runs a NATS server with default limits but for maxPending. A node of a cluster is
// ready when it is connected to those before it.
func startBroker(a assignment) (ready answer, err error) {
	options := &server.Options{Host: "127.0.0.1", Port: server.RANDOM_PORT, NoLog: true, NoSigs: true, MaxPending: maxPending}
	if a.Clustered {
		options.Cluster = server.ClusterOpts{Name: "compare", Host: "127.0.0.1", Port: server.RANDOM_PORT}
	}
	if a.Route != "" {
		options.Routes = server.RoutesFromStr(a.Route)
	}
	s, err := server.NewServer(options)
	if err != nil {
		return ready, err
	}
	s.Start()
	if !s.ReadyForConnections(patience) {
		return ready, errors.New("nats-server does not start")
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	for s.NumRemotes() < a.Node {
		if sleep(ctx, 10*time.Millisecond) != nil {
			return ready, errors.New("the cluster does not come together")
		}
	}
	ready.Address = s.ClientURL()
	if a.Clustered {
		ready.Route = "nats://" + s.ClusterAddr().String()
	}
	return ready, nil
}

func (r *role) obey(c command) (a answer, err error) {
	switch c.Do {
	case doStart:
		runtime.GC()
		if r.peer != nil {
			r.load = startLoad(r.peer, c.Workload, c.Count, c.Limit)
		}
	case doOpen:
		if err := r.startProfile(c.Profile); err != nil {
			return a, err
		}
		r.setOpen(true)
		a.Usage = currentUsage()
	case doClose:
		r.setOpen(false)
		a.Usage = currentUsage()
		err = r.stopProfile()
	case doStop:
		a.Result = r.load.stop()
	case doHold:
		err = r.hold(c.Count)
	case doWeigh:
		a.Memory = weigh()
	default:
		err = fmt.Errorf("there is no command %q", c.Do)
	}
	return a, err
}

func (r *role) setOpen(open bool) {
	if r.load != nil {
		r.load.open.Store(open)
	}
}

func (r *role) startProfile(name string) (err error) {
	if name == "" {
		return nil
	}
	if r.profile, err = os.Create(name); err != nil {
		return err
	}
	return pprof.StartCPUProfile(r.profile)
}

func (r *role) stopProfile() error {
	if r.profile == nil {
		return nil
	}
	pprof.StopCPUProfile()
	defer func() { r.profile = nil }()
	return r.profile.Close()
}
