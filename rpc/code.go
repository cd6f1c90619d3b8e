package rpc

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
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
	return unnamedCode + strconv.FormatUint(uint64(c), 10)
}

// unnamedCode begins the text of a code without a name, before its number.
const unnamedCode = "code_"

// MarshalText returns what String does. So logs and JSON have the name, and a code that has none is
// read again as it was.
func (c Code) MarshalText() ([]byte, error) { return []byte(c.String()), nil }

// UnmarshalText reads a code: its name in any case of letters, as in "not_found" and gRPC's
// "NOT_FOUND", or its number, also as in "code_99". "cancelled" is CodeCanceled. It does not change
// the code if it fails.
func (c *Code) UnmarshalText(text []byte) error {
	name := strings.ToLower(string(text))
	if name == "cancelled" {
		name = CodeCanceled.String()
	}
	if i := slices.Index(codeNames[:], name); i >= 0 {
		*c = Code(i)
		return nil
	}
	n, err := strconv.ParseUint(strings.TrimPrefix(name, unnamedCode), 10, 32)
	if err != nil {
		return fmt.Errorf("rpc: %q is neither the name nor the number of a code", text)
	}
	*c = Code(n)
	return nil
}

// UnmarshalJSON reads a code from a string, as UnmarshalText does, or from a number.
func (c *Code) UnmarshalJSON(data []byte) error {
	if string(data) == "null" { // which by convention changes nothing
		return nil
	}
	text := string(data)
	if strings.HasPrefix(text, `"`) {
		if err := json.Unmarshal(data, &text); err != nil {
			return err
		}
	}
	return c.UnmarshalText([]byte(text))
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
