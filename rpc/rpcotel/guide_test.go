package rpcotel_test

import (
	"os"
	"regexp"
	"strings"
	"testing"
)

func guide(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile("../../docs/telemetry.md")
	must(t, err)
	return string(text)
}

// inGuide are the metrics in the tables of the guide, as "name | kind and unit".
func inGuide(t *testing.T) map[string]bool {
	t.Helper()
	out := map[string]bool{}
	for _, row := range regexp.MustCompile("(?m)^\\| `((?:rpc|natscall)\\.[^`]*)` \\| ((?:histogram|counter|up-down counter), [^|]*) \\|").FindAllStringSubmatch(guide(t), -1) {
		for _, side := range []string{"client", "server"} {
			if name, both := strings.CutPrefix(row[1], "natscall.*."); both {
				out["natscall."+side+"."+name+" | "+row[2]] = true
			} else if name, both := strings.CutPrefix(row[1], "rpc.*."); both {
				out["rpc."+side+"."+name+" | "+row[2]] = true
			}
		}
		if !strings.Contains(row[1], "*") {
			out[row[1]+" | "+row[2]] = true
		}
	}
	return out
}
