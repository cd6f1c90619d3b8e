package rpc_test

import (
	"os"
	"regexp"
	"strings"
	"testing"
)

// The Go code of a guide is code that runs: each block is a part of the file of its examples.
func TestGuidesAreExamples(t *testing.T) {
	for page, file := range map[string]string{
		"../docs/streams.md":      "example_stream_test.go",
		"../docs/operations.md":   "example_operations_test.go",
		"../docs/interceptors.md": "example_interceptors_test.go",
		"../docs/untyped.md":      "example_untyped_test.go",
		"../docs/testing.md":      "example_testing_test.go",
		"../docs/retries.md":      "example_retries_test.go",
	} {
		guide, err := os.ReadFile(page)
		must(t, err)
		examples, err := os.ReadFile(file)
		must(t, err)
		blocks := regexp.MustCompile("(?ms)^```go\n(.*?)^```$").FindAllStringSubmatch(string(guide), -1)
		if len(blocks) < 2 {
			t.Errorf("%s has %d blocks of code", page, len(blocks))
		}
		for _, b := range blocks {
			if !strings.Contains(string(examples), b[1]) {
				t.Errorf("not in %s:\n%s", file, b[1])
			}
		}
	}
}
