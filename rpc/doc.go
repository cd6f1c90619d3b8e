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
// Methods of the implementation are called concurrently, up to [WithMaxConcurrency]. A short
// queue absorbs bursts; requests that do not fit into it, or could not be answered before
// their deadlines, are refused at once. When ctx ends, Run takes no more requests and answers
// those that it has. Each service shows up in `nats micro ls`.
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
// A call has the deadline of its context, or a default. The handler's context has the same
// deadline, and ends when the caller's does.
//
// # Errors
//
// Every error of a call is an [*Error] with a [Code]. A handler makes one
// with [NewError] or [Errorf], and [AddDetails] gives it Protobuf messages for programs. Any other
// error is CodeUnknown to the caller:
//
//	return nil, rpc.Errorf(rpc.CodeNotFound, "there is no order %q", id)
//
//	switch rpc.CodeOf(err) {
//	case rpc.CodeNotFound:
//	case rpc.CodeUnavailable:
//	}
//
// The text of an error crosses the wire, even if the error has no code, such as one of a database.
// If callers must not see it, let an interceptor of the server replace it, as in the example of
// [WithInterceptors].
//
// [Error.Execution] says whether the handler of a failed call ran. The runtime sends a call again
// only if no service was there, if an instance refused it because it is about to stop, or if the
// .proto file declares the method idempotent. It never reopens a stream that an instance has taken.
// CodeUnavailable from an interceptor of the server is final unless its details include a
// google.rpc.RetryInfo; from a handler it is always final.
//
// # Streams
//
// If the .proto file says stream, a call returns a [Receiver], a [ClientStream] or a [BidiStream]
// as soon as a server has accepted it:
//
//	stream, err := inventory.WatchStock(ctx, &inventoryv1.WatchStockRequest{})
//	defer stream.Close()
//	for res, err := range stream.All() {
//		...
//	}
//
// Messages arrive once and in order, followed by the handler's result; anything else is an error.
// Send waits for a slow reader. A stream has no deadline unless it is given one, and never resumes
// by itself. docs/streams.md is the guide.
//
// # Headers and interceptors
//
// Options of a call add request headers and fetch those of the response; a handler reads and sets
// them through [CallFromContext]. An [Interceptor] runs around the calls of a client, a server or a
// service, or around one call, and has the same shape for all: docs/interceptors.md.
// [EncodeMetadata] is for adapters of gRPC, Connect and HTTP.
//
// # Instances
//
// NATS chooses the instance that gets a request. [WithInstance] chooses it instead, and
// [UnaryMethod.Gather] asks all of them. Errors and streams name the instance that they come from,
// and so does a response on request ([ResponseInstance]).
//
// # Without generated types
//
// A [Method] calls and serves methods that are known at run time only, with dynamic or encoded
// messages: docs/untyped.md.
//
// # Plain NATS
//
// Any NATS client can call a method, in JSON or Protobuf: the body of the request is the message.
// docs/protocol.md defines this. [WithPlainRequests] lets a typed client call services that are not
// built with natscall.
//
// # For generated code
//
// These names are exported for generated code, and of no use to other code:
//
//   - [GeneratedCodeV1], by which code and runtime are found not to fit
//   - [NewUnaryMethod], [NewOneWayMethod], [NewServerStreamMethod], [NewClientStreamMethod] and
//     [NewBidiMethod], and the method Unimplemented of what they return
//   - [HandleUnary], [HandleOneWay], [HandleServerStream], [HandleClientStream] and [HandleBidi]
//
// What the constructors return, such as [UnaryMethod], is for everybody: generated code has it in a
// variable for each service, such as orderv1nats.OrderServiceMethods. [ServiceDesc], [MethodDesc],
// [Register] and its [Handler] are also for services without generated types.
//
// [SenderOf], [ReceiverOf], [BidiStreamOf], [ClientStreamOf], [CallOf], [OnSendHeader] and
// [RemoteError] are for package rpctest.
package rpc
