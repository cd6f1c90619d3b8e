package main

import (
	"github.com/natscall/natscall/rpc"
	comparevtv1 "github.com/natscall/natscall/rpc/internal/compare/gen/comparevt/v1"
	"github.com/natscall/natscall/rpc/internal/compare/gen/comparevt/v1/comparevtv1nats"
)

// natscallVT is natscall with messages that vtprotobuf encodes and decodes, which the runtime
// finds out by itself.
var (
	natscallVT      = natscallSystem("natscall-vt", natscallVTCode, nil, nil)
	natscallVTBatch = natscallBatching("natscall-vt-batch", natscallVTCode)
)

var natscallVTCode = &natscallCode[*comparevtv1.Message, *comparevtv1.DownloadRequest, *comparevtv1.UploadResponse]{
	register: func(s *rpc.Server, impl natscallServer[*comparevtv1.Message, *comparevtv1.DownloadRequest, *comparevtv1.UploadResponse]) error {
		return comparevtv1nats.RegisterCompareServiceServer(s, impl)
	},
	client: func(c *rpc.Client) natscallClient[*comparevtv1.Message, *comparevtv1.DownloadRequest, *comparevtv1.UploadResponse] {
		return comparevtv1nats.NewCompareServiceClient(c)
	},
	message: func(data []byte) *comparevtv1.Message { return &comparevtv1.Message{Data: data} },
	order: func(size uint32, count uint64) *comparevtv1.DownloadRequest {
		return &comparevtv1.DownloadRequest{Size: size, Count: count}
	},
	tally: func(received uint64) *comparevtv1.UploadResponse {
		return &comparevtv1.UploadResponse{Received: received}
	},
	sendData: sendVT,
}

func sendVT(send func(*comparevtv1.Message) error) func([]byte) error {
	m := new(comparevtv1.Message)
	return func(data []byte) error {
		m.Data = data
		return send(m)
	}
}
