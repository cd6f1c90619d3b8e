package output

import (
	"io"
	"strings"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/jedib0t/go-pretty/v6/text"
)

// Table collects rows that are written together.
type Table struct {
	w    io.Writer
	rows table.Writer
}

// Right marks a column whose values stand at its right edge, as numbers do.
const Right = ">"

// Table returns a table with columns; the name of one that has numbers begins with [Right].
func (w *Writer) Table(columns ...string) *Table {
	t := &Table{w: w, rows: table.NewWriter()}
	header, configs := make(table.Row, len(columns)), make([]table.ColumnConfig, 0, len(columns))
	for i, name := range columns {
		name, right := strings.CutPrefix(name, Right)
		header[i] = name
		config := table.ColumnConfig{Number: i + 1}
		if right {
			config.Align, config.AlignHeader = text.AlignRight, text.AlignRight
		}
		configs = append(configs, config)
	}
	t.rows.SetStyle(w.style())
	if w.width > 0 {
		t.rows.SetAllowedRowLength(w.width)
	}
	t.rows.AppendHeader(header)
	t.rows.SetColumnConfigs(configs)
	return t
}

// style is that of a scheme. What is not a terminal gets plain columns, which other programs cut
// easily.
func (w *Writer) style() table.Style {
	if !w.Color {
		return plainStyle()
	}
	style := table.StyleRounded
	if w.Scheme == "double" {
		style = table.StyleDouble
	}
	if color, ok := schemeColors[w.Scheme]; ok {
		style.Color.Border, style.Color.Separator = text.Colors{color}, text.Colors{color}
	}
	style.Format.Header = text.FormatDefault
	return style
}

func plainStyle() table.Style {
	style := table.StyleDefault
	style.Options = table.OptionsNoBordersAndSeparators
	style.Format.Header = text.FormatDefault
	style.Box.PaddingLeft, style.Box.PaddingRight = "", "  "
	return style
}

var schemeColors = map[string]text.Color{
	"blue": text.FgBlue, "cyan": text.FgCyan, "green": text.FgGreen,
	"magenta": text.FgMagenta, "red": text.FgRed, "yellow": text.FgYellow,
}

// Row adds a row.
func (t *Table) Row(cells ...any) { t.rows.AppendRow(cells) }

// Flush writes the table.
func (t *Table) Flush() error {
	var out strings.Builder
	for line := range strings.Lines(t.rows.Render() + "\n") {
		out.WriteString(strings.TrimRight(line, " \n"))
		out.WriteByte('\n')
	}
	_, err := io.WriteString(t.w, out.String())
	return err
}

// The styles of words.
var (
	good = text.Colors{text.FgGreen}
	bad  = text.Colors{text.FgRed, text.Bold}
	note = text.Colors{text.FgYellow}
	dim  = text.Colors{text.Faint}
)

// Good returns a word that says that something is as it should be.
func (w *Writer) Good(word string) string { return w.paint(good, word) }

// Bad returns a word that says that something is wrong.
func (w *Writer) Bad(word string) string { return w.paint(bad, word) }

// Note returns a word that is to be noticed.
func (w *Writer) Note(word string) string { return w.paint(note, word) }

// Dim returns a word that matters little.
func (w *Writer) Dim(word string) string { return w.paint(dim, word) }

func (w *Writer) paint(c text.Colors, word string) string {
	if !w.Color || word == "" {
		return word
	}
	return text.Escape(word, c.EscapeSeq())
}
