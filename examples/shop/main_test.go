package main

import (
	"context"
	"strings"
	"testing"

	"go.uber.org/goleak"
)

func TestStory(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	var stdout, stderr strings.Builder
	if code := execute(t.Context(), nil, &stdout, &stderr); code != 0 || stderr.Len() > 0 {
		t.Fatalf("exit code %d, stderr %s", code, stderr.String())
	}
	for _, want := range []string{
		"orders-new keeps 2 messages", "order 12345 of 1 67890: CONFIRMED", "4 are left",
		"ada-1", "CONFIRMED", "REJECTED", `"plum": 2 asked for, 1 available`, "9 got theirs, 11 were refused",
		"line 2001: quantity: -2", "3000 lines, 2000 of them known, 2000 items added", "picked 2 apple, missing 1 pear",
		"the screen: 8 available, 0 reserved, 2 sold", "the screen: 6 available, 0 reserved, 4 sold",
		"ListFeed returns 12 events", "25 requests", "nats://127.0.0.1:", "nats micro ls",
	} {
		if !strings.Contains(stdout.String(), want) {
			t.Errorf("the story does not say %q:\n%s", want, stdout.String())
		}
	}
}

// writer ends a context when something is written that says so.
type writer struct {
	strings.Builder
	on   string
	stop func()
}

func (w *writer) Write(b []byte) (int, error) {
	if strings.Contains(string(b), w.on) {
		w.stop()
	}
	return w.Builder.Write(b)
}

func TestServeUntilStopped(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	ctx, cancel := context.WithCancel(t.Context())
	stdout := &writer{on: "The shop is open", stop: cancel}
	var stderr strings.Builder
	if code := execute(ctx, []string{"-serve"}, stdout, &stderr); code != 0 || ctx.Err() == nil {
		t.Errorf("exit code %d, stderr %s", code, stderr.String())
	}
}

func TestStoppedInTheMiddle(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	ctx, cancel := context.WithCancel(t.Context())
	stdout := &writer{on: "Bob", stop: cancel}
	var stderr strings.Builder
	if code := execute(ctx, nil, stdout, &stderr); code != 1 || !strings.Contains(stderr.String(), "step 6") {
		t.Errorf("exit code %d, stderr %s", code, stderr.String())
	}
}

func TestFlags(t *testing.T) {
	for _, tt := range []struct {
		args           string
		code           int
		stdout, stderr string
	}{
		{"-h", 0, "-serve", ""},
		{"-server", 2, "", "-server"},
		{"now", 2, "", `"now"`},
	} {
		var stdout, stderr strings.Builder
		code := execute(t.Context(), []string{tt.args}, &stdout, &stderr)
		if code != tt.code || !strings.Contains(stdout.String(), tt.stdout) || !strings.Contains(stderr.String(), tt.stderr) {
			t.Errorf("%s: exit code %d, stdout %q, stderr %q", tt.args, code, stdout.String(), stderr.String())
		}
	}
}
