package pages_test

import (
	"fmt"
	"regexp"
	"strings"
	"testing"
)

// grammar is the part of a Mermaid diagram's language that the pages use. Mermaid itself needs a
// browser; what does not draw is one line that it cannot read, or a name that is misspelled.
type grammar struct {
	header *regexp.Regexp
	lines  []*regexp.Regexp
	// names returns what a line declares, and what it uses that has to be declared.
	names func(line string) (declared, used []string)
}

var (
	flowNode   = `(\w+)(\[[^][(){}|"]+\]|\{[^][(){}|"]+\})?`
	flowLine   = regexp.MustCompile(`^` + flowNode + `( (?:-- [^-|>]+ )?--> ` + flowNode + `)?$`)
	actor      = regexp.MustCompile(`^participant (\w+)( as .+)?$`)
	message    = regexp.MustCompile(`^(\w+)(?:->>|-->>|-x|--x|-\)|--\))(\w+): [^;#]+$`)
	note       = regexp.MustCompile(`^Note (?:over|left of|right of) (\w+)(?:,(\w+))?: [^;#]+$`)
	group      = regexp.MustCompile(`^(?:rect rgb\(\d+, \d+, \d+\)|(?:loop|alt|opt|par) [^;#]+)$`)
	transition = regexp.MustCompile(`^(\w+|\[\*\]) --> (\w+|\[\*\])(?:: [^;#]+)?$`)
)

// grammars are those of what Mermaid draws, by the first word.
var grammars = map[string]grammar{
	"flowchart": {
		header: regexp.MustCompile(`^flowchart (TB|TD|BT|LR|RL)$`),
		lines:  []*regexp.Regexp{flowLine},
		names:  flowNames,
	},
	"sequenceDiagram": {
		header: regexp.MustCompile(`^sequenceDiagram$`),
		lines:  []*regexp.Regexp{actor, message, note, group, regexp.MustCompile(`^end$`)},
		names:  actorNames,
	},
	"stateDiagram-v2": {
		header: regexp.MustCompile(`^stateDiagram-v2$`),
		lines:  []*regexp.Regexp{transition},
		names:  stateNames,
	},
}

// flowNames: a node is declared where its text stands.
func flowNames(line string) (declared, used []string) {
	m := flowLine.FindStringSubmatch(line)
	for _, node := range [][]string{m[1:3], m[4:6]} {
		if node[1] != "" {
			declared = append(declared, node[0])
		}
		used = append(used, node[0])
	}
	return declared, used
}

func actorNames(line string) (declared, used []string) {
	if m := actor.FindStringSubmatch(line); m != nil {
		return m[1:2], nil
	}
	for _, r := range []*regexp.Regexp{message, note} {
		if m := r.FindStringSubmatch(line); m != nil {
			used = append(used, m[1:3]...)
		}
	}
	return nil, used
}

// stateNames: a state is declared by a way into it, and one without a way out of it is a mistake.
// So it takes both.
func stateNames(line string) (declared, used []string) {
	m := transition.FindStringSubmatch(line)
	return []string{"way into " + m[2], "way out of " + m[1]}, []string{"way into " + m[1], "way out of " + m[2]}
}

// checkDiagram returns what Mermaid could not draw of a diagram, or nil.
func checkDiagram(text string) error {
	header, body, _ := strings.Cut(text, "\n")
	word, _, _ := strings.Cut(header, " ")
	g, ok := grammars[word]
	if !ok || !g.header.MatchString(header) {
		return fmt.Errorf("no diagram begins with %q", header)
	}
	declared := map[string]bool{"": true}
	var all []string
	open := 0
	for line := range strings.Lines(body) {
		line = strings.TrimSpace(line)
		switch {
		case line == "":
			continue
		case !matchesOne(g.lines, line):
			return fmt.Errorf("a line of a %s cannot be %q", word, line)
		case group.MatchString(line):
			open++
		case line == "end":
			open--
		}
		if open < 0 {
			return fmt.Errorf("too many lines are %q", "end")
		}
		names, used := g.names(line)
		for _, name := range names {
			declared[name] = true
		}
		all = append(all, used...)
	}
	for _, name := range all {
		if !declared[name] {
			return fmt.Errorf("the diagram has no %s", name)
		}
	}
	if open != 0 {
		return fmt.Errorf("%d groups have no end", open)
	}
	if len(all) == 0 {
		return fmt.Errorf("the diagram is empty")
	}
	return nil
}

func matchesOne(all []*regexp.Regexp, line string) bool {
	for _, r := range all {
		if r.MatchString(line) {
			return true
		}
	}
	return false
}

func TestDiagrams(t *testing.T) {
	for name, tt := range map[string]struct{ text, want string }{
		"flow":             {"flowchart TD\n  A[one] --> B{two?}\n  B -- yes: so --> A\n", ""},
		"sequence":         {"sequenceDiagram\n  participant C as client\n  participant N\n  rect rgb(1, 2, 3)\n    C->>N: call\n    Note over C,N: later\n  end\n", ""},
		"states":           {"stateDiagram-v2\n  [*] --> open: the call\n  open --> [*]\n", ""},
		"another kind":     {"pie\n", "no diagram"},
		"no direction":     {"flowchart UP\n  A[one]\n", "no diagram"},
		"empty":            {"sequenceDiagram\n", "is empty"},
		"no arrow":         {"flowchart TD\n  A[one] -> B[two]\n", "A[one] -> B[two]"},
		"open bracket":     {"flowchart TD\n  A[one --> B[two]\n", "A[one"},
		"bracket in text":  {"flowchart TD\n  A[one (1)] --> B[two]\n", "A[one (1)]"},
		"unknown node":     {"flowchart TD\n  A[one] --> B\n", "has no B"},
		"unknown actor":    {"sequenceDiagram\n  participant C\n  C->>N: call\n", "has no N"},
		"semicolon":        {"sequenceDiagram\n  participant C\n  C->>C: a; b\n", "a; b"},
		"no end":           {"sequenceDiagram\n  participant C\n  loop always\n  C->>C: a\n", "no end"},
		"unreached state":  {"stateDiagram-v2\n  [*] --> open\n  opne --> [*]\n  open --> [*]\n", "no way into opne"},
		"a dead end":       {"stateDiagram-v2\n  [*] --> open\n  open --> [*]\n  open --> shut\n", "no way out of shut"},
		"a second end":     {"sequenceDiagram\n  participant C\n  C->>C: a\n  end\n  loop always\n", "too many"},
		"words in a state": {"stateDiagram-v2\n  [*] --> is open\n", "is open"},
	} {
		switch err := checkDiagram(tt.text); {
		case tt.want == "" && err != nil:
			t.Errorf("%s: %v", name, err)
		case tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)):
			t.Errorf("%s: error %v, want %q", name, err, tt.want)
		}
	}
}
