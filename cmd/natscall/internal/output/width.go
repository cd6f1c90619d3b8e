package output

import (
	"slices"
	"strings"

	"github.com/jedib0t/go-pretty/v6/text"
)

// Cut shortens the texts of a column to a width, which some of them exceed.
type Cut func(texts []string, width int) []string

// each returns a Cut for texts that have nothing to do with each other.
func each(texts []string, limit int, cut func(text string, limit int) string) []string {
	out := slices.Clone(texts)
	for i, t := range texts {
		if width(t) > limit {
			out[i] = cut(t, limit)
		}
	}
	return out
}

// dots stand for what was left out.
const dots = "..."

// Head leaves the beginnings of texts, which may have colors.
func Head(texts []string, limit int) []string { return each(texts, limit, head) }

func head(t string, limit int) string {
	return strings.TrimRight(text.Trim(t, limit-len(dots)), " ") + dots
}

// Tail leaves the ends of names: the last parts tell them apart. All names lose as many parts as
// the longest has to.
func Tail(names []string, limit int) []string {
	out := slices.Clone(names)
	for again := true; again && widest(out) > limit; {
		again = false
		for i, name := range out {
			if dot := strings.IndexAny(name, "./"); dot >= 0 && dot < len(name)-1 {
				out[i], again = name[dot+1:], true
			}
		}
	}
	return each(out, limit, func(name string, limit int) string {
		for i := range name {
			if width(name[i:]) <= limit-len(dots) {
				return dots + name[i:]
			}
		}
		return ""
	})
}

// Middle leaves the beginnings and the ends of ids.
func Middle(ids []string, limit int) []string {
	const between = ".."
	side := (limit - len(between)) / 2
	return each(ids, limit, func(id string, limit int) string {
		runes := []rune(id)
		if side < 1 || len(runes) <= 2*side || len(runes) != width(id) { // letters that are wide
			return head(id, limit)
		}
		return string(runes[:side]) + between + string(runes[len(runes)-side:])
	})
}

// widest returns how many columns the widest text takes.
func widest(texts []string) int {
	most := 0
	for _, t := range texts {
		most = max(most, width(t))
	}
	return most
}

// width returns how many columns of a terminal a text takes.
func width(t string) int { return text.StringWidthWithoutEscSequences(t) }

// widthOf returns how many columns the widest line takes.
func widthOf(lines string) int {
	widest := 0
	for line := range strings.Lines(lines) {
		widest = max(widest, width(strings.TrimRight(line, " \n")))
	}
	return widest
}

// cutLines cuts the lines that are wider than a terminal.
func cutLines(lines string, limit int) string {
	out := strings.Split(lines, "\n")
	for i, line := range out {
		if line = strings.TrimRight(line, " "); width(line) > limit {
			out[i] = text.Trim(line, limit)
		}
	}
	return strings.Join(out, "\n")
}
