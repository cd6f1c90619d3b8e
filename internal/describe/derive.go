package describe

import (
	"regexp"
	"strings"
)

var versionElement = regexp.MustCompile(`^v(0|[1-9][0-9]*)([a-z][a-z0-9]*)?$`)

// packageVersion is the semantic version that the last element of a Protobuf package stands for: v1
// is 1.0.0, v2beta1 is 2.0.0-beta1, anything else 0.0.0.
func packageVersion(pkg string) string {
	last := pkg[strings.LastIndexByte(pkg, '.')+1:]
	parts := versionElement.FindStringSubmatch(last)
	switch {
	case parts == nil:
		return "0.0.0"
	case parts[2] == "":
		return parts[1] + ".0.0"
	}
	return parts[1] + ".0.0-" + parts[2]
}

// firstParagraph returns the first paragraph of a comment on one line.
func firstParagraph(comment string) string {
	var words []string
	for line := range strings.Lines(strings.TrimSpace(comment)) {
		if strings.TrimSpace(line) == "" {
			break
		}
		words = append(words, strings.Fields(line)...)
	}
	return strings.Join(words, " ")
}

// firstLine returns the first line of a comment, and those after it that belong to its sentence, on
// one line.
func firstLine(comment string) string {
	var words []string
	for line := range strings.Lines(strings.TrimSpace(comment)) {
		line = strings.TrimSpace(line)
		if line == "" {
			break
		}
		words = append(words, strings.Fields(line)...)
		if strings.ContainsRune(".!?:", rune(line[len(line)-1])) {
			break
		}
	}
	return strings.Join(words, " ")
}
