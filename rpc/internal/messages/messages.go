// Package messages joins the typed streams of package rpc to what they stand on: a stream over
// NATS, or one in memory in a unit test (package rpctest).
package messages

import "context"

// Stream is one side of a stream of messages. A message is a proto.Message or a *rpc.Raw; what is
// received is decoded into one that is empty. The errors are those that package rpc documents for
// its streams. One goroutine may send while another receives.
type Stream interface {
	// SendMessage sends a message, which may be reused when it returns.
	SendMessage(m any) error
	// RecvMessage receives the next message into m; io.EOF is the clean end.
	RecvMessage(m any) error
	// RecvOnlyMessage receives the message of a direction that has exactly one.
	RecvOnlyMessage(m any) error
	// CloseSend ends the sending half of a client. On a server it does nothing.
	CloseSend()
	// Close ends a client's stream early. On a server it does nothing.
	Close()
	// Header waits for the header of the peer.
	Header(ctx context.Context) (map[string][]string, error)
	// Trailer returns the server's trailer after the end of a client's stream.
	Trailer() map[string][]string
	// Instance returns the instance that serves a client's stream. On a server it is "".
	Instance() string
}

// Call is what a handler finds of a call that has not come over NATS.
type Call struct {
	Service, Method string
	Header          map[string][]string // of the request
}
