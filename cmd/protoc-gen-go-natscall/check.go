package main

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/compiler/protogen"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/natscall/natscall/internal/names"
)

// checker checks the services, each by itself and beside the others.
type checker struct {
	problems

	messages identifiers // what protoc-gen-go generates

	// What only one declaration may have, with the one that has it.
	identifiers map[string]declaration // generated Go identifiers, with their import path
	roots       map[string]declaration // subjects under which services stand
	subjects    map[string]declaration // subjects on which methods listen
}

// check returns all that is wrong with the services of the files to generate.
// Imported services count where they take what another one wants.
func check(gen *protogen.Plugin, services []*service) error {
	c := &checker{
		messages:    declaredByMessages(gen),
		identifiers: make(map[string]declaration),
		roots:       make(map[string]declaration),
		subjects:    make(map[string]declaration),
	}
	for _, s := range services {
		if s.file.Generate {
			c.service(s)
		}
		c.claim(s)
	}
	packageChecker{&c.problems, packageNames(gen)}.check(gen, services)
	return errors.Join(c.problems...)
}

func (c *checker) service(s *service) {
	d := s.declaration()
	c.unknownOptions(d, s.options)
	c.root(d, s)
	c.option(d, "micro_name", names.CheckMicroName(s.said.MicroName))
	c.option(d, "version", names.CheckVersion(s.said.Version))
	c.queueGroup(d, s)
	c.option(d, "timeout", checkTimeout(s.options.GetTimeout()))
	c.option(d, "metadata", names.CheckMetadata(s.said.Metadata))

	goNames := make(map[string]declaration)
	for _, m := range s.methods {
		c.method(m)
		c.unique(goNames, m.GoName, m.declaration(), true, "its name in Go, %s, is also that of %s")
	}
}

// root checks what the subjects of the service start with, and its parts first.
func (c *checker) root(d declaration, s *service) {
	name := names.CheckSubject(string(s.Desc.FullName()))
	prefix := names.CheckPrefix(s.said.SubjectPrefix)
	if name != nil {
		c.report(d, d.name(), "the full name %w", name)
	}
	c.option(d, "subject_prefix", prefix)
	if root := names.CheckSubject(s.said.Root()); root != nil && name == nil && prefix == nil {
		c.report(d, d.option("subject_prefix"), "with subject_prefix the full name %w", root)
	}
}

func (c *checker) queueGroup(d declaration, s *service) {
	if group := s.said.QueueGroup; group != "" {
		c.option(d, "queue_group", names.CheckQueueGroup(group))
	}
	if !s.said.NoQueueGroup {
		return
	}
	if s.said.QueueGroup != "" {
		c.report(d, d.option("no_queue_group"), "no_queue_group and queue_group exclude each other")
	}
	if i := slices.IndexFunc(s.methods, (*method).streams); i >= 0 {
		c.report(d, d.option("no_queue_group"), "no_queue_group is not possible with streaming methods such as %s, since one instance has to take each stream",
			s.methods[i].Desc.Name())
	}
}

// unknownOptions reports options that the plugin would leave out, since it is
// older than the options.proto that has them.
func (c *checker) unknownOptions(d declaration, options proto.Message) {
	if number, _, n := protowire.ConsumeTag(options.ProtoReflect().GetUnknown()); n > 0 {
		c.report(d, d.options, "this version of protoc-gen-go-natscall does not know the option with the number %d; "+
			"update it to the version that options.proto is from", number)
	}
}

func (c *checker) method(m *method) {
	d := m.declaration()
	c.unknownOptions(d, m.options)
	c.subject(d, m)
	c.option(d, "timeout", checkTimeout(m.options.GetTimeout()))
	c.option(d, "metadata", names.CheckMetadata(m.said.Metadata))
	if m.said.OneWay {
		c.option(d, "one_way", checkOneWay(m))
	}
}

// subject checks where the method listens. What is wrong with the root is said
// once, at the service.
func (c *checker) subject(d declaration, m *method) {
	err := names.CheckSubject(m.subject())
	reserved := strings.HasPrefix(string(m.Desc.Name()), "_")
	if reserved {
		c.report(d, d.name(), "method names that start with \"_\" are reserved for the runtime")
	}
	switch {
	case m.said.Subject != "":
		c.option(d, "subject", err)
	case err != nil && !reserved && names.CheckSubject(m.service.said.Root()) == nil:
		c.report(d, d.name(), "its subject %w", err)
	}
}

// claim reports what the service and its methods would share with another one.
// No subject of a method can lie among those of the runtime, since these have a
// token that starts with "_".
func (c *checker) claim(s *service) {
	d, mine := s.declaration(), s.file.Generate
	c.claimNames(s)
	c.unique(c.roots, s.said.Root(), d, mine, "its subjects start with %s, as do those of %s")
	for _, m := range s.methods {
		c.unique(c.subjects, m.subject(), m.declaration(), mine, "its subject %s is also that of %s")
	}
}

// claimNames reports exported names that the service and its methods would share
// with another declaration.
func (c *checker) claimNames(s *service) {
	for _, name := range s.exported() {
		if !c.claimName(s, s.declaration(), name) {
			return // one is enough: services with the same name in Go share them all
		}
	}
	seen := make(map[string]bool) // methods with one name in Go are reported apart
	for _, m := range s.methods {
		if !seen[m.GoName] {
			c.claimName(s, m.declaration(), m.fullNameConst())
		}
		seen[m.GoName] = true
	}
}

// claimName reports that another declaration has an exported name of d, which is
// s or one of its methods. It returns whether none has.
func (c *checker) claimName(s *service, d declaration, name string) bool {
	mine := s.file.Generate
	if mine && c.sharedWithMessages(s, d, name) {
		return false
	}
	key := string(s.target.path) + "." + name
	return c.unique(c.identifiers, key, d, mine, "the generated %s is also generated for %s")
}

// sharedWithMessages reports that protoc-gen-go generates a name of d, too, and
// into the same package. It returns whether it does.
func (c *checker) sharedWithMessages(s *service, d declaration, name string) bool {
	holder, shared := c.messages[s.ident(name)]
	if shared {
		c.report(d, d.name(), "the generated %s is also generated by protoc-gen-go, for %s (%s); rename one of them, or set a package_suffix, which gives the services a package of their own",
			name, holder.desc.FullName(), holder.position(holder.name()))
	}
	return shared
}

// unique reports with the key and its holder that another declaration has the
// key already, unless it is not ours to report. It returns whether none has.
func (c *checker) unique(holders map[string]declaration, key string, d declaration, mine bool, format string) bool {
	holder, taken := holders[key]
	if !taken {
		holders[key] = d
		return true
	}
	if !mine && holder.file.Generate {
		d, holder, mine = holder, d, true
	}
	if mine {
		where := fmt.Sprintf("%s (%s)", holder.desc.FullName(), holder.position(holder.name()))
		c.report(d, d.name(), format, key, where)
	}
	return false
}

// checkTimeout is fine with nil: there is no timeout then.
func checkTimeout(d *durationpb.Duration) error {
	const maxSeconds = int64(math.MaxInt64 / time.Second)
	switch {
	case d == nil:
		return nil
	case d.GetSeconds() >= maxSeconds:
		return errors.New("is longer than 292 years")
	case d.CheckValid() != nil:
		return fmt.Errorf("{seconds: %d, nanos: %d} is not a valid duration", d.GetSeconds(), d.GetNanos())
	case d.AsDuration() <= 0:
		return fmt.Errorf("%s is not more than zero", d.AsDuration())
	}
	return nil
}

func checkOneWay(m *method) error {
	switch {
	case m.streams():
		return errors.New("is not possible for a method that streams")
	case m.Output.Desc.FullName() != "google.protobuf.Empty":
		return fmt.Errorf("needs google.protobuf.Empty as the response, not %s", m.Output.Desc.FullName())
	}
	return nil
}
