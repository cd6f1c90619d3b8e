package tap

import (
	"slices"
	"strings"

	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/dynamicpb"

	"github.com/natscall/natscall/cmd/natscall/internal/discover"
	"github.com/natscall/natscall/cmd/natscall/internal/problem"
	"github.com/natscall/natscall/cmd/natscall/internal/schema"
	natscallv1 "github.com/natscall/natscall/gen/natscall/v1"
	"github.com/natscall/natscall/rpc/rpctap"
)

// Catalog knows which method a subject belongs to, and the types of its messages.
type Catalog struct {
	services map[string]*service // by the root of their subjects
	subjects map[string]*Method  // of methods with subjects of their own
}

// service is one that has been found.
type service struct {
	name    string
	methods map[string]*Method
}

// Method is a method of a service. The types are nil if its schema is not known.
type Method struct {
	Service, Name     string
	request, response protoreflect.MessageType
	types             *schema.Types
}

// NewCatalog returns a catalog without services.
func NewCatalog() *Catalog {
	return &Catalog{services: map[string]*service{}, subjects: map[string]*Method{}}
}

// Add adds a service. Its schema may be nil.
func (c *Catalog) Add(s *discover.Service, from *schema.Schema) {
	added := &service{s.Name, ownMethods(s.Name)}
	if s.Root != "" { // one that is not built with natscall has none
		c.services[s.Root] = added
	}
	for _, m := range s.Methods {
		method := &Method{Service: s.Name, Name: m.Name}
		method.find(from)
		added.methods[m.Name] = method
		if m.Subject != "" && m.Subject != s.Root+"."+m.Name {
			c.subjects[m.Subject] = method
		}
	}
}

// find finds the types of a method's messages.
func (m *Method) find(from *schema.Schema) {
	if from == nil {
		return
	}
	sd, err := from.Service(m.Service)
	if err != nil {
		return // the instances may be of different age
	}
	md := sd.Methods().ByName(protoreflect.Name(m.Name))
	if md == nil {
		return
	}
	m.request, m.response = dynamicpb.NewMessageType(md.Input()), dynamicpb.NewMessageType(md.Output())
	m.types = from.Types()
}

// ownMethods are those that every service has beside the ones of its .proto file.
func ownMethods(service string) map[string]*Method {
	own := func(name string, request, response protoreflect.ProtoMessage) *Method {
		return &Method{Service: service, Name: name, request: request.ProtoReflect().Type(), response: response.ProtoReflect().Type()}
	}
	return map[string]*Method{
		"_schema": own("_schema", new(natscallv1.GetSchemaRequest), new(natscallv1.GetSchemaResponse)),
		"_health": own("_health", new(natscallv1.GetHealthRequest), new(natscallv1.GetHealthResponse)),
	}
}

// Method returns the method that a request to a subject calls. It has no name if that is not known,
// and no service if nothing is.
func (c *Catalog) Method(s rpctap.Subject) *Method {
	if m := c.subjects[s.Name]; m != nil {
		return m
	}
	found := c.services[s.Root]
	if found == nil {
		return &Method{Service: s.Root, Name: s.Method}
	}
	if m := found.methods[s.Method]; m != nil {
		return m
	}
	return &Method{Service: found.name, Name: s.Method}
}

// roots returns those of the services that are known.
func (c *Catalog) roots() map[string]bool {
	out := make(map[string]bool, len(c.services))
	for root := range c.services {
		out[root] = true
	}
	return out
}

// names returns the names of the methods that are known, with those of their services.
func (c *Catalog) names() []string {
	var out []string
	for _, s := range c.services {
		for _, m := range s.methods {
			if !m.isOwn() {
				out = append(out, m.String())
			}
		}
	}
	slices.Sort(out)
	return out
}

// has reports whether a name means a method that is known.
func (c *Catalog) has(name string) bool {
	for _, s := range c.services {
		for _, m := range s.methods {
			if m.isNamed(name) {
				return true
			}
		}
	}
	return false
}

// String returns the name with that of the service.
func (m *Method) String() string {
	switch {
	case m.Service == "":
		return m.Name
	case m.Name == "":
		return m.Service
	}
	return m.Service + "/" + m.Name
}

// isOwn reports whether it is a method that every service has, for tools.
func (m *Method) isOwn() bool { return strings.HasPrefix(m.Name, "_") }

// isNamed reports whether a name means the method: with its service or the end of that, or alone.
func (m *Method) isNamed(name string) bool {
	full, name := "."+strings.ToLower(m.String()), strings.ToLower(strings.TrimPrefix(name, "/"))
	return strings.HasSuffix(full, "."+name) || strings.HasSuffix(full, "/"+name)
}

// typeOf returns the type of the messages that a side sends, or nil.
func (m *Method) typeOf(from rpctap.Side) protoreflect.MessageType {
	if from == rpctap.SideServer {
		return m.response
	}
	return m.request
}

// resolver returns what finds the details of errors; nil finds those that the tool knows.
func (m *Method) resolver() problem.Types {
	if m.types == nil {
		return nil
	}
	return m.types
}
