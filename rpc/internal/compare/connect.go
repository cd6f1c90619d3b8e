package main

import (
	"context"
	"io"
	"net"
	"net/http"

	"connectrpc.com/connect"

	comparev1 "github.com/natscall/natscall/rpc/internal/compare/gen/compare/v1"
	"github.com/natscall/natscall/rpc/internal/compare/gen/compare/v1/comparev1connect"
)

// connectGo is Connect over HTTP/2 without TLS, without a broker.
var connectGo = system{name: "connect", streams: true, aside: true, serve: serveConnect, dial: dialConnect}

// cleartext is HTTP/2 only, which bidirectional streams need.
func cleartext() *http.Protocols {
	p := new(http.Protocols)
	p.SetUnencryptedHTTP2(true)
	return p
}

type connectService struct{}

func serveConnect(string) (string, error) {
	l, err := net.Listen("tcp", loopback)
	if err != nil {
		return "", err
	}
	mux := http.NewServeMux()
	mux.Handle(comparev1connect.NewCompareServiceHandler(connectService{}))
	s := &http.Server{Handler: mux, Protocols: cleartext()}
	go s.Serve(l) // until the process ends
	return l.Addr().String(), nil
}

func (connectService) Echo(_ context.Context, req *connect.Request[message]) (*connect.Response[message], error) {
	return connect.NewResponse(handleEcho(req.Msg)), nil
}

func (connectService) Download(_ context.Context, req *connect.Request[comparev1.DownloadRequest], s *connect.ServerStream[message]) error {
	return handleDownload(req.Msg, sendData(s.Send))
}

func (connectService) Upload(_ context.Context, s *connect.ClientStream[message]) (*connect.Response[comparev1.UploadResponse], error) {
	received, err := handleUpload(pull(s))
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&comparev1.UploadResponse{Received: received}), nil
}

func (connectService) Chat(_ context.Context, s *connect.BidiStream[message, message]) error {
	return handleChat(s.Receive, s.Send)
}

// pull makes receive of the streams that have it in three methods.
func pull(s interface {
	Receive() bool
	Msg() *message
	Err() error
}) func() (*message, error) {
	return func() (*message, error) {
		if s.Receive() {
			return s.Msg(), nil
		}
		if err := s.Err(); err != nil {
			return nil, err
		}
		return nil, io.EOF
	}
}

type connectPeer struct {
	client comparev1connect.CompareServiceClient
}

func dialConnect(_, address string) (peer, error) {
	client := &http.Client{Transport: &http.Transport{Protocols: cleartext()}}
	return connectPeer{comparev1connect.NewCompareServiceClient(client, "http://"+address)}, nil
}

func (p connectPeer) echo(ctx context.Context, data []byte) ([]byte, error) {
	res, err := p.client.Echo(ctx, connect.NewRequest(&message{Data: data}))
	if err != nil {
		return nil, err
	}
	return res.Msg.GetData(), nil
}

func (p connectPeer) download(ctx context.Context, size int, count uint64, got func([]byte) bool) error {
	ctx, cancel := context.WithCancel(ctx) // ends the stream
	defer cancel()
	s, err := p.client.Download(ctx, connect.NewRequest(&comparev1.DownloadRequest{Size: uint32(size), Count: count}))
	if err != nil {
		return err
	}
	return receiveAll(pull(s), got)
}

func (p connectPeer) upload(ctx context.Context, next func() []byte) (uint64, error) {
	s := p.client.Upload(ctx)
	if err := sendAll(sendData(s.Send), next); err != nil {
		return 0, err
	}
	res, err := s.CloseAndReceive()
	if err != nil {
		return 0, err
	}
	return res.Msg.GetReceived(), nil
}

func (p connectPeer) chat(ctx context.Context) (exchange, error) {
	s := p.client.Chat(ctx)
	return talk(sendData(s.Send), s.Receive), nil
}
