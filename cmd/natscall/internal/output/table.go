package output

import (
	"io"
	"strings"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/jedib0t/go-pretty/v6/text"
)

// Table collects rows that are written together.
type Table struct {
	w    *Writer
	rows table.Writer
}

// Right marks a column whose values stand at its right edge, as numbers do.
const Right = ">"

// newTable returns a table with columns; the name of one that has numbers begins with [Right].
func newTable(w *Writer, columns []string) *Table {
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
	t.rows.SetStyle(styleOf(w))
	t.rows.AppendHeader(header)
	t.rows.SetColumnConfigs(configs)
	return t
}

// styleOf returns the style of a scheme. What is not a terminal gets plain columns, which other
// programs cut easily.
func styleOf(w *Writer) table.Style {
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

// Row adds a row. Strings are cleaned, as services may say anything; a [Word] is so already.
func (t *Table) Row(cells ...any) {
	for i, cell := range cells {
		if text, ok := cell.(string); ok {
			cells[i] = Clean(text)
		}
	}
	t.rows.AppendRow(cells)
}

// Flush writes the table: without its frame if it is too wide for the terminal, and cut if it has
// to fit.
func (t *Table) Flush() error {
	lines := t.rows.Render()
	if width, _, ok := t.w.size(); ok && widthOf(lines) > width {
		t.rows.SetStyle(plainStyle())
		if t.w.fit > 0 {
			t.rows.SetAllowedRowLength(t.w.fit)
		}
		lines = t.rows.Render()
	}
	var out strings.Builder
	for line := range strings.Lines(lines + "\n") {
		out.WriteString(strings.TrimRight(line, " \n"))
		out.WriteByte('\n')
	}
	_, err := io.WriteString(t.w, out.String())
	return err
}

// widthOf returns how many columns the widest line takes.
func widthOf(lines string) int {
	widest := 0
	for line := range strings.Lines(lines) {
		widest = max(widest, text.StringWidthWithoutEscSequences(strings.TrimRight(line, " \n")))
	}
	return widest
}
