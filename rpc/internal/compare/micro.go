package main

import (
	"context"
	"errors"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/micro"
	"google.golang.org/protobuf/proto"
)

// microProtobuf is NATS micro with messages that are marshaled by hand. An
// endpoint runs its handler one request after the other, with no bound on those that wait (the default one drops
// some of 64 MiB), and there are no streams.
var microProtobuf = system{name: "micro", serve: serveMicro, dial: dialMicro}

const microEcho = "compare.micro.echo"

var errNoStreams = errors.New("micro has no streams")

func serveMicro(url string) (string, error) {
	nc, err := connectNATS(url)
	if err != nil {
		return "", err
	}
	service, err := micro.AddService(nc, micro.Config{Name: "compare", Version: "1.0.0"})
	if err != nil {
		return "", err
	}
	handler := micro.HandlerFunc(func(r micro.Request) {
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
	})
	if err := service.AddEndpoint("echo", handler, micro.WithEndpointSubject(microEcho), micro.WithEndpointPendingLimits(-1, -1)); err != nil {
		return "", err
	}
	return "", nc.Flush()
}

type microPeer struct{ nc *nats.Conn }

func dialMicro(url, _ string) (peer, error) {
	nc, err := connectNATS(url)
	return microPeer{nc}, err
}

func (p microPeer) echo(ctx context.Context, data []byte) ([]byte, error) {
	in, err := proto.Marshal(&message{Data: data})
	if err != nil {
		return nil, err
	}
	m, err := p.nc.RequestWithContext(ctx, microEcho, in)
	if err != nil {
		return nil, err
	}
	if code := m.Header.Get(micro.ErrorCodeHeader); code != "" {
		return nil, errors.New(m.Header.Get(micro.ErrorHeader))
	}
	res := new(message)
	if err := proto.Unmarshal(m.Data, res); err != nil {
		return nil, err
	}
	return res.GetData(), nil
}

func (microPeer) download(context.Context, int, uint64, func([]byte) bool) error { return errNoStreams }

func (microPeer) upload(context.Context, func() []byte) (uint64, error) { return 0, errNoStreams }

func (microPeer) chat(context.Context) (exchange, error) { return nil, errNoStreams }
