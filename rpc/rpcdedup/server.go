package rpcdedup

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"slices"

	"google.golang.org/protobuf/proto"

	natscallv1 "github.com/natscall/natscall/gen/natscall/v1"
	"github.com/natscall/natscall/rpc"
	"github.com/natscall/natscall/rpc/internal/loglimit"
)

// maxKey bounds a key in bytes: those of people and programs are much shorter.
const maxKey = 1024

// Server returns an option of a server or service whose calls with an idempotency key run once. Its
// interceptor is inside those of rpc.WithInterceptors, so that what these refuse uses no key.
//
// Register fails if an option is invalid, or if Require or Accept names a streaming method or one
// whose types are not known. A method that no service of the server has is not noticed.
//
// If the store does not answer for the time of a lease, a call with a key ends with
// CodeUnavailable, has not run, and is sent again by its client. If the store cannot be told the
// result, the caller gets it all the same, and the key is lost when its lease has ended.
func Server(store Store, opts ...Option) rpc.ServerServiceOption {
	c := config{lease: defaultLease, log: slog.Default(), scope: func(context.Context, *rpc.Call) (string, error) { return "", nil }}
	var errs []error
	if store == nil {
		errs = append(errs, errors.New("rpcdedup: the store is nil"))
	}
	for _, opt := range opts {
		if opt == nil {
			errs = append(errs, errors.New("rpcdedup: an option is nil"))
			continue
		}
		errs = append(errs, opt(&c))
	}
	if store != nil && store.TTL() > 0 && store.TTL() < 2*c.lease {
		errs = append(errs, fmt.Errorf("rpcdedup: the store keeps a record for %v, which is less than two leases of %v", store.TTL(), c.lease))
	}
	failed := errors.Join(errs...)
	return rpc.WithMethodInterceptors(func(m *rpc.Method) (rpc.Interceptor, error) {
		if failed != nil {
			return nil, failed
		}
		return intercept(m, store, &c)
	})
}

// intercept returns the interceptor of a method, or nil if the method takes no keys.
func intercept(m *rpc.Method, store Store, c *config) (rpc.Interceptor, error) {
	required := slices.Contains(c.required, m.FullName())
	named := required || slices.Contains(c.accepted, m.FullName())
	switch {
	case !named && len(c.required)+len(c.accepted) > 0:
		return nil, nil
	case m.Kind() > rpc.KindOneWay || m.NewResponse() == nil:
		if named {
			return nil, errors.New("rpcdedup: only unary and one-way methods whose types are known can run once")
		}
		return nil, nil
	}
	d := &deduplicator{method: m, store: timed{store, c.lease / tries}, config: c, required: required}
	return d.intercept, nil
}

// deduplicator runs the calls of a method.
type deduplicator struct {
	method   *rpc.Method
	store    timed
	config   *config
	required bool
	warned   loglimit.Limit
	seen     observations
}

func (d *deduplicator) intercept(ctx context.Context, call *rpc.Call, next rpc.Next) error {
	given := call.Header().Get(rpc.IdempotencyKeyHeader)
	switch {
	case given == "" && d.required:
		return rpc.Errorf(rpc.CodeInvalidArgument, "%s needs an idempotency key (rpc.WithIdempotencyKey)", call.Method())
	case given == "":
		return next(ctx, call)
	case len(given) > maxKey:
		return rpc.Errorf(rpc.CodeInvalidArgument, "the idempotency key has %d bytes, the limit is %d", len(given), maxKey)
	}
	e, err := d.execution(ctx, call, given)
	if err != nil {
		return err
	}
	return e.run(ctx, next)
}

func (d *deduplicator) execution(ctx context.Context, call *rpc.Call, given string) (*execution, error) {
	scope, err := d.config.scope(ctx, call)
	if err != nil {
		return nil, err
	}
	req, err := call.Request()
	if err != nil {
		return nil, err
	}
	// Deterministic: a map is encoded in another order each time the client sends the request.
	data, err := proto.MarshalOptions{Deterministic: true}.Marshal(req)
	if err != nil {
		return nil, rpc.Errorf(rpc.CodeInvalidArgument, "the request does not encode: %w", err)
	}
	received, err := call.RequestData()
	if err != nil {
		return nil, err
	}
	own := &natscallv1.Execution{Owner: rand.Text(), Fingerprint: sum(data), Received: sum(received), State: running}
	return &execution{deduplicator: d, call: call, key: storeKey(call.Method(), scope, given), own: own, claimed: encode(own)}, nil
}

func sum(data []byte) []byte {
	sum := sha256.Sum256(data)
	return sum[:]
}

// storeKey returns the key of a store for that of a caller, which may have any bytes.
func storeKey(method, scope, given string) string {
	h := sha256.New()
	for _, part := range []string{method, scope, given} {
		fmt.Fprintf(h, "%d:%s", len(part), part)
	}
	return hex.EncodeToString(h.Sum(nil))
}

// mayRunTwice reports whether the method's idempotency_level says so.
func (d *deduplicator) mayRunTwice() bool {
	return d.method.Desc().Idempotency != rpc.IdempotencyUnknown
}

// warn logs what concerns the store.
func (d *deduplicator) warn(what string, err error) {
	if unlogged, ok := d.warned.Next(); ok {
		d.config.log.Warn("natscall: "+what, "method", d.method.FullName(), "error", err, "unlogged", unlogged)
	}
}
