package main

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"regexp"
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
)

// Numbers of fields in descriptor.proto: they make the paths under which source
// positions are found.
const (
	nameField           = 1 // of services and methods
	serviceOptionsField = 3
	methodOptionsField  = 4
)

// reservedMetadata starts the metadata keys that belong to the runtime.
const reservedMetadata = "natscall."

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
	reason := fmt.Sprintf(format, args...)
	c.problems = append(c.problems, fmt.Errorf("%s: %s: %s", d.position(path), d.desc.FullName(), reason))
}

// reportReason reports what an option is wrong for, if anything.
func (c *checker) reportReason(d declaration, option protoreflect.Name, reason string) {
	if reason != "" {
		c.report(d, d.option(option), "%s %s", option, reason)
	}
}

func (c *checker) service(s *service) {
	d := s.declaration()
	c.unknownOptions(d, s.options)
	if reason := tokensReason(string(s.Desc.FullName())); reason != "" {
		c.report(d, d.name(), "the full name %s", reason)
	}
	if prefix := s.options.GetSubjectPrefix(); prefix != "" {
		c.reportReason(d, "subject_prefix", subjectReason(prefix))
	}
	c.reportReason(d, "micro_name", microNameReason(s.microName()))
	c.reportReason(d, "version", versionReason(s.version()))
	if group := s.options.GetQueueGroup(); group != "" {
		c.reportReason(d, "queue_group", queueGroupReason(group))
	}
	if s.options.GetQueueGroup() != "" && s.options.GetNoQueueGroup() {
		c.report(d, d.option("no_queue_group"), "no_queue_group and queue_group exclude each other")
	}
	c.reportReason(d, "timeout", timeoutReason(s.options.GetTimeout()))
	c.reportReason(d, "metadata", metadataReason(s.options.GetMetadata()))

	goNames := make(map[string]declaration)
	for _, m := range s.methods {
		c.method(m)
		c.unique(goNames, m.GoName, m.declaration(), true, "its name in Go, %s, is also that of %s")
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
	if strings.HasPrefix(string(m.Desc.Name()), "_") {
		c.report(d, d.name(), "method names that start with \"_\" are reserved for the runtime")
	}
	if subject := m.options.GetSubject(); subject != "" {
		c.reportReason(d, "subject", subjectReason(subject))
	} else if n := len(m.subject()); n > maxSubject {
		c.report(d, d.name(), "its subject has %d bytes, more than %d", n, maxSubject)
	}
	c.reportReason(d, "timeout", timeoutReason(m.options.GetTimeout()))
	c.reportReason(d, "metadata", metadataReason(m.options.GetMetadata()))
	if m.options.GetOneWay() {
		c.reportReason(d, "one_way", oneWayReason(m))
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

// maxSubject bounds a subject in bytes. NATS itself only bounds the protocol
// line (4 KiB); the runtime appends tokens of its own and expects to fit.
const maxSubject = 255

// The functions below return why a value is wrong, or "" if it is not.

func subjectReason(subject string) string {
	switch {
	case len(subject) > maxSubject:
		return fmt.Sprintf("has %d bytes, more than %d", len(subject), maxSubject)
	case strings.HasPrefix(subject, "$"):
		return fmt.Sprintf("%q starts with \"$\", which belongs to NATS", subject)
	}
	for token := range strings.SplitSeq(subject, ".") {
		if placeholder.MatchString(token) {
			return fmt.Sprintf("%q has the token %q, which looks like a placeholder, but subjects are used as they stand; "+
				"leave it out and put the value into the request", subject, token)
		}
	}
	for _, r := range subject {
		switch {
		case r == '*' || r == '>':
			return fmt.Sprintf("%q has the wildcard %q", subject, r)
		case r <= ' ' || r > '~':
			return fmt.Sprintf("%q has the character %q; only printable ASCII without spaces is allowed", subject, r)
		}
	}
	return tokensReason(subject)
}

// placeholder matches tokens that other frameworks and templates fill in, and
// nothing here does: {id}, {{id}}, ${ID}, <id>, :id, %s.
var placeholder = regexp.MustCompile(`[{}]|^<.*>$|^:|^%[a-z]$`)

// tokensReason looks at the tokens of a subject.
func tokensReason(subject string) string {
	for token := range strings.SplitSeq(subject, ".") {
		if token == "" {
			return fmt.Sprintf("%q has an empty token", subject)
		}
		if token[0] == '_' {
			return fmt.Sprintf("%q has the token %q; those that start with \"_\" are reserved for the runtime", subject, token)
		}
	}
	return ""
}

func queueGroupReason(group string) string {
	if len(group) > maxSubject {
		return fmt.Sprintf("has %d bytes, more than %d", len(group), maxSubject)
	}
	for _, r := range group {
		if r == '*' || r == '>' || r <= ' ' || r > '~' {
			return fmt.Sprintf("%q has the character %q; only printable ASCII without spaces and wildcards is allowed", group, r)
		}
	}
	if slices.Contains(strings.Split(group, "."), "") {
		return fmt.Sprintf("%q has an empty token", group)
	}
	return ""
}

func microNameReason(name string) string {
	if !regexp.MustCompile(`^[A-Za-z0-9_-]+$`).MatchString(name) {
		return fmt.Sprintf("%q has other characters than letters, digits, \"-\" and \"_\"", name)
	}
	return ""
}

// versionReason applies the expression that nats.go/micro and the schemas of
// natscli apply: the one that semver.org suggests.
func versionReason(version string) string {
	const number, prerelease = `(0|[1-9]\d*)`, `(0|[1-9]\d*|\d*[a-zA-Z-][0-9a-zA-Z-]*)`
	const build = `[0-9a-zA-Z-]+`
	semver := regexp.MustCompile(`^` + number + `\.` + number + `\.` + number +
		`(-` + prerelease + `(\.` + prerelease + `)*)?(\+` + build + `(\.` + build + `)*)?$`)
	if !semver.MatchString(version) {
		return fmt.Sprintf("%q is not a semantic version such as 1.2.3 or 1.2.3-beta.1", version)
	}
	return ""
}

// timeoutReason is fine with nil: there is no timeout then.
func timeoutReason(d *durationpb.Duration) string {
	const maxSeconds = int64(math.MaxInt64 / time.Second)
	switch {
	case d == nil:
		return ""
	case d.GetSeconds() >= maxSeconds:
		return "is longer than 292 years"
	case d.CheckValid() != nil:
		return fmt.Sprintf("{seconds: %d, nanos: %d} is not a valid duration", d.GetSeconds(), d.GetNanos())
	case d.AsDuration() <= 0:
		return fmt.Sprintf("%s is not more than zero", d.AsDuration())
	}
	return ""
}

func metadataReason(metadata map[string]string) string {
	for _, key := range slices.Sorted(maps.Keys(metadata)) {
		if key == "" {
			return "has an empty key"
		}
		if strings.HasPrefix(key, reservedMetadata) {
			return fmt.Sprintf("key %q starts with %q, which is reserved for the runtime", key, reservedMetadata)
		}
	}
	return ""
}

func oneWayReason(m *method) string {
	switch {
	case m.Desc.IsStreamingClient() || m.Desc.IsStreamingServer():
		return "is not possible for a method that streams"
	case m.Output.Desc.FullName() != "google.protobuf.Empty":
		return fmt.Sprintf("needs google.protobuf.Empty as the response, not %s", m.Output.Desc.FullName())
	}
	return ""
}
