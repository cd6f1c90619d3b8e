package main

import (
	"context"
	"testing"

	"github.com/bufbuild/protocompile"
	"google.golang.org/protobuf/types/dynamicpb"

	"github.com/natscall/natscall/rpc"
)

// handlers are functions that serve methods of any shape, by their names.
type handlers map[string]func(context.Context, *rpc.Stream) error

// serveSource serves the service that a .proto file of a package defines, as one of a version. A
// method without a handler is not implemented.
func serveSource(t *testing.T, srv *rpc.Server, pkg, version, source string, by handlers) {
	t.Helper()
	name := pkg + ".proto"
	compiler := protocompile.Compiler{Resolver: &protocompile.SourceResolver{
		Accessor: protocompile.SourceAccessorFromMap(map[string]string{name: `syntax = "proto3"; package ` + pkg + `; ` + source}),
	}}
	files, err := compiler.Compile(t.Context(), name)
	must(t, err)
	sd := files[0].Services().Get(0)
	desc := rpc.NewServiceDesc(sd)
	desc.Version = version
	var served []rpc.Handler[struct{}]
	for i := range sd.Methods().Len() {
		md := sd.Methods().Get(i)
		m, err := rpc.NewMethod(desc, md, dynamicpb.NewMessageType(md.Input()), dynamicpb.NewMessageType(md.Output()))
		must(t, err)
		served = append(served, rpc.HandleMethod(m, func(_ struct{}, ctx context.Context, s *rpc.Stream) error {
			if f := by[string(md.Name())]; f != nil {
				return f(ctx, s)
			}
			return m.Unimplemented()
		}))
	}
	must(t, rpc.Register(srv, desc, struct{}{}, nil, served...))
}

// startServer starts a server, which ends with the test.
func startServer(t *testing.T, srv *rpc.Server) {
	t.Helper()
	must(t, srv.Start(t.Context()))
	t.Cleanup(func() { must(t, srv.Shutdown(context.WithoutCancel(t.Context()))) })
}
