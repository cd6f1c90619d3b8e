package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/micro"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/natscall/natscall/rpc"
	comparev1 "github.com/natscall/natscall/rpc/internal/compare/gen/compare/v1"
	"github.com/natscall/natscall/rpc/internal/compare/gen/compare/v1/comparev1connect"
	"github.com/natscall/natscall/rpc/internal/compare/gen/compare/v1/comparev1nats"
	"github.com/natscall/natscall/rpc/rpctest"
)

// The code of docs/from-grpc.md, docs/from-connect.md and docs/from-nats.md comes from this file:
// the same service and client before and after.

// ours is the service as natscall has it.
type ours struct {
	comparev1nats.UnimplementedCompareServiceServer
}

func (ours) Echo(ctx context.Context, req *comparev1.Message) (*comparev1.Message, error) {
	if len(req.GetData()) == 0 {
		return nil, rpc.Errorf(rpc.CodeInvalidArgument, "the data is empty")
	}
	call := rpc.CallFromContext(ctx)
	call.ResponseHeader().Set("tenant", call.Header().Get("tenant"))
	return req, nil
}

func (ours) Download(_ context.Context, req *comparev1.DownloadRequest, to *rpc.Sender[*comparev1.Message]) error {
	for range req.GetCount() {
		if err := to.Send(&comparev1.Message{Data: make([]byte, req.GetSize())}); err != nil {
			return err
		}
	}
	return nil
}

// serveOurs serves until ctx ends.
func serveOurs(ctx context.Context, nc *nats.Conn) error {
	logCalls := func(ctx context.Context, call *rpc.Call, next rpc.Next) error {
		err := next(ctx, call)
		logged(call.Method(), rpc.CodeOf(err))
		return err
	}
	s := rpc.NewServer(nc, rpc.WithInterceptors(logCalls))
	if err := comparev1nats.RegisterCompareServiceServer(s, ours{}); err != nil {
		return err
	}
	return s.Run(ctx)
}

func callOurs(ctx context.Context, nc *nats.Conn, data []byte) (tenant string, err error) {
	client := comparev1nats.NewCompareServiceClient(rpc.NewClient(nc))
	var header rpc.Header
	_, err = client.Echo(ctx, &comparev1.Message{Data: data}, rpc.WithHeader("tenant", "acme"), rpc.ResponseHeader(&header))
	if rpc.CodeOf(err) == rpc.CodeInvalidArgument {
		return "", err
	}
	return header.Get("tenant"), err
}

func downloadOurs(ctx context.Context, nc *nats.Conn, count uint64) (n uint64, err error) {
	client := comparev1nats.NewCompareServiceClient(rpc.NewClient(nc))
	stream, err := client.Download(ctx, &comparev1.DownloadRequest{Size: 1, Count: count})
	if err != nil {
		return 0, err
	}
	defer stream.Close()
	for _, err := range stream.All() {
		if err != nil {
			return n, err
		}
		n++
	}
	return n, nil
}

// theirsGRPC is the service as grpc-go has it.
type theirsGRPC struct {
	comparev1.UnimplementedCompareServiceServer
}

func (theirsGRPC) Echo(ctx context.Context, req *comparev1.Message) (*comparev1.Message, error) {
	if len(req.GetData()) == 0 {
		return nil, status.Errorf(codes.InvalidArgument, "the data is empty")
	}
	md, _ := metadata.FromIncomingContext(ctx)
	if err := grpc.SetHeader(ctx, metadata.MD{"tenant": md.Get("tenant")}); err != nil {
		return nil, err
	}
	return req, nil
}

func (theirsGRPC) Download(req *comparev1.DownloadRequest, to grpc.ServerStreamingServer[comparev1.Message]) error {
	for range req.GetCount() {
		if err := to.Send(&comparev1.Message{Data: make([]byte, req.GetSize())}); err != nil {
			return err
		}
	}
	return nil
}

// serveTheirsGRPC serves until ctx ends.
func serveTheirsGRPC(ctx context.Context, l net.Listener) error {
	logCalls := func(ctx context.Context, req any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
		res, err := next(ctx, req)
		logged(info.FullMethod, status.Code(err))
		return res, err
	} // and a grpc.StreamServerInterceptor beside it
	s := grpc.NewServer(grpc.UnaryInterceptor(logCalls))
	comparev1.RegisterCompareServiceServer(s, theirsGRPC{})
	go func() {
		<-ctx.Done()
		s.GracefulStop()
	}()
	return s.Serve(l)
}

func callTheirsGRPC(ctx context.Context, address string, data []byte) (tenant string, err error) {
	conn, err := grpc.NewClient(address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return "", err
	}
	defer conn.Close()
	client := comparev1.NewCompareServiceClient(conn)
	var header metadata.MD
	ctx = metadata.AppendToOutgoingContext(ctx, "tenant", "acme")
	_, err = client.Echo(ctx, &comparev1.Message{Data: data}, grpc.Header(&header))
	if status.Code(err) == codes.InvalidArgument {
		return "", err
	}
	return first(header.Get("tenant")), err
}

func downloadTheirsGRPC(ctx context.Context, address string, count uint64) (n uint64, err error) {
	conn, err := grpc.NewClient(address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	client := comparev1.NewCompareServiceClient(conn)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // ends the stream
	stream, err := client.Download(ctx, &comparev1.DownloadRequest{Size: 1, Count: count})
	if err != nil {
		return 0, err
	}
	for {
		_, err := stream.Recv()
		if err == io.EOF {
			return n, nil
		}
		if err != nil {
			return n, err
		}
		n++
	}
}

// theirsConnect is the service as connect-go has it.
type theirsConnect struct {
	comparev1connect.UnimplementedCompareServiceHandler
}

func (theirsConnect) Echo(_ context.Context, req *connect.Request[comparev1.Message]) (*connect.Response[comparev1.Message], error) {
	if len(req.Msg.GetData()) == 0 {
		return nil, connect.NewError(connect.CodeInvalidArgument, errors.New("the data is empty"))
	}
	res := connect.NewResponse(req.Msg)
	res.Header().Set("tenant", req.Header().Get("tenant"))
	return res, nil
}

// serveTheirsConnect serves until ctx ends.
func serveTheirsConnect(ctx context.Context, l net.Listener) error {
	mux := http.NewServeMux()
	mux.Handle(comparev1connect.NewCompareServiceHandler(theirsConnect{}))
	s := &http.Server{Handler: mux}
	go func() {
		<-ctx.Done()
		_ = s.Shutdown(context.WithoutCancel(ctx))
	}()
	return s.Serve(l)
}

func callTheirsConnect(ctx context.Context, url string, data []byte) (tenant string, err error) {
	client := comparev1connect.NewCompareServiceClient(http.DefaultClient, url)
	req := connect.NewRequest(&comparev1.Message{Data: data})
	req.Header().Set("tenant", "acme")
	res, err := client.Echo(ctx, req)
	if connect.CodeOf(err) == connect.CodeInvalidArgument {
		return "", err
	}
	if err != nil {
		return "", err
	}
	return res.Header().Get("tenant"), nil
}

// serveTheirsMicro serves until the service is stopped.
func serveTheirsMicro(nc *nats.Conn) (micro.Service, error) {
	service, err := micro.AddService(nc, micro.Config{Name: "CompareService", Version: "1.0.0"})
	if err != nil {
		return nil, err
	}
	echo := func(r micro.Request) {
		req := new(comparev1.Message)
		if err := proto.Unmarshal(r.Data(), req); err != nil {
			_ = r.Error("3", "the request is malformed", nil)
			return
		}
		if len(req.GetData()) == 0 {
			_ = r.Error("3", "the data is empty", nil)
			return
		}
		out, err := proto.Marshal(req)
		if err != nil {
			_ = r.Error("13", err.Error(), nil)
			return
		}
		_ = r.Respond(out, micro.WithHeaders(micro.Headers{"tenant": r.Headers().Values("tenant")}))
	}
	return service, service.AddEndpoint("Echo", micro.HandlerFunc(echo), micro.WithEndpointSubject("compare.Echo"))
}

func callTheirsMicro(ctx context.Context, nc *nats.Conn, data []byte) (tenant string, err error) {
	in, err := proto.Marshal(&comparev1.Message{Data: data})
	if err != nil {
		return "", err
	}
	req := nats.NewMsg("compare.Echo")
	req.Data = in
	req.Header.Set("tenant", "acme")
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	m, err := nc.RequestMsgWithContext(ctx, req)
	if err != nil {
		return "", err
	}
	if code := m.Header.Get(micro.ErrorCodeHeader); code != "" {
		return "", fmt.Errorf("%s: %s", code, m.Header.Get(micro.ErrorHeader))
	}
	if err := proto.Unmarshal(m.Data, new(comparev1.Message)); err != nil {
		return "", err
	}
	return m.Header.Get("tenant"), nil
}

// logged is what the interceptors tell, for nobody.
func logged(...any) {}

func first(values []string) string { return append(values, "")[0] }

// side is a service before or after.
type side struct {
	call     func(data []byte) (tenant string, err error)
	download func(count uint64) (uint64, error) // nil where there are no streams
}

// TestComing: what the pages show before and after does the same.
func TestComing(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	nc := rpctest.Connect(t)
	ended := make(chan error, 3)
	grpcListener, httpListener := listen(t), listen(t)
	go func() { ended <- serveOurs(ctx, nc) }()
	go func() { ended <- serveTheirsGRPC(ctx, grpcListener) }()
	go func() { ended <- serveTheirsConnect(ctx, httpListener) }()
	service, err := serveTheirsMicro(nc)
	if err != nil {
		t.Fatal(err)
	}
	sides := map[string]side{
		"natscall": {
			func(data []byte) (string, error) { return callOurs(ctx, nc, data) },
			func(count uint64) (uint64, error) { return downloadOurs(ctx, nc, count) },
		},
		"gRPC": {
			func(data []byte) (string, error) { return callTheirsGRPC(ctx, grpcListener.Addr().String(), data) },
			func(count uint64) (uint64, error) {
				return downloadTheirsGRPC(ctx, grpcListener.Addr().String(), count)
			},
		},
		"Connect": {func(data []byte) (string, error) {
			return callTheirsConnect(ctx, "http://"+httpListener.Addr().String(), data)
		}, nil},
		"micro": {func(data []byte) (string, error) { return callTheirsMicro(ctx, nc, data) }, nil},
	}
	for name, s := range sides {
		t.Run(name, s.test)
	}
	cancel()
	for range 3 {
		if err := <-ended; err != nil && !errors.Is(err, http.ErrServerClosed) {
			t.Error(err)
		}
	}
	if err := service.Stop(); err != nil {
		t.Error(err)
	}
	http.DefaultClient.CloseIdleConnections()
}

func (s side) test(t *testing.T) {
	if tenant, err := s.call([]byte("x")); err != nil || tenant != "acme" {
		t.Errorf("the answer has the tenant %q, %v", tenant, err)
	}
	if _, err := s.call(nil); err == nil {
		t.Error("empty data is taken")
	}
	if s.download == nil {
		return
	}
	if n, err := s.download(3); n != 3 || err != nil {
		t.Errorf("%d messages, %v", n, err)
	}
}

func listen(t *testing.T) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", loopback)
	if err != nil {
		t.Fatal(err)
	}
	return l
}
