package output

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/jedib0t/go-pretty/v6/text"
)

// Table collects rows that are written together. On a terminal it fits into its width, as the
// columns of Shrink and Drop say; elsewhere it has all that there is.
type Table struct {
	w       *Writer
	columns []column
	rows    [][]string
	shrinks []int // columns, in the order in which they are shortened
	drops   []int // columns, in the order in which they are left out
	shown   *view // what Flush has written
}

// column is one of a table.
type column struct {
	name  string
	right bool
	least int // how wide it is at least if it is shortened
	cut   Cut // nil if it is not shortened
}

// Right marks a column whose values stand at its right edge, as numbers do.
const Right = ">"

// newTable returns a table with columns; the name of one that has numbers begins with [Right].
func newTable(w *Writer, columns []string) *Table {
	t := &Table{w: w}
	for _, name := range columns {
		name, right := strings.CutPrefix(name, Right)
		t.columns = append(t.columns, column{name: name, right: right})
	}
	return t
}

// Shrink says that a column, if there is one of the name, may be shortened to a width, after those
// of earlier calls.
func (t *Table) Shrink(name string, least int, cut Cut) {
	i := t.index(name)
	if i < 0 {
		return
	}
	t.columns[i].least, t.columns[i].cut = max(least, len(name)), cut
	t.shrinks = append(t.shrinks, i)
}

// Drop says that columns may be left out, in this order, where shortening is not enough.
func (t *Table) Drop(names ...string) {
	for _, name := range names {
		t.drops = append(t.drops, t.index(name))
	}
}

func (t *Table) index(name string) int {
	return slices.IndexFunc(t.columns, func(c column) bool { return c.name == name })
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

// gap stands between plain columns.
const gap = "  "

func plainStyle() table.Style {
	style := table.StyleDefault
	style.Options = table.OptionsNoBordersAndSeparators
	style.Format.Header = text.FormatDefault
	style.Box.PaddingLeft, style.Box.PaddingRight = "", gap
	return style
}

var schemeColors = map[string]text.Color{
	"blue": text.FgBlue, "cyan": text.FgCyan, "green": text.FgGreen,
	"magenta": text.FgMagenta, "red": text.FgRed, "yellow": text.FgYellow,
}

// Row adds a row. Strings are cleaned, as services may say anything; a [Word] is so already.
func (t *Table) Row(cells ...any) {
	row := make([]string, len(cells))
	for i, cell := range cells {
		row[i] = fmt.Sprint(cell)
		if text, ok := cell.(string); ok {
			row[i] = Clean(text)
		}
	}
	t.rows = append(t.rows, row)
}

// Flush writes the table: where it is too wide for the terminal without its frame, shortened.
func (t *Table) Flush() error {
	t.shown = t.all()
	lines := t.shown.render(styleOf(t.w))
	if width, _, ok := t.w.size(); ok && widthOf(lines) > width {
		if lines = t.shown.texts(widthOf(lines) - width).render(styleOf(t.w)); widthOf(lines) > width {
			t.shown = t.fit(width)
			lines = t.shown.render(plainStyle())
		}
		lines = cutLines(lines, width) // what cannot be shortened any more
	}
	var out strings.Builder
	for line := range strings.Lines(lines + "\n") {
		out.WriteString(strings.TrimRight(line, " \n"))
		out.WriteByte('\n')
	}
	_, err := io.WriteString(t.w, out.String())
	return err
}

// Lost reports whether Flush has not written a cell of a column as it is, given the number of its
// row.
func (t *Table) Lost(name string, row int) bool {
	i := t.index(name)
	return !slices.Contains(t.shown.columns, i) || t.shown.cells[i][row] != t.rows[row][i]
}

// all returns the table as it is.
func (t *Table) all() *view {
	v := &view{table: t}
	for i, c := range t.columns {
		cells := make([]string, len(t.rows))
		for number, row := range t.rows {
			cells[number] = row[i]
		}
		v.columns, v.cells = append(v.columns, i), append(v.cells, cells)
		v.limits = append(v.limits, max(widest(cells), width(c.name)))
	}
	return v
}

// fit returns the table for a width without a frame: with as many columns as there is room for,
// none of them shorter than need be. Columns in which nothing stands are the first to go.
func (t *Table) fit(width int) *view {
	v := t.all()
	var empty []int
	for i := range t.columns {
		if !slices.ContainsFunc(t.rows, func(row []string) bool { return row[i] != "" }) {
			empty = append(empty, i)
		}
	}
	for _, i := range slices.Concat(empty, t.drops) {
		if v.least() <= width {
			break
		}
		v.columns = slices.DeleteFunc(v.columns, func(c int) bool { return c == i })
	}
	v.shrink(t.shrinks, v.width()-width)
	return v
}

// view is a table as it is shown.
type view struct {
	table   *Table
	columns []int      // that are shown
	cells   [][]string // by column
	limits  []int      // of the widths, by column
}

// width returns how wide the view is without a frame.
func (v *view) width() int {
	sum := len(gap) * (len(v.columns) - 1)
	for _, i := range v.columns {
		sum += v.limits[i]
	}
	return sum
}

// least returns how wide it is if all columns are shortened.
func (v *view) least() int {
	sum := v.width()
	for _, i := range v.columns {
		if c := v.table.columns[i]; c.cut != nil {
			sum -= max(0, v.limits[i]-c.least)
		}
	}
	return sum
}

// shrink shortens columns until so much room is won.
func (v *view) shrink(columns []int, room int) {
	for _, i := range columns {
		if room > 0 && slices.Contains(v.columns, i) {
			limit := max(v.limits[i]-room, min(v.limits[i], v.table.columns[i].least))
			v.cells[i] = v.table.columns[i].cut(v.cells[i], limit)
			shorter := max(widest(v.cells[i]), width(v.table.columns[i].name))
			room -= v.limits[i] - shorter
			v.limits[i] = shorter
		}
	}
}

// texts shortens sentences alone, which keeps the frame around them where they are long.
func (v *view) texts(room int) *view {
	first := v.table.shrinks[:min(1, len(v.table.shrinks))]
	v.shrink(first, room)
	return v
}

// render returns the lines.
func (v *view) render(style table.Style) string {
	w := table.NewWriter()
	w.SetStyle(style)
	header, configs := make(table.Row, len(v.columns)), make([]table.ColumnConfig, len(v.columns))
	for at, i := range v.columns {
		header[at], configs[at] = v.table.columns[i].name, table.ColumnConfig{Number: at + 1}
		if v.table.columns[i].right {
			configs[at].Align, configs[at].AlignHeader = text.AlignRight, text.AlignRight
		}
	}
	w.AppendHeader(header)
	w.SetColumnConfigs(configs)
	for number := range v.table.rows {
		cells := make(table.Row, len(v.columns))
		for at, i := range v.columns {
			cells[at] = v.cells[i][number]
		}
		w.AppendRow(cells)
	}
	return w.Render()
}
