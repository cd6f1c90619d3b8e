package rpc

import (
	"github.com/nats-io/nats.go"

	"github.com/natscall/natscall/rpc/internal/wire"
)

// Header is the metadata of a call: of its request, its response, or its trailer. As in NATS, keys
// are case-sensitive. A key consists of letters, digits and !#$%&'*+-.^_`|~; keys that begin with
// "Nats-" or "Natscall-", and the keys "Status", "Description" and "Content-Type", are reserved. A
// value is UTF-8 text without control characters and without blanks at either end; encode binary
// values as base64. A key or value that breaks these rules fails the call with CodeInvalidArgument
// (in a server's response with CodeInternal).
//
// A Header is a map: it must not be used by one goroutine while another changes it. Get and Values
// work on a nil Header.
type Header map[string][]string

// Get returns the first value of key, or "".
func (h Header) Get(key string) string {
	if v := h[key]; len(v) > 0 {
		return v[0]
	}
	return ""
}

// Values returns all values of key. The slice is the header's own, not a copy.
func (h Header) Values(key string) []string { return h[key] }

// Set replaces the values of key with value.
func (h Header) Set(key, value string) { h[key] = []string{value} }

// Add appends a value to those of key.
func (h Header) Add(key, value string) { h[key] = append(h[key], value) }

// Del removes key.
func (h Header) Del(key string) { delete(h, key) }

// appendTo adds h to the header of a NATS message, with prefix before each key.
func (h Header) appendTo(dst nats.Header, prefix string) (nats.Header, error) {
	if len(h) == 0 {
		return dst, nil // most messages have no header, and this much is inlined
	}
	return h.appendAllTo(dst, prefix)
}

func (h Header) appendAllTo(dst nats.Header, prefix string) (nats.Header, error) {
	for key, values := range h {
		for _, v := range values {
			if err := wire.CheckMetadata(key, v); err != nil {
				return nil, err
			}
		}
		if dst == nil {
			dst = nats.Header{}
		}
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
