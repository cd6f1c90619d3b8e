//go:build unix

package rpcotel_test

import (
	"context"
	"sync"
	"syscall"
	"testing"
	"time"

	metricnoop "go.opentelemetry.io/otel/metric/noop"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/natscall/natscall/rpc"
	"github.com/natscall/natscall/rpc/rpcotel"
	"github.com/natscall/natscall/rpc/rpctest"
)

// BenchmarkUnary measures what telemetry costs a call of 60 bytes, on both sides together: bare,
// with one header as a trace context needs, with metrics and traces that are not sampled, with
// traces that are sampled and dropped by their exporter, and with these but no metrics. Client,
// service and NATS server are one process; cpu-ns/op is the CPU time of all of it.
func BenchmarkUnary(b *testing.B) {
	metrics := func() rpcotel.Option {
		return rpcotel.WithMeterProvider(sdkmetric.NewMeterProvider(sdkmetric.WithReader(sdkmetric.NewManualReader())))
	}
	traces := func(b *testing.B, sampler sdktrace.Sampler) rpcotel.Option {
		tracers := sdktrace.NewTracerProvider(sdktrace.WithSampler(sampler), sdktrace.WithBatcher(tracetest.NewNoopExporter()))
		b.Cleanup(func() { must(b, tracers.Shutdown(context.Background())) })
		return rpcotel.WithTracerProvider(tracers)
	}
	telemetry := func(b *testing.B, opts ...rpcotel.Option) rpc.AnyOption {
		i, err := rpcotel.NewInterceptor(append(opts, rpcotel.WithPropagator(w3c))...)
		must(b, err)
		return rpc.WithInterceptors(i)
	}
	for _, callers := range []struct {
		name string
		n    int
	}{{"1caller", 1}, {"64callers", 64}} {
		for _, with := range []struct {
			name string
			opts func(b *testing.B) (rpc.ClientOption, rpc.ServerOption)
		}{
			{"bare", func(b *testing.B) (rpc.ClientOption, rpc.ServerOption) {
				return rpc.WithInterceptors(), rpc.WithInterceptors()
			}},
			{"header", func(b *testing.B) (rpc.ClientOption, rpc.ServerOption) {
				return rpc.WithHeader("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"), rpc.WithInterceptors()
			}},
			{"unsampled", func(b *testing.B) (rpc.ClientOption, rpc.ServerOption) {
				o := telemetry(b, metrics(), traces(b, sdktrace.NeverSample()))
				return o, o
			}},
			{"sampled", func(b *testing.B) (rpc.ClientOption, rpc.ServerOption) {
				o := telemetry(b, metrics(), traces(b, sdktrace.AlwaysSample()))
				return o, o
			}},
			{"traces", func(b *testing.B) (rpc.ClientOption, rpc.ServerOption) {
				o := telemetry(b, rpcotel.WithMeterProvider(metricnoop.NewMeterProvider()), traces(b, sdktrace.AlwaysSample()))
				return o, o
			}},
		} {
			b.Run(callers.name+"/"+with.name, func(b *testing.B) {
				srv := rpctest.NewServer(b)
				client, server := with.opts(b)
				serve(b, srv.Connect(), &handlers{}, server)
				benchCall(b, callers.n, dial(b, srv.Connect(), client))
			})
		}
	}
}

func benchCall(b *testing.B, callers int, c *rpc.Client) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	defer cancel()
	req := wrapperspb.String(string(make([]byte, 60)))
	call := func() error {
		_, err := testDo.Call(ctx, c, req)
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
