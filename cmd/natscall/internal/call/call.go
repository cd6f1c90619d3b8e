// Package call makes calls: it is `natscall call`.
package call

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/natscall/natscall/cmd/natscall/internal/output"
	"github.com/natscall/natscall/cmd/natscall/internal/problem"
	"github.com/natscall/natscall/cmd/natscall/internal/schema"
	"github.com/natscall/natscall/cmd/natscall/internal/tool"
	"github.com/natscall/natscall/rpc"
)

// flags are those of `natscall call`.
type flags struct {
	source   tool.Source
	headers  []string
	verbose  bool
	instance string
	all      bool
	plain    bool
	binary   bool
	noSchema bool
	template bool
	defaults bool
	json     bool
}

const long = `Call a method, such as order.v1.OrderService/PlaceOrder. A shorter name will do where it is unique:
OrderService/PlaceOrder, or just PlaceOrder.

The request is JSON in an argument, in a file (@FILE) or on stdin (-); without one it is empty. The
response is printed as JSON. If the client streams, each argument is a message, and files and stdin
may hold several; without arguments the messages are read from stdin. Each one is sent as soon as it
has been read, and Ctrl-D ends the requests. The responses of a stream are printed as they arrive,
one a line. Ctrl-C cancels the call.

The schema comes from the service itself, or from the files that --proto names. The exit status of a
failed call is 64 plus the code of its error, as in 69 for NOT_FOUND.`

const examples = `  natscall call order.v1.OrderService/GetOrder '{"orderId": "o-1"}'
  natscall call PlaceOrder --template > order.json
  natscall call PlaceOrder @order.json -v --timeout 2s
  natscall call WatchStock
  natscall call ImportStock @delivery.json
  natscall call PickOrder --instance PbQ0sd7GTTwWPbrxZzxOFS
  natscall call GetStock --all '{"productId": "apple"}'
  natscall call GetStock --proto inventory.proto -I proto '{"productId": "apple"}'`

// Command is the command that makes calls.
func Command(t *tool.Tool) *cobra.Command {
	var f flags
	cmd := &cobra.Command{
		Use:               "call [flags] METHOD [REQUEST...]",
		Short:             "Call a method of any shape, with JSON",
		Long:              long,
		Example:           examples,
		Args:              tool.Args(1, -1),
		ValidArgsFunction: tool.CompleteMethods(t),
		RunE: func(cmd *cobra.Command, args []string) error {
			return f.run(cmd, t, args)
		},
	}
	set := cmd.Flags()
	set.SortFlags = false
	tool.HeaderFlag(set, &f.headers)
	set.BoolVarP(&f.verbose, "verbose", "v", false, "print headers, trailers and the instance to stderr")
	set.StringVar(&f.instance, "instance", "", "`ID` of the instance to call, as ps and ls show it")
	set.BoolVar(&f.all, "all", false, "call all instances, and print a line of each")
	set.BoolVar(&f.plain, "plain", false, "send a plain NATS request, for services that are not built with natscall")
	set.BoolVar(&f.template, "template", false, "print a request with all of its fields instead of calling")
	set.BoolVar(&f.defaults, "emit-defaults", false, "print fields of responses that have their default, too")
	set.BoolVar(&f.noSchema, "no-schema", false, "send and print JSON as it stands, which the service reads itself")
	set.BoolVar(&f.binary, "binary", false, "send and print encoded Protobuf; in streams each message is behind its length")
	f.source.Register(cmd)
	tool.JSONFlag(cmd, &f.json, "print errors in JSON, too")
	cmd.MarkFlagsMutuallyExclusive("all", "instance")
	cmd.MarkFlagsMutuallyExclusive("all", "binary")
	cmd.MarkFlagsMutuallyExclusive("all", "plain")
	cmd.MarkFlagsMutuallyExclusive("no-schema", "binary", "template")
	cmd.MarkFlagsMutuallyExclusive("no-schema", "proto", "descriptor-set")
	return cmd
}

func (f *flags) run(cmd *cobra.Command, t *tool.Tool, args []string) error {
	ctx := cmd.Context()
	if f.template && f.source.FromFiles() {
		return f.printTemplate(ctx, t, new(tool.Session), args[0]) // nobody is asked
	}
	s, err := t.Open(ctx)
	if err != nil {
		return err
	}
	defer s.Close()
	if f.template {
		return f.printTemplate(ctx, t, s, args[0])
	}
	c, err := f.prepare(ctx, t, s, args[0])
	if err != nil {
		return err
	}
	c.options = f.options(cmd, t)
	requests := args[1:]
	if len(requests) == 0 && clientStreams(c.method) {
		requests = []string{"-"}
		if output.IsTerminal(t.In) {
			fmt.Fprintln(t.Err, t.Err.Dim("requests come from the keyboard: JSON; Ctrl-D ends them"))
		}
	}
	c.in = newInput(requests, t.In, c.form.split)
	return c.make(ctx, f)
}

// prepare finds the method, and how its messages are read and written.
func (f *flags) prepare(ctx context.Context, t *tool.Tool, s *tool.Session, name string) (*call, error) {
	asked, cancel := s.Asking(ctx)
	defer cancel()
	target, err := s.FindMethod(asked, &f.source, name)
	if err != nil {
		return nil, err
	}
	if !f.source.FromFiles() && len(target.Service.Instances) > 0 && !target.Service.IsNatscall() && !f.plain {
		return nil, problem.UsageWithNext("--plain --no-schema calls it with the JSON as it stands", "service %s is not built with natscall", target.Service.Name)
	}
	c := &call{out: t.Out, log: t.Err, name: target.Service.Name + "/" + target.Method.Name}
	if f.noSchema || f.binary && !f.source.FromFiles() {
		c.client = s.Bare()
		c.method, err = target.Raw()
	} else if err = s.Load(asked, target, f.instance); err == nil {
		t.Warn(f.json, target.Notice)
		var prefix string
		c.method, prefix, err = target.Dynamic()
		c.client = s.Client(prefix)
	}
	if err != nil {
		return nil, err
	}
	c.form = f.form(c.method, target.Schema)
	if target.Schema != nil {
		t.Types = target.Schema.Types()
	}
	c.types = t.Types
	for _, i := range target.Service.Instances {
		c.known = append(c.known, i.ID)
	}
	return c, nil
}

func (f *flags) form(m *rpc.Method, known *schema.Schema) form {
	switch {
	case f.binary:
		return binaryForm{clientStreams(m)}
	case f.noSchema:
		return rawJSON{}
	}
	return jsonForm{m.Descriptor().Input(), m.Descriptor().Output(), known.Types(), f.defaults}
}

func clientStreams(m *rpc.Method) bool {
	return m.Kind() == rpc.KindClientStream || m.Kind() == rpc.KindBidi
}

// options returns those of the call.
func (f *flags) options(cmd *cobra.Command, t *tool.Tool) []rpc.CallOption {
	out := tool.Headers(f.headers)
	if tool.GivenTimeout(cmd.Flags()) {
		out = append(out, rpc.WithTimeout(t.Connect.Timeout))
	}
	if f.plain {
		out = append(out, rpc.WithPlainRequests())
	}
	if f.instance != "" {
		out = append(out, rpc.WithInstance(f.instance))
	}
	return out
}

// printTemplate prints a request with all of its fields.
func (f *flags) printTemplate(ctx context.Context, t *tool.Tool, s *tool.Session, name string) error {
	asked, cancel := s.Asking(ctx)
	defer cancel()
	target, err := s.FindMethod(asked, &f.source, name)
	if err != nil {
		return err
	}
	if err := s.Load(asked, target, f.instance); err != nil {
		return err
	}
	t.Warn(f.json, target.Notice)
	_, md, err := target.Descriptors()
	if err != nil {
		return err
	}
	data, err := schema.Marshal(schema.Template(md.Input()), target.Schema.Types(), true)
	if err != nil {
		return err
	}
	_, err = t.Out.Write(append(schema.Indented(data), '\n'))
	return err
}

// ended returns the error of a call that has ended, as it is reported.
func ended(err error) error {
	if err == nil || errors.Is(err, io.ErrClosedPipe) {
		return nil
	}
	return problem.OfCall(err)
}
