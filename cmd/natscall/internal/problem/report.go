package problem

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoregistry"

	"github.com/natscall/natscall/cmd/natscall/internal/output"
	"github.com/natscall/natscall/rpc"
)

// Types finds messages by their names, to decode the details of errors.
type Types interface {
	protoregistry.MessageTypeResolver
	protoregistry.ExtensionTypeResolver
}

// Report is an error as programs read it.
type Report struct {
	Error     string            `json:"error"`
	Next      string            `json:"next,omitempty"`
	Status    int               `json:"exit_status"`
	Code      string            `json:"code,omitempty"`
	Message   string            `json:"message,omitempty"`
	Details   []json.RawMessage `json:"details,omitempty"`
	Execution string            `json:"execution,omitempty"`
	Instance  string            `json:"instance,omitempty"`
	Remote    bool              `json:"remote,omitempty"`
}

// Report returns an error as programs read it. Details are decoded by types, which may be nil.
func (e *Error) Report(types Types) Report {
	r := Report{Error: e.Reason, Next: e.Next, Status: e.Status}
	call := e.Call()
	if call == nil {
		return r
	}
	r.Code, r.Message = call.Code().String(), call.Message()
	r.Execution, r.Instance, r.Remote = call.Execution().String(), call.Instance(), call.Remote()
	for _, detail := range call.Details() {
		r.Details = append(r.Details, DetailJSON(detail, types))
	}
	return r
}

// DetailJSON returns a detail of an error in JSON, as it stands in a google.protobuf.Any. Of a type
// that is not known only the bytes are there.
func DetailJSON(detail proto.Message, types Types) json.RawMessage {
	packed, err := asAny(detail)
	if err == nil {
		var data []byte
		if data, err = (protojson.MarshalOptions{Resolver: resolver(types)}).Marshal(packed); err == nil {
			return compact(data)
		}
	}
	unknown := struct {
		Type  string `json:"@type"`
		Value []byte `json:"value"`
	}{packed.GetTypeUrl(), packed.GetValue()}
	data, _ := json.Marshal(unknown) // of a string and bytes: cannot fail
	return data
}

// WriteText writes an error for people.
func (e *Error) WriteText(w io.Writer, command string, types Types) {
	var text strings.Builder
	reason := strings.ReplaceAll(e.Reason, "\u00a0", " ") // package proto writes it for a blank
	fmt.Fprintf(&text, "%s: %s\n", command, output.Clean(reason))
	if call := e.Call(); call != nil {
		for _, detail := range call.Details() {
			fmt.Fprintf(&text, "  detail: %s\n", output.Clean(string(DetailJSON(detail, types))))
		}
		fmt.Fprintf(&text, "  %s\n", ranText(call))
	}
	if e.Next != "" {
		fmt.Fprintf(&text, "  next: %s\n", output.Clean(e.Next))
	}
	_, _ = io.WriteString(w, text.String()) // there is nobody left to tell
}

// ranText says whether the handler ran, and where.
func ranText(call *rpc.Error) string {
	said := map[rpc.Execution]string{
		rpc.ExecutionNotRun:     "the call did not run",
		rpc.ExecutionDidRun:     "the call did run",
		rpc.ExecutionMayHaveRun: "the call may have run",
	}[call.Execution()]
	if call.Instance() != "" {
		said += ", on instance " + output.Clean(call.Instance())
	}
	return said
}
