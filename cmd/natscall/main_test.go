package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/natscall/natscall/proto"
)

func TestRun(t *testing.T) {
	tests := []struct {
		args           string
		exit           int
		stdout, stderr string // how they start
	}{
		{"", exitUsage, "", "natscall is the tool"},
		{"-h", exitOK, "natscall is the tool", ""},
		{"--help", exitOK, "natscall is the tool", ""},
		{"help", exitOK, "natscall is the tool", ""},
		{"version", exitOK, "natscall ", ""},
		{"version now", exitUsage, "", `natscall version: unexpected argument "now"; natscall version -h explains it`},
		{"prot", exitUsage, "", `natscall: unknown command "prot"; natscall -h lists the commands`},
		{"--version", exitUsage, "", `natscall: unknown command "--version"; natscall -h lists the commands`},
		{"proto", exitUsage, "", "natscall proto: flag -o is missing: it names the folder to write under; natscall proto -h explains it"},
		{"proto -h", exitOK, "Usage: natscall proto -o DIR [-f]", ""},
		{"proto -o", exitUsage, "", "natscall proto: flag needs an argument: -o; natscall proto -h explains it"},
		{"proto -x", exitUsage, "", "natscall proto: flag provided but not defined: -x; natscall proto -h explains it"},
		{"proto -o x y", exitUsage, "", `natscall proto: unexpected argument "y"; natscall proto -h explains it`},
		{"proto -o main.go", exitError, "", "natscall proto: open main.go"},
	}
	for _, test := range tests {
		t.Run(test.args, func(t *testing.T) {
			var stdout, stderr bytes.Buffer
			exit := run(strings.Fields(test.args), &stdout, &stderr)
			if exit != test.exit {
				t.Errorf("exit code is %d, want %d", exit, test.exit)
			}
			checkOutput(t, "stdout", stdout.String(), test.stdout)
			checkOutput(t, "stderr", stderr.String(), test.stderr)
		})
	}
}

func checkOutput(t *testing.T, name, got, want string) {
	t.Helper()
	if !strings.HasPrefix(got, want) || want == "" && got != "" {
		t.Errorf("%s is %q, want it to start with %q", name, got, want)
	}
}

func TestProto(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "natscall", "v1", "options.proto")
	steps := []struct {
		name, before string // in the file before; as after the last step if empty
		force        bool
		exit         int
		says, after  string
	}{
		{"new", "", false, exitOK, "wrote " + path + "\n", string(proto.Options)},
		{"again", "", false, exitOK, path + " is up to date\n", string(proto.Options)},
		{"edited", "mine", false, exitError, "natscall proto: " + path + " exists and differs; -f overwrites it\n", "mine"},
		{"forced", "", true, exitOK, "wrote " + path + "\n", string(proto.Options)},
	}
	for _, step := range steps {
		t.Run(step.name, func(t *testing.T) {
			if step.before != "" {
				if err := os.WriteFile(path, []byte(step.before), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			args := []string{"proto", "-o", dir}
			if step.force {
				args = append(args, "-f")
			}
			var said bytes.Buffer
			if exit := run(args, &said, &said); exit != step.exit {
				t.Errorf("exit code is %d, want %d", exit, step.exit)
			}
			if said.String() != step.says {
				t.Errorf("it says %q, want %q", said.String(), step.says)
			}
			after, err := os.ReadFile(path)
			if err != nil || string(after) != step.after {
				t.Errorf("the file holds %.20q (%v), want %.20q", after, err, step.after)
			}
		})
	}
}
