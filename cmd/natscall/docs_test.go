package main

import (
	"flag"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"github.com/natscall/natscall/cmd/natscall/internal/tool"
)

var update = flag.Bool("update", false, "write what the command prints into docs/security.md")

// printed is a command of docs/security.md, and the block that it prints, if there is one.
var printed = regexp.MustCompile("```sh\nnatscall (permissions (?s:.+?))\n```\n(\n```conf\n((?s:.*?))```\n)?")

// words are those of a command, as a shell sees them.
func words(command string) []string {
	return strings.Fields(strings.NewReplacer("\\\n", " ", "'", "").Replace(command))
}

// TestSecurityPage: docs/security.md has what the command prints, and the users of the shop as
// TestShop has them.
func TestSecurityPage(t *testing.T) {
	t.Chdir("../..") // where the page's commands run
	const page = "docs/security.md"
	data, err := os.ReadFile(page)
	must(t, err)
	text, outputs, shop := string(data), 0, false
	for _, m := range printed.FindAllStringSubmatch(text, -1) {
		args := words(m[1])
		if slices.Equal(args[1:], append(strings.Fields(shopUsers), strings.Fields(strings.ReplaceAll(shopFiles, "../../", ""))...)) {
			shop = true
		}
		if m[2] == "" {
			continue
		}
		outputs++
		got := output(t, strings.Join(args[1:], " "))
		if *update {
			text = strings.Replace(text, m[0], strings.Replace(m[0], "```conf\n"+m[3], "```conf\n"+got, 1), 1)
		} else if got != m[3] {
			t.Errorf("%s is out of date, -update writes it: %s prints\n%s", page, m[1], got)
		}
	}
	if outputs != 2 || !shop {
		t.Errorf("the page has %d outputs, the shop's command: %v", outputs, shop)
	}
	if *update {
		must(t, os.WriteFile(page, []byte(text), 0o666))
	}
}

// inline is code in the text of a page.
var inline = regexp.MustCompile("`([^`\n]+)`")

// flagsOnly are the pages on which a flag that stands alone is one of the tool's.
var flagsOnly = []string{"tool.md", "faq.md", "security.md"}

// TestFlagsOfPages: the flags that the pages name are there: `natscall ls --all` has one of ls,
// and `--creds` one of any command.
func TestFlagsOfPages(t *testing.T) {
	files, err := filepath.Glob("../../docs/*.md")
	must(t, err)
	root := newRoot(tool.New("", nil, nil, nil))
	found := 0
	for _, file := range append(files, "../../README.md") {
		data, err := os.ReadFile(file)
		must(t, err)
		for _, m := range inline.FindAllStringSubmatch(string(data), -1) {
			args := strings.Fields(m[1])
			commands := root.Commands()
			switch {
			case len(args) == 0:
				continue
			case args[0] == "natscall":
				cmd, _, err := root.Find(args[1:])
				if err != nil {
					t.Errorf("%s: %s: %v", file, m[0], err)
				}
				commands = []*cobra.Command{cmd}
			case !strings.HasPrefix(args[0], "--") || !slices.Contains(flagsOnly, filepath.Base(file)):
				continue
			}
			for _, arg := range args {
				name, isFlag := strings.CutPrefix(arg, "--")
				if !isFlag || name == "" {
					continue
				}
				found++
				if !slices.ContainsFunc(commands, func(cmd *cobra.Command) bool { return hasFlag(cmd, name) }) {
					t.Errorf("%s: %s: there is no flag %s", file, m[0], arg)
				}
			}
		}
	}
	if found < 50 {
		t.Errorf("the pages name %d flags", found)
	}
}

// hasFlag reports whether a command has a flag, or its parents have it for all.
func hasFlag(cmd *cobra.Command, name string) bool {
	cmd.InitDefaultHelpFlag()
	return cmd.Flag(name) != nil
}
