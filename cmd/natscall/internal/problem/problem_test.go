package problem

import (
	"bytes"
	"encoding/json"
	"errors"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/natscall/natscall/rpc"
)

// TestReport: errors of all kinds, as people and programs read them.
func TestReport(t *testing.T) {
	for _, test := range []struct {
		name, text, json string
		err              error
	}{
		{
			"failure", "natscall ls: no luck\n  next: try again\n",
			`{"error":"no luck","next":"try again","exit_status":1}`,
			Failure("try again", "no %s", "luck"),
		},
		{
			"usage", "natscall ls: wrong flag\n",
			`{"error":"wrong flag","exit_status":2}`,
			Usage("wrong flag"),
		},
		{
			"any error", "natscall ls: disk full\n",
			`{"error":"disk full","exit_status":1}`,
			errors.New("disk full"),
		},
		{
			"blank", "natscall ls: proto: no field\\x1b\n",
			`{"error":"proto: no field\u001b","exit_status":1}`,
			errors.New("proto:\u00a0no field\x1b"),
		},
		{
			"call", "natscall ls: not_found: no such thing\n  detail: {\"@type\":\"type.googleapis.com/google.protobuf.StringValue\",\"value\":\"x\"}\n  the call may have run\n",
			`{"error":"not_found: no such thing","exit_status":69,"code":"not_found","message":"no such thing","details":[{"@type":"type.googleapis.com/google.protobuf.StringValue","value":"x"}],"execution":"may have run"}`,
			rpc.NewError(rpc.CodeNotFound, "no such thing", wrapperspb.String("x")),
		},
		{
			"unknown detail", "natscall ls: aborted: no\n  detail: {\"@type\":\"type.googleapis.com/a.B\",\"value\":\"AQI=\"}\n  the call may have run\n",
			`{"error":"aborted: no","exit_status":74,"code":"aborted","message":"no","details":[{"@type":"type.googleapis.com/a.B","value":"AQI="}],"execution":"may have run"}`,
			rpc.NewError(rpc.CodeAborted, "no", &anypb.Any{TypeUrl: "type.googleapis.com/a.B", Value: []byte{1, 2}}),
		},
		{
			"detail of google.rpc", "natscall ls: unknown: busy\n  detail: {\"@type\":\"type.googleapis.com/google.rpc.RetryInfo\",\"retryDelay\":\"2s\"}\n  the call may have run\n",
			`{"error":"unknown: busy","exit_status":66,"code":"unknown","message":"busy","details":[{"@type":"type.googleapis.com/google.rpc.RetryInfo","retryDelay":"2s"}],"execution":"may have run"}`,
			rpc.RetryAfter(errors.New("busy"), 2*time.Second),
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			var text bytes.Buffer
			Of(test.err).WriteText(&text, "natscall ls", nil)
			if text.String() != test.text {
				t.Errorf("for people:\n%s, want\n%s", &text, test.text)
			}
			data, err := json.Marshal(Of(test.err).Report(nil))
			if err != nil || string(data) != test.json {
				t.Errorf("for programs (%v):\n%s, want\n%s", err, data, test.json)
			}
		})
	}
}

// TestStatus: each code has an exit status of its own.
func TestStatus(t *testing.T) {
	for code := rpc.CodeCanceled; code <= rpc.CodeUnauthenticated; code++ {
		if status := Of(rpc.NewError(code, "")).Status; status != 64+int(code) {
			t.Errorf("%v: exit status %d", code, status)
		}
	}
	if Of(Quiet(1)).Status != 1 || !Of(Quiet(1)).Quiet {
		t.Error("a quiet error is not quiet")
	}
}
