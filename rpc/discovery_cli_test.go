package rpc_test

import (
	"debug/buildinfo"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime/debug"
	"slices"
	"strings"
	"testing"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/micro"
	"github.com/santhosh-tekuri/jsonschema/v5"

	"github.com/natscall/natscall/rpc"
	"github.com/natscall/natscall/rpc/rpctest"
)

// toolsFile has the versions of the tools, natscli's among them.
const toolsFile = "../.ci/tools"

// TestNATSCLI runs the real natscli against our services, and holds their
// answers against the JSON schemas that natscli has: what does not match it
// drops silently. It needs Go and a module proxy, or their caches.
func TestNATSCLI(t *testing.T) {
	t.Parallel()
	rpctest.NewServer(t) // until the end: no leak check of another test meets the go command
	cli := installCLI(t)
	t.Run("listing", cli.testListing)
	t.Run("info", cli.testInfo)
	t.Run("request", cli.testRequest)
	t.Run("statistics", cli.testStatistics)
	t.Run("schemas", cli.testSchemas)
	t.Run("pages", cli.testPages)
}

// natsCLI is an installed natscli with a home of its own.
type natsCLI struct{ binary, home string }

func installCLI(t *testing.T) *natsCLI {
	t.Helper()
	cli := &natsCLI{home: t.TempDir()}
	bin := t.TempDir()
	cli.binary = filepath.Join(bin, "nats")
	install := exec.CommandContext(t.Context(), "go", "install", toolVersion(t, "nats"))
	// What the developer sets for this module's build does not apply to another one's.
	install.Env = append(os.Environ(), "GOBIN="+bin, "GOFLAGS=", "GOWORK=off")
	if out, err := install.CombinedOutput(); err != nil {
		t.Fatalf("%v: %v\n%s", install.Args, err, out)
	}
	return cli
}

// toolVersion returns the package and version of a tool.
func toolVersion(t *testing.T, name string) string {
	t.Helper()
	list, err := os.ReadFile(toolsFile)
	must(t, err)
	for line := range strings.Lines(string(list)) {
		if fields := strings.Fields(line); len(fields) == 2 && fields[0] == name {
			return fields[1]
		}
	}
	t.Fatalf("%s has no %s", toolsFile, name)
	return ""
}

// run runs natscli without the user's contexts and settings.
func (c *natsCLI) run(t *testing.T, srv *rpctest.Server, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(testContext(t), c.binary, append([]string{"--server", srv.URL(), "--no-context"}, args...)...)
	cmd.Env = []string{"HOME=" + c.home, "XDG_CONFIG_HOME=" + c.home, "XDG_DATA_HOME=" + c.home, "XDG_CACHE_HOME=" + c.home, "PATH=" + os.Getenv("PATH")}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("nats %q: %v\n%s", args, err, out)
	}
	return string(out)
}

// json runs a command with --json.
func (c *natsCLI) json(t *testing.T, srv *rpctest.Server, dst any, args ...string) {
	t.Helper()
	out := c.run(t, srv, append(args, "--json")...)
	if err := json.Unmarshal([]byte(out), dst); err != nil {
		t.Fatalf("nats %q: %v\n%s", args, err, out)
	}
}

// wantLines checks that there is a line for each pattern.
func wantLines(t *testing.T, out string, patterns ...string) {
	t.Helper()
	for _, p := range patterns {
		if !regexp.MustCompile(`(?m)` + p).MatchString(out) {
			t.Errorf("no line matches %q in\n%s", p, out)
		}
	}
}

// serveTwo runs two instances and returns their ids.
func serveTwo(t *testing.T, impl testServer) (srv *rpctest.Server, nc *nats.Conn, ids []string) {
	t.Helper()
	srv = rpctest.NewServer(t)
	serve(t, srv.Connect(), impl)
	serve(t, srv.Connect(), impl)
	nc = srv.Connect()
	for _, p := range discover[micro.Ping](t, nc, "$SRV.PING.TestService", 2) {
		ids = append(ids, p.ID)
	}
	return srv, nc, ids
}

func (c *natsCLI) testListing(t *testing.T) {
	srv, nc, ids := serveTwo(t, &funcs{})
	wantLines(t, c.run(t, srv, "micro", "ls"), `TestService +│ 1\.2\.3 +│ \w+ +│ TestService is for tests\. `, `│ `+ids[0]+` +│`, `│ `+ids[1]+` +│`)
	var listed []micro.Info
	c.json(t, srv, &listed, "micro", "ls")
	if len(listed) != 2 || len(listed[0].Endpoints) != 8 || listed[0].Metadata["team"] != "core" {
		t.Errorf("ls --json shows %+v", listed)
	}
	// ping goes on for the whole time-out, which has to be enough for a busy machine.
	wantLines(t, c.run(t, srv, "micro", "ping", "--timeout=1s"), `^TestService `+ids[0]+` +rtt=`, `^TestService `+ids[1]+` +rtt=`)
	wantLines(t, c.run(t, srv, "micro", "stats", "TestService"), ids[0], ids[1], `│ Note +│ 0 +│ q +│ 0 +│ 0s`)
	if got := names(t, nc, 2); !slices.Equal(got, []string{"TestService 1.2.3", "TestService 1.2.3"}) {
		t.Errorf("after all that: %q", got)
	}
}

func (c *natsCLI) testInfo(t *testing.T) {
	srv, nc, _ := serveTwo(t, &funcs{do: loadHandler})
	plainStatus(t, ask(t, nc, doSubject, []byte{}, nil), rpc.CodeNotFound)
	failed := ""
	for _, s := range statsOf(t, nc, 2) {
		if s.Endpoints[0].NumErrors == 1 {
			failed = s.ID
		}
	}
	wantLines(t, c.run(t, srv, "micro", "info", "TestService", failed),
		`Service: TestService \(`+failed+`\)$`, `Description: TestService is for tests\.$`, `Version: 1\.2\.3$`,
		`natscall\.service: test\.v1\.TestService$`, `natscall\.protocol: 1$`, `natscall\.schema: sha256:[0-9a-f]{32}$`, `team: core$`,
		`Name: Do$`, `Subject: test\.v1\.TestService\.Do$`, `Subject: notes\.new$`, `Queue Group: q$`,
		`natscall\.kind: unary$`, `natscall\.kind: one_way$`, `natscall\.kind: server_stream$`, `natscall\.idempotency: no_side_effects$`,
		`natscall\.method: /test\.v1\.TestService/Do$`, `natscall\.request: google\.protobuf\.Struct$`, `natscall\.response: google\.protobuf\.Empty$`, `cost: low$`,
		`Statistics for 8 Endpoint\(s\):$`, `Requests: 1 in group "q"$`, `Errors: 1$`, `Last Error: 5:not_found: no order 42$`,
		`"in_flight": 0,$`, `"not_found": 1$`)
}

func (c *natsCLI) testRequest(t *testing.T) {
	srv, _, _ := serveTwo(t, &funcs{})
	for _, args := range [][]string{
		{"micro", "request", "TestService", "Object", `{"a":1}`, "--raw"},
		{"req", objectSubject, `{"a":1}`, "--raw"},
	} {
		if got := compactJSON(t, []byte(c.run(t, srv, args...))); got != `{"a":1}` {
			t.Errorf("nats %q prints %s", args, got)
		}
	}
	if got := c.run(t, srv, "req", doSubject, `"you"`, "--raw", "--header", "Content-Type:application/json"); strings.TrimSpace(got) != `"you"` {
		t.Errorf("nats req with a header prints %q", got)
	}
	wantLines(t, c.run(t, srv, "micro", "request", "TestService", "Do", `{"a":1}`),
		`Nats-Service-Error-Code: 3$`, `Nats-Service-Error: invalid_argument: the request is not a valid google\.protobuf\.StringValue`, `^\{"code": ?3`)
}

// testStatistics: `nats micro stats` adds up.
func (c *natsCLI) testStatistics(t *testing.T) {
	srv := rpctest.NewServer(t)
	for range 3 {
		serve(t, srv.Connect(), &funcs{do: loadHandler})
	}
	calls, failed := load(t, srv.Connect())
	var stats []micro.Stats
	c.json(t, srv, &stats, "micro", "stats", "TestService")
	requests, errs := 0, 0
	for _, s := range stats {
		requests += s.Endpoints[0].NumRequests
		errs += s.Endpoints[0].NumErrors
	}
	if len(stats) != 3 || requests != calls || errs != failed {
		t.Errorf("%d instances count %d calls and %d errors, want 3 with %d and %d", len(stats), requests, errs, calls, failed)
	}
	wantLines(t, c.run(t, srv, "micro", "stats", "TestService"), fmt.Sprintf(`^│ +│ +│ 10,000 +│ +│ %s +│`, thousands(failed)))
}

func thousands(n int) string { return fmt.Sprintf("%d,%03d", n/1000, n%1000) }

// testPages runs the commands that the pages docs/health.md and docs/schemas.md show.
func (c *natsCLI) testPages(t *testing.T) {
	srv := rpctest.NewServer(t)
	serveOrderSchema(t, srv.Connect())
	for page, want := range map[string]string{
		"../docs/health.md": `"status": ?"HEALTH_STATUS_SERVING"`, "../docs/schemas.md": `"path": ?"order/v1/order.proto"`,
	} {
		text, err := os.ReadFile(page)
		must(t, err)
		commands := 0
		for line := range strings.Lines(string(text)) {
			if args, ok := strings.CutPrefix(line, "nats "); ok {
				wantLines(t, c.run(t, srv, strings.Fields(strings.ReplaceAll(args, "'", ""))...), want)
				commands++
			}
		}
		if commands != 1 {
			t.Errorf("%s has %d commands", page, commands)
		}
	}
}

// testSchemas validates every reply of discovery as natscli does.
func (c *natsCLI) testSchemas(t *testing.T) {
	schemas := c.schemas(t)
	srv := rpctest.NewServer(t)
	nc := srv.Connect()
	s := serve(t, srv.Connect(), &funcs{do: loadHandler})
	bare := rpc.ServiceDesc{Name: "test.v1.Bare", MicroName: "Bare", Version: "0.0.0"}
	must(t, rpc.Register(s, &bare, t, []rpc.ServiceOption{rpc.WithoutQueueGroup()}))
	_, err := do(testContext(t), dial(t, nc), "1")
	must(t, err)
	plainStatus(t, ask(t, nc, doSubject, nil, nil), rpc.CodeNotFound)
	for _, p := range discover[micro.Ping](t, nc, "$SRV.PING", 2) {
		for verb, subjects := range verbSubjects(p.Name, p.ID) {
			for i, subject := range subjects {
				instances := []int{2, 1, 1}[i]
				for _, m := range gather(t, nc, subject, instances) {
					if err := validate(schemas[verb], m.Data); err != nil {
						t.Errorf("%s: %#v\n%s", subject, err, m.Data)
					}
				}
			}
		}
	}
	for verb, schema := range schemas {
		if validate(schema, []byte(`{"type":"io.nats.micro.v1.ping_response","name":"a b"}`)) == nil {
			t.Errorf("the schema of %s accepts anything", verb)
		}
	}
}

func validate(schema *jsonschema.Schema, data []byte) error {
	decoder := json.NewDecoder(strings.NewReader(string(data)))
	decoder.UseNumber()
	var answer any
	if err := decoder.Decode(&answer); err != nil {
		return err
	}
	return schema.Validate(answer)
}

// schemas returns the schemas of jsm.go in the version that natscli was built
// with. It is not a dependency of this module, which would drag half of its
// dependencies along.
func (c *natsCLI) schemas(t *testing.T) map[string]*jsonschema.Schema {
	t.Helper()
	info, err := buildinfo.ReadFile(c.binary)
	must(t, err)
	const jsm = "github.com/nats-io/jsm.go"
	i := slices.IndexFunc(info.Deps, func(m *debug.Module) bool { return m.Path == jsm })
	if i < 0 {
		t.Fatalf("natscli was built without %s", jsm)
	}
	download := exec.CommandContext(t.Context(), "go", "mod", "download", "-json", jsm+"@"+info.Deps[i].Version)
	download.Dir = t.TempDir() // outside of this module
	out, err := download.Output()
	if err != nil {
		t.Fatalf("%v: %v\n%s", download.Args, err, out)
	}
	var module struct{ Dir string }
	must(t, json.Unmarshal(out, &module))
	all := map[string]*jsonschema.Schema{}
	for _, verb := range []string{"PING", "INFO", "STATS"} {
		file := filepath.Join(module.Dir, "schemas", "micro", "v1", strings.ToLower(verb)+"_response.json")
		text, err := os.ReadFile(file)
		must(t, err)
		all[verb], err = jsonschema.CompileString(file, string(text))
		must(t, err)
	}
	return all
}
