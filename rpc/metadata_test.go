package rpc_test

import (
	"context"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/natscall/natscall/rpc"
	"github.com/natscall/natscall/rpc/internal/wire"
	"github.com/natscall/natscall/rpc/rpctest"
)

func TestEncodeMetadata(t *testing.T) {
	for name, test := range map[string]struct {
		md   map[string][]string
		want rpc.Header
	}{
		"none":              {nil, rpc.Header{}},
		"text":              {map[string][]string{"tenant": {"acme", "", "grüße"}}, rpc.Header{"tenant": {"acme", "", "grüße"}}},
		"upper case":        {map[string][]string{"X-Tenant": {"1"}, "x-TENANT": {"2"}, "x-tenant": {"3"}}, rpc.Header{"x-tenant": {"1", "2", "3"}}},
		"no values":         {map[string][]string{"a": {}}, rpc.Header{}},
		"bytes":             {map[string][]string{"X-Bin": {"\x0a\x0b", ""}}, rpc.Header{"x-bin": {"Cgs", ""}}},
		"reserved":          {map[string][]string{"Content-Type": {"a"}, "status": {"b"}}, rpc.Header{"Natscall-Key-content-type": {"a"}, "Natscall-Key-status": {"b"}}},
		"reserved, bytes":   {map[string][]string{"nats-bin": {"\x00"}}, rpc.Header{"Natscall-Key-nats-bin": {"AA"}}},
		"escaped as a name": {map[string][]string{"Natscall-Key-a": {"x"}}, rpc.Header{"Natscall-Key-natscall-key-a": {"x"}}},
		"marked":            {map[string][]string{"a": {" x"}, "b": {"=?base64?"}}, rpc.Header{"a": {"=?base64?IHg"}, "b": {"=?base64?PT9iYXNlNjQ/"}}},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := rpc.EncodeMetadata(test.md)
			must(t, err)
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
	for _, key := range []string{"", "a b", "ä", "a:b", "a\r\nb"} {
		if h, err := rpc.EncodeMetadata(map[string][]string{key: {"x"}}); err == nil || h != nil {
			t.Errorf("key %q is accepted: %v", key, h)
		} else if key != "" && !strings.Contains(err.Error(), "header") {
			t.Errorf("the error does not name the key %q: %v", key, err)
		}
	}
}

func TestDecodeMetadata(t *testing.T) {
	for name, test := range map[string]struct {
		h    rpc.Header
		want map[string][]string
	}{
		"none":                {nil, map[string][]string{}},
		"of the runtime":      {rpc.Header{"Nats-Msg-Id": {"x"}, "Natscall-Timeout": {"5"}, "Natscall-Ext-a": {"x"}, "Natscall-Key-": {"x"}, "Content-Type": {"x"}, "Status": {"503"}, "description": {"x"}}, map[string][]string{}},
		"in any case":         {rpc.Header{"Tenant": {"2"}, "TENANT": {"1"}, "tenant": {"3"}, "natscall-KEY-Status": {"x"}}, map[string][]string{"tenant": {"1", "2", "3"}, "status": {"x"}}},
		"padding":             {rpc.Header{"a-Bin": {"AA==", "AA"}}, map[string][]string{"a-bin": {"\x00", "\x00"}}},
		"not base64":          {rpc.Header{"a-bin": {"?"}, "b": {"=?base64?ä"}}, map[string][]string{"a-bin": {"?"}, "b": {"=?base64?ä"}}},
		"the mark of a bytes": {rpc.Header{"a-bin": {"=?base64?AA"}}, map[string][]string{"a-bin": {"=?base64?AA"}}},
	} {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(test.want, rpc.DecodeMetadata(test.h)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// nasty is metadata that NATS, the runtime or a reader could take for something else.
func nasty() map[string][]string {
	return map[string][]string{
		"tenant":             {"acme", "", "acme"},
		"text":               {"\t leading tabs", "a\r\nb: c\r\n\r\n", "\r\n", "emoji 🎈", " ", "a ", "\u0085", "\xff\xfe", "\x00", "\u00a0x", "\x0a\x0b"},
		"mark":               {"=?base64?", "=?base64?AA", "=?base64?=?base64?", "=?base64"},
		"x-bin":              {"\x0a\x0b", "", "\x00\xff", "=?base64?", "text"},
		"-bin":               {"\x01"},
		"status":             {"503", "No Responders"},
		"description":        {"none"},
		"content-type":       {"application/grpc", "application/json"},
		"nats-x":             {"y"},
		"nats-bin":           {"\n"},
		"natscall-timeout":   {"1"},
		"natscall-not-run":   {"1"},
		"natscall-key-a":     {"b"},
		"natscall-key-":      {"b"},
		"natscall-ext-a":     {"b"},
		"natscall-trailer-x": {"not a trailer"},
		"!#$%&'*+-.^_`|~09":  {"every character"},
	}
}

// metadataOptions sends md as an adapter does.
func metadataOptions(t *testing.T, md map[string][]string) (opts []rpc.CallOption) {
	t.Helper()
	h, err := rpc.EncodeMetadata(md)
	must(t, err)
	for key, values := range h {
		for _, v := range values {
			opts = append(opts, rpc.WithHeader(key, v))
		}
	}
	return opts
}

// TestMetadataRoundTrip sends metadata there and back, in header and trailer, in each form of call.
func TestMetadataRoundTrip(t *testing.T) {
	nc := rpctest.Connect(t)
	arrived := make(chan map[string][]string, 1)
	answer := func(ctx context.Context) error {
		call := rpc.CallFromContext(ctx)
		md := rpc.DecodeMetadata(call.Header())
		h, err := rpc.EncodeMetadata(md)
		for key, values := range h {
			for _, v := range values {
				call.ResponseHeader().Add(key, v)
				call.ResponseTrailer().Add(key, v)
			}
		}
		arrived <- md
		return err
	}
	serve(t, nc, &funcs{
		do: func(ctx context.Context, in string) (string, error) { return in, answer(ctx) },
		watch: func(ctx context.Context, in string, to *rpc.Sender[*text]) error {
			if err := answer(ctx); err != nil {
				return err
			}
			return to.Send(wrapperspb.String(in))
		},
	})
	c := dial(t, nc)
	unary := func(t *testing.T, opts ...rpc.CallOption) (header, trailer rpc.Header) {
		_, err := do(testContext(t), c, "x", append(opts, rpc.ResponseHeader(&header), rpc.ResponseTrailer(&trailer))...)
		must(t, err)
		return header, trailer
	}
	calls := map[string]func(t *testing.T, opts ...rpc.CallOption) (header, trailer rpc.Header){
		"unary": unary,
		"plain": func(t *testing.T, opts ...rpc.CallOption) (header, trailer rpc.Header) {
			return unary(t, append(opts, rpc.WithPlainRequests())...)
		},
		"stream": func(t *testing.T, opts ...rpc.CallOption) (header, trailer rpc.Header) {
			stream, err := testWatch.Call(testContext(t), c, wrapperspb.String("x"), opts...)
			must(t, err)
			for _, err := range stream.All() {
				must(t, err)
			}
			header, err = stream.Header(testContext(t))
			must(t, err)
			return header, stream.Trailer()
		},
	}
	for name, call := range calls {
		t.Run(name, func(t *testing.T) {
			header, trailer := call(t, metadataOptions(t, nasty())...)
			for what, got := range map[string]map[string][]string{
				"request": <-arrived, "header": rpc.DecodeMetadata(header), "trailer": rpc.DecodeMetadata(trailer),
			} {
				if diff := cmp.Diff(nasty(), got); diff != "" {
					t.Errorf("%s (-want +got):\n%s", what, diff)
				}
			}
		})
	}
}

// TestExtensions: headers of extensions come from interceptors and from nobody else.
func TestExtensions(t *testing.T) {
	nc := rpctest.Connect(t)
	serve(t, nc, &funcs{do: func(ctx context.Context, in string) (string, error) {
		call := rpc.CallFromContext(ctx)
		if in == "answer" {
			call.ResponseHeader().Set("Natscall-Ext-A", "x")
		}
		return call.Header().Get("natscall-ext-a"), nil
	}})
	var set func(*rpc.Attempt) error
	c := dial(t, nc, rpc.WithInterceptors(func(ctx context.Context, call *rpc.Call, next rpc.Next) error {
		call.OnAttempt(func(a *rpc.Attempt) error { return set(a) })
		return next(ctx, call)
	}))
	set = func(a *rpc.Attempt) error { return a.SetHeader("Natscall-Ext-A", "1") }
	if got, err := do(testContext(t), c, "x"); got != "1" || err != nil {
		t.Errorf("got %q, %v", got, err)
	}
	_, err := do(testContext(t), c, "answer")
	wantText(t, wantCode(t, err, rpc.CodeInternal, rpc.ExecutionDidRun), `"Natscall-Ext-A" is reserved`)
	_, err = do(testContext(t), c, "x", rpc.WithHeader("Natscall-Ext-A", "1"))
	wantText(t, wantCode(t, err, rpc.CodeInvalidArgument, rpc.ExecutionNotRun), `"Natscall-Ext-A" is reserved`)
	for key, value := range map[string]string{"Tenant": "x", "Natscall-Ext-": "x\n", "natscall-ext-a": "x", "Natscall-Ext-a b": "x"} {
		set = func(a *rpc.Attempt) error { return a.SetHeader(key, value) }
		_, err = do(testContext(t), c, "x")
		wantCode(t, err, rpc.CodeInvalidArgument, rpc.ExecutionNotRun)
	}
}

// FuzzMetadata: what is encoded may be sent, and is decoded to what it was.
func FuzzMetadata(f *testing.F) {
	for key, values := range nasty() {
		for _, v := range values {
			f.Add(key, v, v)
		}
	}
	f.Add("Tenant", "a", "b")
	f.Fuzz(func(t *testing.T, key, first, second string) {
		h, err := rpc.EncodeMetadata(map[string][]string{key: {first, second}})
		if legal := wire.CheckKey(key) == nil; legal != (err == nil) {
			t.Fatalf("key %q: %v", key, err)
		}
		if err != nil {
			return
		}
		for k, values := range h {
			for _, v := range values {
				if err := wire.CheckHeader(k, v); err != nil {
					t.Errorf("it may not be sent: %v", err)
				}
			}
		}
		want := map[string][]string{strings.ToLower(key): {first, second}}
		if diff := cmp.Diff(want, rpc.DecodeMetadata(h)); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	})
}

// FuzzDecodeMetadata: whatever the header of a peer is, what is read of it can be written and is
// then read as the same.
func FuzzDecodeMetadata(f *testing.F) {
	for _, key := range []string{"tenant", "Trace-Bin", "Natscall-Key-status", "natscall-key-Natscall-Key-a", "Status", "Natscall-Key-", ""} {
		f.Add(key, "a", "=?base64?YQpi")
		f.Add(key, "Cgs==", "=?base64?*")
	}
	f.Fuzz(func(t *testing.T, key, first, second string) {
		md := rpc.DecodeMetadata(rpc.Header{key: {first, second}})
		h, err := rpc.EncodeMetadata(md)
		if err != nil {
			if wire.CheckKey(key) == nil {
				t.Errorf("%q is read as %q: %v", key, md, err)
			}
			return
		}
		if diff := cmp.Diff(md, rpc.DecodeMetadata(h)); diff != "" {
			t.Errorf("(-first +second):\n%s", diff)
		}
	})
}
