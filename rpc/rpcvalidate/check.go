package rpcvalidate

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"buf.build/go/protovalidate"
	"google.golang.org/protobuf/proto"

	"github.com/natscall/natscall/rpc"
)

const (
	// maxNamed is how many broken rules the message of an error names: as many as one reads.
	maxNamed = 10
	// maxViolations is how many the detail of an error has, so that a request with many wrong items
	// does not get an answer that is larger than itself. See also shorten.go.
	maxViolations = 100
)

// request checks a request on a server.
func (s *served) request(m proto.Message) error {
	err := s.validator.Validate(m)
	if err == nil {
		return nil
	}
	if broken := violations(err); broken != nil {
		return refusal(rpc.CodeInvalidArgument, m, broken)
	}
	return s.failed("the rules of a request fail", "the rules of the request fail", err)
}

// response checks a response on a server.
func (s *served) response(m proto.Message) error {
	if err := s.validator.Validate(m); err != nil {
		return s.failed("a response breaks rules", "the response breaks rules", err)
	}
	return nil
}

// failed logs what the caller is not told, and returns what it is told.
func (s *served) failed(what, told string, err error) error {
	if isOwn(err) {
		return err
	}
	if unlogged, ok := s.log.next(); ok {
		cmp.Or(s.logger, slog.Default()).Error("natscall: "+what, "method", s.method.FullName(), "error", oneLine(err), "unlogged", unlogged)
	}
	return rpc.Errorf(rpc.CodeInternal, "%s: %s (the server's log says why)", s.method.FullName(), told)
}

// sentRequest checks a request on a client.
func (v *Validation) sentRequest(m proto.Message) error {
	return v.onClient(m, rpc.CodeInvalidArgument)
}

// receivedResponse checks a response on a client. The server is to blame.
func (v *Validation) receivedResponse(m proto.Message) error {
	return v.onClient(m, rpc.CodeInternal)
}

func (v *Validation) onClient(m proto.Message, code rpc.Code) error {
	err := v.validator.Validate(m)
	if err == nil {
		return nil
	}
	if broken := violations(err); broken != nil {
		return refusal(code, m, broken)
	}
	if isOwn(err) {
		return err
	}
	return rpc.Errorf(rpc.CodeInternal, "the rules of %s fail: %w", name(m), err)
}

// violations returns the rules that a message breaks, or nil if err says something else.
func violations(err error) []*protovalidate.Violation {
	var invalid *protovalidate.ValidationError
	if !errors.As(err, &invalid) {
		return nil
	}
	return invalid.Violations
}

// refusal returns the error of a message that breaks rules.
func refusal(code rpc.Code, m proto.Message, broken []*protovalidate.Violation) error {
	detail := protovalidate.ValidationError{Violations: shortened(broken)}
	return rpc.NewError(code, name(m)+" is not valid: "+list(broken), detail.ToProto())
}

// list names the broken rules.
func list(broken []*protovalidate.Violation) string {
	var named []string
	for _, b := range shortened(broken[:min(len(broken), maxNamed)]) {
		named = append(named, b.String())
	}
	out := cut(strings.Join(named, "; "), maxText)
	if more := len(broken) - len(named); more > 0 {
		out += fmt.Sprintf("; and %d more", more)
	}
	return out
}

// oneLine is the text of an error for a log.
func oneLine(err error) string {
	if broken := violations(err); broken != nil {
		return list(broken)
	}
	return err.Error()
}

// isOwn reports whether an error says by itself which code the call is to end with.
func isOwn(err error) bool {
	var own *rpc.Error
	return errors.As(err, &own)
}

func name(m proto.Message) string { return string(m.ProtoReflect().Descriptor().FullName()) }

// limit lets one record a second through, since a caller may cause many.
type limit struct {
	mu       sync.Mutex
	last     time.Time // of the record that was let through last
	unlogged int       // records since then
}

// next reports whether a record may be logged, and how many before it were not.
func (l *limit) next() (unlogged int, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if now := time.Now(); now.Sub(l.last) >= time.Second {
		unlogged, l.unlogged, l.last = l.unlogged, 0, now
		return unlogged, true
	}
	l.unlogged++
	return 0, false
}
