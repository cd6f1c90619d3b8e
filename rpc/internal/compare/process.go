package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"time"
)

// process is a child: this program again, in another role.
type process struct {
	assignment
	ready answer // its first
	cmd   *exec.Cmd
	in    io.WriteCloser
	out   *json.Decoder
}

// startProcess returns when the child is ready. The child ends with close, with ctx, or when
// this process ends.
func startProcess(ctx context.Context, a assignment) (*process, error) {
	text, err := json.Marshal(a)
	if err != nil {
		return nil, err
	}
	program, err := os.Executable()
	if err != nil {
		return nil, err
	}
	p := &process{assignment: a, cmd: exec.CommandContext(ctx, program)}
	p.cmd.Env = append(os.Environ(), roleVariable+"="+string(text))
	p.cmd.Stderr = os.Stderr
	if p.in, err = p.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	p.out = json.NewDecoder(out)
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	if p.ready, err = p.read(ctx); err != nil {
		p.close()
		return nil, err
	}
	return p, nil
}

// ask sends a command and waits for the answer, which ctx bounds, as it kills the process.
func (p *process) ask(ctx context.Context, c command) (answer, error) {
	if err := json.NewEncoder(p.in).Encode(c); err != nil {
		return answer{}, p.failed(ctx, err)
	}
	return p.read(ctx)
}

func (p *process) read(ctx context.Context) (answer, error) {
	var a answer
	if err := p.out.Decode(&a); err != nil {
		return a, p.failed(ctx, err)
	}
	if a.Error != "" {
		return a, p.failed(ctx, errors.New(a.Error))
	}
	return a, nil
}

func (p *process) failed(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil {
		err = cause
	}
	return fmt.Errorf("%s %s: %w", p.System, p.Role, err)
}

func (p *process) close() {
	_ = p.in.Close()
	_ = p.cmd.Wait() // it ends by os.Exit or by a signal
}

// fleet is all processes. Whoever makes it closes it, also where not all of them have started.
type fleet struct {
	all []*process
}

// site is the processes in which a system is measured.
type site struct {
	brokers []*process
	server  *process
	client  *process
}

// all are those of a site, the client last.
func (s site) all() []*process { return append(slices.Clone(s.brokers), s.server, s.client) }

// startSystems starts a broker, and a server and a client of each system.
func (f *fleet) startSystems(ctx context.Context, systems []system) (map[string]site, error) {
	brokers, err := f.startBrokers(ctx, 1)
	if err != nil {
		return nil, err
	}
	sites := map[string]site{}
	for _, s := range systems {
		if sites[s.name], err = f.startSite(ctx, brokers, assignment{System: s.name}); err != nil {
			return nil, err
		}
	}
	return sites, nil
}

// startBrokers starts one, or a cluster of so many.
func (f *fleet) startBrokers(ctx context.Context, n int) ([]*process, error) {
	var brokers []*process
	a := assignment{Role: roleBroker, Clustered: n > 1}
	for a.Node = range n {
		p, err := f.start(ctx, a)
		if err != nil {
			return nil, err
		}
		brokers = append(brokers, p)
		a.Route = brokers[0].ready.Route
	}
	return brokers, nil
}

// startSite starts a server and a client for what a says of them. Of a cluster the client has
// the first node and the server the second.
func (f *fleet) startSite(ctx context.Context, brokers []*process, a assignment) (s site, err error) {
	s.brokers = brokers
	a.Role, a.NATS = roleServer, brokers[min(1, len(brokers)-1)].ready.Address
	if s.server, err = f.start(ctx, a); err != nil {
		return s, err
	}
	a.Role, a.NATS, a.Address = roleClient, brokers[0].ready.Address, s.server.ready.Address
	s.client, err = f.start(ctx, a)
	return s, err
}

func (f *fleet) start(ctx context.Context, a assignment) (*process, error) {
	p, err := startProcess(ctx, a)
	if err == nil {
		f.all = append(f.all, p)
	}
	return p, err
}

// close ends all processes, the clients before their servers, and waits for them.
func (f *fleet) close() {
	for i := len(f.all) - 1; i >= 0; i-- {
		f.all[i].close()
	}
}

// sleep waits for d, or until ctx ends.
func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
