package rpcvalidate

import (
	"strings"

	"buf.build/gen/go/bufbuild/protovalidate/protocolbuffers/go/buf/validate"
	"buf.build/go/protovalidate"
	"google.golang.org/protobuf/proto"
)

// The bounds of what an error repeats of a message, in bytes. Each violation has its path, in which
// keys of maps and the depth are the sender's, and rules of one's own may put values into its text.
const (
	maxKey      = 64
	maxElements = 32 // of a path
	maxMessage  = 1 << 10
	maxText     = 4 << 10  // of an error
	maxDetail   = 64 << 10 // of all violations
)

// shortened returns the first violations, each within bounds, as many as the bounds allow.
func shortened(broken []*protovalidate.Violation) []*protovalidate.Violation {
	var kept []*protovalidate.Violation
	size := 0
	for _, b := range broken[:min(len(broken), maxViolations)] {
		b = shorten(b)
		if b != nil {
			size += proto.Size(b.Proto)
		}
		if size > maxDetail {
			break
		}
		kept = append(kept, b)
	}
	return kept
}

// shorten returns a violation within bounds: b itself, or else a copy.
func shorten(b *protovalidate.Violation) *protovalidate.Violation {
	if b == nil || b.Proto == nil || fits(b.Proto) {
		return b
	}
	v := proto.CloneOf(b.Proto)
	if v.HasMessage() {
		v.SetMessage(cut(v.GetMessage(), maxMessage))
	}
	path := v.GetField()
	if elements := path.GetElements(); len(elements) > maxElements {
		path.SetElements(elements[:maxElements])
	}
	for _, e := range path.GetElements() {
		if e.HasStringKey() {
			e.SetStringKey(cut(e.GetStringKey(), maxKey))
		}
	}
	return &protovalidate.Violation{Proto: v}
}

func fits(v *validate.Violation) bool {
	elements := v.GetField().GetElements()
	if len(elements) > maxElements || len(v.GetMessage()) > maxMessage {
		return false
	}
	for _, e := range elements {
		if len(e.GetStringKey()) > maxKey {
			return false
		}
	}
	return true
}

// cut returns the beginning of a text that is too long, and three dots.
func cut(text string, size int) string {
	if len(text) <= size {
		return text
	}
	return strings.ToValidUTF8(text[:size], "") + "..."
}
