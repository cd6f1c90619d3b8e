package rpctap

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/micro"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	natscallv1 "github.com/natscall/natscall/gen/natscall/v1"
	"github.com/natscall/natscall/rpc"
	"github.com/natscall/natscall/rpc/internal/wire"
)

// Failure is the error of a call, as a server has sent it.
type Failure struct {
	Code      rpc.Code
	Message   string
	Details   []*anypb.Any
	Execution rpc.Execution
	Refused   bool // it did not run, and another instance may take the call
}

// String returns the code and the message.
func (f *Failure) String() string {
	if f.Message == "" {
		return f.Code.String()
	}
	return f.Code.String() + ": " + f.Message
}

func parseFailure(body []byte, x wire.Execution) (*Failure, error) {
	var s natscallv1.Status
	if err := proto.Unmarshal(body, &s); err != nil {
		return nil, fmt.Errorf("the error is not a valid status: %w", err)
	}
	return failureOf(&s, x), nil
}

func failureOf(s *natscallv1.Status, x wire.Execution) *Failure {
	return &Failure{
		Code: rpc.Code(uint32(s.GetCode())), Message: s.GetMessage(), Details: s.GetDetails(),
		Execution: executionOf(x), Refused: x == wire.Refused,
	}
}

// plainFailure reads the error in answer to a plain request: the headers of any service on NATS
// micro, and the status that natscall's have beside them.
func plainFailure(h nats.Header, body []byte) *Failure {
	x := wire.ExecutionOf(h)
	var s natscallv1.Status
	unmarshal := proto.Unmarshal
	if guessCodec(body) == rpc.CodecJSON {
		unmarshal = protojson.UnmarshalOptions{DiscardUnknown: true}.Unmarshal
	}
	code := h.Get(micro.ErrorCodeHeader)
	if unmarshal(body, &s) == nil && fmt.Sprint(s.GetCode()) == code {
		return failureOf(&s, x)
	}
	n, err := strconv.ParseUint(code, 10, 32)
	if err != nil {
		n = uint64(rpc.CodeUnknown)
	}
	c := rpc.Code(n)
	return &Failure{Code: c, Message: strings.TrimPrefix(h.Get(micro.ErrorHeader), c.String()+": "), Execution: executionOf(x)}
}

func executionOf(x wire.Execution) rpc.Execution {
	switch x {
	case wire.DidRun:
		return rpc.ExecutionDidRun
	case wire.NotRun, wire.Refused:
		return rpc.ExecutionNotRun
	}
	return rpc.ExecutionMayHaveRun
}
