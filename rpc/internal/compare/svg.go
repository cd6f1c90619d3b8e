package main

import (
	"bytes"
	"fmt"
	"math"
	"os"
)

// Measures of the chart, in pixels.
const (
	chartLeft   = 150 // of the bars; the names of the workloads stand there
	chartWidth  = 620 // of the longest bar
	chartRight  = 60  // for its number
	chartTop    = 66  // for the legend
	chartBottom = 30
	barHeight   = 11
	groupGap    = 12

	legendColumns = 6
	legendWidth   = 110 // of a column
	legendHeight  = 16  // of a row
)

// colors are those of the systems in the order of systems(). Kin have one hue; neighbours differ
// in lightness, so that they are told apart with weak colour vision, too.
var colors = []string{"#9aa0a6", "#f2d16b", "#c08a00", "#1a73e8", "#7ab8ff", "#3d2fb0", "#a99cff", "#0b5d4e", "#2fc9a5", "#a05195", "#e98ac0", "#b3261e"}

// writeSVG writes a chart of the rates relative to the baseline: a group of bars for each workload.
func (r report) writeSVG(name string) error {
	blocks := r.blocks()
	highest, height := 1.0, chartTop+chartBottom
	for _, b := range blocks {
		height += len(b.rows)*barHeight + groupGap
		for _, row := range b.rows {
			highest = max(highest, row.ratio)
		}
	}
	var out bytes.Buffer
	fmt.Fprintf(&out, `<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" font-family="sans-serif" font-size="10">`+"\n", chartLeft+chartWidth+chartRight, height)
	fmt.Fprintf(&out, `<rect width="100%%" height="100%%" fill="white"/><text x="8" y="18" font-size="13">Calls or messages a second, relative to %s nats.go; longer is better</text>`+"\n", baseline)
	drawLegend(&out)
	drawGrid(&out, highest, height-chartBottom)
	y := chartTop + groupGap
	for _, b := range blocks {
		y = drawBlock(&out, b, highest, y)
	}
	out.WriteString("</svg>\n")
	return os.WriteFile(name, out.Bytes(), 0o644)
}

func drawLegend(out *bytes.Buffer) {
	for i, s := range systems() {
		x, y := chartLeft+i%legendColumns*legendWidth, 28+i/legendColumns*legendHeight
		fmt.Fprintf(out, `<rect x="%d" y="%d" width="10" height="10" fill="%s"/><text x="%d" y="%d">%s</text>`+"\n", x, y, colors[i], x+14, y+9, s.name)
	}
}

// drawGrid draws lines at 1 and at round numbers.
func drawGrid(out *bytes.Buffer, highest float64, bottom int) {
	step := 0.5 * math.Ceil(highest/5)
	for at := 0.0; at <= highest; at += step {
		color := "#dddddd"
		if at == 1 {
			color = "#333333"
		}
		x := chartLeft + at/highest*chartWidth
		fmt.Fprintf(out, `<line x1="%.1f" y1="%d" x2="%.1f" y2="%d" stroke="%s"/><text x="%.1f" y="%d" text-anchor="middle">%.1f</text>`+"\n", x, chartTop, x, bottom, color, x, bottom+14, at)
	}
}

// drawBlock returns where the next one starts.
func drawBlock(out *bytes.Buffer, b block, highest float64, y int) int {
	fmt.Fprintf(out, `<text x="%d" y="%d" text-anchor="end">%s</text>`+"\n", chartLeft-8, y+(len(b.rows)*barHeight)/2+4, b.workload)
	for i, s := range systems() {
		r := b.ratio(s.name)
		if r == 0 {
			continue
		}
		width := r / highest * chartWidth
		fmt.Fprintf(out, `<rect x="%d" y="%d" width="%.1f" height="%d" fill="%s"/><text x="%.1f" y="%d" font-size="9">%.2f</text>`+"\n", chartLeft, y, width, barHeight-1, colors[i], chartLeft+width+3, y+barHeight-2, r)
		y += barHeight
	}
	return y + groupGap
}
