package rpcvalidate_test

import (
	"os"
	"regexp"
	"strings"
	"testing"
)

// TestGuide: the code of the guide is code that runs, and its rules are those of the tests.
func TestGuide(t *testing.T) {
	guide, err := os.ReadFile("../../docs/validation.md")
	must(t, err)
	for language, file := range map[string]string{"go": "example_test.go", "proto": "internal/proto/booking/v1/booking.proto"} {
		source, err := os.ReadFile(file)
		must(t, err)
		blocks := regexp.MustCompile("(?ms)^```"+language+"\n(.*?)^```$").FindAllStringSubmatch(string(guide), -1)
		if len(blocks) == 0 {
			t.Errorf("the guide has no blocks of %s", language)
		}
		for _, b := range blocks {
			if !strings.Contains(string(source), b[1]) {
				t.Errorf("not in %s:\n%s", file, b[1])
			}
		}
	}
}
