package tool

import (
	"errors"
	"strings"

	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/natscall/natscall/cmd/natscall/internal/discover"
	"github.com/natscall/natscall/cmd/natscall/internal/problem"
	"github.com/natscall/natscall/cmd/natscall/internal/schema"
	"github.com/natscall/natscall/rpc"
)

// Target is a service, and a method of it if one is named.
type Target struct {
	Service *discover.Service // as it was found, or as files describe it
	Method  *discover.Method  // nil for a service
	Schema  *schema.Schema    // nil where the service has not been asked for it
	Notice  string            // that instances have different schemas, or ""
}

// noSchema explains why a service has not given its schema.
func noSchema(name string, err error) error {
	files := "give the schema with --proto and -I"
	failed, ok := errors.AsType[*rpc.Error](err)
	if !ok {
		return problem.Failure(files, "schema of %s: %w", name, err)
	}
	switch failed.Code() {
	case rpc.CodeUnimplemented:
		return problem.Failure(files, "service %s does not serve its schema (rpc.WithoutSchema)", name)
	case rpc.CodePermissionDenied:
		return problem.WithNext(err, "`natscall permissions --discover` prints what a tool has to be permitted; or "+files)
	case rpc.CodeDeadlineExceeded:
		return problem.WithNext(err, "give it more time with --timeout, or "+files)
	case rpc.CodeUnavailable, rpc.CodeInvalidArgument: // of --instance
		return problem.WithNext(err, "`natscall ps` shows the instances that there are")
	}
	return problem.WithNext(err, files)
}

// Bare describes the service by what discovery says, for a client without a subject prefix.
func (t *Target) Bare() *rpc.ServiceDesc {
	return &rpc.ServiceDesc{Name: t.Service.Name, MicroName: t.Service.Micro, SubjectPrefix: t.Service.Prefix()}
}

// Descriptors returns those of the service and, unless the target has none, the method.
func (t *Target) Descriptors() (protoreflect.ServiceDescriptor, protoreflect.MethodDescriptor, error) {
	sd, err := t.Schema.Service(t.Service.Name)
	if err != nil {
		return nil, nil, problem.Failure("its instances may be of different versions: see `natscall ps`", "the schema does not have service %s", t.Service.Name)
	}
	if t.Method == nil {
		return sd, nil, nil
	}
	md := sd.Methods().ByName(protoreflect.Name(t.Method.Name))
	if md == nil {
		return nil, nil, discover.NoMethod(t.Service.Name, t.Method.Name, names(sd.Methods()))
	}
	return sd, md, nil
}

func names(methods protoreflect.MethodDescriptors) []string {
	out := make([]string, methods.Len())
	for i := range out {
		out[i] = string(methods.Get(i).Name())
	}
	return out
}

// Dynamic returns the method for calls with messages of the schema, and the subject prefix of the
// client that makes them.
func (t *Target) Dynamic() (m *rpc.Method, prefix string, err error) {
	sd, md, err := t.Descriptors()
	if err != nil {
		return nil, "", err
	}
	m, err = schema.Method(md)
	desc := rpc.NewServiceDesc(sd)
	prefix, _ = strings.CutSuffix(t.Service.Root, join(desc.SubjectPrefix, desc.Name))
	return m, strings.TrimSuffix(prefix, "."), err
}

// Raw returns the method for calls with encoded messages, by what discovery says of it, for a
// client without a subject prefix. An endpoint of a service of another kind is taken for a unary
// method.
func (t *Target) Raw() (*rpc.Method, error) {
	kind, ok := kinds[t.Method.Kind]
	if !ok && t.Service.IsNatscall() {
		return nil, problem.Failure("give the schema with --proto and -I", "method %s/%s does not say what shape it has", t.Service.Name, t.Method.Name)
	}
	return rpc.NewRawMethod(t.Bare(), rpc.MethodDesc{Name: t.Method.Name, Subject: t.Method.Subject}, kind), nil
}

var kinds = map[string]rpc.Kind{
	rpc.KindUnary.String(): rpc.KindUnary, rpc.KindOneWay.String(): rpc.KindOneWay,
	rpc.KindServerStream.String(): rpc.KindServerStream, rpc.KindClientStream.String(): rpc.KindClientStream,
	rpc.KindBidi.String(): rpc.KindBidi,
}
