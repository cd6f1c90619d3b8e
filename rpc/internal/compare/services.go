package main

import (
	"context"
	"fmt"
	"sync/atomic"

	"github.com/natscall/natscall/rpc"
	comparev1 "github.com/natscall/natscall/rpc/internal/compare/gen/compare/v1"
)

// numbered is the service of compare.v1 under one of many names, as it would be generated.
type numbered struct {
	desc     *rpc.ServiceDesc
	echo     *rpc.UnaryMethod[*message, *message]
	download *rpc.ServerStreamMethod[*comparev1.DownloadRequest, *message]
	upload   *rpc.ClientStreamMethod[*message, *comparev1.UploadResponse]
	chat     *rpc.BidiMethod[*message, *message]
}

func numberedServices(n int) []*numbered {
	var all []*numbered
	for i := range n {
		desc := &rpc.ServiceDesc{
			Name:      fmt.Sprintf("compare.v1.CompareService%d", i),
			MicroName: fmt.Sprintf("CompareService%d", i),
			Version:   "1.0.0",
			File:      comparev1.File_compare_v1_compare_proto,
		}
		all = append(all, &numbered{
			desc:     desc,
			echo:     rpc.NewUnaryMethod[message, message](desc, rpc.MethodDesc{Name: "Echo"}),
			download: rpc.NewServerStreamMethod[comparev1.DownloadRequest, message](desc, rpc.MethodDesc{Name: "Download"}),
			upload:   rpc.NewClientStreamMethod[message, comparev1.UploadResponse](desc, rpc.MethodDesc{Name: "Upload"}),
			chat:     rpc.NewBidiMethod[message, message](desc, rpc.MethodDesc{Name: "Chat"}),
		})
	}
	return all
}

type plainService = natscallService[*message, *comparev1.DownloadRequest, *comparev1.UploadResponse]

func (n *numbered) register(s *rpc.Server) error {
	return rpc.Register(s, n.desc, plainService{natscallPlain}, nil,
		rpc.HandleUnary(n.echo, plainService.Echo),
		rpc.HandleServerStream(n.download, plainService.Download),
		rpc.HandleClientStream(n.upload, plainService.Upload),
		rpc.HandleBidi(n.chat, plainService.Chat),
	)
}

// natscallServices is natscall with n services on one server. The calls go round over them.
func natscallServices(n int) system {
	return system{
		name:  fmt.Sprintf("natscall-%d-services", n),
		serve: func(url string) (string, error) { return "", serveServices(url, n) },
		dial: func(url, _ string) (peer, error) {
			nc, err := connectNATS(url)
			if err != nil {
				return nil, err
			}
			return &servicesPeer{client: rpc.NewClient(nc), services: numberedServices(n)}, nil
		},
	}
}

func serveServices(url string, n int) error {
	nc, err := connectNATS(url)
	if err != nil {
		return err
	}
	s := rpc.NewServer(nc)
	for _, service := range numberedServices(n) {
		if err := service.register(s); err != nil {
			return err
		}
	}
	return s.Start(context.Background())
}

type servicesPeer struct {
	unaryPeer
	client   *rpc.Client
	services []*numbered
	calls    atomic.Uint64
}

func (p *servicesPeer) echo(ctx context.Context, data []byte) ([]byte, error) {
	service := p.services[p.calls.Add(1)%uint64(len(p.services))]
	res, err := service.echo.Call(ctx, p.client, &message{Data: data})
	return res.GetData(), err
}
