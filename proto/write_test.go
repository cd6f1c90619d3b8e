package proto_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/natscall/natscall/proto"
)

func TestWriteOptions(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "third_party", "natscall") // does not exist
	path := filepath.Join(dir, "natscall", "v1", "options.proto")
	steps := []struct {
		name, before string // in the file before; as after the last step if empty
		force        bool
		written      bool
		err          error
		after        string
	}{
		{"new", "", false, true, nil, string(proto.Options)},
		{"again", "", false, false, nil, string(proto.Options)},
		{"again, forced", "", true, false, nil, string(proto.Options)},
		{"edited", "mine", false, false, proto.ErrDiffers, "mine"},
		{"edited, forced", "", true, true, nil, string(proto.Options)},
	}
	for _, step := range steps {
		if step.before != "" {
			if err := os.WriteFile(path, []byte(step.before), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		got, written, err := proto.WriteOptions(dir, step.force)
		if got != path || written != step.written || !errors.Is(err, step.err) {
			t.Errorf("%s: got %s, %v, %v", step.name, got, written, err)
		}
		if after, err := os.ReadFile(path); err != nil || string(after) != step.after {
			t.Errorf("%s: the file holds %.20q (%v), want %.20q", step.name, after, err, step.after)
		}
	}
}

func TestWriteFileUnderFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, written, err := proto.WriteFile(file, "a.proto", nil, true); written || err == nil {
		t.Errorf("got %v, %v, want an error that names the file", written, err)
	}
}
