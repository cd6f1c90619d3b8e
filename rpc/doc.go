// Package rpc is the runtime of natscall: typed request-reply calls over NATS.
//
// The plugin protoc-gen-go-natscall turns a Protobuf service into a client
// interface, a server interface and functions that join them to this package.
// The examples below use the generated package orderv1nats.
//
// # Serving
//
// A [Server] serves any number of services on one connection:
//
//	srv := rpc.NewServer(nc)
//	err := orderv1nats.RegisterOrderServiceServer(srv, &orders{})
//	err = srv.Run(ctx)
//
// Methods of the implementation are called concurrently, up to
// [WithMaxConcurrency]; a short queue behind that absorbs bursts, and what does
// not fit is refused at once. When ctx ends, Run takes no more requests and
// answers those that it has. Each service shows up in `nats micro ls`.
//
// # Calling
//
// A [Client] serves any number of typed clients and goroutines:
//
//	client := rpc.NewClient(nc)
//	defer client.Close()
//	orders := orderv1nats.NewOrderServiceClient(client)
//	res, err := orders.GetOrder(ctx, &orderv1.GetOrderRequest{OrderId: "42"})
//
// A call takes the deadline of its context, or a default. The handler sees
// it, and its context ends when the caller's does.
//
// # Errors
//
// Every error of a call is an [*Error] with a [Code]. A handler makes one
// with [NewError] or [Errorf]; any other error is CodeUnknown to the caller:
//
//	return nil, rpc.Errorf(rpc.CodeNotFound, "there is no order %q", id)
//
//	switch rpc.CodeOf(err) {
//	case rpc.CodeNotFound:
//	case rpc.CodeUnavailable:
//	}
//
// The text of an error crosses the wire, also that of one without a code, such as
// a database's. Where callers must not see that, an interceptor of the server replaces it; the
// example of [WithInterceptors] does.
//
// [Error.Execution] says whether the handler of a failed call ran. The
// runtime itself sends a call again only where no service was there, where an
// instance refused it because it is about to stop, or where the .proto file
// declares the method idempotent; a stream that an instance has taken never is.
// CodeUnavailable from an interceptor of the server is final, unless it has a
// google.rpc.RetryInfo among its details; from a handler it always is.
//
// # Streams
//
// Where the .proto file says stream, a call returns a [Receiver], a
// [ClientStream] or a [BidiStream] as soon as a server has taken it:
//
//	stream, err := inventory.WatchStock(ctx, &inventoryv1.WatchStockRequest{})
//	defer stream.Close()
//	for res, err := range stream.All() {
//		...
//	}
//
// Messages arrive once and in order, and after them how the handler ended;
// whatever else happens is an error. Send waits for a reader that is slow. A
// stream has no deadline unless it is given one, and never resumes by itself. docs/streams.md is the guide.
//
// # Metadata and interceptors
//
// Options of a call add headers and fetch those of the response; a handler
// finds its own with [CallFromContext]. An [Interceptor] runs around every
// call of a client or server, in one shape for both.
//
// # Plain NATS
//
// Any NATS client can call a method, in JSON or Protobuf: the request's body
// is the message. docs/protocol.md defines it. [WithPlainRequests] lets a
// typed client call services that others wrote.
package rpc
