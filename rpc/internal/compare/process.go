package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"time"
)

// process is a child: this program again, in another role.
type process struct {
	assignment
	address string // on which it serves
	cmd     *exec.Cmd
	in      io.WriteCloser
	out     *json.Decoder
}

// startProcess returns when the child is ready. The child ends with close, with ctx, or when this process ends.
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
	ready, err := p.read(ctx)
	if err != nil {
		p.close()
		return nil, err
	}
	p.address = ready.Address
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

// fleet is all processes.
type fleet struct {
	all    []*process
	broker *process
	pairs  map[string]pair // by system
}

type pair struct{ server, client *process }

// startFleet starts a broker, and a server and a client of each system.
func startFleet(ctx context.Context, systems []system) (f *fleet, err error) {
	f = &fleet{pairs: map[string]pair{}}
	defer func() {
		if err != nil {
			f.close()
		}
	}()
	if f.broker, err = f.start(ctx, assignment{Role: roleBroker}); err != nil {
		return nil, err
	}
	for _, s := range systems {
		var p pair
		if p.server, err = f.start(ctx, assignment{Role: roleServer, System: s.name, NATS: f.broker.address}); err != nil {
			return nil, err
		}
		if p.client, err = f.start(ctx, assignment{Role: roleClient, System: s.name, NATS: f.broker.address, Address: p.server.address}); err != nil {
			return nil, err
		}
		f.pairs[s.name] = p
	}
	return f, nil
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
