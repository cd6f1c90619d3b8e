//go:build unix

package rpcotel_test

import (
	"context"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.opentelemetry.io/otel/metric"
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
// with metrics and traces that are not sampled, and with traces that are sampled and dropped by
// their exporter. Client, service and NATS server are one process; cpu-ns/op is the CPU time of all
// of it.
func BenchmarkUnary(b *testing.B) {
	metrics := func() metric.MeterProvider {
		return sdkmetric.NewMeterProvider(sdkmetric.WithReader(sdkmetric.NewManualReader()))
	}
	nowhere := sdktrace.WithBatcher(tracetest.NewNoopExporter())
	for _, callers := range []struct {
		name string
		n    int
	}{{"1caller", 1}, {"64callers", 64}} {
		for _, with := range []struct {
			name string
			opts func() []rpcotel.Option
		}{
			{"bare", nil},
			{"header", nil},
			{"unsampled", func() []rpcotel.Option {
				return []rpcotel.Option{rpcotel.WithMeterProvider(metrics()), rpcotel.WithTracerProvider(sdktrace.NewTracerProvider(sdktrace.WithSampler(sdktrace.NeverSample())))}
			}},
			{"sampled", func() []rpcotel.Option {
				return []rpcotel.Option{rpcotel.WithMeterProvider(metrics()), rpcotel.WithTracerProvider(sdktrace.NewTracerProvider(nowhere))}
			}},
			{"traces", func() []rpcotel.Option {
				return []rpcotel.Option{rpcotel.WithMeterProvider(metricnoop.NewMeterProvider()), rpcotel.WithTracerProvider(sdktrace.NewTracerProvider(nowhere))}
			}},
		} {
			b.Run(callers.name+"/"+with.name, func(b *testing.B) {
				srv := rpctest.NewServer(b)
				var client []rpc.ClientOption
				var server []rpc.ServerOption
				if with.opts != nil {
					i, err := rpcotel.NewInterceptor(append(with.opts(), rpcotel.WithPropagator(w3c))...)
					must(b, err)
					client, server = append(client, rpc.WithInterceptors(i)), append(server, rpc.WithInterceptors(i))
				}
				if with.name == "header" {
					client = append(client, rpc.WithHeader("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"))
				}
				serve(b, srv.Connect(), &handlers{}, server...)
				benchCall(b, callers.n, dial(b, srv.Connect(), client...))
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
