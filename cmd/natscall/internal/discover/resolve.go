package discover

import (
	"fmt"
	"slices"
	"strings"

	"github.com/natscall/natscall/cmd/natscall/internal/problem"
)

// Find returns the service that a name means: its full name, its name in micro, or the end of its
// full name, in any case of letters, if that is unique. prefix is that of its subjects, if there
// are several.
func Find(services []*Service, name, prefix string) (*Service, error) {
	named := matches(services, func(s *Service) bool { return s.Name == name })
	if len(named) == 0 {
		named = matches(services, func(s *Service) bool { return strings.EqualFold(s.Micro, name) || endsWith(s.Name, name) })
	}
	if prefix != "" {
		named = matches(named, func(s *Service) bool { return s.under(prefix) })
		named = exactly(named, prefix)
	}
	if len(named) == 0 {
		return nil, problem.Because(errNotThere, thereIs(services, name), "there is no service %q%s", name, under(prefix))
	}
	if one := choose(named, prefix); one != nil {
		return one, nil
	}
	return nil, problem.Failure("use one of them: "+strings.Join(rootsOf(named), ", "), "%q means several services", name)
}

// choose returns the only one of services, or the only one without a subject prefix if all have the
// same name: others have to be asked for. Else it returns nil.
func choose(named []*Service, prefix string) *Service {
	same := !slices.ContainsFunc(named, func(s *Service) bool { return s.Name != named[0].Name })
	if len(named) > 1 && same && prefix == "" {
		named = matches(named, func(s *Service) bool { return s.Prefix() == "" })
	}
	if len(named) != 1 {
		return nil
	}
	return named[0]
}

// exactly returns the services with exactly this subject prefix if there are any: another one may
// have a longer prefix that begins with it.
func exactly(named []*Service, prefix string) []*Service {
	if exact := matches(named, func(s *Service) bool { return s.Prefix() == prefix }); prefix != "" && len(exact) > 0 {
		return exact
	}
	return named
}

// FindMethod returns the method that a name means: of a service as in Find, as in
// order.v1.OrderService/GetOrder, or the only one of its name.
func FindMethod(services []*Service, name, prefix string) (*Service, *Method, error) {
	service, method, found := SplitMethod(name)
	if !found {
		return findLone(services, name, prefix)
	}
	s, err := Find(services, service, prefix)
	if err != nil {
		return nil, nil, err
	}
	m := s.Method(method)
	if m == nil {
		return nil, nil, NoMethod(s.Name, method, s.MethodNames())
	}
	return s, m, nil
}

// NoMethod is the error of a method that a service does not have.
func NoMethod(service, method string, there []string) error {
	return problem.Failure(Suggest(method, there, "its methods are "), "service %s has no method %q", service, method)
}

// SplitMethod splits the name of a method from that of its service: there is a slash between them,
// as in the names that logs have, or a dot.
func SplitMethod(name string) (service, method string, found bool) {
	name = strings.TrimPrefix(name, "/")
	if service, method, found := strings.Cut(name, "/"); found {
		return service, method, true
	}
	return "", name, false
}

// findLone finds a method without the name of its service.
func findLone(services []*Service, name, prefix string) (*Service, *Method, error) {
	having := matches(services, func(s *Service) bool { return s.Method(name) != nil && (prefix == "" || s.under(prefix)) })
	having = exactly(having, prefix)
	if len(having) == 0 {
		return findDotted(services, name, prefix)
	}
	if one := choose(having, prefix); one != nil {
		return one, one.Method(name), nil
	}
	named := rootsOf(having)
	for i := range named {
		named[i] = strings.Replace(named[i], having[i].Name, having[i].Name+"/"+having[i].Method(name).Name, 1)
	}
	return nil, nil, problem.Failure("use one of them: "+strings.Join(named, ", "), "several services have a method %q", name)
}

// findDotted finds a method whose service stands before a dot, as in a .proto file.
func findDotted(services []*Service, name, prefix string) (*Service, *Method, error) {
	if s, err := Find(services, name, prefix); err == nil {
		return nil, nil, problem.Usage("%s is a service: say which method, as in %s; it has %s", name, example(s), strings.Join(s.MethodNames(), ", "))
	}
	if i := strings.LastIndexByte(name, '.'); i > 0 {
		if _, err := Find(services, name[:i], prefix); err == nil {
			return FindMethod(services, name[:i]+"/"+name[i+1:], prefix)
		}
	}
	var there []string
	for _, s := range services {
		there = append(there, qualified(s)...)
	}
	return nil, nil, problem.Because(errNotThere, listOf(there, name, "the methods are "), "no service%s has a method %q", under(prefix), name)
}

func example(s *Service) string {
	if len(s.Methods) == 0 {
		return s.Name + "/METHOD"
	}
	return s.Name + "/" + s.Methods[0].Name
}

// qualified names the methods of a service so that they can be told from those of others.
func qualified(s *Service) []string {
	out := s.MethodNames()
	for i := range out {
		out[i] = strings.Replace(rootsOf([]*Service{s})[0], s.Name, s.Name+"/"+out[i], 1)
	}
	return out
}

func matches(services []*Service, ok func(*Service) bool) []*Service {
	return slices.DeleteFunc(slices.Clone(services), func(s *Service) bool { return !ok(s) })
}

// endsWith reports whether the last tokens of a full name are those of a name, in any case.
func endsWith(full, name string) bool {
	full, name = "."+strings.ToLower(full), "."+strings.ToLower(name)
	return strings.HasSuffix(full, name)
}

func under(prefix string) string {
	if prefix == "" {
		return ""
	}
	return fmt.Sprintf(" with the subject prefix %q", prefix)
}

// rootsOf names services so that they can be told apart.
func rootsOf(services []*Service) []string {
	var out []string
	for _, s := range services {
		if p := s.Prefix(); p != "" {
			out = append(out, s.Name+" --prefix "+p)
		} else {
			out = append(out, s.Name)
		}
	}
	return out
}

func thereIs(services []*Service, name string) string {
	return listOf(rootsOf(services), name, "there are ")
}

func listOf(there []string, name, list string) string {
	if len(there) == 0 {
		return "no service answers on this NATS server and account; check --server, --context and that the service runs"
	}
	return Suggest(name, there, list)
}
