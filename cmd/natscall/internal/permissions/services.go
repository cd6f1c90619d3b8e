package permissions

import (
	"fmt"
	"slices"
	"strings"

	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/dynamicpb"

	"github.com/natscall/natscall/rpc"
)

// method is a method with what the runtime says of its subjects.
type method struct {
	service, name string
	kind          rpc.Kind
	subjects      rpc.Subjects
}

// service is a service with its methods.
type service struct {
	name    string
	methods []method
}

// describe returns what the runtime says of services, for clients and servers with a prefix.
func describe(services []protoreflect.ServiceDescriptor, prefix string) ([]service, error) {
	out := make([]service, len(services))
	for i, sd := range services {
		desc := rpc.NewServiceDesc(sd)
		out[i].name = desc.Name
		for j := range sd.Methods().Len() {
			md := sd.Methods().Get(j)
			m, err := rpc.NewMethod(desc, md, dynamicpb.NewMessageType(md.Input()), dynamicpb.NewMessageType(md.Output()))
			if err != nil {
				return nil, fmt.Errorf("%s: %w", positionOf(md), err)
			}
			subjects, err := m.Subjects(prefix)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", positionOf(md), err)
			}
			out[i].methods = append(out[i].methods, method{
				service: desc.Name, name: m.Desc().Name, kind: m.Kind(), subjects: subjects,
			})
		}
		if len(out[i].methods) == 0 {
			return nil, fmt.Errorf("%s: service %s has no methods", positionOf(sd), desc.Name)
		}
	}
	return out, nil
}

// positionOf returns the file of a descriptor, and the line if it is known.
func positionOf(d protoreflect.Descriptor) string {
	file := d.ParentFile()
	if at := file.SourceLocations().ByDescriptor(d); at.Path != nil {
		return fmt.Sprintf("%s:%d", file.Path(), at.StartLine+1)
	}
	return file.Path()
}

// pick returns the methods that names stand for: "order.v1.OrderService" for all of a service, and
// "order.v1.OrderService/GetOrder" for one.
func pick(services []service, names []string) ([]method, error) {
	var out []method
	for _, name := range names {
		full, one, single := strings.Cut(strings.TrimPrefix(name, "/"), "/")
		i := slices.IndexFunc(services, func(s service) bool { return s.name == full })
		if i < 0 {
			return nil, fmt.Errorf("the files define no service %q, only %s", full, strings.Join(namesOf(services), ", "))
		}
		if !single {
			out = append(out, services[i].methods...)
			continue
		}
		j := slices.IndexFunc(services[i].methods, func(m method) bool { return m.name == one })
		if j < 0 {
			return nil, fmt.Errorf("service %s has no method %q", full, one)
		}
		out = append(out, services[i].methods[j])
	}
	return out, nil
}

func namesOf(services []service) []string {
	out := make([]string, len(services))
	for i, s := range services {
		out[i] = s.name
	}
	return out
}
