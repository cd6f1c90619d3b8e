package main

import (
	"bytes"
	"fmt"
	"math"
	"os"
	"strings"
)

// Measures of the chart, in pixels. It is about as wide and high as a screen: one panel for calls,
// one for streams, in which each workload has a group of bars.
const (
	chartWidth  = 920
	chartLeft   = 34  // of the bars; the numbers of the scale stand there
	chartTop    = 66  // for the legend
	panelHeight = 170 // of the highest bar
	panelGap    = 44  // below a panel, for the names of its workloads
	barWidth    = 7
	groupGap    = 14

	legendColumns = 6
	legendWidth   = 140 // of a column
	legendHeight  = 16  // of a row
)

// colors are those of the systems in the order of systems(). Kin have one hue; neighbours differ
// in lightness, so that they are told apart with weak colour vision, too.
var colors = []string{"#9aa0a6", "#f2d16b", "#c08a00", "#1a73e8", "#7ab8ff", "#3d2fb0", "#a99cff", "#0b5d4e", "#2fc9a5", "#a05195", "#e98ac0", "#b3261e"}

// writeSVG writes a chart of the rates relative to the baseline.
func (r report) writeSVG(name string) error {
	return os.WriteFile(name, drawChart(r.blocks()), 0o644)
}

// drawChart draws a group of bars for each block.
func drawChart(blocks []block) []byte {
	var calls, streams []block
	highest := 1.0
	for _, b := range blocks {
		if strings.HasPrefix(b.workload, "unary-") {
			calls = append(calls, b)
		} else {
			streams = append(streams, b)
		}
		for _, row := range b.rows {
			highest = max(highest, row.ratio)
		}
	}
	var panels bytes.Buffer
	y := chartTop
	for _, panel := range [][]block{calls, streams} {
		if len(panel) > 0 {
			drawPanel(&panels, panel, highest, y+panelHeight)
			y += panelHeight + panelGap
		}
	}
	var out bytes.Buffer
	fmt.Fprintf(&out, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" width="%[1]d" height="%[2]d" font-family="sans-serif" font-size="10">`+"\n", chartWidth, y)
	fmt.Fprintf(&out, `<rect width="100%%" height="100%%" fill="white"/><text x="8" y="18" font-size="13">Calls or messages a second, relative to %s nats.go; higher is better</text>`+"\n", baseline)
	drawLegend(&out)
	_, _ = panels.WriteTo(&out)
	out.WriteString("</svg>\n")
	return out.Bytes()
}

func drawLegend(out *bytes.Buffer) {
	for i, s := range systems() {
		x, y := chartLeft+i%legendColumns*legendWidth, 28+i/legendColumns*legendHeight
		fmt.Fprintf(out, `<rect x="%d" y="%d" width="10" height="10" fill="%s"/><text x="%d" y="%d">%s</text>`+"\n", x, y, colors[i], x+14, y+9, s.name)
	}
}

// drawPanel draws groups of bars that stand on a line, with a scale that has lines at 1 and at
// round numbers.
func drawPanel(out *bytes.Buffer, blocks []block, highest float64, bottom int) {
	step := 0.5 * math.Ceil(highest/5)
	for at := 0.0; at <= highest; at += step {
		color := "#dddddd"
		if at == 1 {
			color = "#333333"
		}
		y := float64(bottom) - at/highest*panelHeight
		fmt.Fprintf(out, `<line x1="%d" y1="%.1f" x2="%d" y2="%.1f" stroke="%s"/><text x="%d" y="%.1f" text-anchor="end">%.1f</text>`+"\n", chartLeft, y, chartWidth, y, color, chartLeft-4, y+3, at)
	}
	x := chartLeft + groupGap
	for _, b := range blocks {
		x = drawGroup(out, b, highest, x, bottom)
	}
}

// drawGroup returns where the next group starts.
func drawGroup(out *bytes.Buffer, b block, highest float64, left, bottom int) int {
	x := left
	for i, s := range systems() {
		r := b.ratio(s.name)
		if r == 0 {
			continue
		}
		height := r / highest * panelHeight
		fmt.Fprintf(out, `<rect x="%d" y="%.1f" width="%d" height="%.1f" fill="%s"><title>%s, %s: %.2f</title></rect>`+"\n", x, float64(bottom)-height, barWidth, height, colors[i], b.workload, s.name, r)
		x += barWidth
	}
	x = max(x, left+labelWidth(b.workload))
	for i, line := range labelLines(b.workload) {
		fmt.Fprintf(out, `<text x="%d" y="%d" text-anchor="middle">%s</text>`+"\n", (left+x)/2, bottom+12+11*i, line)
	}
	return x + groupGap
}

// labelLines are the parts of a workload's name, which stand one below the other: what, how large,
// how many callers.
func labelLines(workload string) []string {
	head, tail, ok := strings.Cut(workload, "-stream-")
	if ok {
		return []string{head, "stream", tail}
	}
	head, tail, _ = strings.Cut(workload, "-pong-")
	if tail != "" {
		return []string{head + "-pong", tail}
	}
	return strings.Split(workload, "-")
}

// labelWidth is about what a label takes.
func labelWidth(workload string) int {
	widest := 0
	for _, line := range labelLines(workload) {
		widest = max(widest, len(line))
	}
	return 6 * widest
}
