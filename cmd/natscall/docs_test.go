package main

import (
	"flag"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
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
