package main

import (
	"cmp"
	"slices"

	"google.golang.org/protobuf/compiler/protogen"
	"google.golang.org/protobuf/types/descriptorpb"

	natscallv1 "github.com/natscall/natscall/gen/natscall/v1"
	"github.com/natscall/natscall/internal/describe"
)

// service is a service with what its file says of it and the names that it gets in Go.
type service struct {
	*protogen.Service
	file    *protogen.File
	target  target
	said    describe.Service
	options *natscallv1.ServiceOptions // as written, for checks; nil where there are none
	methods []*method

	descVar    string // the variable that holds its rpc.ServiceDesc
	clientType string // the unexported implementation of its client
}

// method is a method with what its file says of it and the name that it gets in Go.
type method struct {
	*protogen.Method
	service *service
	said    describe.Method
	options *natscallv1.MethodOptions // as written, for checks; nil where there are none
}

// load returns the services of the files to generate and of all that they
// import, in the order of the files. The imported ones matter because they
// share packages and subjects with the others.
func load(gen *protogen.Plugin, p parameters) []*service {
	var services []*service
	for _, f := range gen.Files {
		for _, s := range f.Services {
			services = append(services, newService(f, s, p))
		}
	}
	return services
}

func newService(f *protogen.File, ps *protogen.Service, p parameters) *service {
	s := &service{Service: ps, file: f, target: newTarget(f, p.packageSuffix), said: describe.ServiceOf(ps.Desc), options: describe.ServiceOptions(ps.Desc)}
	for _, pm := range ps.Methods {
		m := &method{Method: pm, service: s, said: describe.MethodOf(pm.Desc), options: describe.MethodOptions(pm.Desc)}
		if !p.comments {
			m.said.Description = ""
		}
		s.methods = append(s.methods, m)
	}
	return s
}

// nameAll names what the generated packages declare, and returns all of their
// identifiers. Unexported names that protoc-gen-go uses in the same package (the
// interface of a oneof, or a package that it imports) get an underscore. The
// services are taken by name, so that the order of the files changes nothing.
func nameAll(gen *protogen.Plugin, services []*service) map[protogen.GoIdent]bool {
	taken := make(map[protogen.GoIdent]bool)
	for ident := range declaredByMessages(gen) {
		taken[ident] = true
	}
	for ident := range importNames(gen) {
		taken[ident] = true
	}
	byName := slices.SortedFunc(slices.Values(services), func(a, b *service) int {
		return cmp.Compare(a.Desc.FullName(), b.Desc.FullName())
	})
	for _, s := range byName {
		for _, name := range s.exported() {
			taken[s.ident(name)] = true
		}
		for _, m := range s.methods {
			taken[s.ident(m.fullNameConst())] = true
		}
		s.descVar = claimName(taken, s.ident(lowerFirst(s.GoName)+"Desc"))
		s.clientType = claimName(taken, s.ident(lowerFirst(s.GoName)+"Client"))
	}
	return taken
}

func claimName(taken map[protogen.GoIdent]bool, ident protogen.GoIdent) string {
	for taken[ident] {
		ident.GoName += "_"
	}
	taken[ident] = true
	return ident.GoName
}

func (s *service) declaration() declaration {
	return declare(s.file, s.Desc, s.Location, serviceOptionsField, natscallv1.E_Service)
}

// ident is an identifier in the package that is generated for the service.
func (s *service) ident(name string) protogen.GoIdent {
	return s.target.path.Ident(name)
}

// exported are the exported identifiers that are generated for the service, but
// for the constants of its methods.
func (s *service) exported() []string {
	exported := []string{
		s.nameConst(), s.clientInterface(), s.newClient(), s.serverInterface(), s.register(), s.unimplemented(),
	}
	if len(s.methods) > 0 {
		exported = append(exported, s.methodsVar())
	}
	return exported
}

func (s *service) nameConst() string       { return s.GoName + "Name" }
func (s *service) methodsVar() string      { return s.GoName + "Methods" }
func (s *service) clientInterface() string { return s.GoName + "Client" }
func (s *service) newClient() string       { return "New" + s.GoName + "Client" }
func (s *service) serverInterface() string { return s.GoName + "Server" }
func (s *service) register() string        { return "Register" + s.GoName + "Server" }
func (s *service) unimplemented() string   { return "Unimplemented" + s.GoName + "Server" }

func (s *service) deprecated() bool {
	options, _ := s.Desc.Options().(*descriptorpb.ServiceOptions)
	return options.GetDeprecated()
}

func (m *method) declaration() declaration {
	return declare(m.service.file, m.Desc, m.Location, methodOptionsField, natscallv1.E_Method)
}

// fullName is the name that the runtime's interceptors see.
func (m *method) fullName() string { return "/" + m.service.said.Name + "/" + m.said.Name }

// fullNameConst is the constant with the full name.
func (m *method) fullNameConst() string { return m.service.GoName + m.GoName + "Method" }

// desc is the Go expression for the typed method.
func (m *method) desc() string { return m.service.methodsVar() + "." + m.GoName }

// subject is where the method listens.
func (m *method) subject() string { return m.service.said.Subject(m.said) }

func (m *method) deprecated() bool {
	options, _ := m.Desc.Options().(*descriptorpb.MethodOptions)
	return options.GetDeprecated()
}

// idempotency is the name of the runtime's constant for the method's
// idempotency_level; empty for the level that promises nothing.
func (m *method) idempotency() string {
	switch m.said.Idempotency {
	case descriptorpb.MethodOptions_NO_SIDE_EFFECTS:
		return "IdempotencyNoSideEffects"
	case descriptorpb.MethodOptions_IDEMPOTENT:
		return "IdempotencyIdempotent"
	}
	return ""
}

// shape is the kind of a method, by the name that it has in the runtime's
// constructors and handlers: rpc.NewUnaryMethod, rpc.HandleUnary.
type shape string

const (
	unary        shape = "Unary"
	oneWay       shape = "OneWay"
	serverStream shape = "ServerStream"
	clientStream shape = "ClientStream"
	bidi         shape = "Bidi"
)

// streams reports whether the method streams in either direction.
func (m *method) streams() bool {
	return m.Desc.IsStreamingClient() || m.Desc.IsStreamingServer()
}

func (m *method) shape() shape {
	switch client, server := m.Desc.IsStreamingClient(), m.Desc.IsStreamingServer(); {
	case client && server:
		return bidi
	case client:
		return clientStream
	case server:
		return serverStream
	case m.said.OneWay:
		return oneWay
	}
	return unary
}
