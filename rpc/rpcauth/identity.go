package rpcauth

import (
	"context"
	"fmt"
	"time"

	"github.com/nats-io/jwt/v2"

	"github.com/natscall/natscall/rpc"
)

// Kind says how a caller is known.
type Kind uint8

const (
	// KindNone means that nothing proves who calls.
	KindNone Kind = iota
	// KindImported means that the call has come through a service import of another account, and
	// the NATS server says from whom. A call that has come through two has no such identity.
	KindImported
	// KindSigned means that the call is signed with the key of a user.
	KindSigned
)

// String returns "none", "imported" or "signed".
func (k Kind) String() string {
	return [...]string{"none", "imported", "signed", "unknown"}[min(k, KindSigned+1)]
}

// Identity is who calls. Its zero value is a caller of whom nothing is proved.
type Identity struct {
	Kind Kind
	// Account is the caller's account: its name or, in operator mode, its public key. It is "" if
	// the call is signed by a user without a JWT.
	Account string
	// User is the public key of a user or, by [WithUserNames], its name. It is "" if that is not
	// proved, as for imports without share: true.
	User string
	// Name is the name in the user's JWT, or "".
	Name string
	// Tags are those of the user's JWT. They must not be changed.
	Tags []string
	// Issuer is the public key of the account, or of its signing key, that has signed the user's
	// JWT, or "".
	Issuer string
	// Claims are those of the JWT of a signed call, or nil. They are shared by the calls of the
	// user, and must not be changed.
	Claims *jwt.UserClaims
	// Connection is what the NATS server says of the connection of an imported call, or nil.
	Connection *Connection
}

// Connection is a caller's connection, as the NATS server describes it. All of its fields are zero
// if the import does not have share: true.
type Connection struct {
	Host string
	ID   uint64 // unique for the NATS server
	Name string // that the client has given it
	// User is the user that the NATS server names. The client may have chosen it: see
	// [WithUserNames].
	User    string
	Server  string // name of the NATS server
	Cluster string
	Started time.Time
	// Kind is "Client", or "Leafnode" for callers behind one.
	Kind string
	// ClientType is "nats", "websocket" or "mqtt".
	ClientType string
	Lang       string // of the client library
	Version    string // likewise
}

// String describes the caller for logs.
func (id Identity) String() string {
	switch id.Kind {
	case KindImported, KindSigned:
		return fmt.Sprintf("%s user %q of account %q", id.Kind, id.User, id.Account)
	}
	return "a caller without identity"
}

// FromContext returns who calls, where ctx is the context of a handler or derived from one. The
// kind is [KindNone] if nothing proves that, and without a [Verifier].
//
// It may be called concurrently. An imported identity that no rule has asked for is parsed by each
// FromContext, so keep the result.
func FromContext(ctx context.Context) Identity {
	call := rpc.CallFromContext(ctx)
	if found, ok := rpc.CallValue[*Identity](call); ok {
		return *found
	}
	if reader, ok := rpc.CallValue[*infoReader](call); ok {
		return reader.read(call)
	}
	return Identity{}
}
