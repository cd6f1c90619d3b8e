package frozenwire_test

import (
	"crypto/sha256"
	"encoding/hex"
	"os"
	"testing"
)

// TestFrozen fails if a file has been edited. Undo that; the package comment says why.
func TestFrozen(t *testing.T) {
	for file, want := range map[string]string{
		"answer.go":                     "82dc8e01b20a86d2",
		"batch.go":                      "abf066717027954d",
		"envelope.go":                   "940f6b0a7e944bf1",
		"frame.go":                      "b16736b8e6e5f5c5",
		"header.go":                     "2bae71e5accc547b",
		"names.go":                      "01bc9cf4fae83ece",
		"../wire/testdata/protocol1.md": "a8fa33c82889dd76",
	} {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		sum := sha256.Sum256(text)
		if got := hex.EncodeToString(sum[:8]); got != want {
			t.Errorf("%s has been edited: its hash begins with %s, not %s", file, got, want)
		}
	}
}
