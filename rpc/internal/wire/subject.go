package wire

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Tokens under a service's root that belong to the runtime.
const (
	CancelToken = "_all.cancel"
	AliveToken  = "_all.alive"
	AllWildcard = "_all.>"
	// InstanceToken comes before the instance and the stream.
	InstanceToken = "_i"
)

// maxSubject keeps a subject and its reply well below the 4,096 bytes of a
// NATS control line, beyond which the server closes the connection for good.
const maxSubject = 255

// Join joins subjects by a dot; empty ones are left out.
func Join(subjects ...string) string {
	var parts []string
	for _, s := range subjects {
		if s != "" {
			parts = append(parts, s)
		}
	}
	return strings.Join(parts, ".")
}

// CheckSubject tells what is wrong with a subject, or a prefix of one, that
// requests are published to: each token is printable ASCII without blanks and
// wildcards, none is empty or begins with "_", the first not with "$".
func CheckSubject(subject string) error {
	switch {
	case subject == "":
		return errors.New("subject is empty")
	case len(subject) > maxSubject:
		return fmt.Errorf("subject %.32q... is longer than %d bytes", subject, maxSubject)
	case subject[0] == '$':
		return fmt.Errorf("subject %q: NATS keeps subjects that begin with $ for itself", subject)
	}
	for token := range strings.SplitSeq(subject, ".") {
		if err := checkToken(token); err != nil {
			return fmt.Errorf("subject %q: %w", subject, err)
		}
	}
	return nil
}

func checkToken(token string) error {
	if token == "" {
		return errors.New("it has an empty token")
	}
	if token[0] == '_' {
		return fmt.Errorf("token %q begins with _, which is reserved", token)
	}
	for _, r := range token {
		if r <= ' ' || r > '~' || r == '*' || r == '>' {
			return fmt.Errorf("it may not contain %q", r)
		}
	}
	return nil
}

// CheckQueueGroup tells what is wrong with the name of a queue group.
func CheckQueueGroup(group string) error {
	if group == "" {
		return errors.New("queue group is empty")
	}
	if len(group) > maxSubject {
		return fmt.Errorf("queue group %.32q... is longer than %d bytes", group, maxSubject)
	}
	if slices.Contains(strings.Split(group, "."), "") {
		return fmt.Errorf("queue group %q: it has an empty token", group)
	}
	for _, r := range group {
		if r <= ' ' || r > '~' || r == '*' || r == '>' {
			return fmt.Errorf("queue group %q: it may not contain %q", group, r)
		}
	}
	return nil
}
