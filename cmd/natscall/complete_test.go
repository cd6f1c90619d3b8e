package main

import (
	"bytes"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"github.com/natscall/natscall/cmd/natscall/internal/connect"
	"github.com/natscall/natscall/cmd/natscall/internal/problem"
	"github.com/natscall/natscall/gen/inventory/v1/inventoryv1nats"
	"github.com/natscall/natscall/rpc"
)

// complete returns what a shell is told that could stand at the end of a command line.
func (c *console) complete(args ...string) []string {
	c.Helper()
	return completions(c.T, append([]string{"--server", c.url}, args...)...)
}

func completions(t *testing.T, args ...string) []string {
	t.Helper()
	var stdout, stderr bytes.Buffer
	if status := run(testContext(t), append([]string{cobra.ShellCompNoDescRequestCmd}, args...), nil, &stdout, &stderr); status != problem.StatusOK {
		t.Fatalf("exit status %d: %s", status, &stderr)
	}
	lines := strings.Split(strings.TrimSpace(stdout.String()), "\n")
	if last := lines[len(lines)-1]; last != ":4" { // cobra.ShellCompDirectiveNoFileComp
		t.Errorf("%q: the shell would complete files: %s", args, last)
	}
	return lines[:len(lines)-1]
}

// TestComplete: services and methods are completed by what is there.
func TestComplete(t *testing.T) {
	t.Setenv("NATSCALL_COMPLETION_TIME", patience.String()) // the machine may be busy
	c := newConsole(t)
	blue := c.shop.newServer(c.shop.connect("inventory").nc, rpc.WithSubjectPrefix("blue"))
	must(t, inventoryv1nats.RegisterInventoryServiceServer(blue, inventoryv1nats.UnimplementedInventoryServiceServer{}))
	must(t, c.shop.start(blue))
	var instances []struct{ Instance string }
	c.read(&instances, "ping", "InventoryService", "--json")
	both := []string{instances[0].Instance, blue.Instance(inventoryRoot)}
	slices.Sort(both)
	services := []string{"inventory.v1.InventoryService", "order.v1.OrderFeedService", "order.v1.OrderService"}
	for _, test := range []struct {
		line string
		want []string
	}{
		{"c", []string{"call", "completion"}},
		{"ls ", services},
		{"ps order.v1.", services[1:]},
		{"health inv", services[:1]},
		{"stats --json ", services},
		{"ping ", services},
		{"call order.v1.OrderService/P", []string{"order.v1.OrderService/PickOrder", "order.v1.OrderService/PlaceOrder"}},
		{"call OrderService/P", []string{"OrderService/PickOrder", "OrderService/PlaceOrder"}},
		{"call Place", []string{"PlaceOrder"}},
		{"call order.v1.OrderService/PlaceOrder ", nil},
		{"describe order.v1.OrderService", []string{"order.v1.OrderService", "order.v1.OrderService/GetOrder", "order.v1.OrderService/ListOrders", "order.v1.OrderService/PickOrder", "order.v1.OrderService/PlaceOrder"}},
		{"ls nobody", nil},
		{"tap order.v1.OrderService inv", services[:1]},
		{"ls order.v1.OrderService inv", nil},
		{"ps --prefix ", []string{"blue"}},
		{"call GetStock --prefix b", []string{"blue"}},
		{"call GetOrder --prefix ", nil},
		{"call GetStock --instance ", both},
		{"describe inventory.v1.InventoryService --instance " + both[0][:20], completed(both, both[0][:20])},
		{"bench --instance nobody", nil},
		{"--colors ", connect.Schemes},
		{"ls --context ", nil},
	} {
		t.Run(test.line, func(t *testing.T) {
			if got := c.complete(strings.Split(test.line, " ")...); strings.Join(got, " ") != strings.Join(test.want, " ") {
				t.Errorf("%q, want %q", got, test.want)
			}
		})
	}
	var stdout bytes.Buffer
	run(testContext(t), []string{cobra.ShellCompRequestCmd, "--server", c.url, "call", "order.v1.OrderService/G"}, nil, &stdout, &stdout)
	if !strings.HasPrefix(stdout.String(), "order.v1.OrderService/GetOrder\tGetOrder returns an order.") {
		t.Errorf("with descriptions: %s", &stdout)
	}
}

// completed returns the words that begin with another one.
func completed(words []string, begin string) []string {
	return slices.DeleteFunc(slices.Clone(words), func(word string) bool { return !strings.HasPrefix(word, begin) })
}

// TestCompleteNothing: where nothing can be found out, nothing is completed, and nobody waits.
func TestCompleteNothing(t *testing.T) {
	silent, err := net.Listen("tcp", "127.0.0.1:0") // takes connections, says nothing
	must(t, err)
	t.Cleanup(func() { _ = silent.Close() })
	for _, url := range []string{silent.Addr().String(), "127.0.0.1:1", "http://wrong", "nats://no-such-host.invalid"} {
		if got := completions(t, "--server", url, "call", ""); len(got) > 0 {
			t.Errorf("%s: %q", url, got)
		}
	}
}

// TestCompleteScripts: there is a script for each shell, and its help says how to use it.
func TestCompleteScripts(t *testing.T) {
	for _, shell := range []string{"bash", "zsh", "fish", "powershell"} {
		var out bytes.Buffer
		if status := run(testContext(t), []string{"completion", shell}, nil, &out, &out); status != problem.StatusOK || !strings.Contains(out.String(), "__complete") {
			t.Errorf("%s: exit status %d: %s", shell, status, &out)
		}
	}
}

// completionOn is what docs/tool.md says to run.
const completionOn = "source <(natscall completion bash)"

// bashScript completes a command line as bash does when somebody presses the tabulator key twice.
// The words of the line are its arguments. bash-completion, which has the function that splits the
// line, need not be there.
const bashScript = `
_get_comp_words_by_ref() {
	words=("${COMP_WORDS[@]}"); cword=$COMP_CWORD
	cur=${words[cword]}; prev=${words[cword-1]}
}
__ltrim_colon_completions() { :; }
compopt() { :; }
` + completionOn + `
COMP_WORDS=(natscall "$@"); COMP_CWORD=$#
COMP_LINE="natscall $*"; COMP_POINT=${#COMP_LINE}; COMP_TYPE=63
$(complete -p natscall | sed 's/.*-F \([^ ]*\).*/\1/') natscall "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD-1]}"
printf '%s\n' "${COMPREPLY[@]}"
`

// TestCompleteBash: bash completes by the script that the tool prints.
func TestCompleteBash(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile(toolPage)
	must(t, err)
	if block := "```sh\n" + completionOn + "\n```\n"; !strings.Contains(string(page), block) {
		t.Errorf("%s has no block with %q", toolPage, completionOn)
	}
	bash, err := exec.LookPath("bash")
	must(t, err)
	c := newConsole(t)
	self, err := os.Executable()
	must(t, err)
	bin := t.TempDir()
	must(t, os.Symlink(self, filepath.Join(bin, "natscall")))
	for _, test := range []struct {
		line []string
		want string
	}{
		{[]string{"desc"}, "describe"},
		{[]string{"call", "order.v1.OrderService/Pl"}, "order.v1.OrderService/PlaceOrder"},
		{[]string{"ls", "inventory"}, "inventory.v1.InventoryService"},
	} {
		cmd := exec.CommandContext(testContext(t), bash, append([]string{"--norc", "-c", bashScript, "bash"}, test.line...)...)
		cmd.Env = append(os.Environ(), asTool+"=1", "NATSCALL_COMPLETION_TIME="+patience.String(), "NATS_URL="+c.url, "PATH="+bin+string(os.PathListSeparator)+os.Getenv("PATH"))
		out, err := cmd.CombinedOutput()
		if err != nil || strings.TrimSpace(string(out)) != test.want {
			t.Errorf("%q: %v: %s, want %s", test.line, err, out, test.want)
		}
	}
}
