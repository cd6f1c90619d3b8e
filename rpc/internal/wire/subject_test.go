package wire_test

import (
	"strings"
	"testing"
	"time"

	"github.com/natscall/natscall/rpc/internal/wire"
)

func TestJoin(t *testing.T) {
	for want, parts := range map[string][]string{"": {"", ""}, "a": {"", "a", ""}, "a.b.c": {"a", "", "b.c"}} {
		if got := wire.Join(parts...); got != want {
			t.Errorf("Join(%q) = %q, want %q", parts, got, want)
		}
	}
}

func TestCheckSubject(t *testing.T) {
	for _, subject := range []string{"a", "order.v1.OrderService.PlaceOrder", "a_b.c-d", "a.$b", "1.2", strings.Repeat("x", 255)} {
		if err := wire.CheckSubject(subject); err != nil {
			t.Error(err)
		}
	}
	for _, test := range []struct{ name, subject, want string }{
		{"empty", "", "is empty"},
		{"long", strings.Repeat("x", 256), "longer than 255"},
		{"of NATS", "$SRV.PING", "begin with $"},
		{"empty token", "a..b", "empty token"},
		{"dot before", ".a", "empty token"},
		{"dot behind", "a.", "empty token"},
		{"reserved", "_INBOX.a", "begins with _"},
		{"reserved inside", "a._all", "begins with _"},
		{"wildcard", "a.*", `may not contain '*'`},
		{"full wildcard", "a.>", `may not contain '>'`},
		{"half a wildcard", "a>", `may not contain '>'`},
		{"blank", "a b", `may not contain ' '`},
		{"line break", "a\r\nPUB", `may not contain '\r'`},
		{"NUL", "a\x00", "may not contain"},
		{"delete", "a\x7f", "may not contain"},
		{"beyond ASCII", "ä", "may not contain"},
		{"not UTF-8", "\xff", "may not contain"},
	} {
		t.Run(test.name, func(t *testing.T) {
			if err := wire.CheckSubject(test.subject); err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("CheckSubject(%q) = %v, want %q", test.subject, err, test.want)
			}
		})
	}
}

func TestCheckQueueGroup(t *testing.T) {
	for group, ok := range map[string]bool{"q": true, "a.b": true, "_x": true, "": false, "a b": false, "*": false, "a>": false, "a\n": false, "ä": false, strings.Repeat("x", 256): false} {
		if err := wire.CheckQueueGroup(group); (err == nil) != ok {
			t.Errorf("CheckQueueGroup(%q) = %v", group, err)
		}
	}
}

// FuzzCheckSubject: a message published to what is accepted reaches a queue
// subscription on it, so NATS takes both.
func FuzzCheckSubject(f *testing.F) {
	f.Add("order.v1.OrderService", "q")
	f.Add("a.$b.c", "_x")
	f.Add("a..b", "a.b")
	f.Add("+OK", "'\"")
	f.Add(strings.Repeat("x.", 127)+"x", "q")
	nc := newEcho(f).nc
	f.Fuzz(func(t *testing.T, subject, group string) {
		if wire.CheckSubject(subject) != nil || wire.CheckQueueGroup(group) != nil {
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
