// Package authcallout decides who may connect to NATS: it answers what a NATS server asks about
// each new connection (auth callout, ADR-26). So users can be kept wherever a program keeps them,
// and a user's permissions come from the methods that it may call. It is an example to start from.
//
// The NATS server needs, beside its accounts,
//
//	authorization {
//	  users: [ { user: callout, password: ... } ]
//	  auth_callout { issuer: A..., auth_users: [ callout ], xkey: X... }
//	}
//
// where issuer is the public key of Callout.Issuer and xkey that of Callout.Curve. The user callout
// belongs to an account in which nobody else is, since whoever listens there sees passwords.
package authcallout

import (
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/nats-io/jwt/v2"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nkeys"

	"github.com/natscall/natscall/rpc"
)

const (
	// Subject is where a NATS server asks.
	Subject = "$SYS.REQ.USER.AUTH"
	// Audience is that of its requests.
	Audience = "nats-authorization-request"
	// curveHeader has the public key of a NATS server that encrypts its request.
	curveHeader = "Nats-Server-Xkey"
)

// Callout answers NATS servers.
type Callout struct {
	// Issuer is the key of an account with which the answers are signed.
	Issuer nkeys.KeyPair
	// Curve decrypts requests. Without it a request must not be encrypted.
	Curve nkeys.KeyPair
	// Decide returns what a client may do, or an error if it may not connect. The client is told
	// that it may not, and the error is logged by the NATS server and by the callout.
	Decide func(*jwt.AuthorizationRequest) (*Grant, error)
	// Logger is where refusals go.
	Logger *slog.Logger
}

// Grant is what a client may do.
type Grant struct {
	// Name is the name of the user, which a service in another account sees. Take it from what
	// Decide has checked, as ConnectOptions.Username of the request is what the client says.
	Name string
	// Account is the name of its account.
	Account string
	// Permissions are those of its connection.
	Permissions jwt.Permissions
	// Until is when the connection is closed; never, if it is zero. The client then asks again.
	Until time.Time
}

// Serve answers requests until the subscription is drained. Several instances share the work.
func (c *Callout) Serve(nc *nats.Conn) (*nats.Subscription, error) {
	return nc.QueueSubscribe(Subject, "callout", func(m *nats.Msg) {
		if err := c.answer(m); err != nil { // the client is refused when the NATS server has waited
			c.Logger.Error("auth callout: no answer", "error", err)
		}
	})
}

func (c *Callout) answer(m *nats.Msg) error {
	server := m.Header.Get(curveHeader)
	token, err := c.open(m.Data, server)
	if err != nil {
		return err
	}
	req, err := parse(string(token))
	if err != nil {
		return err
	}
	answer := jwt.NewAuthorizationResponseClaims(req.UserNkey)
	answer.Audience = req.Server.ID
	if answer.Jwt, err = c.admit(req); err != nil {
		c.Logger.Warn("auth callout: a client was refused", "user", req.ConnectOptions.Username, "host", req.ClientInformation.Host, "error", err)
		answer.Error = err.Error()
	}
	out, err := answer.Encode(c.Issuer)
	if err != nil {
		return err
	}
	data := []byte(out)
	if server != "" {
		if data, err = c.Curve.Seal(data, server); err != nil {
			return err
		}
	}
	return m.Respond(data)
}

// open decrypts a request of a server with a public key, if there is one.
func (c *Callout) open(data []byte, server string) ([]byte, error) {
	switch {
	case server == "" && c.Curve != nil:
		return nil, errors.New("the request is not encrypted")
	case server == "":
		return data, nil
	case c.Curve == nil:
		return nil, errors.New("the request is encrypted, and there is no key")
	}
	return c.Curve.Open(data, server)
}

// parse returns a request that a server has signed. That it is one of ours follows from the
// subject: where there is a callout, the NATS server lets no client publish to it.
func parse(token string) (*jwt.AuthorizationRequest, error) {
	claims, err := jwt.DecodeAuthorizationRequestClaims(token)
	if err != nil {
		return nil, err
	}
	var results jwt.ValidationResults
	claims.Validate(&results)
	switch {
	case !results.IsEmpty():
		return nil, fmt.Errorf("the request: %s", results.Issues[0].Description)
	case claims.Audience != Audience:
		return nil, fmt.Errorf("the request is for %q", claims.Audience)
	case claims.Issuer != claims.Server.ID:
		return nil, errors.New("the request is signed by another server than it names")
	}
	return &claims.AuthorizationRequest, nil
}

// admit returns the JWT of a client.
func (c *Callout) admit(req *jwt.AuthorizationRequest) (string, error) {
	grant, err := c.Decide(req)
	if err != nil {
		return "", err
	}
	if grant == nil {
		return "", errors.New("no grant")
	}
	user := jwt.NewUserClaims(req.UserNkey)
	user.Name, user.Audience, user.Permissions = grant.Name, grant.Account, grant.Permissions
	if !grant.Until.IsZero() {
		user.Expires = grant.Until.Unix()
	}
	return user.Encode(c.Issuer)
}

// method is one of the methods in the variables of generated code.
type method interface {
	Subjects(prefix string) (rpc.Subjects, error)
	Desc() rpc.MethodDesc
}

// Calls returns the permissions of a client that calls these methods and has an inbox prefix of its
// own (nats.CustomInboxPrefix). What a service needs is printed by `natscall permissions`.
func Calls(inbox string, methods ...method) (p jwt.Permissions, err error) {
	p.Sub.Allow.Add(inbox + ".>")
	for _, m := range methods {
		s, err := m.Subjects("")
		if err != nil {
			return p, err
		}
		p.Pub.Allow.Add(s.Request, s.Cancel, s.Alive, s.Instances, s.Frames)
		// A call that may run twice is sent to another instance if one was silent.
		if m.Desc().Idempotency != rpc.IdempotencyUnknown {
			p.Pub.Allow.Add(s.One)
		}
	}
	p.Pub.Allow = slices.DeleteFunc(p.Pub.Allow, func(subject string) bool { return subject == "" })
	return p, nil
}
