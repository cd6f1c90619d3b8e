package wire_test

import (
	"errors"
	"math"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go"

	"github.com/natscall/natscall/rpc/internal/wire"
	"github.com/natscall/natscall/rpc/rpctest"
)

func TestCheckHeader(t *testing.T) {
	for _, test := range []struct{ name, key, value, want string }{
		{"plain", "tenant", "acme", ""},
		{"every character of a token", "azAZ09!#$%&'*+-.^_`|~", "x", ""},
		{"no value", "k", "", ""},
		{"text", "k", "grüße, 世界: a=b; c", ""},
		{"inner blanks", "k", "a  b", ""},
		{"looks reserved", "Statuses", "x", ""},
		{"empty key", "", "x", "empty key"},
		{"blank", "a b", "x", `may not contain " "`},
		{"colon", "a:b", "x", `may not contain ":"`},
		{"line break in the key", "a\r\nb", "x", `may not contain "\r"`},
		{"letter beyond ASCII", "ä", "x", "may not contain"},
		{"key is not UTF-8", "a\xff", "x", "may not contain"},
		{"of NATS", "Nats-Msg-Id", "x", "is reserved"},
		{"of NATS, in capitals", "NATS-MSG-ID", "x", "is reserved"},
		{"of natscall", "natscall-timeout", "x", "is reserved"},
		{"status", "Status", "x", "is reserved"},
		{"description", "description", "x", "is reserved"},
		{"content type", "content-TYPE", "x", "is reserved"},
		{"escaped", "Natscall-Key-status", "x", ""},
		{"escaped, in lower case", "natscall-key-x", "x", ""},
		{"escaped nothing", "Natscall-Key-", "x", "is reserved"},
		{"escaped, with a blank", "Natscall-Key-a b", "x", `may not contain " "`},
		{"of an extension", "Natscall-Ext-A", "x", "is reserved"},
		{"line break", "k", "a\nb", "control character"},
		{"NUL", "k", "\x00", "control character"},
		{"next line", "k", "a\u0085b", "control character"},
		{"not UTF-8", "k", "\xff", "not UTF-8"},
		{"blank before", "k", " a", "begins or ends with a blank"},
		{"tab behind", "k", "a\t", "control character"},
		{"blank behind", "k", "a ", "begins or ends with a blank"},
	} {
		t.Run(test.name, func(t *testing.T) {
			err := wire.CheckHeader(test.key, test.value)
			if test.want == "" && err != nil || test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)) {
				t.Errorf("CheckHeader(%q, %q) = %v, want %q", test.key, test.value, err, test.want)
			}
		})
	}
}

func TestParseContentType(t *testing.T) {
	const proto, json = wire.CodecProto, wire.CodecJSON
	for header, want := range map[string]wire.Codec{
		"application/protobuf":            proto,
		"application/x-protobuf":          proto,
		"application/json":                json,
		"application/json; charset=utf-8": json,
		"application/json;charset;;=\"":   json,
		" Application/JSON ;x":            json,
	} {
		if got, err := wire.ParseContentType(header); err != nil || got != want {
			t.Errorf("%q: codec is %d, %v; want %d", header, got, err, want)
		}
	}
	for _, header := range []string{"text/plain", "application/grpc", "json", "application/jsonx", "application", "", " ", ";", "application/json, application/protobuf"} {
		if _, err := wire.ParseContentType(header); err == nil || !strings.Contains(err.Error(), "Content-Type") {
			t.Errorf("header %q is accepted or not named: %v", header, err)
		}
	}
}

// TestExecution: what an error says of its handler is read as it was written, in both forms.
func TestExecution(t *testing.T) {
	for _, x := range []wire.Execution{wire.DidRun, wire.NotRun, wire.MayHaveRun, wire.Refused} {
		h := map[string][]string{}
		wire.SetExecution(h, x)
		if got := wire.ExecutionOf(h); got != x {
			t.Errorf("%d is read as %d from %v", x, got, h)
		}
		e, err := wire.Parse(wire.AppendResponse(nil, someID, wire.CodecJSON, wire.FlagError|x.Flags()))
		if err != nil || e.Flags.Execution() != x || e.Flags.Codec() != wire.CodecJSON {
			t.Errorf("%d is read as %d, %v", x, e.Flags.Execution(), err)
		}
	}
	if _, err := wire.Parse(wire.AppendResponse(nil, someID, 0, wire.Refused.Flags())); !errors.Is(err, wire.ErrUnsupported) {
		t.Errorf("a response that is no error says that it was refused: %v", err)
	}
}

func TestTimeoutHeader(t *testing.T) {
	for header, want := range map[string]time.Duration{"": 0, "1": time.Millisecond, "1500": 1500 * time.Millisecond, "9223372036854": 9223372036854 * time.Millisecond,
		"9223372036855": 9223372036854 * time.Millisecond, "99999999999999999999999": 9223372036854 * time.Millisecond} {
		if got, err := wire.ParseTimeout(header); err != nil || got != want {
			t.Errorf("%q is %v, %v; want %v", header, got, err, want)
		}
	}
	for _, header := range []string{"0", "-1", "+1", "1.5", "1s", " 1", "0x10", "x", "1x", "99999999999999999999999x"} {
		if _, err := wire.ParseTimeout(header); err == nil || !strings.Contains(err.Error(), "Natscall-Timeout") {
			t.Errorf("header %q is accepted or not named: %v", header, err)
		}
	}
	for d, want := range map[time.Duration]string{1: "1", time.Millisecond: "1", time.Millisecond + 1: "2", time.Hour: "3600000", math.MaxInt64: "9223372036854"} {
		if got := wire.FormatTimeout(d); got != want {
			t.Errorf("%v is written as %q, want %q", d, got, want)
		}
	}
}

func TestErrorText(t *testing.T) {
	for _, test := range []struct{ name, message, want string }{
		{"plain", "no order 42", "not_found: no order 42"},
		{"none", "", "not_found"},
		{"lines", "a\r\nb\tc\x00d\n", "not_found: a  b c d"},
		{"not UTF-8", "a\xffb", "not_found: a\uFFFDb"},
		{"long", strings.Repeat("ü", 2000), "not_found: " + strings.Repeat("ü", 506)},
		{"long, cut at a blank", strings.Repeat(" ", 2000), "not_found:"},
	} {
		t.Run(test.name, func(t *testing.T) {
			if got := wire.ErrorText("not_found", test.message); got != test.want {
				t.Errorf("got %q, want %q", got, test.want)
			}
		})
	}
}

// echo sends messages through a NATS server.
type echo struct {
	nc  *nats.Conn
	sub *nats.Subscription
}

func newEcho(t testing.TB) *echo {
	// The fuzzer has goroutines of its own, so no leak check.
	nc := rpctest.NewServer(t, rpctest.WithoutLeakCheck()).Connect()
	sub, err := nc.SubscribeSync("echo")
	if err != nil {
		t.Fatal(err)
	}
	return &echo{nc, sub}
}

func (e *echo) header(t *testing.T, h nats.Header) nats.Header {
	t.Helper()
	if err := e.nc.PublishMsg(&nats.Msg{Subject: "echo", Header: h}); err != nil {
		t.Fatalf("publish %v: %v", h, err)
	}
	m, err := e.sub.NextMsg(10 * time.Second)
	if err != nil {
		t.Fatalf("publish %v: %v", h, err)
	}
	return m.Header
}

// FuzzCheckHeader: what is accepted goes through NATS unchanged, also as a trailer.
func FuzzCheckHeader(f *testing.F) {
	f.Add("tenant", "acme")
	f.Add("a.b-c_d~", "grüße: 世界")
	f.Add("k", "\u00a0x\u2028y\ufeff")
	f.Add("Nats-X", "x")
	f.Add("Natscall-Key-status", "x")
	f.Add("k", "")
	e := newEcho(f)
	f.Fuzz(func(t *testing.T, key, value string) {
		err := wire.CheckHeader(key, value)
		if _, escaped := wire.CutKeyPrefix(key); wire.IsReservedKey(key) && !escaped && err == nil {
			t.Errorf("reserved key %q is accepted", key)
		}
		if err != nil {
			if strings.ContainsAny(err.Error(), "\r\n") {
				t.Errorf("the error has several lines: %q", err)
			}
			return
		}
		for _, k := range []string{key, wire.TrailerPrefix + key} {
			sent := nats.Header{k: {value, "and", value}}
			if diff := cmp.Diff(sent, e.header(t, sent)); diff != "" {
				t.Errorf("NATS changes it: %s", diff)
			}
		}
	})
}

// FuzzParseContentType: only the part before the semicolon counts, without its case.
func FuzzParseContentType(f *testing.F) {
	f.Add("application/json; charset=utf-8")
	f.Add("text/plain")
	f.Fuzz(func(t *testing.T, header string) {
		codec, err := wire.ParseContentType(header)
		if codec > wire.CodecJSON {
			t.Errorf("codec is %d", codec)
		}
		for _, same := range []string{strings.ToUpper(strings.ToLower(header)) + ";" + header, header + "; q", " " + header} {
			again, errAgain := wire.ParseContentType(same)
			if again != codec || (err == nil) != (errAgain == nil) {
				t.Errorf("%q is codec %d, %v; %q is codec %d, %v", header, codec, err, same, again, errAgain)
			}
		}
	})
}

// FuzzParseTimeout: what is read is written so that it is read again, and a
// timeout is never rounded down to less than it was.
func FuzzParseTimeout(f *testing.F) {
	f.Add("1500", int64(1))
	f.Add("9223372036854", int64(math.MaxInt64))
	f.Add("-1", int64(time.Second))
	f.Add("none", int64(1))
	f.Fuzz(func(t *testing.T, header string, nanos int64) {
		if d, err := wire.ParseTimeout(header); err == nil && header != "" {
			again, err := wire.ParseTimeout(wire.FormatTimeout(d))
			if err != nil || d <= 0 && d != wire.NoTimeout || again != d {
				t.Errorf("%q is %v, and then %v, %v", header, d, again, err)
			}
		}
		d := time.Duration(nanos)
		if d <= 0 {
			return
		}
		got, err := wire.ParseTimeout(wire.FormatTimeout(d))
		if late := got - d; err != nil || late >= time.Millisecond || late < 0 && got != longest.Truncate(time.Millisecond) {
			t.Errorf("%v arrives as %v, %v", d, got, err)
		}
	})
}

// FuzzErrorText: one line of text that goes through NATS unchanged and begins with the code.
func FuzzErrorText(f *testing.F) {
	f.Add("no order 42")
	f.Add("a\nb\xff \r\n")
	f.Add(strings.Repeat("x ", 600))
	e := newEcho(f)
	f.Fuzz(func(t *testing.T, message string) {
		text := wire.ErrorText("not_found", message)
		if !strings.HasPrefix(text, "not_found") || len(text) > 1024 || !utf8.ValidString(text) || strings.IndexFunc(text, unicode.IsControl) >= 0 {
			t.Errorf("text is %q", text)
		}
		sent := nats.Header{"Nats-Service-Error": {text}}
		if diff := cmp.Diff(sent, e.header(t, sent)); diff != "" {
			t.Errorf("NATS changes it: %s", diff)
		}
	})
}

// FuzzTruncate: the result is the longest beginning of s that fits and splits no character.
func FuzzTruncate(f *testing.F) {
	f.Add("grüße", uint8(3))
	f.Add("", uint8(0))
	f.Add("\x80\x80\x80", uint8(2))
	f.Fuzz(func(t *testing.T, s string, n uint8) {
		got := wire.Truncate(s, int(n))
		if !strings.HasPrefix(s, got) || len(got) > int(n) {
			t.Fatalf("Truncate(%q, %d) = %q", s, n, got)
		}
		if !utf8.ValidString(s) {
			return
		}
		if !utf8.ValidString(got) {
			t.Errorf("Truncate(%q, %d) = %q splits a character", s, n, got)
		}
		if next, size := utf8.DecodeRuneInString(s[len(got):]); size > 0 && len(got)+size <= int(n) {
			t.Errorf("Truncate(%q, %d) = %q could keep %q", s, n, got, next)
		}
	})
}
