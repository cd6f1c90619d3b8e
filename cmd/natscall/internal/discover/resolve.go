package discover

import (
	"fmt"
	"slices"
	"strings"

	"github.com/natscall/natscall/cmd/natscall/internal/problem"
)

// Find returns the service that a name means: its full name, its name in micro, or the end of its
// full name, in any case of letters, if that is unique. prefix is that of its subjects, if there are
// several.
func Find(services []*Service, name, prefix string) (*Service, error) {
	named := matches(services, func(s *Service) bool { return s.Name == name })
	if len(named) == 0 {
		named = matches(services, func(s *Service) bool { return strings.EqualFold(s.Micro, name) || endsWith(s.Name, name) })
	}
	if prefix != "" {
		named = matches(named, func(s *Service) bool { return s.under(prefix) })
	}
	switch len(named) {
	case 0:
		return nil, problem.Failure(thereIs(services, name), "there is no service %q%s", name, under(prefix))
	case 1:
		return named[0], nil
	}
	if unprefixed := matches(named, func(s *Service) bool { return s.Prefix() == "" }); prefix == "" && len(unprefixed) == 1 {
		if allNamed(named, named[0].Name) {
			return unprefixed[0], nil // the others have to be asked for
		}
	}
	return nil, problem.Failure("use one of them: "+strings.Join(rootsOf(named), ", "), "%q means several services", name)
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
	var names, there []string
	var in *Service
	for _, s := range services {
		there = append(there, qualified(s)...)
		if m := s.Method(name); m != nil && (prefix == "" || s.under(prefix)) {
			in = s
			names = append(names, s.Name+"/"+m.Name)
		}
	}
	switch len(names) {
	case 1:
		return in, in.Method(name), nil
	case 0:
		if s, err := Find(services, name, prefix); err == nil {
			return nil, nil, problem.Usage("%s is a service: say which method, as in %s; it has %s", name, example(s), strings.Join(s.MethodNames(), ", "))
		}
		if i := strings.LastIndexByte(name, '.'); i > 0 { // order.v1.OrderService.GetOrder
			if _, err := Find(services, name[:i], prefix); err == nil {
				return FindMethod(services, name[:i]+"/"+name[i+1:], prefix)
			}
		}
		return nil, nil, problem.Failure(Suggest(name, there, "the methods are "), "no service has a method %q", name)
	}
	return nil, nil, problem.Failure("use one of them: "+strings.Join(names, ", "), "several services have a method %q", name)
}

func example(s *Service) string {
	if len(s.Methods) == 0 {
		return s.Name + "/METHOD"
	}
	return s.Name + "/" + s.Methods[0].Name
}

func qualified(s *Service) []string {
	out := s.MethodNames()
	for i := range out {
		out[i] = s.Name + "/" + out[i]
	}
	return out
}

func matches(services []*Service, ok func(*Service) bool) []*Service {
	return slices.DeleteFunc(slices.Clone(services), func(s *Service) bool { return !ok(s) })
}

func allNamed(services []*Service, name string) bool {
	return !slices.ContainsFunc(services, func(s *Service) bool { return s.Name != name })
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
	if len(services) == 0 {
		return "no service answers on this NATS server and account; check --server, --context and that the service runs"
	}
	return Suggest(name, rootsOf(services), "there are ")
}
