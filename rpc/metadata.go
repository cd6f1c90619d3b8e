package rpc

import (
	"encoding/base64"
	"maps"
	"slices"
	"strings"

	"github.com/natscall/natscall/rpc/internal/wire"
)

// base64Mark begins a value that is written in base64, since NATS would change or refuse it.
const base64Mark = "=?base64?"

// binarySuffix ends the keys whose values are bytes, as in gRPC and Connect.
const binarySuffix = "-bin"

// EncodeMetadata returns the metadata of gRPC, Connect or HTTP as a [Header] that may be sent, for
// adapters of those. Keys are written in lower case, keys that are reserved with "Natscall-Key-"
// before them. Values of keys that end in "-bin", and values that may not stand in a Header, are
// written in base64. Keys without values are left out. docs/protocol.md has the rules.
//
// It fails if a key has other characters than a Header allows, and names the key. The result shares
// no memory with md, and is not nil.
func EncodeMetadata(md map[string][]string) (Header, error) {
	h := make(Header, len(md))
	for _, key := range slices.Sorted(maps.Keys(md)) { // "A" always before "a"
		if err := wire.CheckKey(key); err != nil {
			return nil, err
		}
		lower := strings.ToLower(key)
		name := lower
		if wire.IsReservedKey(lower) {
			name = wire.KeyPrefix + lower
		}
		for _, value := range md[key] {
			h[name] = append(h[name], encodeValue(lower, value))
		}
	}
	return h, nil
}

// DecodeMetadata is the inverse of EncodeMetadata: it returns all that was in md, with the keys in
// lower case. It leaves out what belongs to NATS and to the runtime. A value that should be base64
// and is not stays as it is. The result shares no memory with h, and is not nil.
func DecodeMetadata(h Header) map[string][]string {
	md := make(map[string][]string, len(h))
	for _, key := range slices.Sorted(maps.Keys(h)) {
		name, escaped := wire.CutKeyPrefix(key)
		switch {
		case escaped:
			name = strings.ToLower(name)
		case wire.IsReservedKey(key):
			continue
		default:
			name = strings.ToLower(key)
		}
		for _, value := range h[key] {
			md[name] = append(md[name], decodeValue(name, value))
		}
	}
	return md
}

func encodeValue(key, value string) string {
	switch {
	case strings.HasSuffix(key, binarySuffix):
		return base64.RawStdEncoding.EncodeToString([]byte(value))
	case strings.HasPrefix(value, base64Mark) || wire.CheckValue(key, value) != nil:
		return base64Mark + base64.RawStdEncoding.EncodeToString([]byte(value))
	}
	return value
}

func decodeValue(key, value string) string {
	text, marked := strings.CutPrefix(value, base64Mark)
	if strings.HasSuffix(key, binarySuffix) {
		text, marked = value, true
	}
	if !marked {
		return value
	}
	decoded, err := base64.RawStdEncoding.DecodeString(strings.TrimRight(text, "="))
	if err != nil {
		return value
	}
	return string(decoded)
}
