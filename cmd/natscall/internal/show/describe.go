package show

import (
	"cmp"
	"context"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/natscall/natscall/cmd/natscall/internal/discover"
	"github.com/natscall/natscall/cmd/natscall/internal/output"
	"github.com/natscall/natscall/cmd/natscall/internal/problem"
	"github.com/natscall/natscall/cmd/natscall/internal/schema"
	"github.com/natscall/natscall/cmd/natscall/internal/tool"
)

const describeLong = `Print a service, a method or a message as it stands in its .proto file, with its comments. A method
is printed with all of the messages that it needs.

The schema comes from the service itself, or from the files that --proto names. A name may be
shortened to its end where that is unique.`

const describeExamples = `  natscall describe order.v1.OrderService
  natscall describe OrderService/PlaceOrder
  natscall describe order.v1.Order
  natscall describe OrderService --json
  natscall describe OrderService --descriptor-set order.binpb`

// Describe is the command that prints what services and messages look like.
func Describe(t *tool.Tool) *cobra.Command {
	d := describe{t: t}
	cmd := &cobra.Command{
		Use:               "describe [flags] SERVICE | METHOD | MESSAGE",
		Short:             "Print a service, method or message as .proto text, with its comments",
		Long:              describeLong,
		Example:           describeExamples,
		Args:              tool.Args(1, 1),
		ValidArgsFunction: tool.CompleteBoth(t),
		RunE: func(cmd *cobra.Command, args []string) error {
			return d.run(cmd.Context(), args[0])
		},
	}
	tool.JSONFlag(cmd, &d.json, "print JSON")
	cmd.Flags().StringVar(&d.set, "descriptor-set", "", "write the service's files as a descriptor set to this `file`, instead of printing them")
	cmd.Flags().StringVar(&d.instance, "instance", "", "`ID` of the instance to ask")
	d.source.Register(cmd)
	cmd.MarkFlagsMutuallyExclusive("json", "descriptor-set")
	cmd.MarkFlagsMutuallyExclusive("instance", "proto") // files need nobody who is asked
	return cmd
}

// describe is one run of the command.
type describe struct {
	t             *tool.Tool
	source        tool.Source
	json          bool
	set, instance string
}

func (d *describe) run(ctx context.Context, name string) error {
	s := new(tool.Session) // files need no connection
	if !d.source.FromFiles() {
		var err error
		if s, err = d.t.Open(ctx); err != nil {
			return err
		}
		defer s.Close()
	}
	ctx, cancel := s.Asking(ctx)
	defer cancel()
	found, err := d.find(ctx, s, name)
	if err != nil {
		return err
	}
	d.t.Warn(d.json, found.notice)
	if d.set != "" {
		return d.write(found)
	}
	if d.json {
		return d.t.Out.JSON(jsonOf(found.descriptors))
	}
	text, err := schema.Text(found.descriptors...)
	if err != nil {
		return err
	}
	_, err = d.t.Out.Write([]byte(output.CleanLines(text)))
	return err
}

// finding is what a name means.
type finding struct {
	schema      *schema.Schema
	notice      string // as in tool.Target
	descriptors []protoreflect.Descriptor
}

// find returns the service, method or message of a name.
func (d *describe) find(ctx context.Context, s *tool.Session, name string) (finding, error) {
	target, err := s.Guess(ctx, &d.source, name)
	if err != nil {
		if found, err := d.findMessage(ctx, s, name, err); err == nil {
			return found, nil
		}
		target, err = s.FindService(ctx, &d.source, name)
	}
	if err != nil {
		target, err = d.findMethod(ctx, s, name, err)
	}
	if err != nil {
		return d.findMessage(ctx, s, name, err)
	}
	if err := s.Load(ctx, target, d.instance); err != nil {
		return finding{}, err
	}
	sd, md, err := target.Descriptors()
	if err != nil {
		return finding{}, err
	}
	if md == nil {
		return finding{target.Schema, target.Notice, []protoreflect.Descriptor{sd}}, nil
	}
	return finding{target.Schema, target.Notice, append([]protoreflect.Descriptor{md}, schema.Messages(md.Input(), md.Output())...)}, nil
}

// findMethod returns the method of a name, or the better of two errors.
func (d *describe) findMethod(ctx context.Context, s *tool.Session, name string, noService error) (*tool.Target, error) {
	target, err := s.FindMethod(ctx, &d.source, name)
	if err != nil && !strings.Contains(name, "/") {
		err = noService
	}
	return target, err
}

// findMessage returns the message or enum of a name, or the error if there is none.
func (d *describe) findMessage(ctx context.Context, s *tool.Session, name string, missing error) (finding, error) {
	if strings.Contains(name, "/") {
		return finding{}, missing
	}
	targets, err := d.targets(ctx, s)
	if err != nil {
		return finding{}, err
	}
	var all []finding // each full name once: services share messages
	var names []string
	for _, known := range targets {
		for _, found := range known.Schema.Find(name) {
			full := string(found.FullName())
			if full == name {
				return finding{known.Schema, known.Notice, []protoreflect.Descriptor{found}}, nil
			}
			if !slices.Contains(names, full) {
				names = append(names, full)
				all = append(all, finding{known.Schema, known.Notice, []protoreflect.Descriptor{found}})
			}
		}
	}
	if len(all) > 1 {
		return finding{}, problem.Failure("use one of them: "+strings.Join(names, ", "), "%q means several messages", name)
	}
	if len(all) == 1 {
		return all[0], nil
	}
	for _, known := range targets {
		names = append(names, known.Schema.Names()...)
	}
	next := cmp.Or(discover.Near(name, names), problem.Of(missing).Next)
	return finding{}, problem.Failure(next, "there is no service, method or message %q", name)
}

// targets returns all services, with their schemas.
func (d *describe) targets(ctx context.Context, s *tool.Session) ([]*tool.Target, error) {
	if d.source.FromFiles() {
		read, err := d.source.Read()
		return []*tool.Target{{Schema: read}}, err
	}
	services, err := s.All(ctx)
	if err != nil {
		return nil, err
	}
	var out []*tool.Target
	services = natscallOnly(services)
	if d.instance != "" {
		services = slices.DeleteFunc(services, func(s *discover.Service) bool {
			return !slices.ContainsFunc(s.Instances, func(i discover.Instance) bool { return i.ID == d.instance })
		})
		if len(services) == 0 {
			return nil, problem.Failure("`natscall ps` shows the instances that there are", "there is no instance %q", d.instance)
		}
	}
	for _, service := range services {
		target := &tool.Target{Service: service}
		// One without a schema has no messages to describe.
		if s.Load(ctx, target, d.instance) == nil {
			out = append(out, target)
		}
	}
	return out, nil
}

// write writes a descriptor set.
func (d *describe) write(found finding) error {
	data, err := proto.MarshalOptions{Deterministic: true}.Marshal(found.schema.Set())
	if err != nil {
		return err
	}
	if d.set == "-" {
		_, err = d.t.Out.Write(data)
		return err
	}
	return os.WriteFile(d.set, data, 0o666)
}
