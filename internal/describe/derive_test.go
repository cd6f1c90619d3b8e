package describe

import (
	"testing"

	"github.com/natscall/natscall/internal/names"
)

func TestPackageVersion(t *testing.T) {
	tests := map[string]string{
		"order.v1":         "1.0.0",
		"order.v12":        "12.0.0",
		"order.v2beta1":    "2.0.0-beta1",
		"order.v3alpha":    "3.0.0-alpha",
		"order.v1p1beta1":  "1.0.0-p1beta1",
		"order.v0":         "0.0.0",
		"v1":               "1.0.0",
		"order":            "0.0.0",
		"":                 "0.0.0",
		"order.v1.admin":   "0.0.0",
		"order.v01":        "0.0.0",
		"order.v1_beta":    "0.0.0",
		"order.version1":   "0.0.0",
		"order.v1testfoo2": "1.0.0-testfoo2",
	}
	for pkg, want := range tests {
		if got := packageVersion(pkg); got != want {
			t.Errorf("package %q: got %q, want %q", pkg, got, want)
		}
		if err := names.CheckVersion(packageVersion(pkg)); err != nil {
			t.Errorf("package %q: default %v", pkg, err)
		}
	}
}

func TestFirstParagraph(t *testing.T) {
	tests := map[string]string{
		"":                               "",
		" \n":                            "",
		" One line.\n":                   "One line.",
		" Two\n   lines.\n":              "Two lines.",
		"\n\n First.\n \t\n\n Second.\n": "First.",
		" Carriage\r\n return.\r\n\r\nX": "Carriage return.",
	}
	for comment, want := range tests {
		if got := firstParagraph(comment); got != want {
			t.Errorf("%q: got %q, want %q", comment, got, want)
		}
	}
}
