package rpc_test

import (
	"encoding/json"
	"log/slog"
	"math"
	"strings"
	"testing"

	"github.com/natscall/natscall/rpc"
)

// TestCodeText: every code is read as it was written, as text and in JSON.
func TestCodeText(t *testing.T) {
	codes := []rpc.Code{17, 99, math.MaxUint32}
	for c := rpc.CodeOK; c <= rpc.CodeUnauthenticated; c++ {
		codes = append(codes, c)
	}
	for _, c := range codes {
		text, err := c.MarshalText()
		if err != nil || string(text) != c.String() {
			t.Errorf("%v is written as %q, %v", c, text, err)
		}
		for _, s := range []string{string(text), strings.ToUpper(string(text))} {
			got := rpc.Code(1000)
			if err := got.UnmarshalText([]byte(s)); err != nil || got != c {
				t.Errorf("%q is read as %v, %v", s, got, err)
			}
		}
		in := map[rpc.Code][]rpc.Code{c: {c}}
		data, err := json.Marshal(in)
		if want := `{"` + c.String() + `":["` + c.String() + `"]}`; err != nil || string(data) != want {
			t.Errorf("JSON is %s, %v; want %s", data, err, want)
		}
		var out map[rpc.Code][]rpc.Code
		if err := json.Unmarshal(data, &out); err != nil || len(out[c]) != 1 || out[c][0] != c {
			t.Errorf("%s is read as %v, %v", data, out, err)
		}
	}
}

func TestCodeIsReadFrom(t *testing.T) {
	for text, want := range map[string]rpc.Code{
		`"NOT_FOUND"`: rpc.CodeNotFound, `"Not_Found"`: rpc.CodeNotFound, `"CANCELLED"`: rpc.CodeCanceled, `"canceled"`: rpc.CodeCanceled,
		`"5"`: rpc.CodeNotFound, `5`: rpc.CodeNotFound, `0`: rpc.CodeOK, `99`: 99, `"CODE_99"`: 99, `"code_5"`: rpc.CodeNotFound,
		`"\u006fk"`: rpc.CodeOK, `null`: 1000,
	} {
		got := rpc.Code(1000)
		if err := json.Unmarshal([]byte(text), &got); err != nil || got != want {
			t.Errorf("%s is read as %v, %v; want %v", text, got, err, want)
		}
	}
	for _, text := range []string{`""`, `"not found"`, `"code_"`, `"code_x"`, `-1`, `1.5`, `4294967296`, `1e3`, `true`, `{}`, `[]`, `"+1"`} {
		got := rpc.Code(1000)
		if err := json.Unmarshal([]byte(text), &got); err == nil || got != 1000 {
			t.Errorf("%s is read as %v", text, got)
		}
	}
	err := new(rpc.Code).UnmarshalText([]byte("a\nb"))
	if err == nil || !strings.Contains(err.Error(), `"a\nb"`) {
		t.Errorf("the error does not name the text: %v", err)
	}
}

func TestCodeInLogs(t *testing.T) {
	var text, inJSON strings.Builder
	slog.New(slog.NewTextHandler(&text, nil)).Info("m", "code", rpc.CodeNotFound)
	slog.New(slog.NewJSONHandler(&inJSON, nil)).Info("m", "code", rpc.CodeNotFound)
	if !strings.Contains(text.String(), "code=not_found") || !strings.Contains(inJSON.String(), `"code":"not_found"`) {
		t.Errorf("the log is %s and %s", text.String(), inJSON.String())
	}
}
