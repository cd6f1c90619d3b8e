package output

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"
	"unicode"
)

// Clean replaces what a terminal would take for a command, or for a line break, in text that comes
// from others.
func Clean(text string) string {
	if strings.IndexFunc(text, unprintable) < 0 {
		return text
	}
	var out strings.Builder
	for _, r := range text {
		switch {
		case r == '\u00a0': // errors of Protobuf have such blanks
			out.WriteByte(' ')
		case unprintable(r):
			out.WriteString(strings.Trim(strconv.QuoteRuneToASCII(r), "'"))
		default:
			out.WriteRune(r)
		}
	}
	return out.String()
}

// CleanLines is as Clean, but leaves line breaks and tabs.
func CleanLines(text string) string {
	var out strings.Builder
	for _, r := range text {
		if r == '\n' || r == '\t' {
			out.WriteRune(r)
			continue
		}
		out.WriteString(Clean(string(r)))
	}
	return out.String()
}

// SafeJSON escapes those control characters that JSON allows in strings and a terminal takes for
// commands. The JSON means the same then.
func SafeJSON(data []byte) []byte {
	if bytes.IndexFunc(data, command) < 0 {
		return data
	}
	var out bytes.Buffer
	for _, r := range string(data) {
		if command(r) {
			fmt.Fprintf(&out, `\u%04x`, r)
			continue
		}
		out.WriteRune(r)
	}
	return out.Bytes()
}

// command reports whether a terminal takes a character for a command though it need not be escaped
// in JSON: those of C1, and those that change the direction of the text.
func command(r rune) bool {
	return r >= 0x7f && r <= 0x9f || r >= '\u202a' && r <= '\u202e' || r >= '\u2066' && r <= '\u2069'
}

func unprintable(r rune) bool { return !unicode.IsPrint(r) }
