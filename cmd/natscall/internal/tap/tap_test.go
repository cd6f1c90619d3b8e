package tap

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go"
	"google.golang.org/protobuf/reflect/protoregistry"

	"github.com/natscall/natscall/cmd/natscall/internal/discover"
	"github.com/natscall/natscall/cmd/natscall/internal/output"
	"github.com/natscall/natscall/cmd/natscall/internal/schema"
	"github.com/natscall/natscall/cmd/natscall/internal/tool"
	natscallv1 "github.com/natscall/natscall/gen/natscall/v1"
	"github.com/natscall/natscall/rpc"
	"github.com/natscall/natscall/rpc/rpctap"
)

func TestSubjects(t *testing.T) {
	for _, test := range []struct {
		a, b             string
		covers, overlaps bool
	}{
		{"a.b", "a.b", true, true},
		{"a.b", "a.c", false, false},
		{"a.*", "a.b", true, true},
		{"a.b", "a.*", false, true},
		{"a.>", "a.b.c", true, true},
		{"a.>", "a", false, false},
		{"a.>", "a.>", true, true},
		{"a.*", "a.>", false, true},
		{"a.>", "a.*", true, true},
		{">", "_INBOX.>", true, true},
		{"a.*.c", "a.b.*", false, true},
		{"a.*", "a.b.c", false, false},
		{"a.b.>", "a.*", false, false},
	} {
		if got := covers(test.a, test.b); got != test.covers {
			t.Errorf("%s covers %s: %v", test.a, test.b, got)
		}
		if got := overlap(test.a, test.b); got != test.overlaps || overlap(test.b, test.a) != got {
			t.Errorf("%s and %s overlap: %v", test.a, test.b, got)
		}
	}
}

func TestDistinct(t *testing.T) {
	for name, test := range map[string]struct {
		patterns, want []string
		failed         bool
	}{
		"apart":   {[]string{"a.>", "b.>", "_INBOX.>"}, []string{"a.>", "b.>", "_INBOX.>"}, false},
		"twice":   {[]string{"a.>", "a.>"}, []string{"a.>"}, false},
		"covered": {[]string{"a.b", "a.>", "a.c"}, []string{"a.>"}, false},
		"all":     {[]string{"_INBOX.>", ">"}, []string{">"}, false},
		"crossed": {[]string{"a.*.c", "a.b.*"}, nil, true},
	} {
		got, err := distinct(test.patterns)
		if diff := cmp.Diff(test.want, got); diff != "" || (err != nil) != test.failed {
			t.Errorf("%s: %v (-want +got):\n%s", name, err, diff)
		}
	}
}

// statusService is a service that does not exist. Its messages are linked into the tool.
func statusService(t *testing.T) *Catalog {
	t.Helper()
	files := new(protoregistry.Files)
	if err := files.RegisterFile(natscallv1.File_natscall_v1_status_proto); err != nil {
		t.Fatal(err)
	}
	c := NewCatalog()
	c.Add(&discover.Service{Name: "a.S", Root: "eu.a.S", Methods: []discover.Method{{Name: "M", Subject: "eu.a.S.M"}, {Name: "N", Subject: "own.n"}}}, schema.New(files))
	status := new(natscallv1.Status).ProtoReflect().Type()
	c.services["eu.a.S"].methods["M"].request = status
	return c
}

func TestMethod(t *testing.T) {
	c := statusService(t)
	for subject, want := range map[string]string{
		"eu.a.S.M":                "a.S/M",
		"own.n":                   "a.S/N",
		"eu.a.S._all.call.N":      "a.S/N",
		"eu.a.S._i.ABC.call.M":    "a.S/M",
		"eu.a.S._schema":          "a.S/_schema",
		"eu.a.S._all.cancel":      "a.S",
		"eu.a.S.Unknown":          "a.S/Unknown",
		"other.v1.Service.Method": "other.v1.Service/Method",
		"_INBOX.abc":              "",
	} {
		if got := c.Method(rpctap.ParseSubject(subject)).String(); got != want {
			t.Errorf("%s is %q, and not %q", subject, got, want)
		}
	}
	m := c.Method(rpctap.ParseSubject("eu.a.S.M"))
	for name, want := range map[string]bool{"M": true, "m": true, "S/M": true, "/a.S/M": true, "a.S/M": true, "b.S/M": false, "N": false, "S": false} {
		if m.isNamed(name) != want {
			t.Errorf("%s is named %q: %v", m, name, !want)
		}
	}
}

// TestText: what messages say, where they are whole and where not.
func TestText(t *testing.T) {
	status := "\x08\x05\x12\x02no"
	for name, test := range map[string]struct {
		m    *nats.Msg
		want string // the lines behind the first
	}{
		"Protobuf, guessed": {&nats.Msg{Subject: "eu.a.S.M", Data: []byte(status)}, `{"code":5,"message":"no"}`},
		"JSON, guessed":     {&nats.Msg{Subject: "eu.a.S.M", Data: []byte(`{"code": 5}`)}, `{"code":5}`},
		"empty":             {&nats.Msg{Subject: "eu.a.S.M"}, `{}`},
		"unknown field":     {&nats.Msg{Subject: "eu.a.S.M", Data: []byte(`{"cod": 5, "code": 6}`)}, `{"code":6}`},
		"JSON, broken":      {&nats.Msg{Subject: "eu.a.S.M", Data: []byte(`{"code": }`)}, `not a valid natscall.v1.Status in JSON: proto: syntax error (line 1:10): unexpected token }: "{\"code\": }"`},
		"Protobuf, broken":  {&nats.Msg{Subject: "eu.a.S.M", Data: []byte("\xff")}, `not a valid natscall.v1.Status in Protobuf: proto: cannot parse invalid wire-format data: ff`},
		"no schema":         {&nats.Msg{Subject: "eu.a.S.X", Data: []byte(status)}, `{1:5 2:"no"}`},
		"no schema, JSON":   {&nats.Msg{Subject: "eu.a.S.X", Data: []byte(`{"a" : 1}`)}, `{"a":1}`},
		"no schema, broken": {&nats.Msg{Subject: "eu.a.S.X", Data: []byte("\xff")}, `not valid Protobuf: ff`},
		"envelope, broken":  {&nats.Msg{Subject: "eu.a.S.M", Data: []byte("\x00\x01\x01")}, `truncated envelope: 3 bytes of 20`},
		"late frame":        {&nats.Msg{Subject: "eu.a.S._i.ABC.00000000000000000000000000000001", Data: []byte("\x00\x01\x11\x00\x07x")}, `its messages are not known: the beginning of the stream was not seen`},
		"header":            {&nats.Msg{Subject: "eu.a.S.M", Header: nats.Header{"Tenant": {"a\x1b[2Jb"}, "Natscall-Timeout": {"5"}}}, `header Tenant: a\x1b[2Jb` + "\n    {}"},
		"long":              {&nats.Msg{Subject: "eu.a.S.M", Data: []byte(`{"message":"` + strings.Repeat("é", 100) + `"}`)}, `{"message":"` + strings.Repeat("é", 14) + `... (214 bytes)`},
	} {
		t.Run(name, func(t *testing.T) {
			row := statusService(t).rowOf(rpctap.NewCalls().Observe(test.m, time.Unix(0, 0)), time.Unix(0, 0))
			var out strings.Builder
			if err := writeText(output.New(&out), row, 41); err != nil {
				t.Fatal(err)
			}
			_, got, _ := strings.Cut(out.String(), "\n")
			if want := "    " + test.want + "\n"; got != want {
				t.Errorf("got %q, want %q", got, want)
			}
		})
	}
}

// TestHostile: a subject, a header, an instance or a message cannot write to the terminal what is
// taken for a command.
func TestHostile(t *testing.T) {
	for name, m := range map[string]*nats.Msg{
		"subject":  {Subject: "a\x1b[2J.b\x07.c"},
		"message":  {Subject: "a.S.M", Data: []byte("{\"a\":\"\x1b[2J\u009b\"}")},
		"header":   {Subject: "a.S.M", Header: nats.Header{"K\x1b": {"v\x1b\nx"}}},
		"instance": {Subject: "a.S.M", Header: nats.Header{"Natscall-Instance": {"\x1b[2J"}}},
		"error":    {Subject: "a.S.M", Header: nats.Header{"Nats-Service-Error-Code": {"5"}, "Nats-Service-Error": {"\x1b[2J\nfake line"}}},
	} {
		row := NewCatalog().rowOf(rpctap.NewCalls().Observe(m, time.Unix(0, 0)), time.Unix(0, 0))
		var out strings.Builder
		if err := writeText(output.New(&out), row, 0); err != nil {
			t.Fatal(err)
		}
		if strings.ContainsAny(out.String(), "\x1b\x07\u009b") || strings.Contains(out.String(), "\nfake") {
			t.Errorf("%s: %q", name, out.String())
		}
	}
}

// TestGuess: a text that is both JSON and a message is what a server takes it for.
func TestGuess(t *testing.T) {
	status := new(natscallv1.Status).ProtoReflect().Type()
	for data, want := range map[string]bool{"85": true, "": false, "\x08\x05": false, "[]": true, "  {}": true, "x": false} {
		e := &rpctap.Event{Message: &rpctap.Message{Encoding: rpctap.Encoding{Codec: rpc.CodecProto, Guessed: true}}}
		if got := isJSON(e, status, []byte(data)); got != want {
			t.Errorf("%q is JSON: %v", data, got)
		}
	}
}

// TestBacklog: messages stay in order, and what does not fit is counted.
func TestBacklog(t *testing.T) {
	b, large := newBacklog(), make([]byte, maxBacklog/2)
	for _, m := range []*nats.Msg{{Subject: "a", Data: large}, {Subject: "b"}, {Subject: "c", Data: large}, {Subject: "d"}} {
		b.add(m)
	}
	var got []string
	<-b.ready
	for _, m := range b.take() {
		got = append(got, m.Subject)
	}
	if diff := cmp.Diff([]string{"a", "b", "d"}, got); diff != "" || b.lost() != 1 || len(b.take()) != 0 {
		t.Errorf("%d are lost (-want +got):\n%s", b.lost(), diff)
	}
	if b.add(&nats.Msg{Subject: "e", Data: large}); len(b.take()) != 1 {
		t.Error("there is no room again")
	}
}

// TestLearner: a service is asked for at most so often, one question at a time, and never once it
// is known.
func TestLearner(t *testing.T) {
	asked := 0
	l := newLearner(func(_ context.Context, known map[string]bool) []*tool.Target {
		if asked++; known["a.S"] {
			t.Error("it is known already")
		}
		if asked < 3 {
			return nil
		}
		return []*tool.Target{{Service: &discover.Service{Name: "a.S", Root: "a.S"}}}
	})
	c, now := NewCatalog(), time.Unix(1, 0)
	for i, wait := range []time.Duration{0, betweenAttempts, betweenAttempts / 2, betweenAttempts / 2} {
		now = now.Add(wait)
		l.want(t.Context(), "a.S", c, now)
		l.want(t.Context(), "b.S", c, now) // while a question is asked, or just after one
		l.running.Wait()
		select {
		case targets := <-l.found:
			if names := l.learned(targets, c); (len(names) == 1) != (i == 3) {
				t.Errorf("question %d: %v", i, names)
			}
		default:
			if i != 2 {
				t.Errorf("question %d was not asked", i)
			}
		}
	}
	for range 10 {
		now = now.Add(betweenAttempts)
		l.want(t.Context(), "a.S", c, now)
		l.want(t.Context(), "", c, now)
		l.running.Wait()
	}
	if asked != 3 {
		t.Errorf("it was asked %d times", asked)
	}
}
