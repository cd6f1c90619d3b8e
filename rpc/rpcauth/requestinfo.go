package rpcauth

import (
	"cmp"
	"encoding/json"
	"errors"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/nats-io/jwt/v2"

	"github.com/natscall/natscall/rpc"
)

// infoHeader is set by the NATS server in a request that crosses a service import.
const infoHeader = "Nats-Request-Info"

// importedReply begins the reply subject of such a request. NATS refuses it of a client.
const importedReply = "_R_."

// maxInfoSize bounds what is parsed. A user's JWT, with all of its permissions, is the largest
// part.
const maxInfoSize = 256 << 10

// redacted is what the NATS server writes for the user if that is a token.
const redacted = "[REDACTED]"

// relayed is in the header, as the NATS server writes JSON, if the server has copied the rest of it
// from the header that the message had before.
const relayed = `"svc":`

// requestInfo is the header. It has all fields that it has in the NATS server, with the same types:
// where the server cannot parse a header it may leave it as a client has written it, so that one
// must not be parsed here either.
type requestInfo struct {
	Started    time.Time `json:"start"`
	Host       string    `json:"host"`
	ID         uint64    `json:"id"`
	Account    string    `json:"acc"`
	Service    string    `json:"svc"`
	User       string    `json:"user"`
	Name       string    `json:"name"`
	Lang       string    `json:"lang"`
	Version    string    `json:"ver"`
	JWT        string    `json:"jwt"`
	Issuer     string    `json:"issuer_key"`
	Kind       string    `json:"kind"`
	ClientType string    `json:"client_type"`
	where
	user
	unused
}

type where struct {
	Server  string `json:"server"`
	Cluster string `json:"cluster"`
}

type user struct {
	NameTag string   `json:"name_tag"`
	Tags    []string `json:"tags"`
}

type unused struct {
	RTT        time.Duration `json:"rtt"`
	Alternates []string      `json:"alts"`
	Stop       *time.Time    `json:"stop"`
	MQTTClient string        `json:"client_id"`
	Nonce      string        `json:"nonce"`
	Reply      string        `json:"reply"`
}

// parseInfo parses a header that is the NATS server's.
func parseInfo(header string) (*requestInfo, error) {
	info := new(requestInfo)
	if len(header) > maxInfoSize {
		return nil, errors.New(infoHeader + " is too long")
	}
	if err := json.Unmarshal([]byte(header), info); err != nil {
		return nil, err
	}
	if info.Account == "" {
		return nil, errors.New(infoHeader + " names no account")
	}
	if info.Service != "" {
		return nil, errors.New(infoHeader + " was copied from another header")
	}
	if info.User == redacted {
		info.User = ""
	}
	return info, nil
}

// infoReader makes identities of such headers.
type infoReader struct {
	userNames bool // what the server says of users without a JWT counts
	tokens    tokens
}

// read returns the identity of an imported call. If there is none, the call has ended before
// anybody has asked, or the header is none of a NATS server.
func (r *infoReader) read(call *rpc.Call) Identity {
	values := call.Header()[infoHeader]
	if len(values) != 1 {
		return Identity{}
	}
	info, err := parseInfo(values[0])
	if err != nil {
		return Identity{}
	}
	return r.identity(info)
}

func (r *infoReader) identity(info *requestInfo) Identity {
	id := Identity{
		Kind: KindImported, Account: info.Account,
		Connection: &Connection{
			Host: info.Host, ID: info.ID, Name: info.Name, User: info.User, Server: info.Server, Cluster: info.Cluster,
			Started: info.Started, Kind: info.Kind, ClientType: info.ClientType,
			Lang: info.Lang, Version: info.Version,
		},
	}
	if info.JWT == "" {
		id.Name, id.Tags = info.NameTag, info.Tags
		if r.userNames {
			id.User = info.User
		}
		return id
	}
	if claims := r.claimsOf(info); claims != nil {
		id.Issuer, id.Name, id.Tags = claims.Issuer, claims.Name, claims.Tags
		// With a bearer JWT nobody has shown the user's key: any account can make one for
		// anybody's public key.
		if !claims.BearerToken {
			id.User = claims.Subject
		}
	}
	return id
}

// claimsOf returns the claims of a JWT that the server has accepted, or nil if the rest of the
// header contradicts it. The user that the server names is another one if the client has sent its
// name too.
func (r *infoReader) claimsOf(info *requestInfo) *jwt.UserClaims {
	claims, known := r.tokens.get(info.JWT)
	if !known {
		var err error
		if claims, err = decodeToken(info.JWT); err != nil {
			return nil
		}
		r.tokens.put(info.JWT, claims)
	}
	if claims.Issuer != info.Issuer || accountOf(claims) != info.Account ||
		claims.Name != info.NameTag || !slices.Equal(claims.Tags, info.Tags) {
		return nil
	}
	return claims
}

// accountOf returns the account for which the issuer of a JWT speaks.
func accountOf(claims *jwt.UserClaims) string { return cmp.Or(claims.IssuerAccount, claims.Issuer) }

// minHidden is the size of the shortest line that a NATS server may leave at the end of a header,
// with the line end of the blank line. That of its own infoHeader is longer.
const minHidden = len("Nats-Trace-Hop: 1\r\n\r\n")

// tracePrefix begins the keys by which NATS traces a message.
const tracePrefix = "Nats-Trace-"

// header says whether the header of an imported request can be the NATS server's word.
type header uint8

const (
	headerAbsent header = iota
	headerProved
	headerDoubtful
)

// judge judges the header of a request, for a NATS server without the CVE below.
//
// The NATS server appends its line behind the header that the client has sent. The client's bytes
// are arbitrary, and the server ends lines at CRLF only while nats.go ends them at LF, skips those
// with an empty key, and stops at a blank one. So the client can leave a line of its own under the
// same key, and let the server's be read as the end of another line, or not at all. In the former
// case the server's key is in the key or value of that line. In the latter its bytes are in the
// size of the header, and in no line. If tracing is on, the server may then replace lines that
// begin with tracePrefix, and with these its own line if the client has put it behind such a key;
// it leaves another one with this prefix at the end.
//
// A request that comes to an import by way of another one, be it a request or an answer there, has
// in its header the identity that the message had before, which may be what a client has written.
// The server adds the account in between, so such a header is told by that.
func judge(call *rpc.Call) header {
	peer, h := call.Peer(), call.Header()
	if len(h[infoHeader]) == 0 || !strings.HasPrefix(peer.Reply, importedReply) {
		return headerAbsent
	}
	unread := peer.HeaderSize - len("NATS/1.0\n\n")
	for key, values := range h {
		switch {
		case key == infoHeader && (len(values) != 1 || strings.Contains(values[0], relayed)),
			key != infoHeader && strings.Contains(key, infoHeader),
			strings.Contains(key, tracePrefix),
			key == "Status", key == "Description": // these may be from the first line
			return headerDoubtful
		}
		for _, value := range values {
			if strings.Contains(value, infoHeader) || strings.Contains(value, tracePrefix) {
				return headerDoubtful
			}
			unread -= len(key) + len(":") + len(value) + len("\n")
		}
	}
	if unread >= minHidden {
		return headerDoubtful
	}
	return headerProved
}

// serverVersions judges the versions of NATS servers. It remembers the last one, as the connection
// seldom moves to a server with another, and has no version while it is not connected.
type serverVersions struct {
	connected func() string // returns "" without a connection
	last      atomic.Pointer[serverVersion]
}

type serverVersion struct {
	version    string
	vulnerable bool
	before     string    // the vulnerable version before, or ""
	since      time.Time // when this one was seen first
}

// afterwards is for how long requests that came by a vulnerable server may wait to be judged after
// the connection has moved to another.
const afterwards = time.Minute

// vulnerable returns the version of the server that the connection has, or had last, and whether
// clients of it could forge the header. Shortly after the connection has moved away from a
// vulnerable one, it is still that.
func (s *serverVersions) vulnerable(now time.Time) (version string, vulnerable bool) {
	version = s.connected()
	last := s.last.Load()
	switch {
	case version == "" && last == nil:
		return "", true
	case version == "":
	case last == nil || last.version != version:
		next := &serverVersion{version: version, vulnerable: isVulnerable(version), since: now}
		if last != nil && last.vulnerable {
			next.before = last.version
		} else if last != nil && last.isSuspect(now) {
			next.before = last.before
		}
		s.last.Store(next)
		last = next
	}
	if !last.vulnerable && last.isSuspect(now) {
		return last.before, true
	}
	return last.version, last.vulnerable
}

// isSuspect reports whether requests may wait that have come by the vulnerable server before.
func (v *serverVersion) isSuspect(now time.Time) bool {
	return v.before != "" && now.Sub(v.since).Abs() < afterwards
}

// isVulnerable reports whether a version of the NATS server has CVE-2026-33223: before 2.11.15, and
// of 2.12 before 2.12.6. What is no version counts as one that has it, and so does a prerelease
// that may have been made before the fix: up to those of 2.11.16, 2.12.7, 2.13.1 and 2.14.1.
func isVulnerable(version string) bool {
	release, pre, isPre := strings.Cut(strings.TrimPrefix(version, "v"), "-")
	parts := strings.Split(release, ".")
	if len(parts) != 3 || isPre && pre == "" {
		return true
	}
	var n [3]int
	for i, part := range parts {
		var err error
		if n[i], err = strconv.Atoi(part); err != nil || n[i] < 0 {
			return true
		}
	}
	major, minor, patch := n[0], n[1], n[2]
	if isPre {
		patch -= 2
	}
	switch {
	case major != 2:
		return major < 2
	case minor == 11:
		return patch < 15
	case minor == 12:
		return patch < 6
	}
	return minor < 11 || minor < 15 && patch < 0
}
