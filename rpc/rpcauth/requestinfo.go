package rpcauth

import (
	"encoding/json"
	"errors"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

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

// parseInfo returns the identity in a header that is the NATS server's.
func parseInfo(header string) (Identity, error) {
	var info requestInfo
	if len(header) > maxInfoSize {
		return Identity{}, errors.New(infoHeader + " is too long")
	}
	if err := json.Unmarshal([]byte(header), &info); err != nil {
		return Identity{}, err
	}
	if info.Account == "" {
		return Identity{}, errors.New(infoHeader + " names no account")
	}
	if info.User == redacted {
		info.User = ""
	}
	return Identity{
		Kind: KindImported, Account: info.Account, User: info.User,
		Name: info.NameTag, Tags: info.Tags, Issuer: info.Issuer,
		Connection: &Connection{
			Host: info.Host, ID: info.ID, Name: info.Name, Server: info.Server, Cluster: info.Cluster,
			Started: info.Started, Kind: info.Kind, ClientType: info.ClientType,
			Lang: info.Lang, Version: info.Version, JWT: info.JWT, Service: info.Service,
		},
	}, nil
}

// rawInfo stands for a header that is to be parsed when somebody asks for the identity. There is
// one, so that a call costs nothing.
type rawInfo struct{}

func (*rawInfo) parse(call *rpc.Call) Identity {
	values := call.Header()[infoHeader]
	if len(values) != 1 { // the call has ended before anybody asked for it
		return Identity{}
	}
	id, err := parseInfo(values[0])
	if err != nil {
		return Identity{}
	}
	return id
}

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
