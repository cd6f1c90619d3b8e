package rpcvalidate

import (
	"errors"
	"strings"
	"testing"

	"buf.build/gen/go/bufbuild/protovalidate/protocolbuffers/go/buf/validate"
	"buf.build/go/protovalidate"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/natscall/natscall/rpc"
)

// TestShortened: long keys, deep paths and long texts do not make an error much larger than the
// message, and what is short stays as it is.
func TestShortened(t *testing.T) {
	element := func(key string) *validate.FieldPathElement {
		return validate.FieldPathElement_builder{FieldName: proto.String("m"), StringKey: proto.String(key)}.Build()
	}
	var deep []*validate.FieldPathElement
	for range 10_000 {
		deep = append(deep, element("k"))
	}
	violation := func(message string, elements ...*validate.FieldPathElement) *protovalidate.Violation {
		return &protovalidate.Violation{Proto: validate.Violation_builder{
			Field: validate.FieldPath_builder{Elements: elements}.Build(), RuleId: proto.String("string.min_len"), Message: proto.String(message),
		}.Build()}
	}
	for name, b := range map[string]*protovalidate.Violation{
		"long key":  violation("too short", element(strings.Repeat("ü", 1<<19)), element("b")),
		"deep path": violation("too short", deep...),
		"long text": violation(strings.Repeat("x", 1<<20)),
		"many keys": violation(strings.Repeat("x", 1<<20), append(deep, element(strings.Repeat("k", 1<<20)))...),
	} {
		before := proto.CloneOf(b.Proto)
		var broken []*protovalidate.Violation
		for range 100 {
			broken = append(broken, b)
		}
		err := refusal(rpc.CodeInvalidArgument, &emptypb.Empty{}, broken)
		var e *rpc.Error
		if !errors.As(err, &e) || len(e.Details()) != 1 {
			t.Fatalf("%s: the error is %v", name, err)
		}
		found := e.Details()[0].(*validate.Violations).GetViolations()
		if size := proto.Size(e.Details()[0]); size > maxDetail+(1<<10) || len(err.Error()) > maxText+(1<<10) || len(found) == 0 || found[0].GetRuleId() != "string.min_len" {
			t.Errorf("%s: the text has %d bytes, the detail %d", name, len(err.Error()), size)
		}
		if !strings.Contains(err.Error(), "more") || strings.ToValidUTF8(err.Error(), "") != err.Error() {
			t.Errorf("%s: the error is %v", name, err)
		}
		if !proto.Equal(b.Proto, before) {
			t.Errorf("%s: the violation was changed", name)
		}
	}
	short := violation("too short", element("a"))
	if shorten(short) != short || shorten(nil) != nil {
		t.Error("a short violation was copied")
	}
}
