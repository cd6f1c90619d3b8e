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

// BenchmarkUnary measures what validation costs a call: bare, with the rules of its request checked
// by the server, by both sides, with the response too, and by CEL, as a program's own rules are.
// Cancel has five bounds of three fields; Book has a regular expression, an address and four
// bounds. Client, service and NATS server are one process; cpu-ns/op is the CPU time of all of it.
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
		for method, call := range benchCalls {
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
				b.Run(callers.name+"/"+method+"/"+with.name, func(b *testing.B) {
					srv := rpctest.NewServer(b)
					serve(b, srv.Connect(), &silentDesk{}, with.server)
					c := bookingv1nats.NewBookingServiceClient(dial(b, srv.Connect(), with.client))
					bench(b, callers.n, func(ctx context.Context) error { return call(ctx, c) })
				})
			}
		}
	}
}

// benchCalls are the calls that are measured, with requests of about 60 bytes.
var benchCalls = map[string]func(context.Context, bookingv1nats.BookingServiceClient) error{
	"Cancel": func(ctx context.Context, c bookingv1nats.BookingServiceClient) error {
		_, err := c.Cancel(ctx, &bookingv1.CancelRequest{Number: "2026-11-28-000042", Reason: "the weather is not what it was said to be", Nights: 2})
		return err
	},
	"Book": func(ctx context.Context, c bookingv1nats.BookingServiceClient) error {
		_, err := c.Book(ctx, &bookingv1.BookRequest{Room: "sea-7", Nights: 2, Guests: []*bookingv1.Guest{{Name: "Ann Other from Overthere", Mail: "ann.other@example.com"}}})
		return err
	},
}

// silentDesk answers at once.
type silentDesk struct {
	bookingv1nats.UnimplementedBookingServiceServer
}

func (silentDesk) Book(context.Context, *bookingv1.BookRequest) (*bookingv1.BookResponse, error) {
	return &bookingv1.BookResponse{Number: "1"}, nil
}

func (silentDesk) Cancel(context.Context, *bookingv1.CancelRequest) (*bookingv1.CancelResponse, error) {
	return &bookingv1.CancelResponse{Number: "1"}, nil
}

func bench(b *testing.B, callers int, call func(context.Context) error) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	defer cancel()
	must(b, call(ctx))
	b.ReportAllocs()
	before := cpuTime()
	b.ResetTimer()
	var wg sync.WaitGroup
	for i := range callers {
		wg.Go(func() {
			for range (b.N + callers - 1 - i) / callers {
				if err := call(ctx); err != nil {
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
