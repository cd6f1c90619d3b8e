package main

import (
	"bytes"
	"flag"
	"os"
	"strings"
	"testing"

	"golang.org/x/mod/modfile"

	"github.com/natscall/natscall/internal/modproxy"
)

var proxyFlag = flag.String("proxy", "", "follow the pages with the release in this `folder` of a module proxy, not with the checkout")

// newProxy returns the folder of a module proxy with natscall.
func newProxy(t *testing.T) string {
	t.Helper()
	if *proxyFlag != "" {
		return *proxyFlag
	}
	modules, err := modproxy.Modules(moduleRoot)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := modproxy.Write(dir, modules); err != nil {
		t.Fatal(err)
	}
	return dir
}

// checkSums makes sure that the go.mod of a module that uses natscall replaces nothing, and that
// its go.sum names nothing but what the main module requires. (It names more than is compiled: go
// mod tidy also looks at the tests of what is imported.)
func checkSums(t *testing.T, dir string) {
	t.Helper()
	if strings.Contains(readFile(t, dir+"/go.mod"), "replace") {
		t.Errorf("go.mod of a module that uses natscall:\n%s", readFile(t, dir+"/go.mod"))
	}
	mod, err := modfile.Parse("go.mod", []byte(readFile(t, moduleRoot+"/go.mod")), nil)
	if err != nil {
		t.Fatal(err)
	}
	allowed := map[string]bool{modproxy.Root: true}
	for _, require := range mod.Require {
		allowed[require.Mod.Path] = true
	}
	text, err := os.ReadFile(dir + "/go.sum")
	if err != nil {
		t.Fatal(err)
	}
	for line := range bytes.Lines(text) {
		if path, _, _ := strings.Cut(string(line), " "); !allowed[path] {
			t.Errorf("go.sum of a module that uses natscall names %s", line)
		}
	}
}
