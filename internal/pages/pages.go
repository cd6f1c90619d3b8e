// Package pages reads README.md and docs/*.md for the tests that hold them against the code: what
// stands in a block is compiled or run.
package pages

import (
	"fmt"
	"os"
	"path"
	"path/filepath"
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
	Title    string // of what TestPages writes or runs: a file, or a name for commands
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

// fence is what begins and ends a block. Pages use no other one.
const fence = "```"

// Parse returns the blocks of a page's text. Those of lists are indented; their texts are not.
func Parse(name, text string) ([]Block, error) {
	var blocks []Block
	inside, number, indent := false, 0, ""
	for line := range strings.Lines(text) {
		number++
		before, info, isFence := strings.Cut(line, fence)
		isFence = isFence && strings.TrimSpace(before) == ""
		info = strings.TrimSpace(info)
		switch {
		case isFence && inside && info != "":
			return nil, fmt.Errorf("%s:%d: a block begins inside another one", name, number)
		case isFence && inside:
			inside = false
		case isFence:
			inside, indent = true, before
			blocks = append(blocks, parseInfo(Block{Page: name, Line: number, Info: info}))
		case inside:
			blocks[len(blocks)-1].Text += strings.TrimPrefix(line, indent)
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
