package connwatch

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/nats-io/nats.go"
)

// FuzzViolation: the subject of a violation is found, whatever it is, and of another kind of
// violation or error it is not.
func FuzzViolation(f *testing.F) {
	for _, subject := range []string{"a.b", "", "a.>", "x to y", `Publish to `} {
		f.Add(ToPublish, subject, "")
		f.Add(ToSubscribe, subject, ` using queue "q"`)
	}
	f.Add("Publish", `a" to "b`, `"`)
	f.Fuzz(func(t *testing.T, what, subject, behind string) {
		text := fmt.Sprintf(`Permissions Violation for %s to "%s"%s`, what, subject, behind)
		for _, kind := range []string{ToPublish, ToSubscribe} {
			if got, ok := Violation(errors.New(text), kind); ok || got != "" {
				t.Errorf("%q, which is no violation, is about %q", text, got)
			}
			got, ok := Violation(fmt.Errorf("%w: %s", nats.ErrPermissionViolation, text), kind)
			if ok && !strings.Contains(text, kind+` to "`+got+`"`) {
				t.Errorf("%q is about %q", text, got)
			}
			if what == kind && !strings.Contains(subject, `"`) && (!ok || got != subject) {
				t.Errorf("%q is about %q, %v", text, got, ok)
			}
		}
	})
}
