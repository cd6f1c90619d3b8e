package main

import (
	"context"
	"strings"
	"testing"

	"github.com/bufbuild/protocompile"
	"google.golang.org/protobuf/types/dynamicpb"

	"github.com/natscall/natscall/rpc"
	"github.com/natscall/natscall/rpc/rpctest"
)

// serveTwin serves a service of a package, whose message Twin other packages have, too.
func serveTwin(t *testing.T, srv *rpc.Server, pkg string) {
	t.Helper()
	source := `syntax = "proto3"; package ` + pkg + `; message Twin { string ` + pkg + ` = 1; } service ` + pkg + `Service { rpc Get(Twin) returns (Twin); }`
	name := pkg + ".proto"
	compiler := protocompile.Compiler{Resolver: &protocompile.SourceResolver{Accessor: protocompile.SourceAccessorFromMap(map[string]string{name: source})}}
	files, err := compiler.Compile(t.Context(), name)
	must(t, err)
	sd := files[0].Services().Get(0)
	desc, md := rpc.NewServiceDesc(sd), sd.Methods().Get(0)
	m, err := rpc.NewMethod(desc, md, dynamicpb.NewMessageType(md.Input()), dynamicpb.NewMessageType(md.Output()))
	must(t, err)
	must(t, rpc.Register(srv, desc, struct{}{}, nil, rpc.HandleMethod(m, func(struct{}, context.Context, *rpc.Stream) error { return m.Unimplemented() })))
}

// TestDescribeTwins: a short name that messages of two services have is not that of the first one.
func TestDescribeTwins(t *testing.T) {
	server := rpctest.NewServer(t)
	srv := rpc.NewServer(server.Connect())
	serveTwin(t, srv, "left")
	serveTwin(t, srv, "right")
	must(t, srv.Start(t.Context()))
	t.Cleanup(func() { must(t, srv.Shutdown(context.WithoutCancel(t.Context()))) })
	c := &console{t, nil, server.URL()}
	check(t, server.URL(), []mistake{
		{"short", []string{"describe", "Twin"}, "", 1, `"Twin" means several messages`, "use one of them: left.Twin, right.Twin"},
	})
	if text := c.ok("describe", "right.Twin"); !strings.Contains(text, "string right = 1;") {
		t.Errorf("the message of the other service:\n%s", text)
	}
}
