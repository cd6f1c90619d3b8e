package main

import (
	"bytes"
	"io"
	"log"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"buf.build/gen/go/bufbuild/protovalidate/protocolbuffers/go/buf/validate"
	protobuf "google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"

	"github.com/natscall/natscall/cmd/natscall/internal/problem"
	"github.com/natscall/natscall/cmd/natscall/internal/rules"
	"github.com/natscall/natscall/cmd/natscall/internal/schema"
	"github.com/natscall/natscall/cmd/natscall/internal/tool"
	"github.com/natscall/natscall/proto"
)

// asTool is the environment variable that makes the test be the tool, for shells.
const asTool = "NATSCALL_TEST_AS_TOOL"

// TestMain keeps the environment of whoever runs the tests from them.
func TestMain(m *testing.M) {
	if os.Getenv(asTool) != "" {
		main()
	}
	for _, v := range os.Environ() {
		if name, _, _ := strings.Cut(v, "="); strings.HasPrefix(name, "NATS_") || name == "NO_COLOR" {
			_ = os.Unsetenv(name)
		}
	}
	config, err := os.MkdirTemp("", "natscall")
	if err != nil {
		log.Fatal(err)
	}
	_ = os.Setenv("XDG_CONFIG_HOME", config)
	_ = os.Setenv("TERM", "xterm") // for what tests take for a terminal
	status := m.Run()
	_ = os.RemoveAll(config)
	os.Exit(status)
}

func TestRun(t *testing.T) {
	tests := []struct {
		args           string
		exit           int
		stdout, stderr string // how they start
	}{
		{"", problem.StatusUsage, "natscall is the tool", ""},
		{"-h", problem.StatusOK, "natscall is the tool", ""},
		{"--help", problem.StatusOK, "natscall is the tool", ""},
		{"help", problem.StatusOK, "natscall is the tool", ""},
		{"completion bash now", problem.StatusUsage, "", "natscall completion bash: unexpected argument \"now\""},
		{"permissions --within 0s a.proto", problem.StatusUsage, "", "natscall permissions: --within 0s: it must be more than nothing"},
		{"permissions --accounts --from S-1 -I ../../proto ../../proto/order/v1/order.proto", problem.StatusUsage, "", "natscall permissions: --from \"S-1\": must be letters, digits and underscores"},
		{"permissions --prefix a..b a.proto", problem.StatusUsage, "", "natscall permissions: --prefix \"a..b\": prefix \"a..b\" has an empty token"},
		{"help call", problem.StatusOK, "Call a method, such as", ""},
		{"help completion bash", problem.StatusOK, "Generate the autocompletion", ""},
		{"help nope", problem.StatusUsage, "", "natscall help: unknown command \"nope\"\n  next: `natscall help --help` explains it"},
		{"help cal", problem.StatusUsage, "", `natscall help: unknown command "cal"; did you mean call?`},
		{"help completion bush", problem.StatusUsage, "", `natscall help: unknown command "bush"; did you mean bash?`},
		{"pz", problem.StatusUsage, "", `natscall: unknown command "pz"; did you mean ps?`},
		{"version", problem.StatusOK, "natscall ", ""},
		{"version now", problem.StatusUsage, "", "natscall version: unexpected argument \"now\"\n  next: `natscall version --help` explains it"},
		{"prot", problem.StatusUsage, "", `natscall: unknown command "prot"; did you mean proto?`},
		{"dance", problem.StatusUsage, "", "natscall: unknown command \"dance\"\n  next: `natscall --help` explains it"},
		{"--version", problem.StatusUsage, "", "natscall: unknown flag: --version"},
		{"proto", problem.StatusUsage, "", "natscall proto: flag -o is missing: it names the folder to write under\n  next: `natscall proto --help` explains it"},
		{"proto -h", problem.StatusOK, "Write natscall/v1/options.proto", ""},
		{"proto -o", problem.StatusUsage, "", "natscall proto: flag needs an argument: 'o' in -o"},
		{"proto -x", problem.StatusUsage, "", "natscall proto: unknown shorthand flag: 'x' in -x"},
		{"proto -o x y", problem.StatusUsage, "", `natscall proto: unexpected argument "y"`},
		{"proto -o main.go", problem.StatusFailure, "", "natscall proto: open main.go"},
	}
	for _, test := range tests {
		t.Run(test.args, func(t *testing.T) {
			var stdout, stderr bytes.Buffer
			exit := run(t.Context(), strings.Fields(test.args), nil, &stdout, &stderr)
			if exit != test.exit {
				t.Errorf("exit code is %d, want %d", exit, test.exit)
			}
			checkOutput(t, "stdout", stdout.String(), test.stdout)
			checkOutput(t, "stderr", stderr.String(), test.stderr)
		})
	}
}

// TestHelpWidth: the help of every command fits into 100 columns.
func TestHelpWidth(t *testing.T) {
	for _, cmd := range newRoot(tool.New("1.0.0", nil, io.Discard, io.Discard)).Commands() {
		var stdout bytes.Buffer
		if status := run(t.Context(), []string{cmd.Name(), "--help"}, nil, &stdout, io.Discard); status != problem.StatusOK {
			t.Errorf("%s: exit status %d", cmd.Name(), status)
		}
		for line := range strings.Lines(stdout.String()) {
			if len(strings.TrimSuffix(line, "\n")) > 100 && !strings.HasPrefix(line, "  natscall ") {
				t.Errorf("%s: %d columns: %s", cmd.Name(), len(line)-1, line)
			}
		}
	}
}

func checkOutput(t *testing.T, name, got, want string) {
	t.Helper()
	if !strings.HasPrefix(got, want) || want == "" && got != "" {
		t.Errorf("%s is %q, want it to start with %q", name, got, want)
	}
}

// TestProtoRules: with --validate, as docs/validation.md has it, there are the rules too, as they
// are linked into programs that check them. A file that imports both compiles.
func TestProtoRules(t *testing.T) {
	page, err := os.ReadFile("../../docs/validation.md")
	must(t, err)
	_, command, _ := strings.Cut(string(page), "\nnatscall ")
	command, _, _ = strings.Cut(command, "\n")
	args := strings.Fields(command)
	t.Chdir(t.TempDir())
	dir := args[2]
	var said bytes.Buffer
	if status := run(t.Context(), args, nil, &said, &said); status != problem.StatusOK || strings.Count(said.String(), "wrote ") != 2 {
		t.Fatalf("exit status %d: %s", status, &said)
	}
	file := filepath.Join(dir, "a.proto")
	must(t, os.WriteFile(file, []byte(`syntax = "proto3";
package a;
import "buf/validate/validate.proto";
import "natscall/v1/options.proto";
message M { string id = 1 [(buf.validate.field).string.min_len = 1]; }
service S { rpc Do(M) returns (M) { option (natscall.v1.method).one_way = true; } }
`), 0o600))
	read, err := schema.FromFiles([]string{file, filepath.Join(dir, filepath.FromSlash(rules.Path))}, []string{dir})
	must(t, err)
	compiled, err := read.Files.FindFileByPath(rules.Path)
	must(t, err)
	got, want := protodesc.ToFileDescriptorProto(compiled), protodesc.ToFileDescriptorProto(validate.File_buf_validate_validate_proto)
	// The library's own options are for its Go code. Encoded, options look the same in both.
	got.SourceCodeInfo, got.Options, want.Options = nil, nil, nil
	a, err := protobuf.MarshalOptions{Deterministic: true}.Marshal(got)
	must(t, err)
	b, err := protobuf.MarshalOptions{Deterministic: true}.Marshal(want)
	must(t, err)
	if !bytes.Equal(a, b) {
		t.Error("the rules are not those of the library that rpc/rpcvalidate requires: copy the file of its version")
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
		{"new", "", false, problem.StatusOK, "wrote " + path + "\n", string(proto.Options)},
		{"again", "", false, problem.StatusOK, path + " is up to date\n", string(proto.Options)},
		{"edited", "mine", false, problem.StatusFailure, "natscall proto: " + path + " exists and differs\n  next: -f overwrites it\n", "mine"},
		{"forced", "", true, problem.StatusOK, "wrote " + path + "\n", string(proto.Options)},
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
			if exit := run(t.Context(), args, nil, &said, &said); exit != step.exit {
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
