package main

import (
	"context"
	"fmt"
	"strings"
)

// system is a way to make calls: how it serves and how it is called.
type system struct {
	name    string
	streams bool // it has streams

	// serve starts a server, which lives as long as the process, and returns the
	// address at which dial finds it; "" for what is found over NATS.
	serve func(nats string) (address string, err error)

	// dial connects a client, which lives as long as the process.
	dial func(nats, address string) (peer, error)
}

// peer is a client. Any number of goroutines use it; a message belongs to the caller again when a method or a
// callback returns.
type peer interface {
	// echo makes a unary call.
	echo(ctx context.Context, data []byte) ([]byte, error)

	// download receives messages of so many bytes until got returns false. Where count is not 0 the server ends the stream after so many.
	download(ctx context.Context, size int, count uint64, got func(data []byte) bool) error

	// upload sends what next returns until that is nil, and returns how many messages the server has received.
	upload(ctx context.Context, next func() []byte) (received uint64, err error)

	// chat opens a stream on which exchange sends one message and receives one. ctx ends it.
	chat(ctx context.Context) (exchange exchange, err error)
}

// exchange is a round trip on a stream.
type exchange func(data []byte) ([]byte, error)

// baseline is the name of the system that the others are compared with.
const baseline = "raw"

// systems are all that there are, the baseline first.
func systems() []system {
	return []system{rawNATS, microProtobuf, natscallRPC, grpcGo, connectGo, drpcRPC}
}

// findSystems returns the systems with these names, or all if there is none.
func findSystems(names string) ([]system, error) {
	if names == "" {
		return systems(), nil
	}
	var found []system
	for name := range strings.SplitSeq(names, ",") {
		s, err := findSystem(strings.TrimSpace(name))
		if err != nil {
			return nil, err
		}
		found = append(found, s)
	}
	return found, nil
}

func findSystem(name string) (system, error) {
	var known []string
	for _, s := range systems() {
		if s.name == name {
			return s, nil
		}
		known = append(known, s.name)
	}
	return system{}, fmt.Errorf("there is no system %q, only %s", name, strings.Join(known, ", "))
}
