package output

import (
	"encoding/json"
	"testing"
)

// TestSafeJSON: JSON that goes to a terminal stays JSON that means the same.
func TestSafeJSON(t *testing.T) {
	for name, text := range map[string]string{
		"plain":              "über 界 😀",
		"control characters": "\x00\x1b\x7f\u009b",
		"direction":          "\u202e\u2066",
		"format":             "👨\u200d👩 \u2028",
		"beyond 16 bits":     "🏴\U000e0067\U000e0062\U000e0073\U000e0063\U000e0074\U000e007f \U000f0000",
	} {
		data, err := json.Marshal(text)
		if err != nil {
			t.Fatal(err)
		}
		shown := CleanLines(string(SafeJSON(data)))
		var back string
		if err := json.Unmarshal([]byte(shown), &back); err != nil || back != text {
			t.Errorf("%s: %s means %q: %v", name, shown, back, err)
		}
	}
}
