package names_test

import (
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go/micro"

	"github.com/natscall/natscall/internal/names"
	"github.com/natscall/natscall/rpc/rpctest"
)

func TestJoin(t *testing.T) {
	for want, parts := range map[string][]string{"": {"", ""}, "a": {"", "a", ""}, "a.b.c": {"a", "", "b.c"}} {
		if got := names.Join(parts...); got != want {
			t.Errorf("Join(%q) = %q, want %q", parts, got, want)
		}
	}
}

// cases are values with what is said about them; nothing where they are fine.
type cases map[string]string

func (c cases) test(t *testing.T, check func(string) error) {
	t.Helper()
	for value, want := range c {
		got := ""
		if err := check(value); err != nil {
			got = err.Error()
		}
		if got != want {
			t.Errorf("%q: got %q, want %q", value, got, want)
		}
	}
}

// subjects are also what prefixes and roots may be.
var subjects = cases{
	"a":                                "",
	"order.v1.OrderService.PlaceOrder": "",
	"a_b.c-d":                          "",
	"1.2":                              "",
	"+OK":                              "",
	"a.$b":                             "", // not the first token, and no ${b}
	"orders.$id":                       "",
	"orders/:id":                       "", // the colon does not begin a token
	"a.100%":                           "",
	"a.%sx":                            "",
	"a.<x":                             "",
	strings.Repeat("x", 255):           "",
	strings.Repeat("x", 256):           `has 256 bytes, more than 255`,
	"$SRV.PING":                        `"$SRV.PING" starts with "$", which belongs to NATS`,
	"a..b":                             `"a..b" has an empty token`,
	".a":                               `".a" has an empty token`,
	"a.":                               `"a." has an empty token`,
	"_INBOX.a":                         `"_INBOX.a" has the token "_INBOX"; those that start with "_" are reserved for the runtime`,
	"a._all":                           `"a._all" has the token "_all"; those that start with "_" are reserved for the runtime`,
	"a.*":                              `"a.*" has the wildcard '*'`,
	"a.>":                              `"a.>" has the wildcard '>'`,
	"a>":                               `"a>" has the wildcard '>'`,
	"a b":                              character(`"a b"`, `' '`),
	"a\r\nPUB":                         character(`"a\r\nPUB"`, `'\r'`),
	"a\x00":                            character(`"a\x00"`, `'\x00'`),
	"a\x7f":                            character(`"a\x7f"`, `'\x7f'`),
	"ä":                                character(`"ä"`, `'ä'`),
	"\xff":                             character(`"\xff"`, `'�'`),
	"{tenant}":                         noPlaceholders(`"{tenant}"`, `"{tenant}"`),
	"orders.{{.ID}}.new":               noPlaceholders(`"orders.{{.ID}}.new"`, `"{{"`),
	"a-${ID}":                          noPlaceholders(`"a-${ID}"`, `"a-${ID}"`),
	"a.:id":                            noPlaceholders(`"a.:id"`, `":id"`),
	"<tenant>.a":                       noPlaceholders(`"<tenant>.a"`, `"<tenant>"`),
	"a.%s":                             noPlaceholders(`"a.%s"`, `"%s"`),
}

func character(value, char string) string {
	return value + " has the character " + char + "; only printable ASCII without spaces is allowed"
}

func noPlaceholders(value, token string) string {
	return value + " has the token " + token + ", but natscall has no placeholders: subjects are used as they stand"
}

func TestCheckSubject(t *testing.T) {
	subjects.test(t, names.CheckSubject)
	cases{"": `"" has an empty token`}.test(t, names.CheckSubject)
}

func TestCheckPrefix(t *testing.T) {
	subjects.test(t, names.CheckPrefix)
	cases{"": ""}.test(t, names.CheckPrefix)
}

func TestCheckQueueGroup(t *testing.T) {
	cases{
		"q":                      "",
		"a.b":                    "",
		"_x":                     "",
		"$x":                     "",
		"{x}":                    "", // a group is no subject: nobody publishes to it
		"":                       `"" has an empty token`,
		".a":                     `".a" has an empty token`,
		"a b":                    character(`"a b"`, `' '`),
		"a\n":                    character(`"a\n"`, `'\n'`),
		"ä":                      character(`"ä"`, `'ä'`),
		"*":                      `"*" has the wildcard '*'`,
		"a>":                     `"a>" has the wildcard '>'`,
		strings.Repeat("x", 256): `has 256 bytes, more than 255`,
	}.test(t, names.CheckQueueGroup)
}

func TestCheckPublished(t *testing.T) {
	for subject, want := range map[string]string{
		// Names of others are not ours to judge.
		"$JS.API.INFO": "", "_INBOX.x": "", "a.{b}": "",
		"a..b": "empty token", "a.*": "wildcard", "a.>": "wildcard", "a b": "character", "a\r\nb": "character", "": "empty token",
		strings.Repeat("x", 256): "more than 255",
	} {
		if err := names.CheckPublished(subject); (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", subject, err, want)
		}
	}
}

func TestCheckMicroName(t *testing.T) {
	cases{
		"OrderService":           "",
		"every-thing_1":          "",
		strings.Repeat("x", 255): "",
		strings.Repeat("x", 256): `has 256 bytes, more than 255`,
		"":                       `"" has other characters than letters, digits, "-" and "_"`,
		"order.v1":               `"order.v1" has other characters than letters, digits, "-" and "_"`,
		"a\n":                    `"a\n" has other characters than letters, digits, "-" and "_"`,
	}.test(t, names.CheckMicroName)
}

func TestCheckVersion(t *testing.T) {
	cases{
		"0.0.0":              "",
		"1.2.3-rc.1+build.5": "",
		"1.0.0-0a.-":         "",
		"1.0.0-01":           notSemantic("1.0.0-01"),
		"1.0":                notSemantic("1.0"),
		"v1.0.0":             notSemantic("v1.0.0"),
		"01.0.0":             notSemantic("01.0.0"),
		"1.0.0+":             notSemantic("1.0.0+"),
		"":                   notSemantic(""),
	}.test(t, names.CheckVersion)
}

func notSemantic(version string) string {
	return `"` + version + `" is not a semantic version such as 1.2.3 or 1.2.3-beta.1`
}

func TestCheckMetadata(t *testing.T) {
	cases{
		"region":        "",
		"natscall":      "",
		"ä b":           "",
		"":              "has an empty key",
		"natscall.kind": `key "natscall.kind" starts with "natscall.", which is reserved for the runtime`,
	}.test(t, func(key string) error { return names.CheckMetadata(map[string]string{"a": "", key: "\n"}) })
	if err := names.CheckMetadata(nil); err != nil {
		t.Error(err)
	}
}

// FuzzCheckSubject: a message published to what is accepted reaches a queue
// subscription on it, so NATS takes both.
func FuzzCheckSubject(f *testing.F) {
	for subject := range subjects {
		f.Add(subject, "q")
	}
	f.Add("a.b", "_x")
	f.Add("+OK", "'\"")
	f.Add(strings.Repeat("x.", 127)+"x", strings.Repeat("x", 255))
	// The fuzzer has goroutines of its own, so no leak check.
	nc := rpctest.NewServer(f, rpctest.WithoutLeakCheck()).Connect()
	f.Fuzz(func(t *testing.T, subject, group string) {
		if names.CheckSubject(subject) != nil || names.CheckQueueGroup(group) != nil {
			return
		}
		sub, err := nc.QueueSubscribeSync(subject, group)
		if err != nil {
			t.Fatalf("subscribe to %q, %q: %v", subject, group, err)
		}
		defer func() { _ = sub.Unsubscribe() }()
		if err := nc.Publish(subject, nil); err != nil {
			t.Fatalf("publish to %q: %v", subject, err)
		}
		if m, err := sub.NextMsg(10 * time.Second); err != nil || m.Subject != subject {
			t.Fatalf("published to %q, got %v, %v", subject, m, err)
		}
	})
}

// FuzzMicro: NATS micro takes a service's name and version where both are
// accepted, and only there; it has no bound for them.
func FuzzMicro(f *testing.F) {
	f.Add("OrderService", "1.2.3-rc.1+build.5")
	f.Add("order.v1", "1.0.0")
	f.Add("a", "v1.0.0")
	f.Add("a\n", "1.0.0\n")
	nc := rpctest.NewServer(f, rpctest.WithoutLeakCheck()).Connect()
	f.Fuzz(func(t *testing.T, name, version string) {
		if len(name) > 255 {
			return
		}
		accepted := names.CheckMicroName(name) == nil && names.CheckVersion(version) == nil
		service, err := micro.AddService(nc, micro.Config{Name: name, Version: version})
		if (err == nil) != accepted {
			t.Errorf("%q, %q: accepted is %v, and micro says %v", name, version, accepted, err)
		}
		if err == nil {
			_ = service.Stop()
		}
	})
}
