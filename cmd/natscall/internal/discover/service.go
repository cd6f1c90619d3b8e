package discover

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go/micro"
)

// The discovery metadata of a natscall service; docs/protocol.md defines it.
const (
	MetaService    = "natscall.service"     // the full name
	MetaRoot       = "natscall.root"        // of the subjects
	MetaSchema     = "natscall.schema"      // the hash
	MetaNotServing = "natscall.not_serving" // why
	metaKind       = "natscall.kind"
	metaRequest    = "natscall.request"
	metaResponse   = "natscall.response"
	metaIdempotent = "natscall.idempotency"
	metaComment    = "natscall.description"
)

// Service is a service as its instances describe it. Those of one name under different roots, which
// a subject prefix makes, are different services. One of another kind has its micro name as Name,
// and no Root.
type Service struct {
	Name        string     `json:"service"` // the full name
	Micro       string     `json:"micro_name"`
	Root        string     `json:"root,omitempty"` // of its subjects
	Description string     `json:"description,omitempty"`
	Instances   []Instance `json:"instances"`
	Methods     []Method   `json:"methods"`
}

// Instance is a process that serves a service.
type Instance struct {
	ID         string        `json:"instance"`
	Version    string        `json:"version"`
	Schema     string        `json:"schema,omitempty"`
	NotServing string        `json:"not_serving,omitempty"` // why
	After      time.Duration `json:"-"`                     // since the question
}

// Method is a method, or an endpoint of a service of another kind.
type Method struct {
	Name        string `json:"method"`
	Kind        string `json:"kind,omitempty"`
	Request     string `json:"request,omitempty"`
	Response    string `json:"response,omitempty"`
	Idempotency string `json:"idempotency,omitempty"`
	Subject     string `json:"subject"`
	QueueGroup  string `json:"queue_group,omitempty"`
	Description string `json:"description,omitempty"`
}

// IsNatscall reports whether the service is built with natscall.
func (s *Service) IsNatscall() bool { return s.Root != "" }

// Short returns the name without its package.
func (s *Service) Short() string { return s.Name[strings.LastIndexByte(s.Name, '.')+1:] }

// Prefix returns what stands before the name of the service in its subjects, or "".
func (s *Service) Prefix() string { return strings.TrimSuffix(strings.TrimSuffix(s.Root, s.Name), ".") }

// under reports whether a client with a subject prefix reaches the service. What the service itself
// puts before its name (the option subject_prefix) is not a client's.
func (s *Service) under(prefix string) bool { return strings.HasPrefix(s.Prefix()+".", prefix+".") }

// Versions returns the versions of the instances, each once.
func (s *Service) Versions() []string {
	return s.each(func(i Instance) string { return i.Version })
}

// Schemas returns the hashes of the schemas of the instances, each once. More than one means that
// instances are of different age.
func (s *Service) Schemas() []string {
	return s.each(func(i Instance) string { return i.Schema })
}

func (s *Service) each(of func(Instance) string) []string {
	seen := map[string]bool{}
	for _, i := range s.Instances {
		if v := of(i); v != "" {
			seen[v] = true
		}
	}
	return slices.Sorted(maps.Keys(seen))
}

// Method returns the method of a name, in any case of letters, or nil.
func (s *Service) Method(name string) *Method {
	for i := range s.Methods {
		if strings.EqualFold(s.Methods[i].Name, name) {
			return &s.Methods[i]
		}
	}
	return nil
}

// MethodNames returns the names of the methods.
func (s *Service) MethodNames() []string {
	out := make([]string, len(s.Methods))
	for i, m := range s.Methods {
		out[i] = m.Name
	}
	return out
}

// Services returns the services whose instances answer, in the order of their names. micro bounds
// them to those with this name in micro.
func (f *Finder) Services(ctx context.Context, micro string) ([]*Service, error) {
	infos, err := f.Infos(ctx, micro)
	if err != nil {
		return nil, err
	}
	return servicesOf(infos), nil
}

// ServicesOf returns the services whose instances have answered a question. They have no methods.
func ServicesOf[T any](answers []Answer[T], identity func(T) micro.ServiceIdentity) []*Service {
	infos := make([]Answer[micro.Info], len(answers))
	for i, a := range answers {
		infos[i] = Answer[micro.Info]{micro.Info{ServiceIdentity: identity(a.Value)}, a.After, a.Size}
	}
	return servicesOf(infos)
}

func servicesOf(infos []Answer[micro.Info]) []*Service {
	type key struct{ name, root string }
	found := map[key]*Service{}
	slices.SortFunc(infos, func(a, b Answer[micro.Info]) int { return strings.Compare(a.Value.ID, b.Value.ID) })
	for _, answer := range infos {
		info := answer.Value
		k := key{cmp.Or(info.Metadata[MetaService], info.Name), rootOf(info)}
		s := found[k]
		if s == nil {
			s = &Service{Name: k.name, Micro: info.Name, Root: k.root, Description: info.Description}
			found[k] = s
		}
		s.Instances = append(s.Instances, Instance{
			ID: info.ID, Version: info.Version, Schema: info.Metadata[MetaSchema], NotServing: info.Metadata[MetaNotServing], After: answer.After,
		})
		s.add(info.Endpoints)
	}
	return slices.SortedFunc(maps.Values(found), func(a, b *Service) int {
		return cmp.Or(strings.Compare(a.Name, b.Name), strings.Compare(a.Prefix(), b.Prefix()), strings.Compare(a.Root, b.Root))
	})
}

// add adds the methods of an instance that the others do not have.
func (s *Service) add(endpoints []micro.EndpointInfo) {
	for _, e := range endpoints {
		if s.Method(e.Name) == nil {
			s.Methods = append(s.Methods, Method{
				Name: e.Name, Kind: e.Metadata[metaKind], Request: e.Metadata[metaRequest], Response: e.Metadata[metaResponse],
				Idempotency: e.Metadata[metaIdempotent], Subject: e.Subject, QueueGroup: e.QueueGroup, Description: e.Metadata[metaComment],
			})
		}
	}
}

// rootOf returns the root of the subjects of a natscall service. One that does not say it has it in
// the subject of a method.
func rootOf(info micro.Info) string {
	name := info.Metadata[MetaService]
	if name == "" {
		return ""
	}
	if root := info.Metadata[MetaRoot]; root != "" {
		return root
	}
	for _, e := range info.Endpoints {
		if root, ok := strings.CutSuffix(e.Subject, "."+e.Name); ok && strings.HasSuffix("."+root, "."+name) {
			return root
		}
	}
	return name
}
