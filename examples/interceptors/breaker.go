package interceptors

import (
	"context"
	"sync"

	"github.com/sony/gobreaker/v2"

	"github.com/natscall/natscall/rpc"
)

// Break returns an interceptor for clients with a circuit breaker for each method. While it is
// open, calls fail at once with UNAVAILABLE and have not run: a service that is in trouble gets a
// pause, and its callers do not wait. settings may leave out Name, which becomes that of the
// method, and IsExcluded: then only what says that the service is in trouble counts.
func Break(settings gobreaker.Settings) rpc.Interceptor {
	if settings.IsExcluded == nil {
		settings.IsExcluded = isAnswer
	}
	var breakers sync.Map // by method
	breaker := func(method string) *gobreaker.TwoStepCircuitBreaker[any] {
		if b, ok := breakers.Load(method); ok {
			return b.(*gobreaker.TwoStepCircuitBreaker[any])
		}
		own := settings
		own.Name = method
		b, _ := breakers.LoadOrStore(method, gobreaker.NewTwoStepCircuitBreaker[any](own))
		return b.(*gobreaker.TwoStepCircuitBreaker[any])
	}
	return func(ctx context.Context, call *rpc.Call, next rpc.Next) error {
		done, err := breaker(call.Method()).Allow()
		if err != nil {
			return rpc.Errorf(rpc.CodeUnavailable, "%s: %w", call.Method(), err)
		}
		call.OnEnd(done) // of a stream when it is over
		return next(ctx, call)
	}
}

// isAnswer reports whether an error says nothing about the health of a service: a handler has
// answered with it, or the caller has gone.
func isAnswer(err error) bool {
	switch rpc.CodeOf(err) {
	case rpc.CodeUnavailable, rpc.CodeDeadlineExceeded, rpc.CodeResourceExhausted, rpc.CodeInternal, rpc.CodeUnknown, rpc.CodeDataLoss:
		return false
	}
	return err != nil
}
