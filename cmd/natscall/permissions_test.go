package main

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/jwt/v2"
	"github.com/nats-io/nats-server/v2/server"
	protobuf "google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/types/descriptorpb"

	"github.com/natscall/natscall/cmd/natscall/internal/problem"
	inventoryv1 "github.com/natscall/natscall/gen/inventory/v1"
	"github.com/natscall/natscall/gen/inventory/v1/inventoryv1nats"
	orderv1 "github.com/natscall/natscall/gen/order/v1"
	"github.com/natscall/natscall/rpc"
)

// TestAnswers: a service that may not answer is of no use, and one that may answer each request
// once cannot stream. So the output says how often it may answer.
func TestAnswers(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name    string
		answers *server.ResponsePermission
		works   []string
		breaks  []string
	}{
		{"none", nil, nil, []string{"GetStock", "ImportStock"}},
		{"one", &server.ResponsePermission{MaxMsgs: 1, Expires: patience}, []string{"AddStock", "GetStock"}, []string{"ImportStock"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			options := configured(t, output(t, shopUsers+" "+shopFiles), usersConfig)
			i := slices.IndexFunc(options.Users, func(u *server.User) bool { return u.Username == "inventory" })
			options.Users[i].Permissions.Response = test.answers
			s := newShop(t, func(o *server.Options) { o.Users = options.Users })
			must(t, s.serveInventory("inventory"))
			p, probes := s.connect("shopper"), inventoryProbes()
			for _, name := range test.works {
				if err := probes[name](testContext(t), p); err != nil {
					t.Errorf("%s fails: %v", name, err)
				}
			}
			for _, name := range test.breaks {
				// Nothing tells the client that an answer was refused.
				ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
				if err := probes[name](ctx, p); err == nil {
					t.Errorf("%s works", name)
				}
				cancel()
			}
		})
	}
}

// TestInstances: calls to one instance are permitted, those to all need what --instances adds.
func TestInstances(t *testing.T) {
	with := configured(t, output(t, "--instances "+shopUsers+" "+shopFiles), usersConfig).Users
	shopper := slices.IndexFunc(with, func(u *server.User) bool { return u.Username == "shopper" })
	without := configured(t, output(t, shopUsers+" "+shopFiles), usersConfig).Users[shopper]
	without.Username = "shopper_without"
	s := newShop(t, func(o *server.Options) { o.Users = append(with, without) })
	must(t, errors.Join(s.serveInventory("inventory"), s.serveInventory("inventory")))
	call := inventoryProbes()["AddStock"]
	must(t, call(testContext(t), s.connect("shopper")))
	for user, want := range map[string]rpc.Code{"shopper": rpc.CodeOK, "shopper_without": rpc.CodePermissionDenied} {
		p, method := s.connect(user), inventoryv1nats.InventoryServiceMethods.GetStock
		req := &inventoryv1.GetStockRequest{ProductId: "apple"}
		var instance string
		_, err := method.Call(testContext(t), p.client, req, rpc.ResponseInstance(&instance))
		must(t, err)
		add := &inventoryv1.AddStockRequest{ProductId: "apple", Quantity: 1}
		_, err = inventoryv1nats.InventoryServiceMethods.AddStock.Call(testContext(t), p.client, add, rpc.WithInstance(instance))
		must(t, err)
		g, answers := method.Gather(testContext(t), p.client, req), 0
		for row := range g.All() {
			if row.Err == nil {
				answers++
			}
		}
		if rpc.CodeOf(g.Result().Err) != want || want == rpc.CodeOK && answers != 2 {
			t.Errorf("%s calls all instances: %d answers, %+v", user, answers, g.Result())
		}
	}
}

const optionsSource = `syntax = "proto3";
package shop.v1;
import "google/protobuf/empty.proto";
import "natscall/v1/options.proto";
service S {
  option (natscall.v1.service) = {subject_prefix: "eu" micro_name: "tills" queue_group: "g" };
  rpc Get(google.protobuf.Empty) returns (google.protobuf.Empty);
  rpc Tell(google.protobuf.Empty) returns (google.protobuf.Empty) {
    option (natscall.v1.method) = {subject: "tills.\"new\"" one_way: true};
  }
}
service Events {
  option (natscall.v1.service).no_queue_group = true;
  rpc Tell(google.protobuf.Empty) returns (google.protobuf.Empty) {
    option (natscall.v1.method) = {subject: "tills.\"new\"" one_way: true};
  }
}
`

// TestOptions: what the options of a .proto file and the flags say about subjects.
func TestOptions(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "s.proto")
	must(t, os.WriteFile(file, []byte(optionsSource), 0o600))
	users := "--prefix blue --user s --serve shop.v1.S --queue h --user e --serve shop.v1.Events --user c --inbox my.box --call shop.v1.S/Tell --call shop.v1.S/Get -I " + dir + " " + file
	options := configured(t, output(t, users), `authorization { users: [
		{user: s, password: x, permissions: $s}, {user: e, password: x, permissions: $e}, {user: c, password: x, permissions: $c}
	] }`)
	for i, want := range []struct{ publish, subscribe []string }{
		{[]string{"blue.eu.shop.v1.S._all.instances"}, []string{"blue.eu.shop.v1.S.Get h", `blue.tills."new" h`, "blue.eu.shop.v1.S._all.>", "blue.eu.shop.v1.S._i.*.>", "blue.eu.shop.v1.S._schema", "blue.eu.shop.v1.S._health", "$SRV.*", "$SRV.*.tills", "$SRV.*.tills.*"}},
		{[]string{"blue.shop.v1.Events._all.instances"}, []string{`blue.tills."new"`, "blue.shop.v1.Events._all.>", "blue.shop.v1.Events._i.*.>", "blue.shop.v1.Events._schema", "blue.shop.v1.Events._health", "$SRV.*", "$SRV.*.Events", "$SRV.*.Events.*"}},
		{[]string{`blue.tills."new"`, "blue.eu.shop.v1.S.Get", "blue.eu.shop.v1.S._i.*.call.Get", "blue.eu.shop.v1.S._all.cancel", "blue.eu.shop.v1.S._all.alive", "blue.eu.shop.v1.S._all.instances", "blue.eu.shop.v1.S._i.*.*"}, []string{"my.box.>"}},
	} {
		got := options.Users[i].Permissions
		if !slices.Equal(got.Publish.Allow, want.publish) || !slices.Equal(got.Subscribe.Allow, want.subscribe) {
			t.Errorf("user %s:\ngot  %q %q\nwant %q %q", options.Users[i].Username, got.Publish.Allow, got.Subscribe.Allow, want.publish, want.subscribe)
		}
	}
	if max := options.Users[1].Permissions.Response.MaxMsgs; max != 1 {
		t.Errorf("a service of one-way methods may answer %d times, want once", max)
	}
	var claims map[string]jwt.UserPermissionLimits
	decode(t, output(t, "--json "+users), &claims)
	if len(claims) != 3 || claims["s"].Sub.Allow[0] != "blue.eu.shop.v1.S.Get h" || claims["s"].Resp.MaxMsgs != -1 {
		t.Errorf("claims: %+v", claims)
	}
}

// TestEveryKind: without users the command prints one of each kind, from sources and from
// descriptor sets alike.
func TestEveryKind(t *testing.T) {
	set := &descriptorpb.FileDescriptorSet{File: []*descriptorpb.FileDescriptorProto{
		protodesc.ToFileDescriptorProto(orderv1.File_order_v1_order_proto), // without its imports
	}}
	data, err := protobuf.Marshal(set)
	must(t, err)
	file := filepath.Join(t.TempDir(), "image.binpb")
	must(t, os.WriteFile(file, data, 0o600))
	printed := output(t, file)
	if source := output(t, "-I ../../proto ../../proto/order/v1/order.proto"); printed != source {
		t.Errorf("from a descriptor set:\n%s\nfrom the source:\n%s", printed, source)
	}
	options := configured(t, printed, `authorization { users: [
		{user: a, password: x, permissions: $service}, {user: b, password: x, permissions: $client}, {user: c, password: x, permissions: $tool}
	] }`)
	if n := len(options.Users[1].Permissions.Publish.Allow); n != 12 {
		t.Errorf("the client may publish to %d subjects", n)
	}
}

// TestWrongInput: errors name what is wrong, with file and line where there are any.
func TestWrongInput(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{
		"syntax.proto":    "syntax = \"proto3\";\n\nservice S {\n",
		"import.proto":    "syntax = \"proto3\";\nimport \"no/such.proto\";\n",
		"messages.proto":  "syntax = \"proto3\";\nmessage M {}\n",
		"empty.proto":     "syntax = \"proto3\";\npackage a;\n\nservice S {}\n",
		"subject.proto":   "syntax = \"proto3\";\npackage a;\nimport \"natscall/v1/options.proto\";\nmessage M {}\nservice S {\n  rpc Do(M) returns (M) {\n    option (natscall.v1.method).subject = \"a.*\";\n  }\n}\n",
		"reserved.proto":  "syntax = \"proto3\";\npackage a;\nmessage M {}\nservice S {\n  rpc _Do(M) returns (M);\n}\n",
		"one.proto":       "syntax = \"proto3\";\npackage a;\nmessage M {}\nservice S {\n  rpc Do(M) returns (M);\n}\n",
		"natscall.v1.txt": "no descriptor set",
	} {
		must(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600))
	}
	for _, test := range []struct {
		args, want string
		exit       int
	}{
		{"", "no files are given", problem.StatusUsage},
		{"DIR/no.proto", "no such file", problem.StatusFailure},
		{"DIR/one.proto", "is in none of the folders that -I names: .", problem.StatusFailure},
		{"-I DIR DIR/syntax.proto", "DIR/syntax.proto:4:1: syntax error", problem.StatusFailure},
		{"-I DIR DIR/import.proto", `DIR/import.proto:2:8: could not resolve path "no/such.proto": no folder that -I names has it`, problem.StatusFailure},
		{"-I DIR DIR/messages.proto", "messages.proto defines no services", problem.StatusFailure},
		{"-I DIR DIR/empty.proto", "empty.proto:4: service a.S has no methods", problem.StatusFailure},
		{"-I DIR DIR/subject.proto", `subject.proto:6: rpc: method /a.S/Do: subject "a.*" has the wildcard`, problem.StatusFailure},
		{"-I DIR DIR/reserved.proto", `reserved.proto:5: rpc: method /a.S/_Do: subject "a.S._Do" has the token "_Do"`, problem.StatusFailure},
		{"--prefix a..b -I DIR DIR/one.proto", `prefix "a..b" has an empty token`, problem.StatusUsage},
		{"DIR/natscall.v1.txt", "is no descriptor set, and no source", problem.StatusFailure},
		{"--call a.T -I DIR DIR/one.proto", `the files define no service "a.T", only a.S`, problem.StatusFailure},
		{"--call a.S/Undo -I DIR DIR/one.proto", `service a.S has no method "Undo"`, problem.StatusFailure},
		{"--user x --user y --call a.S -I DIR DIR/one.proto", "--user x: it does nothing", problem.StatusUsage},
		{"--user x --call a.S --user x --call a.S -I DIR DIR/one.proto", "--user x: it does nothing, or is there twice", problem.StatusUsage},
		{"--user a.b -I DIR DIR/one.proto", "must be letters, digits and underscores", problem.StatusUsage},
		{"--inbox a.* -I DIR DIR/one.proto", "has a wildcard", problem.StatusUsage},
		{"--allow-pub a..b -I DIR DIR/one.proto", "has an empty token", problem.StatusUsage},
		{"--allow-pub a.>.b -I DIR DIR/one.proto", "has the wildcard > before its last token", problem.StatusUsage},
		{"--allow-sub a* -I DIR DIR/one.proto", "only a part of a token", problem.StatusUsage},
		{"--accounts --user x --call a.S -I DIR DIR/one.proto", "--accounts is about what is called", problem.StatusUsage},
		{"--accounts --json -I DIR DIR/one.proto", "--from SVC: with --json it is the public key", problem.StatusUsage},
		{"--accounts --from a.b -I DIR DIR/one.proto", `--from "a.b": must be`, problem.StatusUsage},
	} {
		t.Run(test.args, func(t *testing.T) {
			var stdout, stderr strings.Builder
			args := strings.Fields(strings.ReplaceAll(test.args, "DIR", dir))
			exit := run(t.Context(), append([]string{"permissions"}, args...), nil, &stdout, &stderr)
			if want := strings.ReplaceAll(test.want, "DIR", dir); exit != test.exit || stdout.Len() > 0 || !strings.Contains(stderr.String(), want) {
				t.Errorf("exit code %d, want %d; it says %q, want %q", exit, test.exit, stderr.String(), want)
			}
		})
	}
}
