package tap

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/natscall/natscall/cmd/natscall/internal/output"
	"github.com/natscall/natscall/rpc/rpctap"
)

// clock is how the time of a message is shown.
const clock = "15:04:05.000"

// text writes rows for people.
type text struct {
	strings.Builder
	out   *output.Writer // decides about colors
	limit int            // of the text of a message; 0 is none
}

// writeText writes a row.
func writeText(w *output.Writer, r *Row, limit int) error {
	t := &text{out: w, limit: limit}
	t.row(r, "", r.Time.Format(clock))
	_, err := io.WriteString(w, t.String())
	return err
}

// row writes a row with its items. Lines begin with an indent.
func (t *text) row(r *Row, indent, prefix string) {
	arrow := map[rpctap.Side]string{rpctap.SideClient: "->", rpctap.SideServer: "<-"}[r.From]
	kind := fmt.Sprintf("%-9s", r.Kind)
	if r.Failure != nil || r.Kind == rpctap.KindInvalid || r.Kind == rpctap.KindNoResponders {
		kind = string(t.out.Bad(kind))
	}
	words := append([]string{output.Clean(r.method.String())}, r.words()...)
	fmt.Fprintf(t, "%s%s %2s %s %s\n", indent, t.out.Dim(prefix), arrow, kind, strings.Join(words, "  "))
	indent += "    "
	t.headers(indent, "header", r.Header)
	for _, m := range r.Messages {
		t.line(indent, m.text(t.limit))
	}
	if r.Failure != nil {
		t.line(indent, r.Failure.text())
		for _, detail := range r.Failure.Details {
			t.line(indent, "detail "+cut(string(detail), t.limit))
		}
	}
	t.headers(indent, "trailer", r.Trailer)
	if r.Problem != "" {
		t.line(indent, r.Problem)
	}
	for i, item := range r.Batch {
		t.row(item, indent, fmt.Sprintf("item %d", i+1))
	}
	t.raw(indent, r.Raw)
}

func (t *text) line(indent, line string) {
	fmt.Fprintf(t, "%s%s\n", indent, output.Clean(line))
}

func (t *text) headers(indent, name string, h map[string][]string) {
	for _, key := range slices.Sorted(maps.Keys(h)) {
		for _, value := range h[key] {
			t.line(indent, name+" "+key+": "+cut(value, t.limit))
		}
	}
}

func (t *text) raw(indent string, data []byte) {
	for line := range strings.Lines(hex.Dump(data)) {
		t.WriteString(indent + string(t.out.Dim(strings.TrimSuffix(line, "\n"))) + "\n")
	}
}

// words are what stands behind the method in the first line of a row.
func (r *Row) words() []string {
	var out []string
	add := func(format string, args ...any) { out = append(out, fmt.Sprintf(format, args...)) }
	if r.Call != "" {
		add("call %s", short(r.Call))
	}
	if n := len(r.Calls); n > 0 {
		add("and %d more", n)
	}
	if len(r.Batch) > 0 {
		add("%s", counted(len(r.Batch), "item", "items"))
	}
	add("%s", strings.TrimSpace(fmt.Sprintf("%s %s", size(r.Size), r.Codec)))
	if r.Compression != "" {
		add("takes %s", r.Compression)
	}
	switch {
	case r.Timeout == nil:
	case *r.Timeout == 0:
		add("no timeout")
	default:
		add("timeout %v", milliseconds(*r.Timeout).Round(time.Millisecond))
	}
	if r.After != nil {
		add("after %v", milliseconds(*r.After))
	}
	if r.Instance != "" {
		add("by %s", output.Clean(r.Instance))
	}
	return append(append(out, r.Frame.words()...), r.To.words(r)...)
}

func (f *Frame) words() []string {
	if f == nil {
		return nil
	}
	var out []string
	if f.Sequence != nil {
		out = append(out, fmt.Sprint("frame ", *f.Sequence))
	}
	if f.Credit > 0 {
		out = append(out, "credit "+size(int(f.Credit)))
	}
	if f.HalfClose {
		out = append(out, "half-close")
	}
	if f.Waited {
		out = append(out, "had to wait")
	}
	if f.Partial > 0 {
		out = append(out, size(f.Partial)+" of a message so far")
	}
	return out
}

// words say where a message has gone to, if its method does not say it.
func (d *Destination) words(r *Row) []string {
	switch {
	case d == nil || r.From == rpctap.SideServer:
		return nil
	case d.All:
		return []string{"to all instances"}
	case d.Instance != "":
		return []string{"to " + output.Clean(d.Instance)}
	case !strings.HasSuffix(d.Subject, r.Service+"."+r.Method):
		return []string{"on " + output.Clean(d.Subject)}
	}
	return nil
}

// text returns a message in one line.
func (m *Message) text(limit int) string {
	var notes string
	if m.Compressed {
		notes = fmt.Sprintf(" (compressed to %s)", size(m.Size))
	}
	switch {
	case m.Error != "" && isText(m.Bytes):
		return fmt.Sprintf("%s: %s%s", m.Error, cut(strconv.Quote(string(m.Bytes)), limit), notes)
	case m.Error != "" && len(m.Bytes) > 0:
		return fmt.Sprintf("%s: %s%s", m.Error, cut(hex.EncodeToString(m.Bytes), limit), notes)
	case m.Error != "":
		return m.Error + notes
	case m.JSON != nil:
		return cut(string(m.JSON), limit) + notes
	}
	return cut("{"+m.Fields+"}", limit) + notes
}

// isText reports whether bytes are better read as text, as services of other kinds send it.
func isText(data []byte) bool {
	return len(data) > 0 && utf8.Valid(data) && bytes.IndexFunc(data, func(r rune) bool { return !unicode.IsPrint(r) && !unicode.IsSpace(r) }) < 0
}

func (f *Failure) text() string {
	text := f.Code.String()
	if f.Message != "" {
		text += ": " + f.Message
	}
	if text += " (" + f.Execution; f.Refused {
		text += ", another instance may take it"
	}
	return text + ")"
}

// cut returns the beginning of a text that is longer than a limit, and says how long it is.
func cut(s string, limit int) string {
	if limit <= 0 || len(s) <= limit {
		return s
	}
	return strings.ToValidUTF8(s[:limit], "") + fmt.Sprintf("... (%d bytes)", len(s))
}

// short is enough of a call's id to tell it from the others on a screen.
func short(id string) string { return id[:min(8, len(id))] }

func milliseconds(ms float64) time.Duration {
	return time.Duration(ms * float64(time.Millisecond)).Round(time.Microsecond)
}

// size returns a number of bytes as people read it.
func size(n int) string {
	switch {
	case n < 10<<10:
		return fmt.Sprintf("%d B", n)
	case n < 1<<20:
		return decimal(float64(n)/(1<<10)) + " KiB"
	}
	return decimal(float64(n)/(1<<20)) + " MiB"
}

func decimal(f float64) string { return strings.TrimSuffix(fmt.Sprintf("%.1f", f), ".0") }
