package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"runtime/pprof"
	"time"

	"github.com/nats-io/nats-server/v2/server"
)

// roleVariable is the environment variable that makes this program one of the processes that are measured.
const roleVariable = "NATSCALL_COMPARE_ROLE"

// assignment says what a process is to be.
type assignment struct {
	Role    string // roleBroker, roleServer, roleClient
	System  string
	NATS    string // URL
	Address string // of the system's server
}

const (
	roleBroker = "broker"
	roleServer = "server"
	roleClient = "client"
)

// command is a line on the standard input of a process.
type command struct {
	Do       string // doStart, doOpen, doClose, doStop
	Workload workload
	Count    int           // messages of each caller; 0 is until doStop
	Limit    time.Duration // after which calls fail
	Profile  string        // file for a CPU profile of the window, or ""
}

const (
	doStart = "start" // collect garbage; a client starts its callers
	doOpen  = "open"  // the window; the answer has the usage
	doClose = "close" // the window; the answer has the usage
	doStop  = "stop"  // the callers; the answer has the result
)

// answer is a line on the standard output of a process: the first when it is ready, then one to each command.
type answer struct {
	Error   string
	Address string // on which it serves
	Usage   usage
	Result  result
}

// runRole runs the process that the environment asks for, if it does, until its standard input ends.
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
	address, err := r.begin(a)
	if err != nil {
		return true, errors.Join(err, out.Encode(answer{Error: err.Error()}))
	}
	if err := out.Encode(answer{Address: address}); err != nil {
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
	profile *os.File
}

func (r *role) begin(a assignment) (address string, err error) {
	if a.Role == roleBroker {
		return startBroker()
	}
	s, err := findSystem(a.System)
	if err != nil {
		return "", err
	}
	if a.Role == roleServer {
		return s.serve(a.NATS)
	}
	r.peer, err = s.dial(a.NATS, a.Address)
	return "", err
}

// startBroker runs a NATS server with default limits.
func startBroker() (url string, err error) {
	s, err := server.NewServer(&server.Options{Host: "127.0.0.1", Port: server.RANDOM_PORT, NoLog: true, NoSigs: true})
	if err != nil {
		return "", err
	}
	s.Start()
	if !s.ReadyForConnections(10 * time.Second) {
		return "", errors.New("nats-server does not start")
	}
	return s.ClientURL(), nil
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
