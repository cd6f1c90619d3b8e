package rpc

import (
	"context"
	"errors"
	"strconv"
)

// Code is a status code: those of gRPC, with the same numbers and meanings
// (https://grpc.io/docs/guides/status-codes).
type Code uint32

// The codes. CodeOK is the zero value; an error never has it.
const (
	CodeOK                 Code = 0
	CodeCanceled           Code = 1  // the caller has gone
	CodeUnknown            Code = 2  // an error without a code
	CodeInvalidArgument    Code = 3  // wrong whatever the state of the system
	CodeDeadlineExceeded   Code = 4  // the time was up
	CodeNotFound           Code = 5  // what was asked for does not exist
	CodeAlreadyExists      Code = 6  // what was to be created exists
	CodePermissionDenied   Code = 7  // the caller may not
	CodeResourceExhausted  Code = 8  // a limit: size, queue, quota
	CodeFailedPrecondition Code = 9  // the system is not in the state for it; do not retry
	CodeAborted            Code = 10 // a conflict; retry the whole transaction
	CodeOutOfRange         Code = 11 // past the end
	CodeUnimplemented      Code = 12 // the method is not implemented
	CodeInternal           Code = 13 // something is broken
	CodeUnavailable        Code = 14 // not available now; see Error.Execution before a retry
	CodeDataLoss           Code = 15 // data is lost or corrupt
	CodeUnauthenticated    Code = 16 // the caller's identity is missing or wrong
)

var codeNames = [...]string{
	CodeOK:                 "ok",
	CodeCanceled:           "canceled",
	CodeUnknown:            "unknown",
	CodeInvalidArgument:    "invalid_argument",
	CodeDeadlineExceeded:   "deadline_exceeded",
	CodeNotFound:           "not_found",
	CodeAlreadyExists:      "already_exists",
	CodePermissionDenied:   "permission_denied",
	CodeResourceExhausted:  "resource_exhausted",
	CodeFailedPrecondition: "failed_precondition",
	CodeAborted:            "aborted",
	CodeOutOfRange:         "out_of_range",
	CodeUnimplemented:      "unimplemented",
	CodeInternal:           "internal",
	CodeUnavailable:        "unavailable",
	CodeDataLoss:           "data_loss",
	CodeUnauthenticated:    "unauthenticated",
}

// String returns the name in lower snake case, as in "not_found".
func (c Code) String() string {
	if int(c) < len(codeNames) {
		return codeNames[c]
	}
	return "code_" + strconv.FormatUint(uint64(c), 10)
}

// isError reports whether an error may have the code.
func (c Code) isError() bool { return c != CodeOK && int(c) < len(codeNames) }

// CodeOf returns the code of an error: CodeOK for nil, the code of the first
// *Error in its chain, CodeCanceled and CodeDeadlineExceeded for the errors of
// package context, and CodeUnknown for any other.
func CodeOf(err error) Code {
	if err == nil {
		return CodeOK
	}
	var e *Error
	switch {
	case errors.As(err, &e):
		return e.Code()
	case errors.Is(err, context.Canceled):
		return CodeCanceled
	case errors.Is(err, context.DeadlineExceeded):
		return CodeDeadlineExceeded
	}
	return CodeUnknown
}
