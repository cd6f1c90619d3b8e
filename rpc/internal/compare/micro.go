package main

import (
	"context"
	"errors"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/micro"
	"google.golang.org/protobuf/proto"
)

// microBytes is NATS micro with nothing but bytes, and microProtobuf with messages that are
// marshaled by hand. An endpoint runs its handler one request after the other, with no bound on
// those that wait (the default one drops some of 64 MiB), and there are no streams.
var (
	microBytes = system{
		name:  "micro-bytes",
		aside: true,
		serve: func(url string) (string, error) { return "", serveMicro(url, microBytesEcho, respondBytes) },
		dial: func(url, _ string) (peer, error) {
			nc, err := connectNATS(url)
			return microBytesPeer{nc: nc}, err
		},
	}
	microProtobuf = system{
		name:  "micro",
		serve: func(url string) (string, error) { return "", serveMicro(url, microEcho, respondProtobuf) },
		dial: func(url, _ string) (peer, error) {
			nc, err := connectNATS(url)
			return microPeer{nc: nc}, err
		},
	}
)

const (
	microEcho      = "compare.micro.echo"
	microBytesEcho = "compare.microbytes.echo"
)

func serveMicro(url, subject string, handler micro.HandlerFunc) error {
	nc, err := connectNATS(url)
	if err != nil {
		return err
	}
	service, err := micro.AddService(nc, micro.Config{Name: "compare", Version: "1.0.0"})
	if err != nil {
		return err
	}
	if err := service.AddEndpoint("echo", handler, micro.WithEndpointSubject(subject), micro.WithEndpointPendingLimits(-1, -1)); err != nil {
		return err
	}
	return nc.Flush()
}

func respondBytes(r micro.Request) {
	handle(r.Data())
	_ = r.Respond(r.Data())
}

func respondProtobuf(r micro.Request) {
	req := new(message)
	if err := proto.Unmarshal(r.Data(), req); err != nil {
		_ = r.Error("400", err.Error(), nil)
		return
	}
	out, err := proto.Marshal(handleEcho(req))
	if err != nil {
		_ = r.Error("500", err.Error(), nil)
		return
	}
	_ = r.Respond(out)
}

func requestMicro(ctx context.Context, nc *nats.Conn, subject string, in []byte) ([]byte, error) {
	m, err := nc.RequestWithContext(ctx, subject, in)
	if err != nil {
		return nil, err
	}
	if code := m.Header.Get(micro.ErrorCodeHeader); code != "" {
		return nil, errors.New(m.Header.Get(micro.ErrorHeader))
	}
	return m.Data, nil
}

type microBytesPeer struct {
	unaryPeer
	nc *nats.Conn
}

func (p microBytesPeer) echo(ctx context.Context, data []byte) ([]byte, error) {
	return requestMicro(ctx, p.nc, microBytesEcho, data)
}

type microPeer struct {
	unaryPeer
	nc *nats.Conn
}

func (p microPeer) echo(ctx context.Context, data []byte) ([]byte, error) {
	in, err := proto.Marshal(&message{Data: data})
	if err != nil {
		return nil, err
	}
	out, err := requestMicro(ctx, p.nc, microEcho, in)
	if err != nil {
		return nil, err
	}
	res := new(message)
	if err := proto.Unmarshal(out, res); err != nil {
		return nil, err
	}
	return res.GetData(), nil
}
