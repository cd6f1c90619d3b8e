package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// system is a way to make calls: how it serves and how it is called.
type system struct {
	name    string
	streams bool // it has streams
	aside   bool // -short measures it with small calls only

	// serve starts a server, which lives as long as the process, and returns the
	// address at which dial finds it; "" for what is found over NATS.
	serve func(nats string) (address string, err error)

	// dial connects a client, which lives as long as the process.
	dial func(nats, address string) (peer, error)
}

// peer is a client. Any number of goroutines use it; a message belongs to the caller again when
// a method or a callback returns.
type peer interface {
	// echo makes a unary call.
	echo(ctx context.Context, data []byte) ([]byte, error)

	// download receives messages of so many bytes until got returns false. Where count is not 0 the
	// server ends the stream after so many.
	download(ctx context.Context, size int, count uint64, got func(data []byte) bool) error

	// upload sends what next returns until that is nil, and returns how many messages the server
	// has received.
	upload(ctx context.Context, next func() []byte) (received uint64, err error)

	// chat opens a stream on which exchange sends one message and receives one. ctx ends it.
	chat(ctx context.Context) (exchange exchange, err error)
}

// unaryPeer is part of the peers of systems that have no streams.
type unaryPeer struct{}

var errNoStreams = errors.New("the system has no streams")

func (unaryPeer) download(context.Context, int, uint64, func([]byte) bool) error { return errNoStreams }
func (unaryPeer) upload(context.Context, func() []byte) (uint64, error)          { return 0, errNoStreams }
func (unaryPeer) chat(context.Context) (exchange, error)                         { return nil, errNoStreams }

// exchange is a round trip on a stream.
type exchange func(data []byte) ([]byte, error)

// baseline is the name of the system that the others are compared with.
const baseline = "raw"

// systems are all that there are, the baseline first.
func systems() []system {
	return []system{rawNATS, microBytes, microProtobuf, natscallRPC, natscallVT, natscallBatch, natscallVTBatch, grpcGo, connectGo, drpcRPC, twirpRPC, psrpcRPC}
}

// aside are those that -short measures with small calls only.
func aside() []system { return slices.DeleteFunc(systems(), func(s system) bool { return !s.aside }) }

// findSystems returns the systems with these names, or all if there is none.
func findSystems(names string) ([]system, error) {
	if names == "" {
		return systems(), nil
	}
	var found []system
	for name := range strings.SplitSeq(names, ",") {
		s, err := findSystem(strings.TrimSpace(name), systems())
		if err != nil {
			return nil, err
		}
		found = append(found, s)
	}
	return found, nil
}

func findSystem(name string, among []system) (system, error) {
	for _, s := range among {
		if s.name == name {
			return s, nil
		}
	}
	return system{}, fmt.Errorf("there is no system %q, only %s", name, names(among))
}

func names(all []system) string {
	var names []string
	for _, s := range all {
		names = append(names, s.name)
	}
	return strings.Join(names, ", ")
}
