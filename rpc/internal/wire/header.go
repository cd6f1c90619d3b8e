package wire

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// Headers of the protocol.
const (
	ContentTypeHeader = "Content-Type"
	TimeoutHeader     = "Natscall-Timeout"
	TrailerPrefix     = "Natscall-Trailer-"
	ExtensionPrefix   = "Natscall-Ext-" // of what interceptors add to an attempt
	KeyPrefix         = "Natscall-Key-" // before a key that would be reserved

	noTimeoutText = "none" // of TimeoutHeader

	InstanceHeader     = "Natscall-Instance"      // of answers: the token of their instance
	NameInstanceHeader = "Natscall-Name-Instance" // "1" in plain requests that ask for it
	ClientHeader       = "Natscall-Client"        // of alive queries: names the client that asks
	HedgeHeader        = "Natscall-Hedge"         // of a hedge: the id of its call's first attempt

	// Of an error reply to a plain request, each with the value 1. See Execution.
	NotRunHeader     = "Natscall-Not-Run"
	MayHaveRunHeader = "Natscall-May-Have-Run"
	RefusedHeader    = "Natscall-Refused" // beside NotRunHeader

	ContentTypeProto = "application/protobuf"
	ContentTypeJSON  = "application/json"
)

// SetExecution adds what an error reply to a plain request says about its handler.
func SetExecution(h map[string][]string, x Execution) {
	switch x {
	case MayHaveRun:
		h[MayHaveRunHeader] = []string{"1"}
	case Refused:
		h[RefusedHeader] = []string{"1"}
		fallthrough
	case NotRun:
		h[NotRunHeader] = []string{"1"}
	}
}

// ExecutionOf is the inverse of SetExecution.
func ExecutionOf(h map[string][]string) Execution {
	switch {
	case len(h[RefusedHeader]) > 0:
		return Refused
	case len(h[NotRunHeader]) > 0:
		return NotRun
	case len(h[MayHaveRunHeader]) > 0:
		return MayHaveRun
	}
	return DidRun
}

// IsNoResponders reports whether a message is NATS's word that nobody has subscribed to the
// request's subject.
func IsNoResponders(h map[string][]string, data []byte) bool {
	status := h["Status"]
	return len(data) == 0 && len(status) > 0 && status[0] == "503"
}

// reservedPrefixes and reservedKeys, in lower case, are what NATS and the
// protocol keep for themselves.
var (
	reservedPrefixes = []string{"nats-", "natscall-"}
	reservedKeys     = []string{"status", "description", "content-type"}
)

// IsReservedKey reports whether a header belongs to NATS or to the protocol.
func IsReservedKey(key string) bool {
	lower := strings.ToLower(key)
	for _, p := range reservedPrefixes {
		if strings.HasPrefix(lower, p) {
			return true
		}
	}
	for _, k := range reservedKeys {
		if lower == k {
			return true
		}
	}
	return false
}

// CutKeyPrefix returns what follows KeyPrefix, in any case of letters, in a key. It reports whether
// the key has the prefix and more.
func CutKeyPrefix(key string) (name string, ok bool) {
	if len(key) <= len(KeyPrefix) || !strings.EqualFold(key[:len(KeyPrefix)], KeyPrefix) {
		return "", false
	}
	return key[len(KeyPrefix):], true
}

// CheckHeader returns what is wrong with a header or trailer that a user wants to send.
func CheckHeader(key, value string) error {
	if err := CheckKey(key); err != nil {
		return err
	}
	if _, escaped := CutKeyPrefix(key); IsReservedKey(key) && !escaped {
		return fmt.Errorf("header %q is reserved", key)
	}
	return CheckValue(key, value)
}

// CheckExtension returns what is wrong with a header below ExtensionPrefix.
func CheckExtension(key, value string) error {
	return cmp.Or(CheckKey(key), CheckValue(key, value))
}

// CheckKey returns what is wrong with the characters of a key.
func CheckKey(key string) error {
	if key == "" {
		return errors.New("header with an empty key")
	}
	if i := strings.IndexFunc(key, notTokenChar); i >= 0 {
		return fmt.Errorf("header %q: the key may not contain %q", key, key[i:i+1])
	}
	return nil
}

// CheckValue returns what is wrong with a value of key: what NATS would change on the way.
func CheckValue(key, value string) error {
	if !utf8.ValidString(value) {
		return fmt.Errorf("header %q: the value is not UTF-8 (encode binary values as base64)", key)
	}
	if strings.IndexFunc(value, unicode.IsControl) >= 0 {
		return fmt.Errorf("header %q: the value has a control character", key)
	}
	if value != strings.TrimSpace(value) {
		return fmt.Errorf("header %q: the value begins or ends with a blank", key)
	}
	return nil
}

func notTokenChar(r rune) bool {
	if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' {
		return false
	}
	return !strings.ContainsRune("!#$%&'*+-.^_`|~", r)
}

// ParseContentType returns the codec of a plain message that has the header.
func ParseContentType(header string) (Codec, error) {
	mediaType, _, _ := strings.Cut(header, ";")
	switch strings.ToLower(strings.TrimSpace(mediaType)) {
	case ContentTypeProto, "application/x-protobuf":
		return CodecProto, nil
	case ContentTypeJSON:
		return CodecJSON, nil
	}
	return 0, fmt.Errorf("header %s: %q is neither %s nor %s", ContentTypeHeader, header, ContentTypeProto, ContentTypeJSON)
}

// maxTimeoutMillis keeps the milliseconds of a header within a time.Duration.
const maxTimeoutMillis = uint64(1<<63-1) / uint64(time.Millisecond)

// ParseTimeout reads the timeout of a plain request; an empty header is 0. A number
// that a time.Duration cannot hold means the longest that it can.
func ParseTimeout(header string) (time.Duration, error) {
	switch header {
	case "":
		return 0, nil
	case noTimeoutText:
		return NoTimeout, nil
	}
	millis, err := strconv.ParseUint(header, 10, 64)
	tooLarge := errors.Is(err, strconv.ErrRange) && strings.Trim(header, "0123456789") == ""
	if err != nil && !tooLarge || millis == 0 {
		return 0, fmt.Errorf("header %s: %q is neither a whole number of milliseconds above 0 nor none", TimeoutHeader, header)
	}
	return time.Duration(min(millis, maxTimeoutMillis)) * time.Millisecond, nil
}

// FormatTimeout is the inverse of ParseTimeout, rounded up to a millisecond.
func FormatTimeout(d time.Duration) string {
	if d == NoTimeout {
		return noTimeoutText
	}
	return strconv.FormatUint(roundUp(d, time.Millisecond), 10)
}

// maxErrorText bounds the error text in a header, which counts against max_payload.
const maxErrorText = 1024

// ErrorText is the text of the Nats-Service-Error header: one line, never empty.
func ErrorText(code, message string) string {
	text := code
	if message != "" {
		text += ": " + message
	}
	return strings.TrimSpace(Truncate(strings.Map(blankControl, text), maxErrorText))
}

func blankControl(r rune) rune {
	if unicode.IsControl(r) {
		return ' '
	}
	return r
}

// Truncate cuts s to at most n bytes without splitting a character.
func Truncate(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n]
}

// SplitHeader splits the header of a response into header and trailer, neither of them nil, and
// drops the keys of NATS and of the protocol. The result shares no memory with h.
func SplitHeader(h map[string][]string) (header, trailer map[string][]string) {
	header, trailer = map[string][]string{}, map[string][]string{}
	for key, values := range h {
		if name, ok := strings.CutPrefix(key, TrailerPrefix); ok {
			trailer[name] = slices.Clone(values)
		} else if _, escaped := CutKeyPrefix(key); escaped || !IsReservedKey(key) {
			header[key] = slices.Clone(values)
		}
	}
	return header, trailer
}
