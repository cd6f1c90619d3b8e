package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/natscall/natscall/cmd/natscall/internal/problem"
	"github.com/natscall/natscall/rpc"
	"github.com/natscall/natscall/rpc/rpctest"
)

// mistake is a use of the tool that fails.
type mistake struct {
	name   string
	args   []string
	stdin  string
	status int
	says   string // the reason, after the name of the command
	next   string // a part of the next step
}

// status is that of a failed call.
func status(code rpc.Code) int { return problem.StatusCall + int(code) }

// check runs the mistakes, for people and for programs: each has a reason in a line, and a next
// step.
func check(t *testing.T, url string, mistakes []mistake) {
	for _, m := range mistakes {
		t.Run(m.name, func(t *testing.T) {
			t.Parallel()
			r := runAt(testContext(t), url, strings.NewReader(m.stdin), m.args...)
			if r.status != m.status {
				t.Errorf("exit status %d, want %d", r.status, m.status)
			}
			first, rest, _ := strings.Cut(r.stderr, "\n")
			if !strings.HasPrefix(first, "natscall "+m.args[0]+": "+m.says) {
				t.Errorf("the reason is %q, want %q", first, m.says)
			}
			if m.next != "" && !strings.Contains(rest, "  next: ") || !strings.Contains(rest, m.next) {
				t.Errorf("the next step is %q, want %q", rest, m.next)
			}
			if strings.Contains(r.stderr, "goroutine ") || strings.Contains(r.stderr, ".go:") {
				t.Errorf("there is a stack trace: %s", r.stderr)
			}
			r = runAt(testContext(t), url, strings.NewReader(m.stdin), append(m.args, "--json")...)
			var report problem.Report
			if err := json.Unmarshal([]byte(r.stderr), &report); err != nil || report.Status != m.status || r.status != m.status {
				t.Errorf("in JSON, with exit status %d: %v: %s", r.status, err, r.stderr)
			}
			if !strings.HasPrefix(report.Error, m.says) || m.next != "" && report.Next == "" {
				t.Errorf("in JSON: %s", r.stderr)
			}
		})
	}
}

// TestErrors: mistakes at a shop that is open.
func TestErrors(t *testing.T) {
	t.Parallel()
	c := newConsole(t)
	must(t, c.shop.serveOrders("order", rpc.WithSubjectPrefix("blue"), rpc.WithoutSchema()))
	file := filepath.Join(t.TempDir(), "bad.json")
	must(t, os.WriteFile(file, []byte(`{"deliveryId": "d", "productId": "fig", "quantity": 1} {"quantity": }`), 0o600))
	held := c.shop.hold("me")
	t.Cleanup(func() { close(held.release) })
	const get = `{"productId": "apple"}`
	check(t, c.url, []mistake{
		{"unknown service", []string{"call", "order.v1.OrderServce/GetOrder"}, "", 1, `there is no service "order.v1.OrderServce"`, "did you mean order.v1.OrderService"},
		{"other unknown service", []string{"describe", "Payments"}, "", 1, `there is no service, method or message "Payments"`, "there are inventory.v1.InventoryService, order.v1.OrderFeedService"},
		{"describe a method", []string{"describe", "GetStok"}, "", 1, `there is no service, method or message "GetStok"`, "did you mean inventory.v1.InventoryService/GetStock?"},
		{"describe a message", []string{"describe", "OutOfStok"}, "", 1, `there is no service, method or message "OutOfStok"`, "did you mean inventory.v1.OutOfStock?"},
		{"unknown method", []string{"call", "inventory.v1.InventoryService/GetStok"}, "", 1, `service inventory.v1.InventoryService has no method "GetStok"`, "did you mean GetStock?"},
		{"other unknown method", []string{"call", "inventory.v1.InventoryService/Paint"}, "", 1, `service inventory.v1.InventoryService has no method "Paint"`, "its methods are GetStock, ListStock, AddStock"},
		{"method that no service has", []string{"call", "GetStok"}, "", 1, `no service has a method "GetStok"`, "did you mean inventory.v1.InventoryService/GetStock?"},
		{"service for a method", []string{"call", "InventoryService"}, "", 2, "InventoryService is a service: say which method", "--help"},
		{"wrong prefix", []string{"call", "GetStock", get, "--prefix", "red"}, "", 1, `no service with the subject prefix "red" has a method "GetStock"`, "did you mean inventory.v1.InventoryService/GetStock?"},
		{"wrong prefix of a method", []string{"call", "PickOrder", "--prefix", "red"}, "", 1, `no service with the subject prefix "red" has a method "PickOrder"`, "did you mean order.v1.OrderService/PickOrder or order.v1.OrderService/PickOrder --prefix blue?"},
		{"malformed JSON", []string{"call", "GetStock", `{"productId": apple}`}, "", 1, "request 1: malformed JSON: byte 15: invalid character 'a'", "--template"},
		{"JSON that ends", []string{"call", "GetStock", `{"productId": "apple"`}, "", 1, "request 1: malformed JSON: it ends too early", "--template"},
		{"malformed JSON on stdin", []string{"call", "GetStock", "-"}, "[", 1, "stdin: malformed JSON", "--template"},
		{"malformed JSON in a file", []string{"call", "ImportStock", "@" + file}, "", 1, file + ", message 2: malformed JSON", "--template"},
		{"no file", []string{"call", "GetStock", "@no/such.json"}, "", 2, "requests: open no/such.json", "@FILE reads"},
		{"folder", []string{"call", "GetStock", "@."}, "", 2, "requests: read .: ", "@FILE reads"},
		{"folder to bench", []string{"bench", "GetStock", "@."}, "", 2, "requests: read .: ", "@FILE reads"},
		{"no object", []string{"call", "GetStock", "null"}, "", 1, "inventory.v1.GetStockRequest: a message is an object of JSON", "--template"},
		{"unknown field", []string{"call", "GetStock", `{"product": "apple"}`}, "", 1, `unknown field "product" in GetStockRequest`, "the fields of inventory.v1.GetStockRequest are productId"},
		{"unknown field within", []string{"call", "PlaceOrder", `{"lines": [{}, {"amount": 1}]}`}, "", 1, `unknown field "amount" in PlaceOrderRequest.lines[1]`, "the fields of order.v1.Line are productId, quantity"},
		{"wrong type", []string{"call", "AddStock", `{"quantity": "many"}`}, "", 1, "inventory.v1.AddStockRequest: (line 1:14): invalid value for int32", "--template"},
		{"several requests", []string{"call", "GetStock", get, get}, "", 2, "the method takes one request, and there are several", "--help"},
		{"not found", []string{"call", "GetStock", get}, "", status(rpc.CodeNotFound), "not_found: ", ""},
		{"timeout", []string{"call", "ListStock", "-H", holdHeader + ": me", "--timeout", "100ms"}, "", status(rpc.CodeDeadlineExceeded), "deadline_exceeded: ", "--timeout"},
		{"instance that has gone", []string{"call", "GetStock", get, "--instance", "nobody"}, "", status(rpc.CodeUnavailable), "unavailable: instance nobody", "natscall ps"},
		{"service without a schema", []string{"call", "OrderService/GetOrder", "--prefix", "blue"}, "", 1, "service order.v1.OrderService does not serve its schema", "--proto"},
		{"describe without a schema", []string{"describe", "OrderFeedService", "--prefix", "blue"}, "", 1, "service order.v1.OrderFeedService does not serve its schema", "--proto"},
		{"service that is not there", []string{"call", "GetStock", get, "--prefix", "red", "--proto", "../../proto/inventory/v1/inventory.proto", "-I", "../../proto"}, "", status(rpc.CodeUnavailable), `unavailable: no service answers on "red.inventory.v1.InventoryService.GetStock"`, "natscall ls"},
		{"wrong .proto file", []string{"call", "GetStock", get, "--proto", "no/such.proto"}, "", 2, "stat no/such.proto: no such file", "-I"},
		{"wrong descriptor set", []string{"call", "GetStock", get, "--descriptor-set", "no/such.binpb"}, "", 2, "open no/such.binpb: no such file", "descriptor sets"},
		{"wrong header", []string{"call", "GetStock", get, "-H", "key"}, "", 2, `--header "key": there is no colon`, "--help"},
		{"reserved header", []string{"call", "GetStock", get, "-H", "Nats-Msg-Id: 1"}, "", 2, `--header "Nats-Msg-Id: 1": header "Nats-Msg-Id" is reserved`, "--help"},
		{"header with a wrong key", []string{"bench", "GetStock", "-H", "a key: 1"}, "", 2, `--header "a key: 1": header "a key": the key may not contain " "`, "--help"},
		{"header without a key", []string{"call", "GetStock", "-H", ": 1"}, "", 2, `--header ": 1": header with an empty key`, "--help"},
		{"prefix with a wildcard", []string{"ls", "--prefix", "a.*"}, "", 2, `--prefix "a.*": prefix "a.*" `, "--help"},
		{"prefix with a blank", []string{"tap", "--prefix", "a b"}, "", 2, `--prefix "a b": prefix "a b" `, "--help"},
		{"empty argument", []string{"call", "GetStock", ""}, "", 2, "request 1: malformed JSON: it is empty", "an empty message is {}"},
		{"empty message", []string{"call", "ImportStock", `{"deliveryId": "e"}`, " "}, "", 2, "request 2: malformed JSON: it is empty", "an empty message is {}"},
		{"empty stdin", []string{"call", "GetStock", "-"}, "\n", 2, "stdin: there is no request: it is empty", "an empty message is {}"},
		{"plain stream", []string{"call", "WatchStock", "--plain"}, "", 2, "--plain is for unary methods, and inventory.v1.InventoryService/WatchStock is server_stream", "--help"},
		{"schema or none", []string{"call", "GetStock", "--no-schema", "--proto", "a.proto"}, "", 2, "--no-schema and --proto cannot be given together", "--help"},
		{"all of a stream", []string{"call", "WatchStock", "--all"}, "", 2, "--all is for unary methods, and inventory.v1.InventoryService/WatchStock is server_stream", "--help"},
		{"all and one", []string{"call", "GetStock", "--all", "--instance", "x"}, "", 2, "--all and --instance cannot be given together", "--help"},
		{"large plain request", []string{"call", "GetStock", `{"productId": "` + strings.Repeat("x", maxPayload) + `"}`, "--plain"}, "", status(rpc.CodeResourceExhausted), "resource_exhausted: the request has ", "without --plain"},
		{"no argument", []string{"call"}, "", 2, "an argument is missing: natscall call [flags] METHOD", "--help"},
		{"unknown flag", []string{"ps", "--wach"}, "", 2, "unknown flag: --wach", "--help"},
		{"no such context", []string{"ls", "--context", "moon"}, "", 1, `context "moon": `, "--server"},
		{"unknown service in ps", []string{"ps", "Payments"}, "", 1, `there is no service "Payments"`, "there are "},
		{"unknown service in health", []string{"health", "Payments"}, "", 1, `there is no service "Payments"`, "there are "},
		{"wrong interval", []string{"ps", "--watch", "--interval", "0s"}, "", 2, "--interval must be more than nothing", "--help"},
		{"count without watch", []string{"ps", "--count", "3"}, "", 2, "--interval and --count need --watch", "--help"},
		{"wrong inbox", []string{"ls", "--inbox-prefix", "my inbox"}, "", 2, `--inbox-prefix "my inbox": it must be a subject`, "--help"},
		{"wrong instance", []string{"call", "GetStock", get, "--instance", "a.b"}, "", 2, `--instance "a.b": the instance "a.b" `, "--help"},
		{"empty instance", []string{"describe", "GetStock", "--instance", ""}, "", 2, `--instance "": the instance `, "--help"},
		{"no time", []string{"ls", "--timeout", "1ns"}, "", 1, "the NATS server does not answer within 1ns", "--timeout"},
		{"wrong colors", []string{"ls", "--colors", "pink"}, "", 2, "--colors pink: there are blue, cyan", "--help"},
		{"wrong timeout", []string{"ls", "--timeout", "0s"}, "", 2, "--timeout 0s: it must be more than nothing", "--help"},
	})
}

// TestErrorsOfConnection: there is no connection, for various reasons.
func TestErrorsOfConnection(t *testing.T) {
	t.Parallel()
	const dead = "nats://127.0.0.1:1" // a port that was just closed could be another test's soon
	check(t, dead, []mistake{
		{"dead server", []string{"ls"}, "", 1, "nothing listens at " + dead, "start the NATS server"},
		{"dead server of a call", []string{"call", "GetStock"}, "", 1, "nothing listens at " + dead, "--server"},
		{"dead server of describe", []string{"describe", "GetStock"}, "", 1, "nothing listens at " + dead, "--server"},
	})
	check(t, "nats://somewhere:port", []mistake{{"wrong port", []string{"ls"}, "", 1, `server URL "nats://somewhere:port" is wrong: invalid port`, "nats://localhost:4222"}})
	check(t, "http://me:secret@localhost", []mistake{{"wrong scheme", []string{"ls"}, "", 1, `server URL "http://...@localhost" is wrong: NATS knows no scheme "http"`, "nats://localhost:4222"}})
	check(t, "nats://no-such-host.invalid", []mistake{{"no such host", []string{"ls"}, "", 1, `nats://no-such-host.invalid: there is no host "no-such-host.invalid"`, "--server"}})
	locked := rpctest.NewServer(t, rpctest.WithServerOptions(func(o *server.Options) { o.Username, o.Password = "me", "secret" }))
	check(t, locked.URL(), []mistake{
		{"no login", []string{"ls"}, "", 1, locked.URL() + " refuses the login", "--creds"},
		{"wrong password", []string{"ls", "--user", "me", "--password", "wrong"}, "", 1, locked.URL() + " refuses the login", "--password"},
		{"no credentials file", []string{"ls", "--creds", "no/such.creds"}, "", 1, "credentials: ", "--creds"},
		{"seed without a JWT", []string{"ls", "--seed", "SU"}, "", 2, "--seed (NATS_SEED) needs --jwt (NATS_JWT), too", "--help"},
		{"password without a user", []string{"ls", "--password", "x"}, "", 2, "--password (NATS_PASSWORD) needs --user (NATS_USER), too", "--help"},
		{"JWT without a seed", []string{"ls", "--jwt", "x"}, "", 1, locked.URL() + " refuses the JWT", "--seed"},
		{"certificate without a key", []string{"ls", "--tlscert", "main.go"}, "", 2, "--tlscert (NATS_CERT) needs --tlskey (NATS_KEY), too", "--help"},
		{"no certificate", []string{"ls", "--tlsca", "no/such.pem"}, "", 2, "--tlsca: stat no/such.pem", "--help"},
		{"nobody", []string{"ping", "--user", "me", "--password", "secret"}, "", 1, "no instance of any natscall service answers", "natscall ls"},
		{"nobody to call", []string{"call", "GetStock", "--user", "me", "--password", "secret"}, "", 1, `no service has a method "GetStock"`, "no service answers"},
	})
}

// TestErrorsOfPermissions: NATS does not let the user do what it has to.
func TestErrorsOfPermissions(t *testing.T) {
	t.Parallel()
	config := `authorization { users: [
		{user: inventory, password: x}
		{user: order, password: x}
		{user: blind, password: x, permissions: {publish: {deny: "$SRV.>"}}}
		{user: mute, password: x, permissions: {publish: {deny: ["inventory.v1.InventoryService.GetStock"]}}}
		{user: shy, password: x, permissions: {publish: {deny: ["*.*.*._schema"]}}}
		{user: deaf, password: x, permissions: {subscribe: {deny: "_INBOX.>"}}}
	] }`
	s := newShop(t, func(o *server.Options) { o.Users = configured(t, "", config).Users })
	must(t, s.serveInventory("inventory"))
	as := func(user string, args ...string) []string { return append(args, "--user", user, "--password", "x") }
	const get = `{"productId": "apple"}`
	check(t, s.srv.URL(), []mistake{
		{"blind", as("blind", "ls"), "", 1, "NATS does not permit to ask for services", "natscall permissions --discover"},
		{"deaf", as("deaf", "ls"), "", 1, "NATS does not permit to ask for services", "--inbox-prefix"},
		{"blind, with a full name", as("blind", "call", "inventory.v1.InventoryService/GetStock", get), "", status(rpc.CodeNotFound), "not_found: ", ""},
		{"mute", as("mute", "call", "GetStock", get), "", status(rpc.CodePermissionDenied), "permission_denied: ", "natscall permissions --call"},
		{"shy", as("shy", "call", "GetStock", get), "", status(rpc.CodePermissionDenied), "permission_denied: ", "--proto"},
	})
}
