package rpc

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/micro"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	natscallv1 "github.com/natscall/natscall/gen/natscall/v1"
	"github.com/natscall/natscall/rpc/internal/wire"
)

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

// readJSON reads statuses. It knows the types of details that are linked, and RetryInfo.
var readJSON = protojson.UnmarshalOptions{Resolver: linkedTypes}

func parsePlainStatus(body []byte, codec Codec, s *natscallv1.Status) bool {
	if codec == CodecProto {
		return proto.Unmarshal(body, s) == nil
	}
	if readJSON.Unmarshal(body, s) == nil {
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
		if readJSON.Unmarshal(detail, packed) == nil {
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
