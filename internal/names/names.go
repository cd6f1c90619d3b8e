// Package names says what a service may be called on NATS: its subjects, queue
// group, name and version in discovery, and metadata. The runtime and the plugin
// share it, so that rpc.Register takes what the plugin lets through.
//
// The errors are predicates. The caller puts before them what is wrong, as in
// fmt.Errorf("subject %w", err): subject "a..b" has an empty token.
package names

import (
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
)

// maxLength bounds in bytes what stands on a line of the NATS protocol: two
// subjects and what the runtime appends to one stay well below the 4,096 bytes
// of a line, beyond which the NATS server closes the connection for good.
const maxLength = 255

// Join joins subjects with dots and leaves out empty ones.
func Join(subjects ...string) string {
	var parts []string
	for _, s := range subjects {
		if s != "" {
			parts = append(parts, s)
		}
	}
	return strings.Join(parts, ".")
}

// CheckSubject returns what is wrong with a subject, or with the root of a
// service's subjects. It is one that NATS takes for publishing and subscribing
// alike: tokens of printable ASCII separated by dots, without wildcards and
// spaces (docs.nats.io/nats-concepts/subjects). NATS keeps the first token "$..."
// for itself and the runtime every token "_...".
func CheckSubject(subject string) error {
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

// CheckPublished returns what is wrong with a subject to publish to, whoever it belongs to: it must
// be one subject for NATS, without wildcards, and fit on a line.
func CheckPublished(subject string) error { return checkTokens(subject) }

// CheckMethod returns what is wrong with the full name of a method, as in
// "/order.v1.OrderService/PlaceOrder".
func CheckMethod(name string) error {
	service, method, ok := strings.Cut(strings.TrimPrefix(name, "/"), "/")
	if !ok || name == "" || name[0] != '/' || service == "" || method == "" || strings.Contains(method, "/") {
		return fmt.Errorf("%q is not a full name, as in \"/package.Service/Method\"", name)
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

// CheckPrefix returns what is wrong with a prefix of subjects. It may be empty,
// and is a subject otherwise.
func CheckPrefix(prefix string) error {
	if prefix == "" {
		return nil
	}
	return CheckSubject(prefix)
}

// CheckQueueGroup returns what is wrong with the name of a queue group. It
// consists of tokens like a subject, as nats.go/micro wants it. Nobody publishes
// to it, so no token is reserved.
func CheckQueueGroup(group string) error { return checkTokens(group) }

func checkTokens(s string) error {
	if err := checkLength(s); err != nil {
		return err
	}
	for token := range strings.SplitSeq(s, ".") {
		if err := checkCharacters(token); err != nil {
			return fmt.Errorf("%q has %w", s, err)
		}
	}
	return nil
}

var microName = regexp.MustCompile(`^[A-Za-z0-9_-]+$`)

// CheckMicroName returns what is wrong with the name of a service in discovery,
// by the rule of ADR-32. It is a token of the subjects of discovery.
func CheckMicroName(name string) error {
	if !microName.MatchString(name) {
		return fmt.Errorf("%q has other characters than letters, digits, \"-\" and \"_\"", name)
	}
	return checkLength(name)
}

// Parts of a semantic version.
const (
	number     = `(0|[1-9]\d*)`
	prerelease = `(0|[1-9]\d*|\d*[a-zA-Z-][0-9a-zA-Z-]*)`
	build      = `[0-9a-zA-Z-]+`
)

// version is the expression of semver.org, which nats.go/micro and the schemas
// of natscli apply.
var version = regexp.MustCompile(`^` + number + `\.` + number + `\.` + number +
	`(-` + prerelease + `(\.` + prerelease + `)*)?(\+` + build + `(\.` + build + `)*)?$`)

// CheckVersion returns what is wrong with the version of a service, which ADR-32
// wants to be a semantic one.
func CheckVersion(v string) error {
	if !version.MatchString(v) {
		return fmt.Errorf("%q is not a semantic version such as 1.2.3 or 1.2.3-beta.1", v)
	}
	return nil
}

// reservedMetadata starts the keys of the metadata that the runtime adds.
const reservedMetadata = "natscall."

// CheckMetadata returns what is wrong with the metadata of a service or method
// in discovery: a key. NATS takes any; the values may be any text.
func CheckMetadata(metadata map[string]string) error {
	for _, key := range slices.Sorted(maps.Keys(metadata)) {
		if key == "" {
			return errors.New("has an empty key")
		}
		if strings.HasPrefix(key, reservedMetadata) {
			return fmt.Errorf("key %q starts with %q, which is reserved for the runtime", key, reservedMetadata)
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
