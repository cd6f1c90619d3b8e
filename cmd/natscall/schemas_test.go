package main

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"strings"
	"testing"

	"github.com/natscall/natscall/rpc"
	"github.com/natscall/natscall/rpc/rpctest"
)

// fleet is a service whose instances are of different age.
type fleet struct {
	*console
	old, other, last string // ids of instances
}

// fleetFile has the file of the service in a version, with a field of its own.
func fleetFile(field string) string {
	return `message Car { string ` + field + ` = 1; }
		service Fleet { rpc Get(Car) returns (Car); rpc Watch(stream Car) returns (stream Car); }`
}

// newFleet serves two instances of version 1.9.0, and one of 1.10.0 with another schema.
func newFleet(t *testing.T) *fleet {
	t.Helper()
	server := rpctest.NewServer(t)
	f := &fleet{console: &console{t, nil, server.URL()}}
	for _, i := range []struct {
		id             *string
		version, field string
	}{{&f.old, "1.9.0", "plate"}, {&f.last, "1.10.0", "sign"}, {&f.other, "1.9.0", "plate"}} {
		srv := rpc.NewServer(server.Connect(), rpc.WithLogger(slog.New(slog.DiscardHandler)))
		serveSource(t, srv, "fleet.v1", i.version, fleetFile(i.field), handlers{
			"Get": func(_ context.Context, s *rpc.Stream) error {
				m := new(rpc.Raw)
				return errors.Join(s.Recv(m), s.Send(m))
			},
			"Watch": func(_ context.Context, s *rpc.Stream) error {
				if err := s.Recv(new(rpc.Raw)); !errors.Is(err, io.EOF) {
					return err
				}
				return nil
			},
		})
		startServer(t, srv)
		*i.id = srv.Instance("fleet.v1.Fleet")
	}
	return f
}

// TestDifferentSchemas: where instances of a service have different schemas the commands use that
// of the newest, or of the one that is asked for, and say so in a line.
func TestDifferentSchemas(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	for _, test := range []struct {
		name, want string // what the output has
		args       []string
		warns      bool
	}{
		{"describe", "string sign = 1;", []string{"describe", "Fleet/Get"}, true},
		{"describe a message", "string sign = 1;", []string{"describe", "fleet.v1.Car"}, true},
		{"describe an old one", "string plate = 1;", []string{"describe", "Fleet/Get", "--instance", f.old}, false},
		{"describe an old message", "string plate = 1;", []string{"describe", "Car", "--instance", f.old}, false},
		{"call", `"sign": "a"`, []string{"call", "Fleet/Get", `{"sign": "a"}`}, true},
		{"call an old one", `"plate": "a"`, []string{"call", "Fleet/Get", `{"plate": "a"}`, "--instance", f.other}, false},
		{"call all", `"response":{"sign":"a"}`, []string{"call", "Fleet/Get", `{"sign": "a"}`, "--all"}, true},
		{"template", `"sign": ""`, []string{"call", "Fleet/Get", "--template"}, true},
		{"without a schema", `"sign": "a"`, []string{"call", "Fleet/Get", "--no-schema", `{"sign": "a"}`, "--instance", f.last}, false},
		{"bench", "  calls ", []string{"bench", "Fleet/Get", `{"sign": "a"}`, "-n", "2"}, true},
		{"bench a stream", "  streams ", []string{"bench", "Watch", `{"plate": "a"}`, "-n", "2", "--instance", f.old}, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			r := f.run(test.args...)
			if r.status != 0 || !strings.Contains(r.stdout, test.want) {
				t.Errorf("exit status %d:\n%s%s", r.status, r.stdout, r.stderr)
			}
			if test.warns != (r.stderr != "") || test.warns && !f.isWarning(r.stderr) {
				t.Errorf("it says %q", r.stderr)
			}
		})
	}
	check(t, f.url, []mistake{
		{"message of nobody", []string{"describe", "Car", "--instance", "nobody"}, "", 1, `there is no instance "nobody"`, "`natscall ps`"},
	})
	r := f.run("call", "Fleet/Get", `{"sign": "a"}`, "--json")
	var said struct{ Warning string }
	if err := json.Unmarshal([]byte(r.stderr), &said); err != nil || !f.isWarning("warning: "+said.Warning+"\n") {
		t.Errorf("in JSON: %v: %s", err, r.stderr)
	}
}

// isWarning reports whether a text is a line that says how the instances differ.
func (f *fleet) isWarning(text string) bool {
	begin, rest, _ := strings.Cut(text, " of version 1.10.0 ("+f.last+"), which is used; ")
	older, end, _ := strings.Cut(rest, ")")
	return strings.HasPrefix(begin, "warning: instances of fleet.v1.Fleet have different schemas: ") && strings.Contains(older, " of version 1.9.0 (") &&
		strings.Contains(older, f.old) && strings.Contains(older, f.other) && end == "; --instance takes that of one\n"
}
