package main

import (
	"io"
	"sync/atomic"

	"google.golang.org/protobuf/proto"

	comparev1 "github.com/natscall/natscall/rpc/internal/compare/gen/compare/v1"
)

// What the systems with Protobuf messages share: the handlers of a server, and the loops of a
// client. They take the methods of a stream as functions, since each system has a type of its
// own for it, and messages of more than one package.

type message = comparev1.Message

// The messages of a package: what is carried, what a download is asked for with, and what an
// upload is answered with.
type (
	carrier interface {
		proto.Message
		GetData() []byte
	}
	order interface {
		proto.Message
		GetSize() uint32
		GetCount() uint64
	}
	tally interface {
		proto.Message
		GetReceived() uint64
	}
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

func handleDownload(req order, send func([]byte) error) error {
	data := newData(int(req.GetSize()))
	for n := uint64(0); req.GetCount() == 0 || n < req.GetCount(); n++ {
		setNumber(data, n)
		work(data)
		if err := send(data); err != nil {
			return err
		}
	}
	return nil
}

func handleUpload[M carrier](receive func() (M, error)) (received uint64, err error) {
	for ; ; received++ {
		m, err := receive()
		if err == io.EOF {
			return received, nil
		}
		if err != nil {
			return received, err
		}
		handle(m.GetData())
	}
}

func handleChat[M carrier](receive func() (M, error), send func(M) error) error {
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

// sendData makes of a stream's send what takes data, with one message for all of it.
func sendData(send func(*message) error) func([]byte) error {
	m := new(message)
	return func(data []byte) error {
		m.Data = data
		return send(m)
	}
}

// receiveAll is the client's part of a download.
func receiveAll[M carrier](receive func() (M, error), got func([]byte) bool) error {
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

// sendAll is the client's part of an upload. It stops where the server has ended the stream; the
// response says why.
func sendAll(send func([]byte) error, next func() []byte) error {
	for data := next(); data != nil; data = next() {
		if err := send(data); err == io.EOF {
			return nil
		} else if err != nil {
			return err
		}
	}
	return nil
}

// talk makes an exchange of a stream.
func talk[M carrier](send func([]byte) error, receive func() (M, error)) exchange {
	return func(data []byte) ([]byte, error) {
		if err := send(data); err != nil {
			return nil, err
		}
		answer, err := receive()
		return answer.GetData(), err
	}
}
