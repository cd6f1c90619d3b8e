package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	natscallproto "github.com/natscall/natscall/proto"
)

func TestWriteOptionsArguments(t *testing.T) {
	const name = "protoc-gen-go-natscall proto: "
	const explains = "; protoc-gen-go-natscall proto -h explains it\n"
	tests := []struct {
		args           string
		exit           int
		stdout, stderr string // how they start
	}{
		{"-h", exitOK, "Usage: protoc-gen-go-natscall proto -o DIR [-f]", ""},
		{"--help", exitOK, "Usage: protoc-gen-go-natscall proto -o DIR [-f]", ""},
		{"", exitUsage, "", name + "flag -o is missing: it names the folder to write under" + explains},
		{"-o", exitUsage, "", name + "flag needs an argument: -o" + explains},
		{"-x", exitUsage, "", name + "flag provided but not defined: -x" + explains},
		{"-o x y", exitUsage, "", name + `unexpected argument "y"` + explains},
		{"-o main.go", exitError, "", name}, // where a folder should be
	}
	for _, test := range tests {
		t.Run(test.args, func(t *testing.T) {
			var stdout, stderr bytes.Buffer
			exit := writeOptions(strings.Fields(test.args), &stdout, &stderr)
			if exit != test.exit {
				t.Errorf("exit code is %d, want %d", exit, test.exit)
			}
			for _, check := range []struct{ name, got, want string }{{"stdout", stdout.String(), test.stdout}, {"stderr", stderr.String(), test.stderr}} {
				if !strings.HasPrefix(check.got, check.want) || (check.want == "") != (check.got == "") {
					t.Errorf("%s is %q, want it to start with %q", check.name, check.got, check.want)
				}
			}
		})
	}
}

func TestWriteOptions(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "natscall", "v1", "options.proto")
	steps := []struct {
		name, edit string // the text that the file gets before, if any
		args       []string
		exit       int
		says       string
	}{
		{"new", "", []string{"-o", dir}, exitOK, "wrote " + path + "\n"},
		{"again", "", []string{"-o", dir}, exitOK, path + " is up to date\n"},
		{"edited", "mine", []string{"-o", dir}, exitError, "protoc-gen-go-natscall proto: " + path + " exists and differs; -f overwrites it\n"},
		{"forced", "mine", []string{"-f", "-o", dir}, exitOK, "wrote " + path + "\n"},
	}
	for _, step := range steps {
		if step.edit != "" {
			if err := os.WriteFile(path, []byte(step.edit), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		var said bytes.Buffer
		if exit := writeOptions(step.args, &said, &said); exit != step.exit || said.String() != step.says {
			t.Errorf("%s: exit code %d, it says %q, want %d, %q", step.name, exit, said.String(), step.exit, step.says)
		}
	}
	if text := readFile(t, path); text != string(natscallproto.Options) {
		t.Errorf("it wrote %.40q, which is not the file of this version", text)
	}
}
