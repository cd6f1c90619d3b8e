package rpcauth_test

import (
	"os"
	"regexp"
	"strings"
	"testing"
)

// TestGuide: the Go code of the guide is code that runs.
func TestGuide(t *testing.T) {
	guide, err := os.ReadFile("../../docs/identity.md")
	must(t, err)
	examples, err := os.ReadFile("example_test.go")
	must(t, err)
	blocks := regexp.MustCompile("(?ms)^```go\n(.*?)^```$").FindAllStringSubmatch(string(guide), -1)
	if len(blocks) < 4 {
		t.Errorf("the guide has %d blocks of code", len(blocks))
	}
	for _, b := range blocks {
		if !strings.Contains(string(examples), b[1]) {
			t.Errorf("not in example_test.go:\n%s", b[1])
		}
	}
}
