package discover

import (
	"slices"
	"strings"
)

// Suggest says what somebody may have meant, or else what there is.
func Suggest(name string, there []string, list string) string {
	if near := Near(name, there); near != "" {
		return near
	}
	const most = 20
	if len(there) > most {
		return list + strings.Join(there[:most], ", ") + " and more"
	}
	return list + strings.Join(there, ", ")
}

// Near says what somebody may have meant, or "".
func Near(name string, there []string) string {
	near := nearest(name, there)
	if len(near) == 0 {
		return ""
	}
	return "did you mean " + strings.Join(near, " or ") + "?"
}

// nearest returns at most three of what there is that a name is close to.
func nearest(name string, there []string) []string {
	type candidate struct {
		name     string
		distance int
	}
	var near []candidate
	for _, t := range there {
		if d := distanceTo(name, t); d <= 1+len(name)/4 {
			near = append(near, candidate{t, d})
		}
	}
	slices.SortStableFunc(near, func(a, b candidate) int { return a.distance - b.distance })
	var out []string
	for _, c := range near[:min(3, len(near))] {
		if c.distance > near[0].distance+1 {
			break
		}
		out = append(out, c.name)
	}
	return out
}

// distanceTo is how many letters lie between a name and another one, or the end of it after a dot
// or slash: people leave the package out.
func distanceTo(name, other string) int {
	other, _, _ = strings.Cut(other, " ") // a prefix may stand behind it
	name, other = strings.ToLower(name), strings.ToLower(other)
	best := distance(name, other)
	for i, r := range other {
		if r == '.' || r == '/' {
			best = min(best, distance(name, other[i+1:]))
		}
	}
	return best
}

// distance is that of Levenshtein: how many letters have to be added, left out or changed.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			diagonal, row[j+1] = row[j+1], min(diagonal+cost, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
