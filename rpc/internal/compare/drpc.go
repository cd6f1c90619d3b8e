package main

import (
	"context"
	"net"

	"storj.io/drpc/drpcconn"
	"storj.io/drpc/drpcmux"
	"storj.io/drpc/drpcpool"
	"storj.io/drpc/drpcserver"

	comparev1 "github.com/natscall/natscall/rpc/internal/compare/gen/compare/v1"
)

// drpcRPC is DRPC, without a broker. A connection carries one call at a time, so
// that the client has a pool of them, as many as there are calls at once.
var drpcRPC = system{name: "drpc", streams: true, serve: serveDRPC, dial: dialDRPC}

type drpcService struct{}

func serveDRPC(string) (string, error) {
	l, err := net.Listen("tcp", loopback)
	if err != nil {
		return "", err
	}
	mux := drpcmux.New()
	if err := comparev1.DRPCRegisterCompareService(mux, drpcService{}); err != nil {
		return "", err
	}
	go drpcserver.New(mux).Serve(context.Background(), l) // until the process ends
	return l.Addr().String(), nil
}

func (drpcService) Echo(_ context.Context, req *message) (*message, error) {
	return handleEcho(req), nil
}

func (drpcService) Download(req *comparev1.DownloadRequest, s comparev1.DRPCCompareService_DownloadStream) error {
	return handleDownload(req, sendData(s.Send))
}

func (drpcService) Upload(s comparev1.DRPCCompareService_UploadStream) error {
	received, err := handleUpload(s.Recv)
	if err != nil {
		return err
	}
	return s.SendAndClose(&comparev1.UploadResponse{Received: received})
}

func (drpcService) Chat(s comparev1.DRPCCompareService_ChatStream) error {
	return handleChat(s.Recv, s.Send)
}

type drpcPeer struct {
	client comparev1.DRPCCompareServiceClient
}

func dialDRPC(_, address string) (peer, error) {
	pool := drpcpool.New[string, drpcpool.Conn](drpcpool.Options{})
	conn := pool.Get(context.Background(), address, func(ctx context.Context, address string) (drpcpool.Conn, error) {
		c, err := new(net.Dialer).DialContext(ctx, "tcp", address)
		if err != nil {
			return nil, err
		}
		return drpcconn.New(c), nil
	})
	return drpcPeer{comparev1.NewDRPCCompareServiceClient(conn)}, nil
}

func (p drpcPeer) echo(ctx context.Context, data []byte) ([]byte, error) {
	res, err := p.client.Echo(ctx, &message{Data: data})
	return res.GetData(), err
}

func (p drpcPeer) download(ctx context.Context, size int, count uint64, got func([]byte) bool) error {
	ctx, cancel := context.WithCancel(ctx) // ends the stream
	defer cancel()
	s, err := p.client.Download(ctx, &comparev1.DownloadRequest{Size: uint32(size), Count: count})
	if err != nil {
		return err
	}
	return receiveAll(s.Recv, got)
}

func (p drpcPeer) upload(ctx context.Context, next func() []byte) (uint64, error) {
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

func (p drpcPeer) chat(ctx context.Context) (exchange, error) {
	s, err := p.client.Chat(ctx)
	if err != nil {
		return nil, err
	}
	return talk(sendData(s.Send), s.Recv), nil
}
