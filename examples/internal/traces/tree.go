package traces

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"
)

// Node is a span, and those that it is the parent of.
type Node struct {
	Span
	Children []*Node
	Linked   []Span // of other traces, with a link to this span
}

// Tree returns the trace as a tree. It fails if the trace has no root or several, or if the parent
// of a span is missing: of a trace that is not over yet, the spans that have not ended are.
func (c *Collector) Tree(id trace.TraceID) (root *Node, err error) {
	nodes := map[trace.SpanID]*Node{}
	spans := c.Spans(id)
	for _, s := range spans {
		nodes[s.SpanContext().SpanID()] = &Node{Span: s, Linked: c.linked(s.SpanContext())}
	}
	for _, s := range spans {
		node, parent := nodes[s.SpanContext().SpanID()], nodes[s.Parent().SpanID()]
		switch {
		case parent != nil:
			parent.Children = append(parent.Children, node)
		case s.Parent().IsValid():
			return nil, fmt.Errorf("trace %v: the parent of %s %s is missing", id, s.SpanKind(), s.Name())
		case root != nil:
			return nil, fmt.Errorf("trace %v: it has two roots, %s and %s", id, root.Name(), s.Name())
		default:
			root = node
		}
	}
	if root == nil {
		return nil, fmt.Errorf("trace %v: it has no root", id)
	}
	return root, nil
}

// All visits the node and all below it, until visit returns false.
func (n *Node) All(visit func(*Node) bool) bool {
	if !visit(n) {
		return false
	}
	for _, c := range n.Children {
		if !c.All(visit) {
			return false
		}
	}
	return true
}

// Answered reports whether each call of the trace has been seen by a server too, and each message
// by a consumer.
func (n *Node) Answered() bool {
	return n.All(func(n *Node) bool {
		switch n.SpanKind() {
		case trace.SpanKindClient:
			return len(n.Children) > 0
		case trace.SpanKindProducer:
			return len(n.Linked) > 0
		}
		return true
	})
}

// Print writes the tree: each span with its kind, when it began, how long it took, the process, and
// how it ended if not well; and its events and linked spans below it.
func (n *Node) Print(w io.Writer, indent string) error {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintf(table, "%sSPAN\tKIND\tAT\tTOOK\tPROCESS\n", indent)
	n.print(table, indent, n.StartTime())
	return table.Flush()
}

func (n *Node) print(w io.Writer, indent string, began time.Time) {
	row(w, indent, n.Span, began)
	below := indent + "  "
	for _, e := range n.Events() {
		fmt.Fprintf(w, "%s* %s\t\t%v\t\t%s\n", below, e.Name, round(e.Time.Sub(began)), attributes(e.Attributes))
	}
	for _, c := range n.Children {
		c.print(w, below, began)
	}
	for _, s := range n.Linked {
		row(w, below+"~ ", s, began)
	}
}

func row(w io.Writer, indent string, s Span, began time.Time) {
	fmt.Fprintf(w, "%s%s\t%s\t%v\t%v\t%s\n", indent, s.Name(), s.SpanKind(), round(s.StartTime().Sub(began)),
		round(s.EndTime().Sub(s.StartTime())), strings.TrimSpace(Process(s)+" "+outcome(s)))
}

// Process is the service and the instance that a span is of, as in "order/1".
func Process(s Span) string {
	about := s.Resource().Set()
	service, _ := about.Value("service.name")
	instance, _ := about.Value("service.instance.id")
	return service.AsString() + "/" + instance.AsString()
}

// outcome is how a call ended if not with OK, and whether it has run.
func outcome(s Span) string {
	var words []string
	for _, kv := range s.Attributes() {
		switch kv.Key {
		case "rpc.response.status_code", "natscall.execution":
			if v := kv.Value.AsString(); v != "OK" {
				words = append(words, v)
			}
		}
	}
	return strings.Join(words, " ")
}

// attributes are those of an event, without what they all begin with.
func attributes(all []attribute.KeyValue) string {
	var words []string
	for _, kv := range all {
		name := string(kv.Key)
		words = append(words, name[strings.LastIndexByte(name, '.')+1:]+"="+kv.Value.String())
	}
	return strings.Join(words, " ")
}

func round(d time.Duration) time.Duration { return d.Round(10 * time.Microsecond) }
