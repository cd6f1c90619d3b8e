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
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/runtime/protoimpl"
	"google.golang.org/protobuf/types/known/durationpb"

	natscallv1 "github.com/natscall/natscall/gen/natscall/v1"
	"github.com/natscall/natscall/internal/names"
)

// Numbers of fields in descriptor.proto: they make the paths under which source
// positions are found.
const (
	nameField           = 1 // of services and methods
	serviceOptionsField = 3
	methodOptionsField  = 4
)

// checker collects all that is wrong, so that one run reports all of it.
type checker struct {
	problems []error

	messages identifiers // what protoc-gen-go generates

	// What only one declaration may have, with the one that has it.
	identifiers map[string]declaration // generated Go identifiers, with their import path
	roots       map[string]declaration // subjects under which services stand
	subjects    map[string]declaration // subjects on which methods listen
}

// declaration is a service or a method, and where it stands.
type declaration struct {
	desc     protoreflect.Descriptor
	file     *protogen.File
	location protoreflect.SourcePath
	options  protoreflect.SourcePath // of the natscall options
	fields   protoreflect.FieldDescriptors
}

func (s *service) declaration() declaration {
	return declare(s.file, s.Desc, s.Location, serviceOptionsField, natscallv1.E_Service)
}

func (m *method) declaration() declaration {
	return declare(m.service.file, m.Desc, m.Location, methodOptionsField, natscallv1.E_Method)
}

func declare(f *protogen.File, desc protoreflect.Descriptor, at protogen.Location, optionsField int32, options *protoimpl.ExtensionInfo) declaration {
	extension := options.TypeDescriptor()
	return declaration{
		desc:     desc,
		file:     f,
		location: at.Path,
		options:  subPath(at.Path, optionsField, int32(extension.Number())),
		fields:   extension.Message().Fields(),
	}
}

// subPath returns a path below path, in memory of its own.
func subPath(path protoreflect.SourcePath, numbers ...int32) protoreflect.SourcePath {
	return append(slices.Clip(path), numbers...)
}

// name is the path of the declaration's name.
func (d declaration) name() protoreflect.SourcePath {
	return subPath(d.location, nameField)
}

// option is the path of one of the declaration's natscall options.
func (d declaration) option(name protoreflect.Name) protoreflect.SourcePath {
	return subPath(d.options, int32(d.fields.ByName(name).Number()))
}

// position is file:line:column of path. Compilers do not record each field of
// an option that is written as a message, so the nearest that is known counts.
func (d declaration) position(path protoreflect.SourcePath) string {
	for ; len(path) > 0; path = path[:len(path)-1] {
		if at := d.file.Desc.SourceLocations().ByPath(path); len(at.Path) > 0 {
			return fmt.Sprintf("%s:%d:%d", d.file.Desc.Path(), at.StartLine+1, at.StartColumn+1)
		}
	}
	return d.file.Desc.Path()
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
	c.goPackages(gen, services)
	return errors.Join(c.problems...)
}

func (c *checker) report(d declaration, path protoreflect.SourcePath, format string, args ...any) {
	reason := fmt.Errorf(format, args...)
	c.problems = append(c.problems, fmt.Errorf("%s: %s: %w", d.position(path), d.desc.FullName(), reason))
}

// option reports what is wrong with an option, if anything.
func (c *checker) option(d declaration, name protoreflect.Name, err error) {
	if err != nil {
		c.report(d, d.option(name), "%s %w", name, err)
	}
}

func (c *checker) service(s *service) {
	d := s.declaration()
	c.unknownOptions(d, s.options)
	c.root(d, s)
	c.option(d, "micro_name", names.CheckMicroName(s.microName()))
	c.option(d, "version", names.CheckVersion(s.version()))
	c.queueGroup(d, s)
	c.option(d, "timeout", checkTimeout(s.options.GetTimeout()))
	c.option(d, "metadata", names.CheckMetadata(s.options.GetMetadata()))

	goNames := make(map[string]declaration)
	for _, m := range s.methods {
		c.method(m)
		c.unique(goNames, m.GoName, m.declaration(), true, "its name in Go, %s, is also that of %s")
	}
}

// root checks what the subjects of the service start with, and its parts first.
func (c *checker) root(d declaration, s *service) {
	name := names.CheckSubject(string(s.Desc.FullName()))
	prefix := names.CheckPrefix(s.options.GetSubjectPrefix())
	if name != nil {
		c.report(d, d.name(), "the full name %w", name)
	}
	c.option(d, "subject_prefix", prefix)
	if root := names.CheckSubject(s.root()); root != nil && name == nil && prefix == nil {
		c.report(d, d.option("subject_prefix"), "with subject_prefix the full name %w", root)
	}
}

func (c *checker) queueGroup(d declaration, s *service) {
	if group := s.options.GetQueueGroup(); group != "" {
		c.option(d, "queue_group", names.CheckQueueGroup(group))
	}
	if !s.options.GetNoQueueGroup() {
		return
	}
	if s.options.GetQueueGroup() != "" {
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
	c.option(d, "metadata", names.CheckMetadata(m.options.GetMetadata()))
	if m.options.GetOneWay() {
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
	case m.options.GetSubject() != "":
		c.option(d, "subject", err)
	case err != nil && !reserved && names.CheckSubject(m.service.root()) == nil:
		c.report(d, d.name(), "its subject %w", err)
	}
}

// claim reports what the service and its methods would share with another one.
// No subject of a method can lie among those of the runtime, since these have a
// token that starts with "_".
func (c *checker) claim(s *service) {
	d, mine := s.declaration(), s.file.Generate
	for _, name := range s.exported() {
		if mine && c.sharedWithMessages(s, name) {
			break
		}
		key := string(s.target.path) + "." + name
		if !c.unique(c.identifiers, key, d, mine, "the generated %s is also generated for %s") {
			break // one is enough: services with the same name in Go share them all
		}
	}
	c.unique(c.roots, s.root(), d, mine, "its subjects start with %s, as do those of %s")
	for _, m := range s.methods {
		c.unique(c.subjects, m.subject(), m.declaration(), mine, "its subject %s is also that of %s")
	}
}

// sharedWithMessages reports that protoc-gen-go generates a name of the service,
// too, and into the same package. It returns whether it does.
func (c *checker) sharedWithMessages(s *service, name string) bool {
	holder, shared := c.messages[s.ident(name)]
	if shared {
		c.report(s.declaration(), s.declaration().name(), "the generated %s is also generated by protoc-gen-go, for %s (%s); rename one of them, or set a package_suffix, which gives the services a package of their own",
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
