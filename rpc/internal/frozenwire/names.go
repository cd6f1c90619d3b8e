package frozenwire

import (
	"errors"
	"fmt"
	"strings"
)

const maxLength = 255

// checkSubject returns what is wrong with a subject, or with the root of a
// service's subjects. It is one that NATS takes for publishing and subscribing
// alike: tokens of printable ASCII separated by dots, without wildcards and
// spaces (docs.nats.io/nats-concepts/subjects). NATS keeps the first token "$..."
// for itself and the runtime every token "_...".
func checkSubject(subject string) error {
	if err := checkLength(subject); err != nil {
		return err
	}
	if strings.HasPrefix(subject, "$") {
		return fmt.Errorf("%q starts with \"$\", which belongs to NATS", subject)
	}
	for token := range strings.SplitSeq(subject, ".") {
		if err := checkToken(token); err != nil {
			return fmt.Errorf("%q has %w", subject, err)
		}
	}
	return nil
}

// isPlaceholder reports whether a token is one that other frameworks and
// templates fill in, and natscall does not. Other uses of these characters, as in
// a.$b and a/:b, are fine with NATS and may be meant.
func isPlaceholder(token string) bool {
	switch {
	case strings.ContainsAny(token, "{}"): // {id}, {{id}}, ${ID}
		return true
	case strings.HasPrefix(token, ":"): // :id
		return true
	case strings.HasPrefix(token, "<"): // <id>
		return strings.HasSuffix(token, ">")
	}
	return len(token) == 2 && token[0] == '%' && token[1] >= 'a' && token[1] <= 'z' // %s
}

func checkToken(token string) error {
	switch {
	case isPlaceholder(token):
		return fmt.Errorf("the token %q, but natscall has no placeholders: subjects are used as they stand", token)
	case strings.HasPrefix(token, "_"):
		return fmt.Errorf("the token %q; those that start with \"_\" are reserved for the runtime", token)
	}
	return checkCharacters(token)
}

// checkCharacters looks at a token of a subject or a queue group.
func checkCharacters(token string) error {
	if token == "" {
		return errors.New("an empty token")
	}
	for _, r := range token {
		switch {
		case r == '*' || r == '>':
			return fmt.Errorf("the wildcard %q", r)
		case r <= ' ' || r > '~':
			return fmt.Errorf("the character %q; only printable ASCII without spaces is allowed", r)
		}
	}
	return nil
}

func checkLength(s string) error {
	if len(s) > maxLength {
		return fmt.Errorf("has %d bytes, more than %d", len(s), maxLength)
	}
	return nil
}
