package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/micro"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/types/descriptorpb"

	"github.com/natscall/natscall/cmd/natscall/internal/problem"
	"github.com/natscall/natscall/gen/inventory/v1/inventoryv1nats"
	orderv1 "github.com/natscall/natscall/gen/order/v1"
	"github.com/natscall/natscall/rpc"
	"github.com/natscall/natscall/rpc/rpctest"
)

// TestDescribe: the text that a service gives of itself is that of its .proto file: compiled again
// it is the same, comments included.
func TestDescribe(t *testing.T) {
	t.Parallel()
	c := newConsole(t)
	service := c.ok("describe", "order.v1.OrderService")
	for _, want := range []string{
		"// OrderService takes orders and sees each one through: all of its lines are sold, or none.\nservice OrderService {",
		"  // GetOrder returns an order. It fails with NOT_FOUND where there is none with the id.\n  rpc GetOrder ( GetOrderRequest ) returns ( GetOrderResponse ) {",
		"timeout: { seconds: 10 }",
		"rpc PickOrder ( stream PickOrderRequest ) returns ( stream PickOrderResponse )",
	} {
		if !strings.Contains(service, want) {
			t.Errorf("describe does not print %q:\n%s", want, service)
		}
	}
	method := c.ok("describe", "PlaceOrder")
	for _, want := range []string{"rpc PlaceOrder (", "message PlaceOrderRequest {", "message Line {", "enum OrderState {", "// Rejection says why an order was not sold."} {
		if !strings.Contains(method, want) {
			t.Errorf("describe does not print %q:\n%s", want, method)
		}
	}
	for name, want := range map[string]string{
		"order.v1.Line": "message Line {", "Stock": "message Stock {", "OrderState": "enum OrderState {", "inventory.v1.OutOfStock": "message OutOfStock {",
	} {
		if got := c.ok("describe", name); !strings.Contains(got, want) {
			t.Errorf("describe %s prints\n%s", name, got)
		}
	}
	if from := c.ok("describe", "order.v1.OrderService", "--proto", "../../proto/order/v1/order.proto", "-I", "../../proto"); from != service {
		t.Errorf("from the file:\n%s\nfrom the service:\n%s", from, service)
	}
}

// TestDescribeSet: the descriptor set has all that the files import, and what describe prints by it
// is what the service says.
func TestDescribeSet(t *testing.T) {
	t.Parallel()
	c := newConsole(t)
	file := filepath.Join(t.TempDir(), "order.binpb")
	c.ok("describe", "OrderService", "--descriptor-set", file)
	data, err := os.ReadFile(file)
	must(t, err)
	set := new(descriptorpb.FileDescriptorSet)
	must(t, proto.Unmarshal(data, set))
	files, err := protodesc.NewFiles(set)
	must(t, err)
	if _, err := files.FindFileByPath(orderv1.File_order_v1_order_proto.Path()); err != nil {
		t.Error(err)
	}
	if out := c.ok("describe", "OrderService", "--descriptor-set", "-"); out != string(data) {
		t.Error("to stdout it is another set")
	}
	if by, of := c.ok("describe", "PickOrder", "--proto", file), c.ok("describe", "PickOrder"); by != of {
		t.Errorf("by the set:\n%s\nby the service:\n%s", by, of)
	}
	var described []struct {
		Kind, Name, Comment string
		Methods             []struct{ Name, Shape, Timeout, Request, Comment string }
	}
	text := c.ok("describe", "OrderService", "--json")
	must(t, json.Unmarshal([]byte(text), &described))
	if d := described[0]; d.Kind != "service" || d.Name != orderRoot || d.Comment == "" || len(d.Methods) != 4 || d.Methods[0].Timeout != "10s" || d.Methods[3].Shape != "bidi_stream" {
		t.Errorf("in JSON: %s", text)
	}
}

// TestListed: ls, ping and stats show what is there, to people and to programs.
func TestListed(t *testing.T) {
	t.Parallel()
	c := newConsole(t)
	s, err := micro.AddService(c.shop.connect("other").nc, micro.Config{Name: "clock", Version: "1.2.3", Endpoint: &micro.EndpointConfig{
		Subject: "clock.now", Handler: micro.HandlerFunc(func(r micro.Request) { _ = r.Respond([]byte(`{"now": "` + string(r.Data()) + `"}`)) }),
	}})
	must(t, err)
	t.Cleanup(func() { _ = s.Stop() })
	list := c.ok("ls")
	if !strings.Contains(list, inventoryRoot) || strings.Contains(list, "clock") || strings.Contains(list, "\x1b") {
		t.Errorf("ls prints\n%s", list)
	}
	if all := c.ok("ls", "--all"); !strings.Contains(all, "clock") {
		t.Errorf("ls --all prints\n%s", all)
	}
	if one := c.ok("ls", "OrderService"); !strings.Contains(one, "PickOrder   bidi_stream  order.v1.PickOrderRequest") {
		t.Errorf("ls OrderService prints\n%s", one)
	}
	var pings []struct{ Service, Instance, Version string }
	c.read(&pings, "ping", "InventoryService", "--json")
	if len(pings) != 1 || pings[0].Service != inventoryRoot || pings[0].Version != "1.0.0" {
		t.Errorf("ping: %+v", pings)
	}
	if got := c.ok("ping"); strings.Count(got, "1.0.0") != 3 {
		t.Errorf("ping prints\n%s", got)
	}
	c.ok("call", "AddStock", `{"productId": "apple", "quantity": 1}`)
	var counts []struct {
		Method             string
		Requests           int
		Data               struct{ Codes map[string]int }
		Instance, LastName string
	}
	c.read(&counts, "stats", "InventoryService", "--json")
	if len(counts) != 8 || counts[0].Method != "AddStock" || counts[0].Requests != 1 || counts[0].Data.Codes["ok"] != 1 {
		t.Errorf("stats: %+v", counts)
	}
	if got := c.ok("stats"); !strings.Contains(got, "inventory.v1.InventoryService/AddStock") {
		t.Errorf("stats prints\n%s", got)
	}
	// A service of another kind can be called as it is.
	if got := c.ok("call", "clock/default", "--plain", "--no-schema", `{}`); got != "{\n  \"now\": \"{}\"\n}\n" {
		t.Errorf("the clock says %s", got)
	}
}

// TestProcesses: ps shows instances that differ, and with --watch what has happened since the last
// look.
func TestProcesses(t *testing.T) {
	t.Parallel()
	c := newConsole(t)
	c.ok("call", "AddStock", `{"productId": "apple", "quantity": 1}`)
	c.run("call", "GetStock", `{"productId": "none"}`)
	var all []struct {
		Service, Instance, Version, Schema, Health string
		Total                                      struct{ Requests, Errors int }
	}
	c.read(&all, "ps", "InventoryService", "--json")
	if len(all) != 1 || all[0].Health != "SERVING" || all[0].Total.Requests != 2 || all[0].Total.Errors != 1 || !strings.HasPrefix(all[0].Schema, "sha256:") {
		t.Errorf("ps: %+v", all)
	}
	text := c.ok("ps")
	if strings.Count(text, "serving") != 3 || !strings.Contains(text, "1 (50.0%)") || strings.Contains(text, "different schemas") {
		t.Errorf("ps prints\n%s", text)
	}
	c.addOlder(all[0].Instance)
	text = c.ok("ps", "InventoryService")
	if !strings.Contains(text, all[0].Schema[7:15]+"!") || !strings.Contains(text, "0ld0ld0l!") || !strings.Contains(text, "inventory.v1.InventoryService: instances have different schemas") {
		t.Errorf("ps of instances of different age prints\n%s", text)
	}
	if looks := strings.Split(c.ok("ps", "--watch", "--interval", "1ms", "--count", "3"), "\n\n"); len(looks) != 3 || !strings.HasPrefix(looks[2], "SERVICE ") {
		t.Errorf("ps --watch prints\n%q", looks)
	}
	lines := strings.Split(strings.TrimSpace(c.ok("ps", "--watch", "--interval", "1ms", "--count", "2", "--json")), "\n")
	if len(lines) != 2 || !json.Valid([]byte(lines[1])) {
		t.Errorf("ps --watch --json prints\n%q", lines)
	}
}

// addOlder adds an instance of the inventory that is older than the one that there is, to what
// discovery says.
func (c *console) addOlder(like string) {
	c.Helper()
	nc := c.shop.connect("older").nc
	m, err := nc.Request("$SRV.STATS.InventoryService."+like, nil, patience)
	must(c.T, err)
	var stats micro.Stats
	must(c.T, json.Unmarshal(m.Data, &stats))
	stats.ID = "older"
	stats.Metadata["natscall.schema"] = "sha256:0ld0ld0ld0ld"
	answer, err := json.Marshal(stats)
	must(c.T, err)
	_, err = nc.Subscribe("$SRV.STATS", func(m *nats.Msg) { _ = m.Respond(answer) })
	must(c.T, err)
	must(c.T, nc.Flush())
}

// TestNoServices: that there is nothing to list is no error.
func TestNoServices(t *testing.T) {
	t.Parallel()
	s := newShop(t, nil)
	c := &console{t, s, s.srv.URL()}
	for _, command := range []string{"ls", "ps"} {
		if r := c.run(command); r.status != problem.StatusOK || r.stdout != "" || !strings.HasPrefix(r.stderr, "no services answer") {
			t.Errorf("%s: exit status %d: %s%s", command, r.status, r.stdout, r.stderr)
		}
		if r := c.run(command, "--json"); r.status != problem.StatusOK || r.stdout != "[]\n" {
			t.Errorf("%s --json: exit status %d: %s%s", command, r.status, r.stdout, r.stderr)
		}
	}
	for _, command := range []string{"ping", "health", "stats"} {
		if r := c.run(command); r.status != problem.StatusFailure || !strings.Contains(r.stderr, "no instance of any natscall service answers") {
			t.Errorf("%s: exit status %d: %s%s", command, r.status, r.stdout, r.stderr)
		}
	}
}

// terminal is a screen with a size, as a terminal has.
type terminal struct {
	*screen
	width, height int
}

func (t terminal) Size() (width, height int) { return t.width, t.height }

// TestWatch: on a terminal ps --watch draws over what it has drawn, and leaves the terminal as it
// was; it shows rates of the time between two looks.
func TestWatch(t *testing.T) {
	t.Parallel()
	c := newConsole(t)
	out := terminal{newScreen(), 200, 6}
	var stderr bytes.Buffer
	stop := make(chan int, 1)
	ctx := testContext(t)
	go func() {
		stop <- run(ctx, []string{"ps", "--watch", "--interval", "10ms", "--count", "4", "--server", c.url}, nil, out, &stderr)
	}()
	if status := <-stop; status != problem.StatusOK || stderr.Len() > 0 {
		t.Fatalf("exit status %d: %s", status, &stderr)
	}
	text := out.String()
	if !strings.HasPrefix(text, "\x1b[?1049h") || !strings.HasSuffix(text, "\x1b[?1049l") || strings.Count(text, "\x1b[?1049h") != 1 {
		t.Errorf("the terminal is not as it was: %q", text)
	}
	if n := strings.Count(text, "\x1b[H"); n != 4 {
		t.Errorf("it has drawn %d times: %q", n, text)
	}
	for _, look := range strings.Split(text, "\x1b[H")[1:] {
		if n := strings.Count(look, "\r\n"); n > 5 {
			t.Errorf("a look has %d lines, the terminal 6: %q", n, look)
		}
	}
}

// TestHealth: the exit status says whether all instances, or with --any one of them, can do their
// work.
func TestHealth(t *testing.T) {
	t.Parallel()
	s := newShop(t, nil)
	c := &console{t, s, s.srv.URL()}
	servers := make([]*rpc.Server, 2)
	for i := range servers {
		servers[i] = s.newServer(s.connect("inventory").nc)
		must(t, inventoryv1nats.RegisterInventoryServiceServer(servers[i], inventoryv1nats.UnimplementedInventoryServiceServer{}))
		must(t, s.start(servers[i]))
	}
	check := func(status int, statuses int, args ...string) {
		t.Helper()
		r := c.run(append([]string{"health"}, args...)...)
		if r.status != status || strings.Count(r.stdout, "NOT SERVING") != statuses || r.stderr != "" {
			t.Errorf("health %q: exit status %d, want %d:\n%s%s", args, r.status, status, r.stdout, r.stderr)
		}
	}
	check(0, 0)
	must(t, servers[0].SetHealth("", errors.New("the disk is full")))
	check(1, 1, "InventoryService")
	check(0, 1, "InventoryService", "--any")
	if text := c.ok("health", "--any"); !strings.Contains(text, "the disk is full") {
		t.Errorf("it does not say why:\n%s", text)
	}
	must(t, servers[1].SetHealth("", errors.New("the disk is full")))
	check(1, 2, "--any")
	r := c.run("health", "--json")
	var all []struct{ Service, Status, Reason, Since string }
	if err := json.Unmarshal([]byte(r.stdout), &all); err != nil || len(all) != 2 || all[0].Status != "NOT_SERVING" || all[0].Reason != "the disk is full" {
		t.Errorf("in JSON: %v: %s", err, r.stdout)
	}
	if _, err := time.Parse(time.RFC3339, all[0].Since); err != nil {
		t.Error(err)
	}
	if text := c.ok("ps"); strings.Count(text, "NOT SERVING") != 2 || !strings.Contains(text, "the disk is full") {
		t.Errorf("ps prints\n%s", text)
	}
}

// TestContextFile: a context file of the nats command works as it is, and flags and variables count
// for more than what it says.
func TestContextFile(t *testing.T) {
	s := newShop(t, nil)
	must(t, s.serveInventory("inventory"))
	config := t.TempDir()
	contexts := filepath.Join(config, "nats", "context")
	must(t, os.MkdirAll(contexts, 0o700))
	write := func(name, text string) {
		must(t, os.WriteFile(filepath.Join(contexts, name+".json"), []byte(text), 0o600))
	}
	write("shop", `{"description": "the shop", "url": "`+s.srv.URL()+`", "user": "me", "password": "x", "color_scheme": "yellow"}`)
	write("moon", `{"url": "nats://no-such-host.invalid"}`)
	t.Setenv("XDG_CONFIG_HOME", config)
	for _, test := range []struct {
		name, args, context, url, selected string
		want                               int
	}{
		{"by the flag", "--context shop", "", "", "", 0},
		{"by the variable", "", "shop", "", "", 0},
		{"selected", "", "", "", "shop", 0},
		{"a file", "--context " + filepath.Join(contexts, "shop.json"), "", "", "", 0},
		{"the flag counts", "--context shop", "moon", "", "", 0},
		{"a server counts", "--context moon --server " + s.srv.URL(), "", "", "", 0},
		{"a variable for the server", "", "moon", s.srv.URL(), "", 0},
		{"the wrong one", "--context moon", "", "", "", 1},
		{"none that is selected", "--no-context", "", s.srv.URL(), "moon", 0},
		{"unknown", "--context sun", "", "", "", 1},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Setenv("NATS_CONTEXT", test.context)
			t.Setenv("NATS_URL", test.url)
			must(t, os.WriteFile(filepath.Join(config, "nats", "context.txt"), []byte(test.selected), 0o600))
			var out bytes.Buffer
			status := run(testContext(t), append([]string{"ping"}, strings.Fields(test.args)...), nil, &out, &out)
			if status != test.want || status == 0 && !strings.Contains(out.String(), inventoryRoot) {
				t.Errorf("exit status %d: %s", status, &out)
			}
			if test.name == "unknown" && !strings.Contains(out.String(), "the contexts are moon, shop") {
				t.Errorf("it does not say what there is: %s", &out)
			}
		})
	}
}

// TestVariables: the variables of the nats command stand for flags. One that means nothing without
// another one is left alone, as by nats.
func TestVariables(t *testing.T) {
	login := func(o *server.Options) { o.Username, o.Password = "me", "x" }
	token := func(o *server.Options) { o.Authorization = "secret" }
	for name, test := range map[string]struct {
		server    func(*server.Options)
		variables map[string]string
		want      int
		text      string
	}{
		"login":            {login, map[string]string{"NATS_USER": "me", "NATS_PASSWORD": "x"}, 0, "[]"},
		"wrong login":      {login, map[string]string{"NATS_USER": "me", "NATS_PASSWORD": "y"}, 1, "refuses the login"},
		"token":            {token, map[string]string{"NATS_TOKEN": "secret"}, 0, "[]"},
		"token as user":    {token, map[string]string{"NATS_USER": "secret"}, 0, "[]"},
		"password alone":   {nil, map[string]string{"NATS_PASSWORD": "x"}, 0, "[]"},
		"seed alone":       {nil, map[string]string{"NATS_SEED": "x"}, 0, "[]"},
		"certificate only": {nil, map[string]string{"NATS_CERT": "main.go"}, 0, "[]"},
		"no duration":      {nil, map[string]string{"NATS_TIMEOUT": "soon"}, 2, "environment variable NATS_TIMEOUT: "},
		"no such file":     {nil, map[string]string{"NATS_CREDS": "no/such.creds"}, 1, "no/such.creds"},
	} {
		t.Run(name, func(t *testing.T) {
			var opts []rpctest.Option
			if test.server != nil {
				opts = append(opts, rpctest.WithServerOptions(test.server))
			}
			t.Setenv("NATS_URL", rpctest.NewServer(t, opts...).URL())
			for variable, value := range test.variables {
				t.Setenv(variable, value)
			}
			var out bytes.Buffer
			status := run(testContext(t), []string{"ls", "--json"}, nil, &out, &out)
			if status != test.want || !strings.Contains(out.String(), test.text) {
				t.Errorf("exit status %d: %s", status, &out)
			}
		})
	}
}

// TestJSONDetails: the details of errors are decoded by the schema of the service.
func TestJSONDetails(t *testing.T) {
	t.Parallel()
	c := newConsole(t)
	c.ok("call", "AddStock", `{"productId": "apple", "quantity": 1}`)
	r := c.run("call", "Reserve", `{"productId": "apple", "reservationId": "r", "quantity": 2}`, "--json")
	var report problem.Report
	must(t, json.Unmarshal([]byte(r.stderr), &report))
	const want = `{"@type":"type.googleapis.com/inventory.v1.OutOfStock","productId":"apple","requested":2,"available":1}`
	if len(report.Details) != 1 || compacted(t, report.Details[0]) != want || report.Code != "failed_precondition" || report.Execution != "did run" {
		t.Errorf("exit status %d: %s", r.status, r.stderr)
	}
	r = c.run("call", "Reserve", `{"productId": "apple", "reservationId": "r", "quantity": 2}`)
	if !strings.Contains(r.stderr, "\n  detail: "+want+"\n  the call did run, on instance ") {
		t.Errorf("for people: %s", r.stderr)
	}
}

func compacted(t *testing.T, data []byte) string {
	t.Helper()
	var out bytes.Buffer
	must(t, json.Compact(&out, data))
	return out.String()
}
