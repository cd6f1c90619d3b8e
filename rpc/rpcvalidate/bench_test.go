//go:build unix

package rpcvalidate_test

import (
	"context"
	"sync"
	"syscall"
	"testing"
	"time"

	"buf.build/go/protovalidate"

	"github.com/natscall/natscall/rpc"
	"github.com/natscall/natscall/rpc/rpctest"
	"github.com/natscall/natscall/rpc/rpcvalidate"
	bookingv1 "github.com/natscall/natscall/rpc/rpcvalidate/internal/gen/booking/v1"
	"github.com/natscall/natscall/rpc/rpcvalidate/internal/gen/booking/v1/bookingv1nats"
)

// BenchmarkUnary measures what validation costs a call whose request has six rules: bare, with the
// rules checked by the server, by both sides, with the response too, and all by CEL as rules of
// one's own are. Client, service and NATS server are one process; cpu-ns/op is the CPU time of all
// of it.
func BenchmarkUnary(b *testing.B) {
	slow, err := protovalidate.New(protovalidate.WithDisableNativeRules())
	must(b, err)
	requests, responses := newValidation(b, nil), newValidation(b, nil, rpcvalidate.WithResponses())
	cel := newValidation(b, nil, rpcvalidate.WithValidator(slow))
	none := rpc.WithInterceptors()
	for _, callers := range []struct {
		name string
		n    int
	}{{"1caller", 1}, {"64callers", 64}} {
		for _, with := range []struct {
			name   string
			client rpc.ClientOption
			server rpc.ServerOption
		}{
			{"bare", none, none},
			{"server", none, requests.Server()},
			{"both", requests.Client(), requests.Server()},
			{"responses", responses.Client(), responses.Server()},
			{"cel", none, cel.Server()},
		} {
			b.Run(callers.name+"/"+with.name, func(b *testing.B) {
				srv := rpctest.NewServer(b)
				serve(b, srv.Connect(), &silentDesk{}, with.server)
				benchCall(b, callers.n, bookingv1nats.NewBookingServiceClient(dial(b, srv.Connect(), with.client)))
			})
		}
	}
}

// silentDesk answers Book at once.
type silentDesk struct {
	bookingv1nats.UnimplementedBookingServiceServer
}

func (silentDesk) Book(context.Context, *bookingv1.BookRequest) (*bookingv1.BookResponse, error) {
	return &bookingv1.BookResponse{Number: "1"}, nil
}

func benchCall(b *testing.B, callers int, c bookingv1nats.BookingServiceClient) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	defer cancel()
	req := aBooking()
	call := func() error {
		_, err := c.Book(ctx, req)
		return err
	}
	must(b, call())
	b.ReportAllocs()
	before := cpuTime()
	b.ResetTimer()
	var wg sync.WaitGroup
	for i := range callers {
		wg.Go(func() {
			for range (b.N + callers - 1 - i) / callers {
				if err := call(); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	b.StopTimer()
	b.ReportMetric(float64(cpuTime()-before)/float64(b.N), "cpu-ns/op")
}

// cpuTime returns the CPU time that the process has used.
func cpuTime() time.Duration {
	var r syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &r) // fails for an invalid argument only
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}
