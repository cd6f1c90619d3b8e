package interceptors

import (
	"context"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/natscall/natscall/rpc"
)

// Cache returns an interceptor for clients that answers calls of unary methods without side
// effects with a response of before, if that is no older than age. It keeps at most size
// responses. Calls with headers are made: a header may decide about the response.
func Cache(age time.Duration, size int) rpc.Interceptor {
	c := cache{age: age, size: size, kept: map[string]kept{}}
	return c.intercept
}

type cache struct {
	age  time.Duration
	size int

	mu   sync.Mutex
	kept map[string]kept // by method and request
}

// kept is a response; nobody changes it.
type kept struct {
	response proto.Message
	until    time.Time
}

func (c *cache) intercept(ctx context.Context, call *rpc.Call, next rpc.Next) error {
	if call.Idempotency() != rpc.IdempotencyNoSideEffects || call.Kind() != rpc.KindUnary || len(call.Header()) > 0 {
		return next(ctx, call)
	}
	req, err := call.Request()
	if err != nil {
		return next(ctx, call) // of a type that is not known here
	}
	data, err := proto.MarshalOptions{Deterministic: true}.Marshal(req)
	if err != nil {
		return next(ctx, call)
	}
	key := call.Method() + "\x00" + string(data)
	if response := c.find(key); response != nil {
		call.SetResponse(proto.Clone(response)) // which is the caller's
		return nil
	}
	if err := next(ctx, call); err != nil {
		return err
	}
	if response := call.Response(); response != nil {
		c.keep(key, proto.Clone(response))
	}
	return nil
}

func (c *cache) find(key string) proto.Message {
	c.mu.Lock()
	defer c.mu.Unlock()
	if k, ok := c.kept[key]; ok && time.Now().Before(k.until) {
		return k.response
	}
	return nil
}

func (c *cache) keep(key string, response proto.Message) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for other, k := range c.kept { // in any order: first what is too old, then anything
		if len(c.kept) < c.size {
			break
		}
		if time.Now().After(k.until) {
			delete(c.kept, other)
		}
	}
	for other := range c.kept {
		if len(c.kept) < c.size {
			break
		}
		delete(c.kept, other)
	}
	c.kept[key] = kept{response, time.Now().Add(c.age)}
}
