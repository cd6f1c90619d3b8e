package rpc

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/micro"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"

	natscallv1 "github.com/natscall/natscall/gen/natscall/v1"
	"github.com/natscall/natscall/rpc/internal/wire"
)

// status returns the error as it crosses the wire.
func (e *Error) status() *natscallv1.Status {
	return &natscallv1.Status{Code: int32(e.code), Message: strings.ToValidUTF8(e.message, "\uFFFD"), Details: e.details}
}

// header adds to h the headers by which NATS tools see an error.
func (e *Error) header(h nats.Header) nats.Header {
	if h == nil {
		h = nats.Header{}
	}
	h[micro.ErrorCodeHeader] = []string{strconv.Itoa(int(e.code))}
	h[micro.ErrorHeader] = []string{wire.ErrorText(e.code.String(), e.message)}
	return h
}

// shortenedMessage is how many bytes remain of the message of an error that does not fit into a
// NATS message: enough to find it in a log.
const shortenedMessage = 512

// shortened returns the error without details and with a short message.
func (e *Error) shortened() *Error {
	out := *e
	out.message = wire.Truncate(e.message, shortenedMessage) + " (shortened, without details: the error exceeds the NATS server's max_payload)"
	out.details = nil
	return &out
}

// parseStatus reads the status of an error response.
func parseStatus(body []byte, x wire.Execution) *Error {
	var s natscallv1.Status
	if err := proto.Unmarshal(body, &s); err != nil {
		return failf(CodeInternal, executionOf(x), "the error response is not a valid status: %v", err)
	}
	return remoteError(&s, x)
}

func remoteError(s *natscallv1.Status, x wire.Execution) *Error {
	e := newError(Code(uint32(s.GetCode())), s.GetMessage())
	e.details, e.remote = s.GetDetails(), true
	e.execution, e.refused = executionOf(x), x == wire.Refused
	return e
}

// executionOf returns what an error that came over the wire says about the execution.
func executionOf(x wire.Execution) Execution {
	switch x {
	case wire.DidRun:
		return DidRun
	case wire.NotRun, wire.Refused:
		return NotRun
	}
	return MayHaveRun
}

// onWire returns what an instance may say about a call on the wire. alone says that no other
// instance got the request.
func (x Execution) onWire(refused, alone bool) wire.Execution {
	switch {
	case x == DidRun:
		return wire.DidRun
	case x == MayHaveRun || !alone:
		return wire.MayHaveRun
	case refused:
		return wire.Refused
	}
	return wire.NotRun
}

// retryInfo is the type of the detail with which a server lets a caller try again.
const retryInfo = "google.rpc.RetryInfo"

// retryDelay returns the delay of a google.rpc.RetryInfo among the details, whose field 1 is a
// Duration. ok is false if there is no such detail.
func (e *Error) retryDelay() (delay time.Duration, ok bool) {
	for _, d := range e.details {
		if string(d.MessageName()) != retryInfo {
			continue
		}
		var delay durationpb.Duration
		if field, _, n := protowire.ConsumeTag(d.GetValue()); n > 0 && field == 1 {
			value, _ := protowire.ConsumeBytes(d.GetValue()[n:])
			_ = proto.Unmarshal(value, &delay) // a malformed one asks for no delay
		}
		return delay.AsDuration(), true
	}
	return 0, false
}

// plainError returns the error in a reply to a plain request, or nil.
func plainError(m *nats.Msg, codec Codec) *Error {
	code := m.Header.Get(micro.ErrorCodeHeader)
	if code == "" && m.Header.Get(micro.ErrorHeader) == "" {
		return nil
	}
	var s natscallv1.Status
	if parsePlainStatus(m.Data, codec, &s) && fmt.Sprint(s.GetCode()) == code && Code(s.GetCode()).isError() {
		return remoteError(&s, wire.ExecutionOf(m.Header))
	}
	return strangersError(code, m.Header.Get(micro.ErrorHeader))
}

func parsePlainStatus(body []byte, codec Codec, s *natscallv1.Status) bool {
	if codec == CodecProto {
		return proto.Unmarshal(body, s) == nil
	}
	if protojson.Unmarshal(body, s) == nil {
		return true
	}
	proto.Reset(s) // a detail may have a type that this program lacks: keep the others
	var parts struct {
		Code    int32             `json:"code"`
		Message string            `json:"message"`
		Details []json.RawMessage `json:"details"`
	}
	err := json.Unmarshal(body, &parts)
	s.Code, s.Message = parts.Code, parts.Message
	for _, detail := range parts.Details {
		packed := new(anypb.Any)
		if protojson.Unmarshal(detail, packed) == nil {
			s.Details = append(s.Details, packed)
		}
	}
	return err == nil
}

// strangersError returns the error of a service that is not natscall's. Its number is taken for a
// gRPC code if it is one, else for an HTTP status; any other is CodeUnknown.
func strangersError(code, text string) *Error {
	n, err := strconv.ParseUint(code, 10, 32)
	c := Code(n)
	if err != nil || !c.isError() {
		c = httpCode(n)
	}
	return &Error{code: c, message: strings.TrimPrefix(text, c.String()+": "), remote: true}
}

// httpCode maps the HTTP statuses that services on NATS micro use for their errors.
func httpCode(status uint64) Code {
	switch status {
	case 400:
		return CodeInvalidArgument
	case 401:
		return CodeUnauthenticated
	case 403:
		return CodePermissionDenied
	case 404:
		return CodeNotFound
	case 409:
		return CodeAborted
	case 429:
		return CodeResourceExhausted
	case 500:
		return CodeInternal
	case 501:
		return CodeUnimplemented
	case 503:
		return CodeUnavailable
	case 504:
		return CodeDeadlineExceeded
	}
	return CodeUnknown
}
