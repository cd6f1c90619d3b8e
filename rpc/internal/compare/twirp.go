package main

import (
	"context"
	"net"
	"net/http"

	comparetwirpv1 "github.com/natscall/natscall/rpc/internal/compare/gen/comparetwirp/v1"
)

// twirpRPC is Twirp over HTTP/1.1, without a broker. A connection carries one call at a time.
// There are no streams.
var twirpRPC = system{name: "twirp", aside: true, serve: serveTwirp, dial: dialTwirp}

type twirpService struct{}

func serveTwirp(string) (string, error) {
	l, err := net.Listen("tcp", loopback)
	if err != nil {
		return "", err
	}
	s := &http.Server{Handler: comparetwirpv1.NewCompareServiceServer(twirpService{})}
	go s.Serve(l) // until the process ends
	return l.Addr().String(), nil
}

func (twirpService) Echo(_ context.Context, req *message) (*message, error) {
	return handleEcho(req), nil
}

type twirpPeer struct {
	unaryPeer
	client comparetwirpv1.CompareService
}

// twirpConnections are kept open between calls; the default, 2, would open one for nearly each
// call.
const twirpConnections = 1024

func dialTwirp(_, address string) (peer, error) {
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: twirpConnections}}
	return twirpPeer{client: comparetwirpv1.NewCompareServiceProtobufClient("http://"+address, client)}, nil
}

func (p twirpPeer) echo(ctx context.Context, data []byte) ([]byte, error) {
	res, err := p.client.Echo(ctx, &message{Data: data})
	return res.GetData(), err
}
