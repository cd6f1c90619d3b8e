package rpc_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/natscall/natscall/rpc"
	"github.com/natscall/natscall/rpc/rpctest"
)

func TestHeaderIgnoresCase(t *testing.T) {
	h := rpc.Header{"tenant": {"a", "b"}, "X-Id": {"1"}, "x-ID": {"2"}, "x-id": nil}
	for key, want := range map[string][]string{
		"tenant": {"a", "b"}, "Tenant": {"a", "b"}, "X-Id": {"1"}, "x-ID": {"2"}, "x-id": nil,
		"X-ID": {"1"}, // the first of those that are written otherwise
		"none": nil, "": nil, "tenan": nil, "tenantt": nil,
	} {
		if diff := cmp.Diff(want, h.Values(key)); diff != "" {
			t.Errorf("%q: %s", key, diff)
		}
		first := ""
		if len(want) > 0 {
			first = want[0]
		}
		if got := h.Get(key); got != first {
			t.Errorf("%q: got %q, want %q", key, got, first)
		}
	}
	if got := rpc.Header(nil).Get("x"); got != "" {
		t.Errorf("a nil Header has %q", got)
	}
	rpc.Header(nil).Del("x")
}

func TestHeaderChanges(t *testing.T) {
	for name, test := range map[string]struct {
		change func(rpc.Header)
		want   rpc.Header
	}{
		"Set":                {func(h rpc.Header) { h.Set("ID", "3") }, rpc.Header{"ID": {"3"}, "k": {"v"}}},
		"Set, as written":    {func(h rpc.Header) { h.Set("id", "3") }, rpc.Header{"id": {"3"}, "k": {"v"}}},
		"Add":                {func(h rpc.Header) { h.Add("ID", "3") }, rpc.Header{"Id": {"1", "3"}, "id": {"2"}, "k": {"v"}}},
		"Add, as written":    {func(h rpc.Header) { h.Add("id", "3") }, rpc.Header{"Id": {"1"}, "id": {"2", "3"}, "k": {"v"}}},
		"Add, a new one":     {func(h rpc.Header) { h.Add("New", "3") }, rpc.Header{"Id": {"1"}, "id": {"2"}, "k": {"v"}, "New": {"3"}}},
		"Del":                {func(h rpc.Header) { h.Del("iD") }, rpc.Header{"k": {"v"}}},
		"Del, Kelvin is not": {func(h rpc.Header) { h.Del("\u212a") }, rpc.Header{"Id": {"1"}, "id": {"2"}, "k": {"v"}}},
	} {
		t.Run(name, func(t *testing.T) {
			h := rpc.Header{"Id": {"1"}, "id": {"2"}, "k": {"v"}}
			test.change(h)
			if diff := cmp.Diff(test.want, h); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// TestHeaderCase: keys keep their case on the wire, and one of the client is the one of a call.
func TestHeaderCase(t *testing.T) {
	nc := rpctest.Connect(t)
	sub, err := nc.SubscribeSync(testDesc.Name + ".Do")
	must(t, err)
	serve(t, nc, &funcs{})
	c := dial(t, nc, rpc.WithHeader("X-Tenant", "all"))
	_, err = do(testContext(t), c, "x", rpc.WithHeader("x-tenant", "acme"))
	must(t, err)
	m, err := sub.NextMsgWithContext(testContext(t))
	must(t, err)
	if diff := cmp.Diff(map[string][]string{"X-Tenant": {"all", "acme"}}, map[string][]string(m.Header)); diff != "" {
		t.Error(diff)
	}
}

func TestHeaderGetDoesNotAllocate(t *testing.T) {
	h := rpc.Header{"tenant": {"a"}, "traceparent": {"b"}}
	if n := testing.AllocsPerRun(100, func() { h.Get("tenant"); h.Get("Tenant"); h.Get("none") }); n > 0 {
		t.Errorf("Get allocates %v times", n)
	}
}
