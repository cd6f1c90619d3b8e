package rpc

import (
	"cmp"
	"strings"

	"github.com/nats-io/nats.go"

	"github.com/natscall/natscall/rpc/internal/wire"
)

// Header is the header of a request or response, or a trailer. A key consists of
// letters, digits and !#$%&'*+-.^_`|~. Keys that begin with "Nats-" or "Natscall-", and the keys
// "Status", "Description" and "Content-Type", are reserved, but for "Natscall-Key-" followed by a
// key, which [EncodeMetadata] makes. A value is UTF-8 text without control characters and without
// blanks at either end; encode binary values as base64. A key or value that breaks these rules
// fails the call with CodeInvalidArgument (in a server's response with CodeInternal).
//
// Keys are sent as they are written, and the methods of Header ignore the case of letters. Where
// keys differ only in that, Get and Values take the one that is written as asked for, or else the
// first in the order of bytes.
//
// A Header is a map: it must not be used by one goroutine while another changes it. Get, Values and
// Del work on a nil Header.
type Header map[string][]string

// Get returns the first value of key, or "".
func (h Header) Get(key string) string {
	if v := h.Values(key); len(v) > 0 {
		return v[0]
	}
	return ""
}

// Values returns all values of key. The slice is the header's own, not a copy.
func (h Header) Values(key string) []string {
	if v, ok := h[key]; ok {
		return v
	}
	return h[h.spelled(key)]
}

// Set replaces the values of key, in any case of letters, with value.
func (h Header) Set(key, value string) {
	h.Del(key)
	h[key] = []string{value}
}

// Add appends a value to those of key, under the spelling that is there.
func (h Header) Add(key, value string) {
	key = h.spelled(key)
	h[key] = append(h[key], value)
}

// Del removes key, in any case of letters.
func (h Header) Del(key string) {
	for k := range h {
		if sameKey(k, key) {
			delete(h, k)
		}
	}
}

// spelled returns key as h has it: itself, or else the first key that differs from it in the case
// of letters only, or itself if there is none.
func (h Header) spelled(key string) string {
	if _, ok := h[key]; ok {
		return key
	}
	found := ""
	for k := range h {
		if sameKey(k, key) && (found == "" || k < found) {
			found = k
		}
	}
	return cmp.Or(found, key)
}

// sameKey compares without the case of letters. Keys are ASCII, and the length keeps out letters
// beyond it that fold to ASCII ones.
func sameKey(a, b string) bool { return len(a) == len(b) && strings.EqualFold(a, b) }

// check returns why h cannot be sent, or nil.
func (h Header) check() error {
	for key, values := range h {
		for _, v := range values {
			if err := wire.CheckHeader(key, v); err != nil {
				return err
			}
		}
	}
	return nil
}

// appendTo adds h to the header of a NATS message, with prefix before each key.
func (h Header) appendTo(dst nats.Header, prefix string) (nats.Header, error) {
	if len(h) == 0 {
		return dst, nil // most messages have no header, and this much is inlined
	}
	return h.appendAllTo(dst, prefix)
}

func (h Header) appendAllTo(dst nats.Header, prefix string) (nats.Header, error) {
	if err := h.check(); err != nil {
		return nil, err
	}
	if dst == nil {
		dst = nats.Header{}
	}
	for key, values := range h {
		dst[prefix+key] = append(dst[prefix+key], values...)
	}
	return dst, nil
}

// headerSize returns how many bytes of max_payload a header takes, or a little more: it counts the
// version line, and room for the prefix of a trailer in each line.
func headerSize(h map[string][]string) int {
	if len(h) == 0 {
		return 0
	}
	size := len("NATS/1.0\r\n\r\n")
	for key, values := range h {
		for _, v := range values {
			size += len(wire.TrailerPrefix) + len(key) + len(v) + len(": \r\n")
		}
	}
	return size
}

// fillHeader replaces the contents of the Header that dst points to by src. It makes the map if
// that is nil.
func fillHeader(dst *Header, src Header) {
	if dst == nil {
		return
	}
	if *dst == nil {
		*dst = Header{}
	}
	clear(*dst)
	for key, values := range src {
		(*dst)[key] = values
	}
}
