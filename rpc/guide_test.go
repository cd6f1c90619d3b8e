package rpc_test

import (
	"os"
	"regexp"
	"strings"
	"testing"
)

// The Go code of a guide is code that runs: each block is a part of the file of examples.
func TestGuideIsExamples(t *testing.T) {
	guide, err := os.ReadFile("../docs/streams.md")
	must(t, err)
	examples, err := os.ReadFile("example_stream_test.go")
	must(t, err)
	blocks := regexp.MustCompile("(?ms)^```go\n(.*?)^```$").FindAllStringSubmatch(string(guide), -1)
	if len(blocks) < 5 {
		t.Errorf("there are %d blocks of code", len(blocks))
	}
	for _, b := range blocks {
		if !strings.Contains(string(examples), b[1]) {
			t.Errorf("not in example_stream_test.go:\n%s", b[1])
		}
	}
}
