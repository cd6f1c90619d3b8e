// peer is one side of every kind of call, as a program: "peer serve" answers, "peer call" makes
// calls and checks what comes back. Tests of releases build it with one version of natscall and let
// it talk to itself built with another one.
//
// It is written as a program of a user: it imports what is promised to stay, and generated code
// that can be copied beside it from the release that it comes from.
package main

import (
	"cmp"
	"context"
	"flag"
	"fmt"
	"os"

	"github.com/nats-io/nats.go"

	"github.com/natscall/natscall/rpc"
)

func main() {
	prefix := flag.String("prefix", "", "`subject` before all subjects, which tells pairs of peers on one NATS server apart")
	flag.Parse()
	if err := run(context.Background(), flag.Arg(0), *prefix); err != nil {
		fmt.Fprintln(os.Stderr, "peer:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, role, prefix string) error {
	nc, err := nats.Connect(cmp.Or(os.Getenv("NATS_URL"), nats.DefaultURL))
	if err != nil {
		return err
	}
	defer nc.Close()
	switch role {
	case "serve":
		return serve(ctx, nc, prefix, os.Stdin, os.Stdout)
	case "call":
		client := rpc.NewClient(nc, rpc.WithSubjectPrefix(prefix))
		defer client.Close()
		return call(ctx, nc, client, prefix, os.Stdout)
	}
	return fmt.Errorf("role %q: want serve or call", role)
}
