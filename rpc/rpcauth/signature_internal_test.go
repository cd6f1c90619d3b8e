package rpcauth

import (
	"bytes"
	"encoding/hex"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/nats-io/nkeys"

	"github.com/natscall/natscall/rpc"
)

const exampleKey = "UDXU4RCSJNZOIQHZNWXHXORDPRTGNJAHAHFRGZNEEJCPQTT2M7NLCNF4"

// TestSignedBytes: the bytes that the guide shows are those that are signed.
func TestSignedBytes(t *testing.T) {
	page, err := os.ReadFile("../../docs/identity.md")
	if err != nil {
		t.Fatal(err)
	}
	block := regexp.MustCompile("(?s)```text signed\n(.*?)```").FindSubmatch(page)
	if block == nil {
		t.Fatal("the guide shows no bytes")
	}
	var want []byte
	for line := range strings.Lines(string(block[1])) {
		line = strings.TrimSuffix(line, "\n")
		if strings.HasPrefix(line, "natscall v1") {
			want = append(want, line...)
			continue
		}
		number, text, _ := strings.Cut(line, " ")
		b, err := hex.DecodeString(number)
		if err != nil {
			t.Fatal(err)
		}
		want = append(append(want, b...), text...)
	}
	got := appendSigned(nil, &signature{
		key: exampleKey, issued: time.UnixMilli(1700000000000), expires: time.UnixMilli(1700000010000),
		audience: "prod", headers: []string{"tenant"},
	}, &request{
		method: "/test/Read", subject: "test.Read", id: "000102030405060708090a0b0c0d0e0f",
		codec: rpc.CodecProto, streams: true, header: rpc.Header{"Tenant": {"acme"}, "other": {"x"}},
	})
	if !bytes.Equal(got, want) {
		t.Errorf("got\n%q, the guide shows\n%q", got, want)
	}
}

// TestDomain: what is signed for a call is nothing that a NATS server asks a client to sign.
func TestDomain(t *testing.T) {
	if utf8.ValidString(domain) || len(domain) < 64 { // a NATS server's nonce has 15 characters
		t.Errorf("%q may be a nonce", domain)
	}
	user, err := nkeys.CreateUser()
	if err != nil {
		t.Fatal(err)
	}
	key, err := user.PublicKey()
	if err != nil {
		t.Fatal(err)
	}
	signed := appendSigned(nil, &signature{key: key}, &request{})
	// A hostile NATS server sends the bytes as its nonce, in JSON, which replaces what is not
	// UTF-8.
	login, err := user.Sign([]byte(strings.ToValidUTF8(string(signed), "\ufffd")))
	if err != nil {
		t.Fatal(err)
	}
	if hasSigned(key, signed, login) {
		t.Error("the signature of a nonce is that of a call")
	}
}

// FuzzParseSignature: there is one way to write a signature, and what is parsed is within bounds.
func FuzzParseSignature(f *testing.F) {
	full := signature{
		key: exampleKey, issued: time.UnixMilli(1700000000000), expires: time.UnixMilli(1700000010000),
		nonce: "AAECAwQFBgcICQoLDA0ODw", audience: "prod/eu", headers: []string{"region", "tenant"}, signature: make([]byte, 64),
	}
	for _, seed := range []string{
		full.String(), strings.ReplaceAll(full.String(), "region,tenant", ""), strings.ReplaceAll(full.String(), "region,", "TENANT,"),
		strings.ReplaceAll(full.String(), full.nonce, ""), strings.ReplaceAll(full.String(), full.nonce, "AAECAwQFBgcICQoLDA0ODx"),
		strings.ReplaceAll(full.String(), "prod/eu", ""), "1;;;;;;;", "", ";", "2", full.String() + ";", full.String() + "\n",
		strings.ReplaceAll(full.String(), "1700000000000", "01"), strings.ReplaceAll(full.String(), "1700000000000", "-1"),
		strings.ReplaceAll(full.String(), "1700000000000", "+1"), strings.ReplaceAll(full.String(), "1700000000000", "99999999999999999999"),
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, header string) {
		s, err := parseSignature(header)
		if err != nil {
			return
		}
		if got := s.String(); got != header {
			t.Errorf("%q is written as %q", header, got)
		}
		if len(s.signature) != 64 || len(s.headers) > maxHeaders || len(s.audience) > 255 || !nkeys.IsValidPublicUserKey(s.key) ||
			s.issued.Before(time.UnixMilli(0)) || s.expires.Year() > 10_000 {
			t.Errorf("%q is %+v", header, s)
		}
		if names, err := canonicalNames(s.headers); err == nil && strings.Join(names, ",") != strings.Join(s.headers, ",") {
			t.Errorf("the names %q are %q", s.headers, names)
		}
	})
}

// FuzzSigned: two requests that differ in anything have different signed bytes.
func FuzzSigned(f *testing.F) {
	f.Add("a", "b", "c", "d", "e", "f", "g", []byte("h"), false, uint8(0))
	f.Add("", "", "", "", "", "", "", []byte(nil), true, uint8(0))
	f.Add("prod", "/a/B", "a.B", "00", "", "acme", "", []byte("x"), false, uint8(3))
	f.Fuzz(func(t *testing.T, audience, method, subject, id, nonce, value, token string, data []byte, streams bool, change uint8) {
		s := signature{key: exampleKey, audience: audience, nonce: nonce, issued: time.UnixMilli(1), expires: time.UnixMilli(2), headers: []string{"a", "b"}}
		r := request{method: method, subject: subject, id: id, data: data, streams: streams, jwt: token, header: rpc.Header{"a": {value}}}
		first := appendSigned(nil, &s, &r)
		if !bytes.HasPrefix(first, []byte(domain)) {
			t.Fatal("the bytes begin with something else")
		}
		other, changed := r, s
		switch change % 14 {
		case 0: // a character goes over to the next field
			if method == "" {
				return
			}
			changed.audience, other.method = audience+method[:1], method[1:]
		case 1:
			changed.audience += "x"
		case 2:
			other.method += "x"
		case 3:
			other.subject, other.id = id, subject
			if id == subject {
				return
			}
		case 4:
			changed.nonce += "x"
		case 5:
			if streams {
				return // there is no data
			}
			other.data = append([]byte("x"), data...)
		case 6:
			other.streams = !streams
		case 7:
			other.jwt += "x"
		case 8:
			other.codec = rpc.CodecJSON
		case 9:
			changed.expires = time.UnixMilli(3)
		case 10:
			other.header = rpc.Header{"a": {value, ""}}
		case 11:
			other.header = rpc.Header{"b": {value}}
		case 12:
			other.header = rpc.Header{"A": {value}}
		case 13:
			changed.headers = []string{"a"}
		}
		if bytes.Equal(first, appendSigned(nil, &changed, &other)) {
			t.Errorf("change %d is not seen", change%14)
		}
	})
}
