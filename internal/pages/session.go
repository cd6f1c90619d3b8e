package pages

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Step is a command of a console block and what it prints.
type Step struct{ Command, Output string }

// prompt begins a command of a console block; a command that ends in a backslash goes on in the
// next line.
const prompt = "$ "

// Steps returns the commands of a console block.
func (b Block) Steps() ([]Step, error) {
	var steps []Step
	continues := false
	for line := range strings.Lines(b.Text) {
		command, isCommand := strings.CutPrefix(line, prompt)
		switch {
		case continues:
			steps[len(steps)-1].Command += line
		case isCommand:
			steps = append(steps, Step{Command: command})
		case len(steps) == 0:
			return nil, fmt.Errorf("%s: a block of the language console begins with a command behind %q", b, prompt)
		default:
			steps[len(steps)-1].Output += line
			continue
		}
		continues = strings.HasSuffix(line, "\\\n")
	}
	return steps, nil
}

// PrintedVar is the environment variable that names the folder for what the commands of console
// blocks print.
const PrintedVar = "PRINTED"

// printed is the file for what a command of a block prints.
func printed(block, step int) string { return fmt.Sprintf("%d.%d", block, step) }

// ConsoleScript returns lines of bash that run the commands of a console block, the n-th block of
// a script that has "set -e" and "set -u". A command may fail: what it prints says so. Behind one
// that goes to the background come the lines of ready, which wait until it is: a reader types
// slower than a script. $1 is the file for what it prints there, and $! its process.
func ConsoleScript(n int, b Block, ready string) (string, error) {
	steps, err := b.Steps()
	var script strings.Builder
	for i, step := range steps {
		file := "$" + PrintedVar + "/" + printed(n, i)
		fmt.Fprintf(&script, "{\n%s} </dev/null >%s 2>&1 || true\n", step.Command, file)
		if strings.HasSuffix(step.Command, "&\n") {
			fmt.Fprintf(&script, "set -- %s\n%s\n", file, ready)
		}
	}
	return script.String(), err
}

// Compare compares what the commands of console blocks have printed into a folder with what the
// blocks say.
func Compare(blocks []Block, dir string) error {
	var wrong []error
	for n, b := range blocks {
		if b.Language != "console" {
			continue
		}
		steps, err := b.Steps()
		if err != nil {
			return err
		}
		for i, step := range steps {
			got, err := os.ReadFile(filepath.Join(dir, printed(n, i)))
			if err != nil {
				return errors.Join(append(wrong, fmt.Errorf("%s: not run: %s", b, step.Command))...)
			}
			if missing := Mismatch(step.Output, string(got)); missing != "" {
				wrong = append(wrong, fmt.Errorf("%s: %s prints\n%s\nand not, as the page says, %q", b, step.Command, got, missing))
			}
		}
	}
	return errors.Join(wrong...)
}

// Mismatch compares what a command has printed with what a page says, and returns the first line
// of the page that is not there, or "". In a line of the page "..." stands for any text, and a line
// of nothing else for any lines. White space at the ends of lines does not count.
func Mismatch(page, printed string) string {
	want, got := trimmedLines(page), trimmedLines(printed)
	for len(want) > 0 {
		if want[0] == "..." {
			want = want[1:]
			if len(want) == 0 {
				return ""
			}
			i := slices.IndexFunc(got, func(line string) bool { return like(want[0], line) })
			if i < 0 {
				return want[0]
			}
			got = got[i:]
		}
		if len(got) == 0 || !like(want[0], got[0]) {
			return want[0]
		}
		want, got = want[1:], got[1:]
	}
	if len(got) > 0 {
		return "(the end, before " + got[0] + ")"
	}
	return ""
}

func trimmedLines(text string) []string {
	text = strings.TrimSpace(text)
	if text == "" {
		return nil
	}
	lines := strings.Split(text, "\n")
	for i := range lines {
		lines[i] = strings.TrimSpace(lines[i])
	}
	return lines
}

// like reports whether a line is what a page says.
func like(page, line string) bool {
	parts := strings.Split(page, "...")
	line, ok := strings.CutPrefix(line, parts[0])
	for i, part := range parts[1:] {
		if !ok {
			return false
		}
		if i == len(parts)-2 {
			return strings.HasSuffix(line, part)
		}
		_, line, ok = strings.Cut(line, part)
	}
	return ok && line == ""
}
