// Package describe reads from descriptors what a .proto file says of a service and its methods:
// their names, their natscall options, and what follows from both. The plugin and the runtime share
// it, so that a method made from a descriptor at run time is the one that generated code has.
//
// It checks nothing: package names says what is valid.
package describe

import (
	"cmp"
	"time"

	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"

	"github.com/natscall/natscall/internal/names"
)

// Service is what a .proto file says of a service.
type Service struct {
	Name          string // full name, as in "order.v1.OrderService"
	MicroName     string // in discovery; by default Name without its package
	Version       string // in discovery; by default that of the package
	Description   string // in discovery; by default the first paragraph of the comment
	SubjectPrefix string // "" where there is none
	QueueGroup    string // "" means the default of the runtime
	NoQueueGroup  bool
	Metadata      map[string]string // for discovery; nil where there is none
	Timeout       time.Duration     // of the methods that do not stream; 0 where there is none
}

// Root returns the subject under which all subjects of the service stand, unless a method sets its
// own.
func (s Service) Root() string { return names.Join(s.SubjectPrefix, s.Name) }

// Subject returns the subject on which a method of the service listens.
func (s Service) Subject(m Method) string { return cmp.Or(m.Subject, names.Join(s.Root(), m.Name)) }

// Method is what a .proto file says of a method.
type Method struct {
	Name        string            // without the service's, as in "PlaceOrder"
	Subject     string            // the option; "" means the one that follows from the names
	Timeout     time.Duration     // of the method itself; 0 where it has none
	Metadata    map[string]string // for discovery; nil where there is none
	Description string            // the first line of its comment
	Idempotency descriptorpb.MethodOptions_IdempotencyLevel
	OneWay      bool // the option; it is valid only for a method that does not stream
}

// ServiceOf returns what is said of a service. The Description is empty if there is no such option
// and the file has no source info, as the files have none that protoc-gen-go embeds in Go code.
func ServiceOf(sd protoreflect.ServiceDescriptor) Service {
	options := ServiceOptions(sd)
	return Service{
		Name:          string(sd.FullName()),
		MicroName:     cmp.Or(options.GetMicroName(), string(sd.Name())),
		Version:       cmp.Or(options.GetVersion(), packageVersion(string(sd.ParentFile().Package()))),
		Description:   cmp.Or(options.GetDescription(), firstParagraph(leadingComment(sd))),
		SubjectPrefix: options.GetSubjectPrefix(),
		QueueGroup:    options.GetQueueGroup(),
		NoQueueGroup:  options.GetNoQueueGroup(),
		Metadata:      options.GetMetadata(),
		Timeout:       options.GetTimeout().AsDuration(),
	}
}

// MethodOf returns what is said of a method.
func MethodOf(md protoreflect.MethodDescriptor) Method {
	standard := standardMethodOptions(md)
	options := methodOptions(standard)
	return Method{
		Name:        string(md.Name()),
		Subject:     options.GetSubject(),
		Timeout:     options.GetTimeout().AsDuration(),
		Metadata:    options.GetMetadata(),
		Description: firstLine(leadingComment(md)),
		Idempotency: standard.GetIdempotencyLevel(),
		OneWay:      options.GetOneWay(),
	}
}

func leadingComment(d protoreflect.Descriptor) string {
	return d.ParentFile().SourceLocations().ByDescriptor(d).LeadingComments
}
