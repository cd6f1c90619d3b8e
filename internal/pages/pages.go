// Package pages reads README.md and docs/*.md for the tests that hold them against the code: what
// stands in a block is compiled or run.
package pages

import (
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

// Block is a fenced block of a page. Behind the fence stand its language and what else is to be
// known about it, as in
//
//	```sh title=generate
//	```yaml title=buf.gen.yaml variant=vtproto append
//	```sh test=cmd/natscall:TestSecurityPage
type Block struct {
	Page string // such as docs/generate.md
	Line int    // of the opening fence
	Info string // all that stands behind the fence

	Language string
	Title    string // of a block that TestPages writes or runs: its file, or a name for its commands
	Variant  string // tells blocks with the same title apart
	Append   bool   // the block belongs to the end of the file
	Test     string // the test that runs the block, as DIR:TestName

	Text string // each line with its end
}

// Key is what names the block among those of its page.
func (b Block) Key() string { return strings.TrimSpace(b.Title + " " + b.Variant) }

// String returns where the block is.
func (b Block) String() string { return fmt.Sprintf("%s:%d", b.Page, b.Line) }

// Names returns the pages of a checkout, README.md first.
func Names(root string) ([]string, error) {
	files, err := filepath.Glob(filepath.Join(root, "docs", "*.md"))
	if err != nil {
		return nil, err
	}
	names := []string{"README.md"}
	for _, file := range files {
		names = append(names, path.Join("docs", filepath.Base(file)))
	}
	return names, nil
}

// Read returns the blocks of a page of a checkout.
func Read(root, name string) ([]Block, error) {
	text, err := os.ReadFile(filepath.Join(root, filepath.FromSlash(name)))
	if err != nil {
		return nil, err
	}
	return Parse(name, string(text))
}

// fence is what begins and ends a block. Pages use no other one, and no indented one.
const fence = "```"

// Parse returns the blocks of a page's text.
func Parse(name, text string) ([]Block, error) {
	var blocks []Block
	inside, number := false, 0
	for line := range strings.Lines(text) {
		number++
		info, isFence := strings.CutPrefix(strings.TrimSpace(line), fence)
		switch {
		case isFence && !strings.HasPrefix(line, fence):
			return nil, fmt.Errorf("%s:%d: the fence is indented, so no test finds the block", name, number)
		case isFence && inside && info != "":
			return nil, fmt.Errorf("%s:%d: a block begins inside another one", name, number)
		case isFence && inside:
			inside = false
		case isFence:
			inside = true
			blocks = append(blocks, parseInfo(Block{Page: name, Line: number, Info: info}))
		case inside:
			blocks[len(blocks)-1].Text += line
		}
	}
	if inside {
		return nil, fmt.Errorf("%s does not end", blocks[len(blocks)-1])
	}
	return blocks, nil
}

func parseInfo(b Block) Block {
	words := strings.Fields(b.Info)
	if len(words) == 0 {
		return b
	}
	b.Language = words[0]
	for _, word := range words[1:] {
		switch key, value, _ := strings.Cut(word, "="); key {
		case "title":
			b.Title = value
		case "variant":
			b.Variant = value
		case "append":
			b.Append = true
		case "test":
			b.Test = value
		}
	}
	return b
}

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
