package main

import (
	"io"
	"sync/atomic"

	comparev1 "github.com/natscall/natscall/rpc/internal/compare/gen/compare/v1"
)

// What the systems with Protobuf messages share: the handlers of a server, and the loops of a client.
// They take the methods of a stream as functions, since each system has a type of its own for it.

type (
	message = comparev1.Message
	send    func(*message) error
	receive func() (*message, error)
)

// handled counts what the handlers of this process have received.
var handled atomic.Uint64

// handle does the work of a call, in place: a request is its handler's own.
func handle(data []byte) {
	work(data)
	handled.Add(1)
}

func handleEcho(req *message) *message {
	handle(req.GetData())
	return &message{Data: req.GetData()}
}

func handleDownload(req *comparev1.DownloadRequest, send send) error {
	m := &message{Data: newData(int(req.GetSize()))}
	for n := uint64(0); req.GetCount() == 0 || n < req.GetCount(); n++ {
		setNumber(m.Data, n)
		work(m.Data)
		if err := send(m); err != nil {
			return err
		}
	}
	return nil
}

func handleUpload(receive receive) (*comparev1.UploadResponse, error) {
	for received := uint64(0); ; received++ {
		m, err := receive()
		if err == io.EOF {
			return &comparev1.UploadResponse{Received: received}, nil
		}
		if err != nil {
			return nil, err
		}
		handle(m.GetData())
	}
}

func handleChat(receive receive, send send) error {
	for {
		m, err := receive()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		handle(m.GetData())
		if err := send(m); err != nil {
			return err
		}
	}
}

// receiveAll is the client's part of a download.
func receiveAll(receive receive, got func([]byte) bool) error {
	for {
		m, err := receive()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		if !got(m.GetData()) {
			return nil
		}
	}
}

// sendAll is the client's part of an upload. It stops where the server has ended the stream; the response tells why.
func sendAll(send send, next func() []byte) error {
	m := new(message)
	for m.Data = next(); m.Data != nil; m.Data = next() {
		if err := send(m); err == io.EOF {
			return nil
		} else if err != nil {
			return err
		}
	}
	return nil
}

// talk makes an exchange of a stream.
func talk(send send, receive receive) exchange {
	m := new(message)
	return func(data []byte) ([]byte, error) {
		m.Data = data
		if err := send(m); err != nil {
			return nil, err
		}
		answer, err := receive()
		return answer.GetData(), err
	}
}
