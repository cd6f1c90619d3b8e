package bench

import (
	"cmp"
	"context"
	"errors"
	"io"

	"github.com/natscall/natscall/rpc"
)

// caller makes the calls of a load. Requests are encoded once, and responses are not decoded: what
// is measured is the service, not the tool.
type caller struct {
	method   *rpc.Method
	clients  []*rpc.Client
	requests []*rpc.Raw
	messages int // that a stream sends
	options  []rpc.CallOption
}

// load returns what makes the calls.
func (c *caller) load() Load {
	switch c.method.Kind() {
	case rpc.KindServerStream:
		return Load{Stream: true, Call: c.receiving}
	case rpc.KindClientStream, rpc.KindBidi:
		return Load{Stream: true, Sends: true, Call: c.sending}
	}
	return Load{Call: c.single}
}

func (c *caller) client(number int64) *rpc.Client { return c.clients[number%int64(len(c.clients))] }

func (c *caller) request(number int64) *rpc.Raw { return c.requests[number%int64(len(c.requests))] }

// single makes a unary or one-way call.
func (c *caller) single(ctx context.Context, number int64, messages Messages) error {
	res := new(rpc.Raw)
	err := c.method.Call(ctx, c.client(number), c.request(number), res, c.options...)
	if err == nil && c.method.Kind() == rpc.KindUnary {
		messages.Received(len(res.Data))
	}
	return err
}

// receiving makes a call of a stream from the server.
func (c *caller) receiving(ctx context.Context, number int64, messages Messages) error {
	s, err := c.method.Open(ctx, c.client(number), c.request(number), c.options...)
	if err != nil {
		return err
	}
	defer s.Close()
	return receive(s, messages.Received)
}

// sending makes a call of a stream from the client, or in both directions. It sends and receives at
// the same time: a server may answer each message, and take no more of them while nobody reads.
func (c *caller) sending(ctx context.Context, number int64, messages Messages) error {
	s, err := c.method.Open(ctx, c.client(number), nil, c.options...)
	if err != nil {
		return err
	}
	sent := make(chan error, 1)
	go func() { // ends with the stream
		err := c.send(s, messages.Sent)
		sent <- err
		if err != nil {
			s.Close() // as the server waits for the message
		}
	}()
	err = receive(s, messages.Received)
	select {
	case failed := <-sent:
		return cmp.Or(failed, err)
	default:
	}
	s.Close() // ends a Send that waits
	<-sent
	return err
}

// send sends the messages of a stream: the requests in turn, from the first one. If the stream ends
// before that, receive gets to know why.
func (c *caller) send(s *rpc.Stream, sent func(size int)) error {
	for i := range c.messages {
		req := c.request(int64(i))
		if err := s.Send(req); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		sent(len(req.Data))
	}
	s.CloseSend()
	return nil
}

// receive receives the messages of a stream to its end.
func receive(s *rpc.Stream, received func(size int)) error {
	for {
		res := new(rpc.Raw)
		if err := s.Recv(res); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		received(len(res.Data))
	}
}
