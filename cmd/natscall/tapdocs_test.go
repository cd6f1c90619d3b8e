package main

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/natscall/natscall/cmd/natscall/internal/problem"
)

// updateBlock compares a block of the tool's page with what record prints for its commands, after
// steady has taken out what differs from run to run. With -update it writes the block.
func updateBlock(t *testing.T, name string, record func(commands []string) string, steady func(string) string) {
	t.Helper()
	data, err := os.ReadFile(toolPage)
	must(t, err)
	block := regexp.MustCompile("(?s)```console " + name + "\n(.*?)```\n").FindStringSubmatch(string(data))
	if block == nil {
		t.Fatalf("%s has no block `console %s`", toolPage, name)
	}
	var commands []string
	for line := range strings.Lines(block[1]) {
		if command, ok := strings.CutPrefix(line, "$ natscall "); ok {
			commands = append(commands, strings.TrimSpace(command))
		}
	}
	got := record(commands)
	if steady(got) == steady(block[1]) {
		return
	}
	if !*update {
		t.Fatalf("%s is out of date, -update writes it. It has\n%s\nand the commands print\n%s", toolPage, steady(block[1]), steady(got))
	}
	must(t, os.WriteFile(toolPage, []byte(strings.Replace(string(data), block[0], "```console "+name+"\n"+got+"```\n", 1)), 0o666))
}

// TestTapSession records a tap, which runs beside a call.
func TestTapSession(t *testing.T) {
	c := newConsole(t)
	c.ok("call", "AddStock", `{"productId": "apple", "quantity": 5}`)
	record := func(commands []string) string {
		if len(commands) != 2 {
			t.Fatalf("the commands are %q", commands)
		}
		ctx := testContext(t)
		tap := c.shop.startCommand(t, shellWords(strings.TrimSuffix(commands[0], " &"))...)
		tap.err.await(ctx, t, "listening to", 1)
		c.ok(shellWords(strings.TrimSuffix(commands[1], " > /dev/null"))...)
		if status := tap.exit(ctx, t); status != problem.StatusOK {
			t.Fatalf("exit status %d: %s", status, tap.err)
		}
		listening, summary, _ := strings.Cut(tap.err.String(), "\n")
		return "$ natscall " + commands[0] + "\n" + listening + "\n$ natscall " + commands[1] + "\n" + tap.out.String() + summary
	}
	updateBlock(t, "tap", record, steady)
}

// TestBenchSession records a measurement, of which only the structure is the same every time.
func TestBenchSession(t *testing.T) {
	c := newConsole(t)
	c.ok("call", "AddStock", `{"productId": "apple", "quantity": 5}`)
	record := func(commands []string) string {
		if len(commands) != 1 {
			t.Fatalf("the commands are %q", commands)
		}
		return "$ natscall " + commands[0] + "\n" + c.ok(shellWords(commands[0])...)
	}
	updateBlock(t, "bench", record, func(text string) string {
		text = regexp.MustCompile(` *[0-9.]+(/s)?`).ReplaceAllString(text, " N")
		text = regexp.MustCompile(`  █+|  +N`).ReplaceAllString(text, "")
		lines := strings.Split(text, "\n")
		return strings.Join(slices.Compact(lines), "\n") // one row of the histogram stands for all
	})
}
