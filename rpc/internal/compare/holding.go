package main

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/natscall/natscall/rpc"
	"github.com/natscall/natscall/rpc/internal/compare/gen/compare/v1/comparev1nats"
)

// holding is a line of the table of memory: something that processes hold many of.
type holding struct {
	what   string
	system string
	count  int
	server bool // the server holds some
	client bool // the client does

	// What server and client begin with. What is returned makes the process hold n more, and
	// returns when it does.
	serve func(nc *nats.Conn) (hold, error)
	dial  func(nc *nats.Conn) (hold, error)
}

type hold func(n int) error

func holdings() []holding {
	return []holding{
		{"waiting goroutine, nothing else", baseline, 10_000, true, true, startParking, startParking},
		{"waiting unary call", baseline, 10_000, true, true, serveWaitingRaw, dialWaitingRaw},
		{"waiting unary call", natscallRPC.name, 10_000, true, true, serveWaiting, dialWaiting},
		{"idle bidirectional stream", natscallRPC.name, 1_000, true, true, serveIdle, dialIdle},
		{"idle bidirectional stream", natscallRPC.name, 10_000, true, true, serveIdle, dialIdle},
		{"service of 4 methods", natscallRPC.name, 50, true, false, serveMany, dialNothing},
		{"client after its first call", natscallRPC.name, 100, false, true, serveAny, dialMany},
	}
}

// name is unlike that of others that begin differently.
func (h holding) name() string { return h.what + ", " + h.system }

// startHolding begins as a server or a client.
func startHolding(a assignment) (hold, error) {
	nc, err := connectNATS(a.NATS)
	if err != nil {
		return nil, err
	}
	for _, h := range holdings() {
		if h.name() != a.Holding {
			continue
		}
		if a.Role == roleServer {
			return h.serve(nc)
		}
		return h.dial(nc)
	}
	return nil, fmt.Errorf("nothing is named %q", a.Holding)
}

// manyHeld is more than any line has.
const manyHeld = 1_000_000

// never is what handlers of waiting calls wait for.
var never = make(chan struct{})

// holdLimit bounds the waiting calls, and how long it may take until the server has what the
// client began. Calls of a client have one context, since one for each would be weighed with
// them.
const holdLimit = 5 * time.Minute

// holdHandled holds what comes from the client.
func holdHandled() hold {
	expected := uint64(0)
	return func(n int) error {
		ctx, cancel := context.WithTimeout(context.Background(), holdLimit)
		defer cancel()
		for expected += uint64(n); handled.Load() < expected; {
			if sleep(ctx, 10*time.Millisecond) != nil {
				return fmt.Errorf("%d of %d have come", handled.Load(), expected)
			}
		}
		return nil
	}
}

// holdCalls makes calls, each in a goroutine that ends with the process.
func holdCalls(call func(context.Context) error) hold {
	ctx, cancel := context.WithTimeout(context.Background(), holdLimit)
	return func(n int) error {
		for range n {
			go func() {
				err := call(ctx)
				cancel()
				fmt.Fprintln(os.Stderr, "a waiting call has ended:", err)
				os.Exit(1) // the weight would be wrong
			}()
		}
		return nil
	}
}

// startParking holds goroutines that wait for a channel of their own, or the end of a context,
// as callers of anything do.
func startParking(*nats.Conn) (hold, error) {
	ctx, cancel := context.WithTimeout(context.Background(), holdLimit)
	return func(n int) error {
		for range n {
			go func() {
				defer cancel()
				select {
				case <-make(chan struct{}):
				case <-ctx.Done():
				}
			}()
		}
		return nil
	}, nil
}

func serveWaitingRaw(nc *nats.Conn) (hold, error) {
	sub, err := nc.QueueSubscribe(rawEcho, rawQueue, func(m *nats.Msg) {
		go func() {
			handle(m.Data)
			<-never
			_ = m.Respond(m.Data)
		}()
	})
	if err != nil {
		return nil, err
	}
	if err := sub.SetPendingLimits(-1, -1); err != nil {
		return nil, err
	}
	return holdHandled(), nc.Flush()
}

func dialWaitingRaw(nc *nats.Conn) (hold, error) {
	return holdCalls(func(ctx context.Context) error {
		_, err := nc.RequestWithContext(ctx, rawEcho, newData(smallCall))
		return err
	}), nil
}

// waitingService does not answer unary calls.
type waitingService struct{ plainService }

func (waitingService) Echo(_ context.Context, req *message) (*message, error) {
	handle(req.GetData())
	<-never
	return req, nil
}

func serveWaiting(nc *nats.Conn) (hold, error) {
	return holdHandled(), natscallPlain.serve(nc, waitingService{plainService{natscallPlain}}, rpc.WithMaxConcurrency(manyHeld))
}

func dialWaiting(nc *nats.Conn) (hold, error) {
	client := comparev1nats.NewCompareServiceClient(rpc.NewClient(nc))
	return holdCalls(func(ctx context.Context) error {
		_, err := client.Echo(ctx, &message{Data: newData(smallCall)})
		return err
	}), nil
}

func serveIdle(nc *nats.Conn) (hold, error) {
	return holdHandled(), natscallPlain.serve(nc, plainService{natscallPlain}, rpc.WithMaxStreams(manyHeld))
}

// dialIdle opens streams, each of which has carried a message either way.
func dialIdle(nc *nats.Conn) (hold, error) {
	client := natscallPlain.client(rpc.NewClient(nc))
	var streams []*rpc.BidiStream[*message, *message]
	return func(n int) error {
		for range n {
			s, err := client.Chat(context.Background())
			if err != nil {
				return err
			}
			if _, err := talk(sendData(s.Send), s.Recv)(newData(smallCall)); err != nil {
				return err
			}
			streams = append(streams, s)
		}
		return nil
	}, nil
}

// serveMany registers services on one server.
func serveMany(nc *nats.Conn) (hold, error) {
	const most = 100
	// This comes before anything is weighed: generated code keeps part of it in variables.
	services := numberedServices(most)
	s := rpc.NewServer(nc)
	return func(n int) error {
		for _, service := range services[:n] {
			if err := service.register(s); err != nil {
				return err
			}
		}
		services = services[n:]
		return nil
	}, s.Start(context.Background())
}

func dialNothing(*nats.Conn) (hold, error) { return holdNothing, nil }

func holdNothing(int) error { return nil }

func serveAny(nc *nats.Conn) (hold, error) {
	return holdNothing, natscallPlain.serve(nc, plainService{natscallPlain})
}

// dialMany makes clients on one connection, each of which has made a call.
func dialMany(nc *nats.Conn) (hold, error) {
	var clients []*rpc.Client
	return func(n int) error {
		for range n {
			c := rpc.NewClient(nc)
			if _, err := natscallPlain.client(c).Echo(context.Background(), &message{Data: newData(smallCall)}); err != nil {
				return err
			}
			clients = append(clients, c)
		}
		return nil
	}, nil
}
