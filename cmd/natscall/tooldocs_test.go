package main

import (
	"bytes"
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/natscall/natscall/cmd/natscall/internal/tool"
)

const toolPage = "../../docs/tool.md"

// session is a block of the page with commands and what they print.
var session = regexp.MustCompile("(?s)```console\n(.*?)```\n")

// TestSessions runs the commands of the page one after the other at a shop, and compares what they
// print; -update writes it into the page.
func TestSessions(t *testing.T) {
	c := newConsole(t)
	data, err := os.ReadFile(toolPage)
	must(t, err)
	text := string(data)
	blocks := session.FindAllStringSubmatch(text, -1)
	if len(blocks) < 3 {
		t.Fatalf("the page has %d sessions", len(blocks))
	}
	p := &prompt{console: c}
	for _, block := range blocks {
		var got strings.Builder
		for line := range strings.Lines(block[1]) {
			if command, ok := strings.CutPrefix(line, "$ "); ok {
				got.WriteString(line + p.enter(strings.TrimSpace(command)))
			}
		}
		if a, b := normal(got.String()), normal(block[1]); a != b && !*update {
			t.Errorf("%s is out of date, -update writes it. It has\n%s, and the commands print\n%s", toolPage, b, a)
		}
		if normal(got.String()) != normal(block[1]) { // else only ids and times would change
			text = strings.Replace(text, block[0], "```console\n"+got.String()+"```\n", 1)
		}
	}
	if *update {
		must(t, os.WriteFile(toolPage, []byte(text), 0o666))
	}
}

// prompt is where commands are entered.
type prompt struct {
	*console
	status int // of the last command
}

// piped is a command that gets a text on stdin.
var piped = regexp.MustCompile(`^echo '([^']*)' \| (.*)$`)

// enter runs a command, and returns what it prints on both streams.
func (p *prompt) enter(command string) string {
	p.Helper()
	if command == "echo $?" {
		return fmt.Sprintln(p.status)
	}
	stdin := ""
	if m := piped.FindStringSubmatch(command); m != nil {
		stdin, command = m[1], m[2]
	}
	args := shellWords(command)
	if args[0] != "natscall" {
		p.Fatalf("the page has a command that is not the tool's: %s", command)
	}
	var out bytes.Buffer
	p.Setenv("NATS_URL", p.url)
	p.status = run(testContext(p.T), args[1:], strings.NewReader(stdin), &out, &out)
	return out.String()
}

// shellWord is a word of a command line; single quotes hold it together.
var shellWord = regexp.MustCompile(`'([^']*)'|(\S+)`)

func shellWords(command string) []string {
	var out []string
	for _, m := range shellWord.FindAllStringSubmatch(command, -1) {
		out = append(out, m[1]+m[2])
	}
	return out
}

// What differs from run to run, in the order in which it is looked for.
var varying = []struct {
	what *regexp.Regexp
	is   string
}{
	{regexp.MustCompile(`\b[0-9A-Za-z]{22}\b`), "INSTANCE"},
	{regexp.MustCompile(`\bo-[0-9a-f]{20}\b`), "ORDER"},
	{regexp.MustCompile(`\d{4}-\d\d-\d\dT[0-9:.]+Z`), "TIME"},
	{regexp.MustCompile(`\b(\d+m)?\d+(\.\d+)?(ms|/s|s|µs)\b`), "NUMBER"},
	{regexp.MustCompile(`\b\d+\.\d\d\b`), "NUMBER"},
	{regexp.MustCompile(`\b[0-9a-f]{8}\b`), "HASH"},
	{regexp.MustCompile(`[ -]{2,}| -`), " "}, // columns, and numbers that are not known
	{regexp.MustCompile(`(?m) +$`), ""},
}

// normal returns text without what differs from run to run.
func normal(text string) string {
	for _, v := range varying {
		text = v.what.ReplaceAllString(text, v.is)
	}
	return text
}

// TestToolPage: the page has each command with all of its flags, and each has help with examples.
func TestToolPage(t *testing.T) {
	data, err := os.ReadFile(toolPage)
	must(t, err)
	page := string(data)
	root := newRoot(tool.New("", nil, nil, nil))
	root.PersistentFlags().VisitAll(func(f *pflag.Flag) {
		if !f.Hidden && !strings.Contains(page, "`--"+f.Name+"`") {
			t.Errorf("the page does not have the flag --%s", f.Name)
		}
	})
	for _, cmd := range root.Commands() {
		if cmd.Name() == "version" || cmd.Name() == "help" {
			continue
		}
		_, section, found := strings.Cut(page, "\n### "+cmd.Name()+"\n")
		if !found {
			t.Errorf("the page does not have the command %s", cmd.Name())
			continue
		}
		section, _, _ = strings.Cut(section, "\n### ")
		if cmd.Name() == "permissions" { // it has a page of its own
			continue
		}
		checkCommand(t, cmd, section)
	}
}

func checkCommand(t *testing.T, cmd *cobra.Command, section string) {
	t.Helper()
	if cmd.Example == "" && cmd.Name() != "completion" {
		t.Errorf("the help of %s has no examples", cmd.Name())
	}
	common := map[string]bool{"help": true, "json": true, "prefix": true, "proto": true, "proto-path": true, "descriptor-set": true}
	cmd.LocalNonPersistentFlags().VisitAll(func(f *pflag.Flag) {
		short := f.Shorthand != "" && regexp.MustCompile("[ `]-"+f.Shorthand+"[ `]").MatchString(section)
		if !common[f.Name] && !short && !strings.Contains(section, "--"+f.Name) {
			t.Errorf("the section of %s does not have the flag --%s", cmd.Name(), f.Name)
		}
	})
}
