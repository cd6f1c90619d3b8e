package main

import (
	"fmt"
	"io"
	"strings"
	"unicode/utf8"
)

// table is one of Markdown, whose columns are aligned in the text, too.
type table struct{ rows [][]string } // the first is the head

func (t *table) add(cells ...string) { t.rows = append(t.rows, cells) }

func (t *table) writeText(w io.Writer) error {
	var out strings.Builder
	widths := t.widths()
	for i, row := range t.rows {
		for column, text := range row {
			out.WriteString("| " + strings.Repeat(" ", widths[column]-utf8.RuneCountInString(text)) + text + " ")
		}
		out.WriteString("|\n")
		if i > 0 {
			continue
		}
		for _, width := range widths {
			out.WriteString("|" + strings.Repeat("-", width+1) + ":")
		}
		out.WriteString("|\n")
	}
	_, err := fmt.Fprint(w, out.String())
	return err
}

func (t *table) widths() []int {
	widths := make([]int, len(t.rows[0]))
	for _, row := range t.rows {
		for column, text := range row {
			widths[column] = max(widths[column], utf8.RuneCountInString(text))
		}
	}
	return widths
}
