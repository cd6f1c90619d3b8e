package tool

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/natscall/natscall/cmd/natscall/internal/discover"
	"github.com/natscall/natscall/cmd/natscall/internal/problem"
	"github.com/natscall/natscall/cmd/natscall/internal/schema"
	"github.com/natscall/natscall/rpc"
)

// Session is a connection to NATS and what stands on it.
type Session struct {
	NC       *nats.Conn
	Services discover.Finder
	seen     []*discover.Service // what has been found, once it has
	patient  bool                // it has been asked for patiently
	bare     *rpc.Client         // the one without a subject prefix or options, if there is one
	clients  []*rpc.Client
}

// leastAsking is how long the tool asks for services and schemas at least: --timeout is that of the
// call, too, which may be short.
const leastAsking = 2 * time.Second

// Asking returns a context in which services and schemas are asked for.
func (s *Session) Asking(ctx context.Context) (context.Context, context.CancelFunc) {
	s.Services.Limit = max(s.Services.Limit, leastAsking)
	// There is a question for services, and one for a schema.
	return context.WithTimeout(ctx, 2*s.Services.Limit)
}

// Client returns a client for services whose subjects begin with a prefix, or "". It is closed with
// the session.
func (s *Session) Client(prefix string, opts ...rpc.ClientOption) *rpc.Client {
	opts = append(opts, rpc.WithLogger(slog.New(slog.DiscardHandler))) // errors say it all
	if prefix != "" {
		opts = append(opts, rpc.WithSubjectPrefix(prefix))
	}
	c := rpc.NewClient(s.NC, opts...)
	s.clients = append(s.clients, c)
	return c
}

// Bare returns the client without a subject prefix, for services that are described by what
// discovery says of them (Target.Bare).
func (s *Session) Bare() *rpc.Client {
	if s.bare == nil {
		s.bare = s.Client("")
	}
	return s.bare
}

// All returns the services that are there. They are asked once in a session.
func (s *Session) All(ctx context.Context) ([]*discover.Service, error) {
	if s.seen != nil && (s.patient || !s.Services.IsPatient()) {
		return s.seen, nil
	}
	services, err := s.Services.Services(ctx, "")
	if err == nil {
		s.seen, s.patient = services, s.Services.IsPatient()
	}
	return services, err
}

// Close ends the clients and the connection.
func (s *Session) Close() {
	for _, c := range s.clients {
		_ = c.Close() // never fails
	}
	s.NC.Close()
}

// FindService finds the service that a name means, by what is there or by files.
func (s *Session) FindService(ctx context.Context, from *Source, name string) (*Target, error) {
	return s.find(ctx, from, name, service(from, name))
}

// FindMethod finds the method that a name means, by what is there or by files.
func (s *Session) FindMethod(ctx context.Context, from *Source, name string) (*Target, error) {
	return s.find(ctx, from, name, method(from, name))
}

// Guess finds the service or method that a name means, without patience: the name may be that of
// something else.
func (s *Session) Guess(ctx context.Context, from *Source, name string) (*Target, error) {
	if from.FromFiles() {
		if t, err := s.FindService(ctx, from, name); err == nil {
			return t, nil
		}
		return s.FindMethod(ctx, from, name)
	}
	if t, err := s.findThere(ctx, from, name, service(from, name)); err == nil {
		return t, nil
	}
	return s.findThere(ctx, from, name, method(from, name))
}

func service(from *Source, name string) func([]*discover.Service) (*Target, error) {
	return func(services []*discover.Service) (*Target, error) {
		service, err := discover.Find(services, name, from.Prefix)
		return &Target{Service: service}, err
	}
}

func method(from *Source, name string) func([]*discover.Service) (*Target, error) {
	return func(services []*discover.Service) (*Target, error) {
		service, method, err := discover.FindMethod(services, name, from.Prefix)
		return &Target{Service: service, Method: method}, err
	}
}

// find returns what choose finds among the services of files, or else among those that are there.
// Where asking for them is not permitted, a full name is taken as it stands.
func (s *Session) find(ctx context.Context, from *Source, name string, choose func([]*discover.Service) (*Target, error)) (*Target, error) {
	if from.FromFiles() {
		read, err := from.Read()
		if err != nil {
			return nil, err
		}
		t, err := choose(from.services(read))
		t.Schema = read
		return t, err
	}
	return discover.Patiently(&s.Services, func() (*Target, error) {
		return s.findThere(ctx, from, name, choose)
	})
}

func (s *Session) findThere(ctx context.Context, from *Source, name string, choose func([]*discover.Service) (*Target, error)) (*Target, error) {
	services, err := s.All(ctx)
	if service, method, _ := strings.Cut(name, "/"); errors.Is(err, nats.ErrPermissionViolation) && strings.Contains(service, ".") {
		unseen := &discover.Service{Name: service, Root: join(from.Prefix, service)}
		if method == "" {
			return &Target{Service: unseen}, nil
		}
		return &Target{Service: unseen, Method: &discover.Method{Name: method}}, nil
	}
	if err != nil {
		return nil, err
	}
	return choose(services)
}

// Load gets the schema of a target, from the service itself unless it came from files. instance, if
// it is not "", is the one to ask.
func (s *Session) Load(ctx context.Context, t *Target, instance string) error {
	if t.Schema != nil {
		return nil
	}
	name := t.Service.Name
	if !t.Service.IsNatscall() {
		return problem.Failure("`natscall ls "+name+"` lists its endpoints, `natscall call ENDPOINT --plain --no-schema` calls one", "service %s is not built with natscall, so it has no schema", name)
	}
	set, notice, err := s.fetch(ctx, t, instance)
	if err != nil {
		return noSchema(name, err)
	}
	t.Notice = notice
	if t.Schema, err = schema.FromSet(set); err != nil {
		return problem.Failure("--proto takes the schema from a file", "the schema of %s cannot be read: %w", name, err)
	}
	return nil
}
