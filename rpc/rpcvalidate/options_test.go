package rpcvalidate_test

import (
	"strings"
	"testing"

	"buf.build/go/protovalidate"

	"github.com/natscall/natscall/rpc/rpcvalidate"
)

// TestBadOptions: New names the option that is wrong.
func TestBadOptions(t *testing.T) {
	for want, opts := range map[string][]rpcvalidate.Option{
		"rpcvalidate: an option is nil":                            {nil},
		"rpcvalidate: WithValidator(nil)":                          {rpcvalidate.WithValidator(nil)},
		"rpcvalidate: WithFilter(nil)":                             {rpcvalidate.WithFilter(nil)},
		"rpcvalidate: WithLogger(nil)":                             {rpcvalidate.WithLogger(nil)},
		"rpcvalidate: WithFailFast does not go with WithValidator": {rpcvalidate.WithFailFast(), rpcvalidate.WithValidator(protovalidate.GlobalValidator)},
	} {
		if v, err := rpcvalidate.New(opts...); err == nil || !strings.HasPrefix(err.Error(), want) || v != nil {
			t.Errorf("%v, %v; want %s", v, err, want)
		}
	}
}
