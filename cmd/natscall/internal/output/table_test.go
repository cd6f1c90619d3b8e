package output

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
)

// sized is a terminal.
type sized struct {
	bytes.Buffer
	columns int
}

func (s *sized) Size() (columns, rows int) { return s.columns, 24 }

// aTable writes a table with a name, a number, nothing and a sentence.
func aTable(t *testing.T, w *Writer) {
	t.Helper()
	table := w.Table("NAME", ">COUNT", "NOTHING", "TEXT")
	table.Shrink("TEXT", 12, Head)
	table.Shrink("NAME", 9, Tail)
	table.Shrink("MISSING", 1, Head)
	table.Drop("COUNT", "TEXT")
	table.Row("a.v1.LongService", 7, "", "all of it is as it should be")
	table.Row("b.Do", 12, "", w.Good("short"))
	if err := table.Flush(); err != nil {
		t.Fatal(err)
	}
}

// TestTableFits: in a terminal a table is shortened as far as need be: sentences, then names; then
// columns are left out, first those in which nothing stands. No row is wider than the terminal.
func TestTableFits(t *testing.T) {
	t.Setenv("TERM", "xterm")
	for columns, want := range map[int]string{
		// With its frame, which stays as long as shorter sentences are enough.
		80: "╭──────────────────┬───────┬─────────┬──────────────────────────────╮\n│ NAME             │ COUNT │ NOTHING │ TEXT                         │\n",
		60: "│ a.v1.LongService │     7 │         │ all of it is as... │\n",
		47: "NAME              COUNT  NOTHING  TEXT\na.v1.LongService      7           all of it...\n",
		45: "NAME            COUNT  NOTHING  TEXT\nv1.LongService      7           all of it...\n",
		38: "NAME              COUNT  TEXT\na.v1.LongService      7  all of it...\n",
		30: "NAME       COUNT  TEXT\n...ervice      7  all of it...\n",
		28: "NAME            TEXT\nv1.LongService  all of it...\n",
		24: "NAME        TEXT\n...Service  all of it...\n",
		20: "NAME\na.v1.LongService\n",
		12: "NAME\nLongService\n",
		5:  "NAME\n...er\nDo\n",
	} {
		out := &sized{columns: columns}
		aTable(t, New(out))
		plain := strings.NewReplacer("\x1b[32m", "", "\x1b[0m", "").Replace(out.String())
		if !strings.Contains(plain, want) {
			t.Errorf("%d columns:\n%s\nwant\n%s", columns, plain, want)
		}
		if got := widthOf(plain); got > columns {
			t.Errorf("%d columns: it has %d", columns, got)
		}
		if got := strings.Count(plain, "\n"); got != 3 && !strings.Contains(plain, "╭") || strings.Count(plain, "Do") != 1 {
			t.Errorf("%d columns: a row is broken:\n%s", columns, plain)
		}
	}
	var pipe bytes.Buffer
	aTable(t, New(&pipe))
	if want := "NAME              COUNT  NOTHING  TEXT\na.v1.LongService      7           all of it is as it should be\nb.Do                 12           short\n"; pipe.String() != want {
		t.Errorf("in a pipe:\n%s", &pipe)
	}
}

func TestCut(t *testing.T) {
	for _, test := range []struct {
		name, text, want string
		cut              Cut
		width            int
	}{
		{"beginning", "all of it", "all...", Head, 6},
		{"with color", "\x1b[32mall of it\x1b[0m", "\x1b[32mall\x1b[0m...", Head, 6},
		{"wide letters", "日本語日本語", "日本...", Head, 8},
		{"from a dot on", "order.v1.Order", "v1.Order", Tail, 8},
		{"from a slash on", "a.Order/Get", "Get", Tail, 7},
		{"end", "order.v1.Order", "...r", Tail, 4},
		{"wide end", "a.日本語日本語", "...本語", Tail, 7},
		{"dot at the end", "abcdefgh.", "...gh.", Tail, 6},
		{"id", "0123456789abcdef", "0123..cdef", Middle, 10},
		{"id of odd width", "0123456789abcdef", "0123..cdef", Middle, 11},
		{"wide id", "日本語日本語", "日本...", Middle, 8},
	} {
		if got := test.cut([]string{test.text}, test.width)[0]; got != test.want {
			t.Errorf("%s: %q, want %q", test.name, got, test.want)
		}
	}
}

// TestDumb: a terminal that takes no commands gets none.
func TestDumb(t *testing.T) {
	t.Setenv("TERM", "dumb")
	out := &sized{columns: 80}
	screen := NewScreen(New(out))
	for range 2 {
		if err := screen.Draw(func(w *Writer) error {
			aTable(t, w)
			return nil
		}); err != nil {
			t.Fatal(err)
		}
	}
	screen.Close()
	if text := out.String(); strings.Contains(text, "\x1b") || strings.Count(text, "LongService") != 2 {
		t.Errorf("it gets %q", text)
	}
}

// TestMore: a screen says how many lines it has no room for.
func TestMore(t *testing.T) {
	t.Setenv("TERM", "xterm")
	for lines, want := range map[int]string{23: "row 23\x1b[K\r\n\x1b[J", 24: "row 22\x1b[K\r\n\x1b[2m... 2 more lines\x1b[0m\x1b[K\r\n\x1b[J"} {
		out := &sized{columns: 80}
		if err := NewScreen(New(out)).Draw(func(w *Writer) error {
			for i := range lines {
				fmt.Fprintf(w, "row %d\n", i+1)
			}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		if !strings.HasSuffix(out.String(), want) {
			t.Errorf("%d lines: it shows %q", lines, out)
		}
	}
}
