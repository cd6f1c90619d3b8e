// Package rpcdedup runs a call once, however often it is sent: a server's interceptor that knows
// calls by the idempotency key that their caller has given them.
//
//	store, err := rpcdedup.NewBucket(ctx, kv) // of JetStream; all instances share it
//	...
//	err = orderv1nats.RegisterOrderServiceServer(srv, impl,
//		rpcdedup.Server(store, rpcdedup.Require(orderv1nats.OrderServicePlaceOrderMethod)))
//
// and on the client
//
//	res, err := orders.PlaceOrder(ctx, req, rpc.WithIdempotencyKey(orderID))
//
// The first call with a key runs its handler. Another one that comes meanwhile waits for the
// result, and one that comes later gets it without running: the response or error, with its header
// and trailer. A key that was used for another request is refused with CodeInvalidArgument.
//
// The handler of such a call is not canceled when its caller goes away, since the caller may come
// back with the key. It has the deadline of the call that has begun it.
//
// # If an instance dies
//
// An instance renews the record of a call while its handler runs. If it stops doing so for the time
// of a lease, the call is lost: nobody knows how far the handler came. If the method's
// idempotency_level says that it may run twice, the next call with the key runs it again.
// Otherwise this and all later ones end with CodeFailedPrecondition and rpc.ExecutionMayHaveRun:
// what has happened has to be looked up. Until the lease has ended, calls with the key wait.
//
// No clocks are compared: a caller that waits sees the record unchanged for as long as the lease.
package rpcdedup
