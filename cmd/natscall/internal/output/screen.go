package output

import (
	"bytes"
	"fmt"
	"io"
	"strings"

	"golang.org/x/term"
)

// Screen shows something that changes: in place on a terminal, one after the other elsewhere.
type Screen struct {
	w      *Writer
	opened bool // the terminal shows the other screen
	drawn  int
}

// The sequences of ANSI terminals (ECMA-48, and xterm's other screen) that a screen needs.
const (
	enterScreen = "\x1b[?1049h\x1b[?25l" // the other screen, without a cursor
	leaveScreen = "\x1b[?25h\x1b[?1049l"
	home        = "\x1b[H"
	clearLine   = "\x1b[K"
	clearBelow  = "\x1b[J"
)

// NewScreen returns a screen on a writer. Close it.
func NewScreen(w *Writer) *Screen { return &Screen{w: w} }

// Draw shows what draw writes.
func (s *Screen) Draw(draw func(w *Writer) error) error {
	var out bytes.Buffer
	width, height, terminal := size(s.w.out)
	terminal = terminal && s.w.Moves()
	part := &Writer{out: &out, Color: s.w.Color, Scheme: s.w.Scheme, fit: width}
	if err := draw(part); err != nil {
		return err
	}
	if !terminal {
		if s.drawn++; s.drawn > 1 {
			fmt.Fprintln(s.w)
		}
		_, err := s.w.Write(out.Bytes())
		return err
	}
	var text strings.Builder
	if !s.opened {
		s.opened = true
		text.WriteString(enterScreen)
	}
	text.WriteString(home)
	// A line that goes on in the next one would move those below it.
	lines := strings.SplitAfter(cutLines(strings.TrimSuffix(out.String(), "\n"), width), "\n")
	if room := max(height-1, 1); len(lines) > room {
		more := fmt.Sprintf("... %d more lines", len(lines)-room+1)
		lines = append(lines[:room-1], string(s.w.Dim(more)))
	}
	for _, line := range lines {
		text.WriteString(strings.TrimSuffix(line, "\n") + clearLine + "\r\n")
	}
	text.WriteString(clearBelow)
	_, err := io.WriteString(s.w, text.String())
	return err
}

// Close gives the terminal back as it was.
func (s *Screen) Close() {
	if s.opened {
		fmt.Fprint(s.w, leaveScreen)
	}
}

// Sized is a stream that is a terminal of a certain size; a test has one.
type Sized interface{ Size() (width, height int) }

// A terminal that does not say its size has the usual one.
const (
	usualWidth  = 80
	usualHeight = 24
)

// size returns the size of a terminal. ok is false if w is none.
func size(w io.Writer) (width, height int, ok bool) {
	if sized, ok := w.(Sized); ok {
		width, height = sized.Size()
		return width, height, true
	}
	f, ok := w.(interface{ Fd() uintptr })
	if !ok {
		return 0, 0, false
	}
	width, height, err := term.GetSize(int(f.Fd()))
	if err == nil && (width <= 0 || height <= 0) {
		width, height = usualWidth, usualHeight
	}
	return width, height, err == nil
}
