// Package output writes what the commands have found: tables for people, JSON for programs.
package output

import (
	"bytes"
	"encoding/json"
	"io"
	"os"
	"sync"

	"github.com/jedib0t/go-pretty/v6/text"
	"golang.org/x/term"
)

// Writer writes the output of a command. Several goroutines may use it.
type Writer struct {
	Color  bool   // it is a terminal that shows colors
	Scheme string // of tables
	fit    int    // how wide the terminal is for which the writer collects; 0 for others

	mu  sync.Mutex
	out io.Writer
}

// New returns a writer, which uses colors if w is a terminal and the environment does not forbid
// them (no-color.org).
func New(w io.Writer) *Writer {
	out := &Writer{out: w}
	out.Color = out.Moves() && os.Getenv("NO_COLOR") == ""
	return out
}

// Moves reports whether the writer stands on a terminal that takes commands, such as those that
// move its cursor.
func (w *Writer) Moves() bool { return IsTerminal(w.out) && os.Getenv("TERM") != "dumb" }

// Width returns how wide the terminal is, or 0 if it is none.
func (w *Writer) Width() int {
	width, _, _ := w.size()
	return width
}

// size returns the size of the terminal. ok is false if it is none.
func (w *Writer) size() (width, height int, ok bool) {
	if w.fit > 0 {
		return w.fit, 0, true
	}
	return size(w.out)
}

// Write writes to what the writer stands on.
func (w *Writer) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.out.Write(p)
}

// IsTerminal reports whether the writer stands on a terminal.
func (w *Writer) IsTerminal() bool { return IsTerminal(w.out) }

// IsTerminal reports whether a stream is a terminal.
func IsTerminal(stream any) bool {
	if _, ok := stream.(Sized); ok {
		return true
	}
	f, ok := stream.(interface{ Fd() uintptr })
	return ok && term.IsTerminal(int(f.Fd()))
}

// JSON writes a value in several lines.
func (w *Writer) JSON(v any) error { return w.json(v, "  ") }

// Line writes a value in one line.
func (w *Writer) Line(v any) error { return w.json(v, "") }

func (w *Writer) json(v any, indent string) error {
	var out bytes.Buffer
	e := json.NewEncoder(&out)
	e.SetEscapeHTML(false) // wildcards are to be read
	e.SetIndent("", indent)
	if err := e.Encode(v); err != nil {
		return err
	}
	_, err := w.Write(SafeJSON(out.Bytes()))
	return err
}

// Table returns a table with columns; the name of one that has numbers begins with [Right].
func (w *Writer) Table(columns ...string) *Table { return newTable(w, columns) }

// The styles of words.
var (
	good = text.Colors{text.FgGreen}
	bad  = text.Colors{text.FgRed, text.Bold}
	note = text.Colors{text.FgYellow}
	dim  = text.Colors{text.Faint}
)

// Word is text without what a terminal would take for a command, but for the colors of its writer.
type Word string

// Good returns a word that says that something is as it should be.
func (w *Writer) Good(word string) Word { return w.paint(good, word) }

// Bad returns a word that says that something is wrong.
func (w *Writer) Bad(word string) Word { return w.paint(bad, word) }

// Note returns a word that is to be noticed.
func (w *Writer) Note(word string) Word { return w.paint(note, word) }

// Plain returns a word without color.
func (w *Writer) Plain(word string) Word { return Word(Clean(word)) }

// Dim returns a word that matters little.
func (w *Writer) Dim(word string) Word { return w.paint(dim, word) }

func (w *Writer) paint(c text.Colors, word string) Word {
	word = Clean(word)
	if !w.Color || word == "" {
		return Word(word)
	}
	return Word(text.Escape(word, c.EscapeSeq()))
}
