package main

import (
	"context"

	"github.com/nats-io/nats.go"

	"github.com/natscall/natscall/rpc"
	comparev1 "github.com/natscall/natscall/rpc/internal/compare/gen/compare/v1"
	"github.com/natscall/natscall/rpc/internal/compare/gen/compare/v1/comparev1nats"
)

// natscallRPC is ours, as generated and with the default options.
var natscallRPC = natscallSystem("natscall", natscallPlain, nil, nil)

// natscallBatch is the same with calls that share NATS messages.
var natscallBatch = natscallBatching("natscall-batch", natscallPlain)

// natscallPlain is the code of compare.v1.
var natscallPlain = &natscallCode[*message, *comparev1.DownloadRequest, *comparev1.UploadResponse]{
	register: func(s *rpc.Server, impl natscallServer[*message, *comparev1.DownloadRequest, *comparev1.UploadResponse]) error {
		return comparev1nats.RegisterCompareServiceServer(s, impl)
	},
	client: func(c *rpc.Client) natscallClient[*message, *comparev1.DownloadRequest, *comparev1.UploadResponse] {
		return comparev1nats.NewCompareServiceClient(c)
	},
	message: func(data []byte) *message { return &message{Data: data} },
	order: func(size uint32, count uint64) *comparev1.DownloadRequest {
		return &comparev1.DownloadRequest{Size: size, Count: count}
	},
	tally:    func(received uint64) *comparev1.UploadResponse { return &comparev1.UploadResponse{Received: received} },
	sendData: sendData,
}

// natscallCode is the generated code of a proto package, whose messages are M, D and U, and how
// to make these.
type natscallCode[M carrier, D order, U tally] struct {
	register func(*rpc.Server, natscallServer[M, D, U]) error
	client   func(*rpc.Client) natscallClient[M, D, U]
	message  func(data []byte) M
	order    func(size uint32, count uint64) D
	tally    func(received uint64) U
	sendData func(send func(M) error) func([]byte) error
}

// natscallServer and natscallClient are what is generated as CompareServiceServer and
// CompareServiceClient.
type (
	natscallServer[M carrier, D order, U tally] interface {
		Echo(context.Context, M) (M, error)
		Download(context.Context, D, *rpc.Sender[M]) error
		Upload(context.Context, *rpc.Receiver[M]) (U, error)
		Chat(context.Context, *rpc.BidiStream[M, M]) error
	}
	natscallClient[M carrier, D order, U tally] interface {
		Echo(context.Context, M, ...rpc.CallOption) (M, error)
		Download(context.Context, D, ...rpc.CallOption) (*rpc.Receiver[M], error)
		Upload(context.Context, ...rpc.CallOption) (*rpc.ClientStream[M, U], error)
		Chat(context.Context, ...rpc.CallOption) (*rpc.BidiStream[M, M], error)
	}
)

// natscallBatching is natscall with batches, which are of unary calls only, on subjects of its own.
func natscallBatching[M carrier, D order, U tally](name string, code *natscallCode[M, D, U]) system {
	s := natscallSystem(name, code, []rpc.ClientOption{rpc.WithBatching(16 << 10), rpc.WithSubjectPrefix("batch")}, []rpc.ServerOption{rpc.WithSubjectPrefix("batch")})
	s.streams, s.aside = false, true
	return s
}

// natscallSystem is natscall with some generated code and some options.
func natscallSystem[M carrier, D order, U tally](name string, code *natscallCode[M, D, U], client []rpc.ClientOption, server []rpc.ServerOption) system {
	return system{
		name:    name,
		streams: true,
		serve: func(url string) (string, error) {
			nc, err := connectNATS(url)
			if err != nil {
				return "", err
			}
			return "", code.serve(nc, natscallService[M, D, U]{code}, server...)
		},
		dial: func(url, _ string) (peer, error) {
			nc, err := connectNATS(url)
			if err != nil {
				return nil, err
			}
			return natscallPeer[M, D, U]{code, code.client(rpc.NewClient(nc, client...))}, nil
		},
	}
}

func (c *natscallCode[M, D, U]) serve(nc *nats.Conn, impl natscallServer[M, D, U], opts ...rpc.ServerOption) error {
	s := rpc.NewServer(nc, opts...)
	if err := c.register(s, impl); err != nil {
		return err
	}
	return s.Start(context.Background())
}

type natscallService[M carrier, D order, U tally] struct{ code *natscallCode[M, D, U] }

func (s natscallService[M, D, U]) Echo(_ context.Context, req M) (M, error) {
	handle(req.GetData())
	return s.code.message(req.GetData()), nil
}

func (s natscallService[M, D, U]) Download(_ context.Context, req D, to *rpc.Sender[M]) error {
	return handleDownload(req, s.code.sendData(to.Send))
}

func (s natscallService[M, D, U]) Upload(_ context.Context, from *rpc.Receiver[M]) (U, error) {
	received, err := handleUpload(from.Recv)
	return s.code.tally(received), err
}

func (natscallService[M, D, U]) Chat(_ context.Context, s *rpc.BidiStream[M, M]) error {
	return handleChat(s.Recv, s.Send)
}

type natscallPeer[M carrier, D order, U tally] struct {
	code   *natscallCode[M, D, U]
	client natscallClient[M, D, U]
}

func (p natscallPeer[M, D, U]) echo(ctx context.Context, data []byte) ([]byte, error) {
	res, err := p.client.Echo(ctx, p.code.message(data))
	return res.GetData(), err
}

func (p natscallPeer[M, D, U]) download(ctx context.Context, size int, count uint64, got func([]byte) bool) error {
	s, err := p.client.Download(ctx, p.code.order(uint32(size), count))
	if err != nil {
		return err
	}
	defer s.Close()
	return receiveAll(s.Recv, got)
}

func (p natscallPeer[M, D, U]) upload(ctx context.Context, next func() []byte) (uint64, error) {
	s, err := p.client.Upload(ctx)
	if err != nil {
		return 0, err
	}
	defer s.Close()
	if err := sendAll(p.code.sendData(s.Send), next); err != nil {
		return 0, err
	}
	res, err := s.CloseAndRecv()
	return res.GetReceived(), err
}

func (p natscallPeer[M, D, U]) chat(ctx context.Context) (exchange, error) {
	s, err := p.client.Chat(ctx)
	if err != nil {
		return nil, err
	}
	return talk(p.code.sendData(s.Send), s.Recv), nil
}
