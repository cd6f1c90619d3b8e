package main

import (
	"context"
	"io"

	"github.com/livekit/psrpc"
	"github.com/livekit/psrpc/pkg/bus/natsbus"
	"google.golang.org/protobuf/proto"

	comparev1 "github.com/natscall/natscall/rpc/internal/compare/gen/compare/v1"
	comparepsrpcv1 "github.com/natscall/natscall/rpc/internal/compare/gen/comparepsrpc/v1"
)

// psrpcRPC is psrpc over NATS. By default a call takes four messages: a server offers itself,
// and the client accepts, before the handler runs. All streams are bidirectional; each message
// on one waits for its receipt, and neither side can end just its half.
var psrpcRPC = system{name: "psrpc", streams: true, aside: true, serve: servePSRPC, dial: dialPSRPC}

type psrpcService struct{}

func servePSRPC(url string) (string, error) {
	nc, err := connectNATS(url)
	if err != nil {
		return "", err
	}
	// The time is that of a message on a stream; the default, 3 s, is less than the other systems
	// have.
	_, err = comparepsrpcv1.NewCompareServiceServer(psrpcService{}, natsbus.New(nc), psrpc.WithServerTimeout(countLimit))
	if err != nil {
		return "", err
	}
	return "", nc.Flush()
}

func (psrpcService) Echo(_ context.Context, req *message) (*message, error) {
	return handleEcho(req), nil
}

func (psrpcService) Download(s psrpc.ServerStream[*message, *comparev1.DownloadRequest]) error {
	req, err := psrpcReceive(s)()
	if err != nil {
		return err
	}
	return handleDownload(req, psrpcSendData(s))
}

// Upload takes an empty message for the end: after that of the stream there would be no answer.
func (psrpcService) Upload(s psrpc.ServerStream[*comparev1.UploadResponse, *message]) error {
	receive := psrpcReceive(s)
	received, err := handleUpload(func() (*message, error) {
		m, err := receive()
		if err == nil && len(m.GetData()) == 0 {
			return nil, io.EOF
		}
		return m, err
	})
	if err != nil {
		return err
	}
	return s.Send(&comparev1.UploadResponse{Received: received})
}

func (psrpcService) Chat(s psrpc.ServerStream[*message, *message]) error {
	return handleChat(psrpcReceive(s), func(m *message) error { return s.Send(m) })
}

type psrpcPeer struct {
	client comparepsrpcv1.CompareServiceClient
}

func dialPSRPC(url, _ string) (peer, error) {
	nc, err := connectNATS(url)
	if err != nil {
		return nil, err
	}
	// The time is that for a server's offer; the default, 1 s, is less than a call may wait behind
	// large ones.
	client, err := comparepsrpcv1.NewCompareServiceClient(natsbus.New(nc), psrpc.WithClientSelectTimeout(countLimit))
	if err != nil {
		return nil, err
	}
	return psrpcPeer{client}, nc.Flush()
}

func (p psrpcPeer) echo(ctx context.Context, data []byte) ([]byte, error) {
	res, err := p.client.Echo(ctx, &message{Data: data})
	return res.GetData(), err
}

func (p psrpcPeer) download(ctx context.Context, size int, count uint64, got func([]byte) bool) error {
	s, err := p.client.Download(ctx)
	if err != nil {
		return err
	}
	defer s.Close(nil)
	if err := s.Send(&comparev1.DownloadRequest{Size: uint32(size), Count: count}); err != nil {
		return err
	}
	return receiveAll(psrpcReceive(s), got)
}

func (p psrpcPeer) upload(ctx context.Context, next func() []byte) (uint64, error) {
	s, err := p.client.Upload(ctx)
	if err != nil {
		return 0, err
	}
	defer s.Close(nil)
	send := psrpcSendData(s)
	if err := sendAll(send, next); err != nil {
		return 0, err
	}
	if err := send(nil); err != nil { // the end, which the server waits for
		return 0, err
	}
	res, err := psrpcReceive(s)()
	return res.GetReceived(), err
}

func (p psrpcPeer) chat(ctx context.Context) (exchange, error) {
	s, err := p.client.Chat(ctx)
	if err != nil {
		return nil, err
	}
	return talk(psrpcSendData(s), psrpcReceive(s)), nil
}

func psrpcSendData[R proto.Message](s psrpc.Stream[*message, R]) func([]byte) error {
	return sendData(func(m *message) error { return s.Send(m) })
}

// psrpcReceive makes receive of a stream's channel.
func psrpcReceive[S, R proto.Message](s psrpc.Stream[S, R]) func() (R, error) {
	return func() (R, error) {
		m, ok := <-s.Channel()
		if ok {
			return m, nil
		}
		err := s.Err()
		// An error that comes from the peer is another value.
		if err.Error() == psrpc.ErrStreamClosed.Error() {
			err = io.EOF
		}
		return m, err
	}
}
