package tap

import (
	"encoding/json"
	"time"

	"github.com/natscall/natscall/cmd/natscall/internal/problem"
	"github.com/natscall/natscall/rpc"
	"github.com/natscall/natscall/rpc/rpctap"
)

// Row is what is shown of a NATS message, and of an item of a batch.
type Row struct {
	Time time.Time    `json:"time"`
	From rpctap.Side  `json:"from"`
	Kind rpctap.Kind  `json:"kind"`
	Size int          `json:"size"`
	To   *Destination `json:"to,omitempty"`
	About
	Encoding
	Frame    *Frame              `json:"frame,omitempty"`
	Header   map[string][]string `json:"header,omitempty"`
	Trailer  map[string][]string `json:"trailer,omitempty"`
	Messages []Message           `json:"messages,omitempty"`
	Failure  *Failure            `json:"failure,omitempty"`
	Problem  string              `json:"problem,omitempty"`
	Batch    []*Row              `json:"batch,omitempty"`
	Raw      []byte              `json:"raw,omitempty"`
}

// Destination is where a message has gone to. Items of a batch have that of the batch.
type Destination struct {
	Subject  string `json:"subject"`
	Reply    string `json:"reply,omitempty"`
	All      bool   `json:"all_instances,omitempty"`
	Instance string `json:"instance,omitempty"`
}

// About says which call a message belongs to.
type About struct {
	Service  string   `json:"service,omitempty"`
	Method   string   `json:"method,omitempty"`
	Call     string   `json:"call,omitempty"`
	Calls    []string `json:"more_calls,omitempty"` // of a cancel, and of questions about calls
	Instance string   `json:"instance,omitempty"`   // that has sent it, if it says so
	After    *float64 `json:"after_ms,omitempty"`   // since the request
	method   *Method
}

// Encoding is how the messages are encoded, and the time that the caller gives.
type Encoding struct {
	Codec       string   `json:"codec,omitempty"`
	Compression string   `json:"compression,omitempty"`
	Timeout     *float64 `json:"timeout_ms,omitempty"` // 0 is none
}

// Frame is what the frames of streams say.
type Frame struct {
	Sequence  *uint64 `json:"sequence,omitempty"`
	Credit    uint64  `json:"credit,omitempty"`
	HalfClose bool    `json:"half_close,omitempty"`
	Waited    bool    `json:"waited,omitempty"`
	Bytes     int     `json:"bytes,omitempty"`   // of messages, which the frame has
	Partial   int     `json:"partial,omitempty"` // bytes of a message that is not whole yet
}

// Failure is the error of a call.
type Failure struct {
	Code      rpc.Code          `json:"code"`
	Message   string            `json:"message,omitempty"`
	Details   []json.RawMessage `json:"details,omitempty"`
	Execution string            `json:"execution"`
	Refused   bool              `json:"refused,omitempty"`
}

// rowOf returns what is shown of an event.
func (c *Catalog) rowOf(e *rpctap.Event, at time.Time) *Row {
	r := &Row{Time: at, From: e.From, Kind: e.Kind, Size: e.Size, About: c.about(e), Frame: frameOf(e)}
	r.To = &Destination{e.Subject.Name, e.Reply, e.Subject.All, e.Subject.Instance}
	for _, item := range e.Batch {
		row := c.rowOf(item, at)
		row.To = nil
		r.Batch = append(r.Batch, row)
	}
	r.Header, r.Trailer = e.Headers()
	r.Encoding = encodingOf(e)
	for _, m := range e.Messages {
		r.Messages = append(r.Messages, messageOf(e, r.method, m))
	}
	if e.Failure != nil {
		r.Failure = failureOf(e.Failure, r.method.resolver())
	}
	switch {
	case e.Err != nil && len(e.Messages) == 0:
		r.Problem = e.Err.Error()
	case e.Missing != nil:
		r.Problem = "its messages are not known: " + e.Missing.Error()
	}
	return r
}

func (c *Catalog) about(e *rpctap.Event) About {
	a := About{Call: e.ID, Calls: e.IDs, Instance: e.Instance, method: c.Method(e.Subject)}
	if len(e.Batch) > 0 {
		a.method = c.about(e.Batch[0]).method // one batch has the calls of one method
	}
	if call := e.Call; call != nil {
		a.method, a.Call = c.Method(call.Subject), call.ID
		if e.From == rpctap.SideServer {
			after := float64(e.After) / float64(time.Millisecond)
			a.After = &after
		}
	}
	a.Service, a.Method = a.method.Service, a.method.Name
	return a
}

func encodingOf(e *rpctap.Event) Encoding {
	var out Encoding
	if len(e.Messages) > 0 || e.Kind == rpctap.KindRequest || e.Kind == rpctap.KindOpen {
		out.Codec = e.Codec.String()
		if e.Compression != rpc.CompressionNone {
			out.Compression = e.Compression.String()
		}
	}
	if e.Timeout != 0 {
		millis := max(0, float64(e.Timeout)/float64(time.Millisecond)) // NoTimeout is below 0
		out.Timeout = &millis
	}
	return out
}

// frameOf returns what an open or a frame says, or nil.
func frameOf(e *rpctap.Event) *Frame {
	f := &Frame{Credit: e.Credit, HalfClose: e.HalfClose, Waited: e.Waited, Partial: e.Partial}
	switch e.Kind {
	case rpctap.KindData, rpctap.KindEnd, rpctap.KindHeartbeat:
		f.Sequence = &e.Sequence
	case rpctap.KindOpen, rpctap.KindAccept, rpctap.KindCredit:
	default:
		return nil
	}
	if e.Kind == rpctap.KindOpen || e.Kind == rpctap.KindData {
		f.Bytes = len(e.Body)
	}
	return f
}

func failureOf(f *rpctap.Failure, types problem.Types) *Failure {
	out := &Failure{Code: f.Code, Message: f.Message, Execution: f.Execution.String(), Refused: f.Refused}
	for _, detail := range f.Details {
		out.Details = append(out.Details, problem.DetailJSON(detail, types))
	}
	return out
}
