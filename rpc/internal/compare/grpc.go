package main

import (
	"context"
	"net"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	comparev1 "github.com/natscall/natscall/rpc/internal/compare/gen/compare/v1"
)

// grpcGo is gRPC over one HTTP/2 connection, without a broker.
var grpcGo = system{name: "grpc", streams: true, serve: serveGRPC, dial: dialGRPC}

// loopback is an address with a free port.
const loopback = "127.0.0.1:0"

type grpcService struct {
	comparev1.UnimplementedCompareServiceServer
}

func serveGRPC(string) (string, error) {
	l, err := net.Listen("tcp", loopback)
	if err != nil {
		return "", err
	}
	s := grpc.NewServer()
	comparev1.RegisterCompareServiceServer(s, grpcService{})
	go s.Serve(l) // until the process ends
	return l.Addr().String(), nil
}

func (grpcService) Echo(_ context.Context, req *message) (*message, error) {
	return handleEcho(req), nil
}

func (grpcService) Download(req *comparev1.DownloadRequest, s grpc.ServerStreamingServer[message]) error {
	return handleDownload(req, sendData(s.Send))
}

func (grpcService) Upload(s grpc.ClientStreamingServer[message, comparev1.UploadResponse]) error {
	received, err := handleUpload(s.Recv)
	if err != nil {
		return err
	}
	return s.SendAndClose(&comparev1.UploadResponse{Received: received})
}

func (grpcService) Chat(s grpc.BidiStreamingServer[message, message]) error {
	return handleChat(s.Recv, s.Send)
}

type grpcPeer struct {
	client comparev1.CompareServiceClient
}

func dialGRPC(_, address string) (peer, error) {
	conn, err := grpc.NewClient(address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return nil, err
	}
	return grpcPeer{comparev1.NewCompareServiceClient(conn)}, nil
}

func (p grpcPeer) echo(ctx context.Context, data []byte) ([]byte, error) {
	res, err := p.client.Echo(ctx, &message{Data: data})
	return res.GetData(), err
}

func (p grpcPeer) download(ctx context.Context, size int, count uint64, got func([]byte) bool) error {
	ctx, cancel := context.WithCancel(ctx) // ends the stream
	defer cancel()
	s, err := p.client.Download(ctx, &comparev1.DownloadRequest{Size: uint32(size), Count: count})
	if err != nil {
		return err
	}
	return receiveAll(s.Recv, got)
}

func (p grpcPeer) upload(ctx context.Context, next func() []byte) (uint64, error) {
	s, err := p.client.Upload(ctx)
	if err != nil {
		return 0, err
	}
	if err := sendAll(sendData(s.Send), next); err != nil {
		return 0, err
	}
	res, err := s.CloseAndRecv()
	return res.GetReceived(), err
}

func (p grpcPeer) chat(ctx context.Context) (exchange, error) {
	s, err := p.client.Chat(ctx)
	if err != nil {
		return nil, err
	}
	return talk(sendData(s.Send), s.Recv), nil
}
