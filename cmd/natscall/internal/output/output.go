// Package output writes what the commands have found: tables for people, JSON for programs.
package output

import (
	"encoding/json"
	"io"
	"os"

	"golang.org/x/term"
)

// Writer writes the output of a command.
type Writer struct {
	io.Writer
	Color  bool   // it is a terminal that shows colors
	Scheme string // of tables
	width  int    // in which tables are to fit; 0 means any
}

// New returns a writer, which uses colors if w is a terminal and the environment does not forbid
// them (no-color.org).
func New(w io.Writer) *Writer {
	return &Writer{Writer: w, Color: IsTerminal(w) && os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"}
}

// IsTerminal reports whether a stream is a terminal.
func IsTerminal(stream any) bool {
	if _, ok := stream.(Sized); ok {
		return true
	}
	f, ok := stream.(interface{ Fd() uintptr })
	return ok && term.IsTerminal(int(f.Fd()))
}

// JSON writes a value in several lines.
func (w *Writer) JSON(v any) error {
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false) // wildcards are to be read
	e.SetIndent("", "  ")
	return e.Encode(v)
}

// Line writes a value in one line.
func (w *Writer) Line(v any) error {
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	return e.Encode(v)
}
