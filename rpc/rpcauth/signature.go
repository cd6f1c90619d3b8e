package rpcauth

import (
	"cmp"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nkeys"

	"github.com/natscall/natscall/rpc"
)

// The headers of a signed request.
const (
	signatureHeader = rpc.ExtensionPrefix + "Signature"
	jwtHeader       = rpc.ExtensionPrefix + "Jwt"
)

// domain begins all signed bytes. Its first byte is no part of UTF-8, so it is no nonce of a NATS
// server, which is text and is signed with the same key at each login; and the whole is longer.
const domain = "\xffnatscall v1: a signature of one request by a user of NATS, for nothing else\x00"

const (
	signatureVersion = "1"
	nonceBytes       = 16
	maxSignature     = 8 << 10 // of the header
	maxHeaders       = 64      // that are signed
)

var base64url = base64.RawURLEncoding.Strict()

// signature is what the header of a signed request says.
type signature struct {
	key             string // public key of the user
	issued, expires time.Time
	nonce           string // "" if the request has a call id
	audience        string
	headers         []string // names in lower case, sorted, each once
	signature       []byte
}

// String returns the header.
func (s *signature) String() string {
	return strings.Join([]string{
		signatureVersion, s.key, millis(s.issued), millis(s.expires), s.nonce, s.audience,
		strings.Join(s.headers, ","), base64url.EncodeToString(s.signature),
	}, ";")
}

func millis(t time.Time) string { return strconv.FormatInt(t.UnixMilli(), 10) }

// parseSignature is the inverse of String. Nothing else than what that returns is valid.
func parseSignature(header string) (*signature, error) {
	if len(header) > maxSignature {
		return nil, errors.New("is too long")
	}
	parts := strings.Split(header, ";")
	if parts[0] != signatureVersion {
		return nil, errors.New("has an unknown version")
	}
	if len(parts) != 8 {
		return nil, errors.New("does not have eight parts")
	}
	s := &signature{key: parts[1], nonce: parts[4], audience: parts[5]}
	var errs [4]error
	s.issued, errs[0] = parseMillis(parts[2])
	s.expires, errs[1] = parseMillis(parts[3])
	s.headers, errs[2] = parseNames(parts[6])
	s.signature, errs[3] = decodeBase64(parts[7])
	switch err := cmp.Or(errs[:]...); {
	case err != nil:
		return nil, err
	case len(s.signature) != ed25519.SignatureSize:
		return nil, errors.New("has a signature of a wrong size")
	case !nkeys.IsValidPublicUserKey(s.key):
		return nil, errors.New("names no public key of a user")
	case s.nonce != "" && !isNonce(s.nonce):
		return nil, errors.New("has a wrong nonce")
	}
	return s, checkAudience(s.audience)
}

func isNonce(text string) bool {
	nonce, err := decodeBase64(text)
	return err == nil && len(nonce) == nonceBytes
}

// decodeBase64 decodes what base64url writes, and nothing else: it ignores line breaks.
func decodeBase64(text string) ([]byte, error) {
	b, err := base64url.DecodeString(text)
	if err != nil || base64url.EncodeToString(b) != text {
		return nil, errors.New("has wrong base64")
	}
	return b, nil
}

func parseMillis(text string) (time.Time, error) {
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n < 0 || n > maxMillis || strconv.FormatInt(n, 10) != text {
		return time.Time{}, fmt.Errorf("has the time %q", text)
	}
	return time.UnixMilli(n), nil
}

// maxMillis keeps times far from where adding to them would overflow: the end of the year 9999.
const maxMillis = 253402300799999

func parseNames(text string) ([]string, error) {
	if text == "" {
		return nil, nil
	}
	names := strings.Split(text, ",")
	if len(names) > maxHeaders {
		return nil, errors.New("names too many headers")
	}
	for i, name := range names {
		if !isHeaderName(name) || name != strings.ToLower(name) || i > 0 && names[i-1] >= name {
			return nil, errors.New("names headers in a wrong way")
		}
	}
	return names, nil
}

// isHeaderName reports whether name is one that NATS carries and that needs no quoting here.
func isHeaderName(name string) bool {
	return name != "" && !strings.ContainsFunc(name, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && !strings.ContainsRune("!#$%&'*+-.^_`|~", r)
	})
}

// canonicalNames returns the names of headers as a signature has them.
func canonicalNames(names []string) ([]string, error) {
	var out []string
	for _, name := range names {
		if !isHeaderName(name) {
			return nil, fmt.Errorf("%q is no name of a header", name)
		}
		lower := strings.ToLower(name)
		if lower == strings.ToLower(signatureHeader) || lower == strings.ToLower(jwtHeader) {
			return nil, fmt.Errorf("the header %s is part of the signature", name)
		}
		out = append(out, lower)
	}
	slices.Sort(out)
	if out = slices.Compact(out); len(out) > maxHeaders {
		return nil, fmt.Errorf("%d headers are too many", len(out))
	}
	return out, nil
}

func checkAudience(audience string) error {
	if len(audience) > 255 || strings.ContainsFunc(audience, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && !strings.ContainsRune("._:/-", r)
	}) {
		return fmt.Errorf("%q is no audience", audience)
	}
	return nil
}

// request is what a signature is about, as both sides know it.
type request struct {
	method, subject, id string
	codec               rpc.Codec
	data                []byte
	streams             bool // the client streams: there is no data
	header              rpc.Header
	jwt                 string
}

// appendSigned appends the bytes that are signed. docs/identity.md describes them.
func appendSigned(b []byte, s *signature, r *request) []byte {
	b = append(b, domain...)
	for _, field := range [...]string{s.audience, r.method, r.subject, r.id, s.nonce, r.codec.String(), millis(s.issued), millis(s.expires)} {
		b = appendField(b, field)
	}
	if r.streams {
		b = appendField(b, "")
	} else {
		hash := sha256.Sum256(r.data)
		b = appendField(b, hash[:])
	}
	b = appendField(b, s.key)
	if r.jwt == "" {
		b = appendField(b, "")
	} else {
		hash := sha256.Sum256([]byte(r.jwt))
		b = appendField(b, hash[:])
	}
	for _, name := range s.headers {
		b = appendHeader(b, name, r.header)
	}
	return b
}

// appendHeader appends all lines of a header, in whatever case of letters their keys are: otherwise
// a line that is added in another case could come first where a handler looks for it.
func appendHeader(b []byte, name string, header rpc.Header) []byte {
	var keys []string
	lines := 0
	for key, values := range header {
		if len(key) == len(name) && strings.EqualFold(key, name) {
			keys = append(keys, key)
			lines += len(values)
		}
	}
	slices.Sort(keys)
	b = appendField(b, name)
	b = appendField(b, strconv.Itoa(lines))
	for _, key := range keys {
		for _, value := range header[key] {
			b = appendField(b, key)
			b = appendField(b, value)
		}
	}
	return b
}

func appendField[T string | []byte](b []byte, field T) []byte {
	b = binary.AppendUvarint(b, uint64(len(field)))
	return append(b, field...)
}

// signedID is by what an accepted signature is remembered. Other users cannot make signed bytes
// with the same id, so they cannot spend that of somebody else's call.
type signedID [16]byte

func idOf(signed []byte) signedID {
	hash := sha256.Sum256(signed)
	return signedID(hash[:16])
}

// singleValue returns the only value of a header of this package, and whether there is any line of
// it, in whatever case. Several lines are an error.
func singleValue(header rpc.Header, name string) (value string, found bool, err error) {
	for key, values := range header {
		if len(key) != len(name) || !strings.EqualFold(key, name) {
			continue
		}
		if found || len(values) != 1 || key != name {
			return "", true, errors.New("is there more than once, or in another case of letters")
		}
		value, found = values[0], true
	}
	return value, found, nil
}
