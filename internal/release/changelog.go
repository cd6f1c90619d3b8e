package main

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/natscall/natscall/internal/modproxy"
)

const changelogName = "CHANGELOG.md"

// repository is where the links of the changelog lead to.
const repository = "https://" + modproxy.Root

var (
	unreleasedHeading = regexp.MustCompile(`(?m)^## \[?Unreleased\]?$`)
	linkDefinition    = regexp.MustCompile(`^\[[^\]]+\]: `)
)

// changelog is the text of a changelog, cut where a release changes it.
type changelog struct {
	head       string   // all before the heading of what is not released
	unreleased string   // what stands under that heading
	released   string   // the sections of earlier versions
	links      []string // the definitions at the end, without that of what is not released
}

func parseChangelog(text string) (changelog, error) {
	heading := unreleasedHeading.FindStringIndex(text)
	if heading == nil {
		return changelog{}, fmt.Errorf(`%s has no heading "## Unreleased"`, changelogName)
	}
	c := changelog{head: text[:heading[0]]}
	body, links := cutLinks(text[heading[1]:])
	c.unreleased = body
	if i := strings.Index(body, "\n## "); i >= 0 {
		c.unreleased, c.released = body[:i], body[i+1:]
	}
	c.links = slices.DeleteFunc(links, func(line string) bool { return strings.HasPrefix(line, "[Unreleased]: ") })
	return c, nil
}

// cutLinks cuts the definitions of links off the end of a text.
func cutLinks(text string) (body string, links []string) {
	lines := strings.Split(strings.TrimRight(text, "\n"), "\n")
	end := len(lines)
	for end > 0 && linkDefinition.MatchString(lines[end-1]) {
		end--
	}
	return strings.Join(lines[:end], "\n"), lines[end:]
}

// release returns the changelog in which what is not released yet is the version of that date.
// previous is the version before, or empty.
func (c changelog) release(version, previous, date string) (string, error) {
	number := strings.TrimPrefix(version, "v")
	text := strings.TrimSpace(c.unreleased)
	switch {
	case !strings.Contains("\n"+text, "\n- "):
		return "", fmt.Errorf(`%s says nothing under "Unreleased": write what %s brings`, changelogName, version)
	case strings.Contains("\n"+c.released, fmt.Sprintf("\n## [%s]", number)):
		return "", errors.New(changelogName + " has a section for " + number + " already")
	}
	link := fmt.Sprintf("[%s]: %s/releases/tag/%s", number, repository, version)
	if previous != "" {
		link = fmt.Sprintf("[%s]: %s/compare/%s...%s", number, repository, previous, version)
	}
	links := append([]string{fmt.Sprintf("[Unreleased]: %s/compare/%s...HEAD", repository, version), link}, c.links...)
	sections := []string{
		strings.TrimSpace(c.head), "## [Unreleased]",
		fmt.Sprintf("## [%s] - %s", number, date), text,
		strings.TrimSpace(c.released), strings.Join(links, "\n"),
	}
	sections = slices.DeleteFunc(sections, func(s string) bool { return s == "" })
	return strings.Join(sections, "\n\n") + "\n", nil
}
