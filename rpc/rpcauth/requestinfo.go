package rpcauth

import (
	"cmp"
	"encoding/json"
	"errors"
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

// requestInfo is the header, as far as it is used.
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
}

type where struct {
	Server  string `json:"server"`
	Cluster string `json:"cluster"`
}

type user struct {
	NameTag string   `json:"name_tag"`
	Tags    []string `json:"tags"`
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
		Kind: KindImported, Account: info.Account, Name: info.NameTag, Tags: info.Tags,
		Connection: &Connection{
			Host: info.Host, ID: info.ID, Name: info.Name, User: info.User, Server: info.Server, Cluster: info.Cluster,
			Started: info.Started, Kind: info.Kind, ClientType: info.ClientType,
			Lang: info.Lang, Version: info.Version, Service: info.Service,
		},
	}
	if info.JWT != "" {
		id.User, id.Issuer = r.userOf(info), info.Issuer
	} else if r.userNames {
		id.User = info.User
	}
	return id
}

// userOf returns the user of a JWT that the server has accepted, or "". The user that the server
// names is another one if the client has sent its name too.
func (r *infoReader) userOf(info *requestInfo) string {
	claims, known := r.tokens.get(info.JWT)
	if !known {
		var err error
		if claims, err = jwt.DecodeUserClaims(info.JWT); err != nil {
			return ""
		}
		r.tokens.put(info.JWT, claims)
	}
	if claims.Issuer != info.Issuer || accountOf(claims) != info.Account {
		return ""
	}
	return claims.Subject
}

// accountOf returns the account for which the issuer of a JWT speaks.
func accountOf(claims *jwt.UserClaims) string { return cmp.Or(claims.IssuerAccount, claims.Issuer) }

// isImported reports whether the NATS server has set the header of a request, if it has no part in
// the CVE below.
func isImported(call *rpc.Call) bool {
	return len(call.Header()[infoHeader]) == 1 && strings.HasPrefix(call.Peer().Reply, importedReply)
}

// serverVersions judges the versions of NATS servers. It remembers the last one, as the connection
// seldom moves to a server with another.
type serverVersions struct {
	connected func() string // returns "" without a connection
	last      atomic.Pointer[serverVersion]
}

type serverVersion struct {
	version    string
	vulnerable bool
}

// vulnerable returns the version of the server that the connection has now, and whether clients of
// it could forge the header.
func (s *serverVersions) vulnerable() (version string, vulnerable bool) {
	version = s.connected()
	last := s.last.Load()
	if last == nil || last.version != version {
		last = &serverVersion{version, isVulnerable(version)}
		s.last.Store(last)
	}
	return version, last.vulnerable
}

// isVulnerable reports whether a version of the NATS server has CVE-2026-33223: before 2.11.15, and
// of 2.12 before 2.12.6. What is no version, and a prerelease of one that mends it, counts as one
// that has it.
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
		patch--
	}
	switch {
	case major != 2:
		return major < 2
	case minor == 11:
		return patch < 15
	case minor == 12:
		return patch < 6
	}
	return minor < 11
}
