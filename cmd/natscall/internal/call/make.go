package call

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"

	"github.com/natscall/natscall/cmd/natscall/internal/output"
	"github.com/natscall/natscall/cmd/natscall/internal/problem"
	"github.com/natscall/natscall/rpc"
)

// call is a call that is about to be made.
type call struct {
	name     string
	method   *rpc.Method
	client   *rpc.Client
	options  []rpc.CallOption
	form     form
	in       *input
	out, log *output.Writer
	verbose  bool
	types    problem.Types // for the details of errors
	known    []string      // the instances that discovery has found
}

// make makes the call.
func (c *call) make(ctx context.Context, f *flags) error {
	c.verbose = f.verbose
	switch kind := c.method.Kind(); {
	case f.plain && kind != rpc.KindUnary && kind != rpc.KindOneWay:
		return problem.Usage("--plain is for unary methods, and %s is %v", c.name, kind)
	case f.all:
		return gather(ctx, c)
	case kind == rpc.KindUnary || kind == rpc.KindOneWay:
		return c.unary(ctx)
	case kind == rpc.KindServerStream:
		return c.serverStream(ctx)
	}
	return c.clientStream(ctx)
}

// only returns the only request.
func (c *call) only() (any, error) {
	data, err := c.in.Only()
	if err != nil {
		return nil, err
	}
	return c.form.request(data)
}

func (c *call) unary(ctx context.Context) error {
	request, err := c.only()
	if err != nil {
		return err
	}
	var header, trailer rpc.Header
	var instance string
	options := c.options
	if c.verbose && c.method.Kind() == rpc.KindUnary {
		options = append(options, rpc.ResponseHeader(&header), rpc.ResponseTrailer(&trailer), rpc.ResponseInstance(&instance))
	}
	response := c.form.response()
	err = c.method.Call(ctx, c.client, request, response, options...)
	c.say("instance", instance)
	c.sayHeader("header", header)
	if err == nil && c.method.Kind() == rpc.KindUnary {
		err = printer{c.out, c.form, false}.print(response)
	}
	c.sayHeader("trailer", trailer)
	return ended(err)
}

func (c *call) serverStream(ctx context.Context) error {
	request, err := c.only()
	if err != nil {
		return err
	}
	stream, err := c.method.Open(ctx, c.client, request, c.options...)
	if err != nil {
		return ended(err)
	}
	defer stream.Close()
	return c.receive(ctx, stream)
}

// clientStream sends requests as they come, and prints responses as they come.
func (c *call) clientStream(ctx context.Context) error {
	stream, err := c.method.Open(ctx, c.client, nil, c.options...)
	if err != nil {
		return ended(err)
	}
	defer stream.Close()
	// The goroutine ends with the input, or with the stream. If it still waits for input then, it
	// ends with the tool: nothing else can end the reading of stdin.
	wrong := make(chan error, 1)
	go func() {
		err := c.send(stream)
		wrong <- err
		if err != nil {
			stream.Close()
		}
	}()
	err = c.receive(ctx, stream)
	select {
	case sent := <-wrong:
		if sent != nil {
			return ended(sent) // and so the stream was closed
		}
	default:
	}
	return err
}

// send sends the requests. The error is one of the input: that of the stream is what receive gets.
func (c *call) send(stream *rpc.Stream) error {
	for {
		data, err := c.in.Next()
		if errors.Is(err, io.EOF) {
			stream.CloseSend()
			return nil
		}
		if err != nil {
			return err
		}
		request, err := c.form.request(data)
		if err != nil {
			return c.in.last(err)
		}
		if stream.Send(request) != nil {
			return nil
		}
	}
}

// callOne calls one instance.
func (c *call) callOne(ctx context.Context, request any, instance string) rpc.Gathered[any] {
	response := c.form.response()
	err := c.method.Call(ctx, c.client, request, response, append(slices.Clone(c.options), rpc.WithInstance(instance))...)
	return rpc.Gathered[any]{Instance: instance, Response: response, Err: err}
}

// receive prints the responses of a stream.
func (c *call) receive(ctx context.Context, stream *rpc.Stream) error {
	c.say("instance", stream.Instance())
	p := printer{c.out, c.form, c.method.Kind() != rpc.KindClientStream}
	for first := true; ; first = false {
		response := c.form.response()
		err := stream.Recv(response)
		if first && c.verbose {
			if header, failed := stream.Header(ctx); failed == nil {
				c.sayHeader("header", header)
			}
		}
		if err == nil {
			err = p.print(response)
		}
		if errors.Is(err, io.EOF) {
			err = nil
		} else if err == nil {
			continue
		}
		c.sayHeader("trailer", stream.Trailer())
		return ended(err)
	}
}

// say prints something about the call, if it was asked for.
func (c *call) say(what, value string) {
	if c.verbose && value != "" {
		fmt.Fprintf(c.log, "%s %s\n", c.log.Dim(what+":"), c.log.Plain(value))
	}
}

func (c *call) sayHeader(what string, h rpc.Header) {
	for _, key := range slices.Sorted(maps.Keys(h)) {
		for _, value := range h[key] {
			c.say(what, key+": "+value)
		}
	}
}
