package main

import (
	"context"

	"github.com/natscall/natscall/rpc"
	comparev1 "github.com/natscall/natscall/rpc/internal/compare/gen/compare/v1"
	"github.com/natscall/natscall/rpc/internal/compare/gen/compare/v1/comparev1nats"
)

// natscallRPC is ours, as generated and with the default options.
var natscallRPC = system{name: "natscall", streams: true, serve: serveNatscall, dial: dialNatscall}

type natscallService struct{}

func serveNatscall(url string) (string, error) {
	nc, err := connectNATS(url)
	if err != nil {
		return "", err
	}
	s := rpc.NewServer(nc)
	if err := comparev1nats.RegisterCompareServiceServer(s, natscallService{}); err != nil {
		return "", err
	}
	return "", s.Start(context.Background())
}

func (natscallService) Echo(_ context.Context, req *message) (*message, error) {
	return handleEcho(req), nil
}

func (natscallService) Download(_ context.Context, req *comparev1.DownloadRequest, to *rpc.Sender[*message]) error {
	return handleDownload(req, to.Send)
}

func (natscallService) Upload(_ context.Context, from *rpc.Receiver[*message]) (*comparev1.UploadResponse, error) {
	return handleUpload(from.Recv)
}

func (natscallService) Chat(_ context.Context, s *rpc.BidiStream[*message, *message]) error {
	return handleChat(s.Recv, s.Send)
}

type natscallPeer struct {
	client comparev1nats.CompareServiceClient
}

func dialNatscall(url, _ string) (peer, error) {
	nc, err := connectNATS(url)
	if err != nil {
		return nil, err
	}
	return natscallPeer{comparev1nats.NewCompareServiceClient(rpc.NewClient(nc))}, nil
}

func (p natscallPeer) echo(ctx context.Context, data []byte) ([]byte, error) {
	res, err := p.client.Echo(ctx, &message{Data: data})
	return res.GetData(), err
}

func (p natscallPeer) download(ctx context.Context, size int, count uint64, got func([]byte) bool) error {
	s, err := p.client.Download(ctx, &comparev1.DownloadRequest{Size: uint32(size), Count: count})
	if err != nil {
		return err
	}
	defer s.Close()
	return receiveAll(s.Recv, got)
}

func (p natscallPeer) upload(ctx context.Context, next func() []byte) (uint64, error) {
	s, err := p.client.Upload(ctx)
	if err != nil {
		return 0, err
	}
	defer s.Close()
	if err := sendAll(s.Send, next); err != nil {
		return 0, err
	}
	res, err := s.CloseAndRecv()
	return res.GetReceived(), err
}

func (p natscallPeer) chat(ctx context.Context) (exchange, error) {
	s, err := p.client.Chat(ctx)
	if err != nil {
		return nil, err
	}
	return talk(s.Send, s.Recv), nil
}
