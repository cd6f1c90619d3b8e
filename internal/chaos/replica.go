package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"runtime/pprof"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/natscall/natscall/rpc"
	"github.com/natscall/natscall/rpc/rpcdedup"

	chaosv1 "github.com/natscall/natscall/internal/chaos/gen/chaos/v1"
	"github.com/natscall/natscall/internal/chaos/gen/chaos/v1/chaosv1nats"
)

// replicaKey is the metadata in which discovery finds a replica's name.
const replicaKey = "replica"

// gracePeriod is more than any handler takes to end by itself.
const gracePeriod = 10 * time.Second

// runReplica serves until ctx ends, and then ends as a service does that is replaced.
func (a assignment) runReplica(ctx context.Context, nc *nats.Conn, j *journal) error {
	options := []rpc.ServerOption{
		rpc.WithHeartbeat(a.Heartbeat),
		rpc.WithGracePeriod(gracePeriod),
		rpc.WithServiceMetadata(map[string]string{replicaKey: a.Name}),
		rpc.WithLogger(slog.New(slog.NewTextHandler(os.Stderr, nil))),
	}
	if a.Slots > 0 {
		options = append(options, rpc.WithMaxConcurrency(a.Slots))
	}
	registers, err := dialStore(a.Store)
	if err != nil {
		return err
	}
	defer registers.close()
	srv := rpc.NewServer(nc, options...)
	if err := chaosv1nats.RegisterChaosServiceServer(srv, &service{j: j, name: a.Name, registers: registers},
		rpcdedup.Server(registers, rpcdedup.Require(chaosv1nats.ChaosServicePayMethod))); err != nil {
		return err
	}
	stopped := make(chan struct{})
	defer close(stopped)
	context.AfterFunc(ctx, func() { dumpUnless(stopped, gracePeriod/2) })
	serving, stop := context.WithCancel(ctx)
	followed := followHealth(serving, srv)
	err = srv.Run(ctx)
	stop()
	<-followed
	if a.Pinned && errors.Is(err, nats.ErrDisconnected) {
		slog.Warn("the network or the node has gone first", "error", err) // and callers were told
		return nil
	}
	return err
}

var errIll = errors.New("it was told so")

// followHealth makes the server unhealthy and healthy when the process is told, until ctx ends.
// Then the channel is closed.
func followHealth(ctx context.Context, srv *rpc.Server) <-chan struct{} {
	told, ended := make(chan os.Signal, 1), make(chan struct{})
	signal.Notify(told, signalIll, signalWell)
	go func() {
		defer close(ended)
		defer signal.Stop(told)
		for {
			var err error
			select {
			case s := <-told:
				if s == signalIll {
					err = errIll
				}
			case <-ctx.Done():
				return
			}
			if err := srv.SetHealth("", err); err != nil {
				slog.Error("health", "error", err)
			}
		}
	}()
	return ended
}

// dumpUnless writes all stacks to the log unless done is closed within d: they say what a
// shutdown waits for.
func dumpUnless(done <-chan struct{}, d time.Duration) {
	select {
	case <-done:
	case <-time.After(d):
		_ = pprof.Lookup("goroutine").WriteTo(os.Stderr, 2) // to help, if it can
	}
}

// callHeader is the request header with a stream's id, which its handler records before the
// first item has come.
const callHeader = "Chaos-Call"

// service implements ChaosService. Each handler records that it runs before anything else,
// and that it has run as the last thing before it returns.
type service struct {
	j         *journal
	name      string
	registers registers
	runs      atomic.Int64
}

// begin records an execution and names it.
func (s *service) begin(call, method string) string {
	name := fmt.Sprintf("%s/%d", s.name, s.runs.Add(1))
	s.j.write(record{Kind: run, Call: call, Method: method, Run: name})
	return name
}

// end records how an execution ends.
func (s *service) end(r record, err error) {
	r.Kind, r.Code = ran, rpc.CodeOf(err).String()
	s.j.write(r)
}

// aborted is the error of a handler that is asked to fail, or that drains. Its message is the
// name of the execution, so that the client's records say which one the error came from.
func aborted(run string) error { return rpc.NewError(rpc.CodeAborted, run) }

func (s *service) work(ctx context.Context, method string, req *chaosv1.WorkRequest) (res *chaosv1.WorkResponse, err error) {
	name := s.begin(req.GetCall(), method)
	defer func() {
		wrong := wrongContent(req.GetCall(), requestNumber, req.GetData())
		s.end(record{Call: req.GetCall(), Method: method, Run: name, Wrong: wrong}, err)
	}()
	if err := sleep(ctx, time.Duration(req.GetSleepUs())*time.Microsecond); err != nil {
		return nil, err
	}
	if req.GetFail() {
		return nil, aborted(name)
	}
	data := content(req.GetCall(), responseNumber, int(req.GetReplySize()))
	return &chaosv1.WorkResponse{Call: req.GetCall(), Run: name, Data: data}, nil
}

func (s *service) Add(ctx context.Context, req *chaosv1.WorkRequest) (*chaosv1.WorkResponse, error) {
	return s.work(ctx, methodAdd, req)
}

func (s *service) Pay(ctx context.Context, req *chaosv1.WorkRequest) (*chaosv1.WorkResponse, error) {
	return s.work(ctx, methodPay, req)
}

func (s *service) Put(ctx context.Context, req *chaosv1.WorkRequest) (*chaosv1.WorkResponse, error) {
	return s.work(ctx, methodPut, req)
}

func (s *service) Get(ctx context.Context, req *chaosv1.WorkRequest) (*chaosv1.WorkResponse, error) {
	return s.work(ctx, methodGet, req)
}

func (s *service) Note(ctx context.Context, req *chaosv1.WorkRequest) error {
	_, err := s.work(ctx, methodNote, req)
	return err
}

// operate is a handler of a replica. Before anything else that may fail it does the operation.
func (s *service) operate(ctx context.Context, method string, req *chaosv1.RegisterRequest) (res *chaosv1.RegisterResponse, err error) {
	name := s.begin(req.GetCall(), method)
	defer func() { s.end(record{Call: req.GetCall(), Method: method, Run: name}, err) }()
	answer := s.registers.apply(method, Operation{Key: req.GetKey(), Value: req.GetValue(), Expected: req.GetExpected()})
	if err := sleep(ctx, time.Duration(req.GetSleepUs())*time.Microsecond); err != nil {
		return nil, err
	}
	if req.GetFail() {
		return nil, aborted(name)
	}
	return &chaosv1.RegisterResponse{Call: req.GetCall(), Run: name, Value: answer.Value, Swapped: answer.Swapped}, nil
}

func (s *service) Read(ctx context.Context, req *chaosv1.RegisterRequest) (*chaosv1.RegisterResponse, error) {
	return s.operate(ctx, methodRead, req)
}

func (s *service) Increase(ctx context.Context, req *chaosv1.RegisterRequest) (*chaosv1.RegisterResponse, error) {
	return s.operate(ctx, methodIncrease, req)
}

func (s *service) Swap(ctx context.Context, req *chaosv1.RegisterRequest) (*chaosv1.RegisterResponse, error) {
	return s.operate(ctx, methodSwap, req)
}

func (s *service) Watch(ctx context.Context, req *chaosv1.WatchRequest, to *rpc.Sender[*chaosv1.Item]) (err error) {
	name := s.begin(req.GetCall(), methodWatch)
	sent := 0
	defer func() {
		s.end(record{Call: req.GetCall(), Method: methodWatch, Run: name, Sent: sent}, err)
	}()
	draining := rpc.CallFromContext(ctx).Draining()
	pause := time.Duration(req.GetPauseUs()) * time.Microsecond
	for sent < int(req.GetCount()) {
		select {
		case <-draining:
			return aborted(name)
		default:
		}
		if err := to.Send(newItem(req.GetCall(), sent, int(req.GetSize()))); err != nil {
			return err
		}
		sent++
		if err := sleep(ctx, pause); err != nil {
			return err
		}
	}
	if req.GetFail() {
		return aborted(name)
	}
	return nil
}

func (s *service) Import(ctx context.Context, from *rpc.Receiver[*chaosv1.Item]) (res *chaosv1.ImportResponse, err error) {
	in := items{call: rpc.CallFromContext(ctx).Header().Get(callHeader)}
	name := s.begin(in.call, methodImport)
	clean := false
	defer func() {
		s.end(record{Call: in.call, Method: methodImport, Run: name, Got: in.got, Wrong: in.wrong, Closed: clean}, err)
	}()
	for {
		item, err := from.Recv()
		switch {
		case err == io.EOF:
			clean = true
			return &chaosv1.ImportResponse{Call: in.call, Run: name, Count: uint32(in.got.count())}, nil
		case err != nil:
			return nil, err
		}
		in.add(item)
		if item.GetFail() {
			return nil, aborted(name)
		}
	}
}

func (s *service) Talk(ctx context.Context, with *rpc.BidiStream[*chaosv1.Item, *chaosv1.Item]) (err error) {
	in := items{call: rpc.CallFromContext(ctx).Header().Get(callHeader)}
	name := s.begin(in.call, methodTalk)
	sent, clean := 0, false
	defer func() {
		s.end(record{Call: in.call, Method: methodTalk, Run: name, Got: in.got, Wrong: in.wrong, Sent: sent, Closed: clean}, err)
	}()
	for {
		item, err := with.Recv()
		switch {
		case err == io.EOF:
			clean = true
			return nil
		case err != nil:
			return err
		}
		in.add(item)
		if item.GetFail() {
			return aborted(name)
		}
		if err := with.Send(item); err != nil {
			return err
		}
		sent++
	}
}
