package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// process is a child: a NATS node, or this program as a replica or a client.
type process struct {
	name string
	j    *journal // the runner's
	cmd  *exec.Cmd
	done chan struct{} // closed when it has ended
	err  error         // how; to be read after done
}

// startProcess starts a child whose output goes to a file of its name in dir. Whatever happens,
// it ends with this process.
func startProcess(j *journal, dir, name string, cmd *exec.Cmd) (*process, error) {
	log, err := os.Create(filepath.Join(dir, name+".log"))
	if err != nil {
		return nil, err
	}
	defer log.Close()
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = childAttributes()
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	p := &process{name: name, j: j, cmd: cmd, done: make(chan struct{})}
	p.record(started, "")
	go func() {
		p.err = cmd.Wait()
		close(p.done)
	}()
	return p, nil
}

// startRole starts this program in another role.
func startRole(j *journal, a assignment) (*process, error) {
	text, err := json.Marshal(a)
	if err != nil {
		return nil, err
	}
	program, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(program)
	cmd.Env = append(slices.DeleteFunc(os.Environ(), isRole), roleVariable+"="+string(text))
	return startProcess(j, a.Dir, a.Name, cmd)
}

func isRole(variable string) bool { return strings.HasPrefix(variable, roleVariable+"=") }

func (p *process) record(k kind, text string) {
	p.j.write(record{Kind: k, Process: p.name, Text: text})
}

// signal sends a signal, as part of the plan.
func (p *process) signal(s syscall.Signal) error {
	p.record(event, s.String())
	if err := p.cmd.Process.Signal(s); err != nil {
		return fmt.Errorf("%s: %v: %w", p.name, s, err)
	}
	return nil
}

// kill is kill -9, as part of the plan.
func (p *process) kill() error {
	p.record(killed, "")
	if err := p.cmd.Process.Kill(); err != nil {
		return fmt.Errorf("kill %s: %w", p.name, err)
	}
	<-p.done
	return nil
}

// terminate asks the process to end and waits for it. Not to end in time breaks a promise: the
// process is made to write its stacks to its log, and killed.
func (p *process) terminate(limit time.Duration) {
	if !p.gone() {
		_ = p.signal(syscall.SIGTERM) // it may have ended meanwhile
	}
	if !p.ends(limit) {
		p.record(stuck, fmt.Sprintf("it has not ended %v after SIGTERM; its stacks are in %s.log", limit, p.name))
		_ = p.cmd.Process.Signal(syscall.SIGQUIT)
		if !p.ends(time.Second) {
			_ = p.cmd.Process.Kill()
		}
		<-p.done
		return
	}
	if p.err != nil {
		p.record(died, fmt.Sprintf("%v; its output is in %s.log", p.err, p.name))
	}
}

// gone reports whether the process has ended.
func (p *process) gone() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

func (p *process) ends(limit time.Duration) bool {
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case <-p.done:
		return true
	case <-timer.C:
		return false
	}
}

// await calls ready until it returns nil, the process ends, or startLimit has passed.
func (p *process) await(ctx context.Context, what string, ready func() error) error {
	ctx, cancel := context.WithTimeout(ctx, startLimit)
	defer cancel()
	for {
		err := ready()
		if err == nil {
			return nil
		}
		if p.gone() {
			return fmt.Errorf("%s: it has ended before it was %s: %w", p.name, what, errors.Join(p.err, err))
		}
		if sleep(ctx, tick) != nil {
			return fmt.Errorf("%s is not %s after %v: %w", p.name, what, startLimit, err)
		}
	}
}

// startLimit is how long a process may take to be ready.
const startLimit = 20 * time.Second
