package natslog

import (
	"context"
	"encoding/json"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/slogtest"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"go.opentelemetry.io/otel/trace"

	"github.com/natscall/natscall/rpc/rpctest"
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// spanContext is a context with a span.
func spanContext(t *testing.T) (context.Context, trace.SpanContext) {
	span := trace.NewSpanContext(trace.SpanContextConfig{TraceID: trace.TraceID{1, 2}, SpanID: trace.SpanID{3}})
	return trace.ContextWithSpanContext(t.Context(), span), span
}

// TestHandler checks what package slog asks of a handler.
func TestHandler(t *testing.T) {
	nc := rpctest.Connect(t)
	sub, err := nc.SubscribeSync("logs.>")
	must(t, err)
	h := New(nc, "logs.test.1", slog.LevelInfo)
	defer func() { must(t, h.Close(t.Context())) }()
	must(t, slogtest.TestHandler(h, func() (results []map[string]any) {
		must(t, h.Flush(t.Context())) // and what this connection has sent, it has received
		for {
			if n, _, err := sub.Pending(); err != nil || n == 0 {
				return results
			}
			results = append(results, next(t, sub))
		}
	}))
}

func next(t *testing.T, sub *nats.Subscription) (record map[string]any) {
	t.Helper()
	m, err := sub.NextMsg(10 * time.Second)
	must(t, err)
	must(t, json.Unmarshal(m.Data, &record))
	return record
}

// TestStream writes with several handlers, and reads the stream that keeps what they send.
func TestStream(t *testing.T) {
	srv := rpctest.NewServer(t, rpctest.WithJetStream())
	js, err := jetstream.New(srv.Connect())
	must(t, err)
	stream, err := Ensure(t.Context(), js, "", 1)
	must(t, err)
	_, err = Ensure(t.Context(), js, "", 1) // as another process does
	must(t, err)
	ctx, span := spanContext(t)
	for _, instance := range []string{"1", "2"} {
		h := New(srv.Connect(), Subject("", "order", instance), slog.LevelInfo,
			slog.String("service.name", "order"), slog.String("service.instance.id", instance))
		log := slog.New(h)
		log.Debug("is not sent")
		log.Info("starts")
		log.WithGroup("request").With("size", 3).WarnContext(ctx, "was slow", "path", `a"b`)
		must(t, h.Close(t.Context()))
		log.Info("comes too late")
		if h.Dropped() != 1 {
			t.Errorf("%d were dropped", h.Dropped())
		}
		must(t, h.Close(t.Context()))
		must(t, h.Flush(t.Context()))
	}
	records, err := Read(t.Context(), stream, time.Time{})
	must(t, err)
	var got []string
	for _, r := range records {
		got = append(got, r.Subject+" "+r.Level+" "+r.Message+" "+r.Service+"/"+r.Instance)
		if r.Message == "starts" {
			continue
		}
		if r.TraceID != span.TraceID().String() || r.SpanID != span.SpanID().String() {
			t.Errorf("the ids of the span are not at the top level: %v", r.Attributes)
		}
		if group, _ := r.Attributes["request"].(map[string]any); group["path"] != `a"b` || group["size"] != 3.0 {
			t.Errorf("the group is %v", group)
		}
	}
	want := []string{
		"logs.order.1 INFO starts order/1", "logs.order.1 WARN was slow order/1",
		"logs.order.2 INFO starts order/2", "logs.order.2 WARN was slow order/2",
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("records %q", got)
	}
	if none, err := Read(t.Context(), stream, time.Now().Add(time.Minute)); err != nil || len(none) > 0 {
		t.Errorf("records of the future: %v, error %v", none, err)
	}
}

// valuer is a value that logs, as one that has to look something up may do.
type valuer struct{ log *slog.Logger }

// LogValue implements [slog.LogValuer].
func (v valuer) LogValue() slog.Value {
	v.log.Info("inner")
	return slog.StringValue("x")
}

// TestValueThatLogs: the value of an attribute may log by the same handler.
func TestValueThatLogs(t *testing.T) {
	nc := rpctest.Connect(t)
	sub, err := nc.SubscribeSync("logs.>")
	must(t, err)
	h := New(nc, "logs.test.1", slog.LevelInfo)
	log, done := slog.New(h), make(chan struct{})
	go func() {
		defer close(done)
		log.Info("outer", "value", valuer{log})
	}()
	select {
	case <-done:
	case <-time.After(30 * time.Second):
		t.Fatal("the record waits for the one within")
	}
	must(t, h.Close(t.Context()))
	if inner, outer := next(t, sub), next(t, sub); inner["msg"] != "inner" || outer["msg"] != "outer" || outer["value"] != "x" {
		t.Errorf("records %v and %v", inner, outer)
	}
}

// TestNoRecord: what is no record, and published below logs all the same, hides none of the others.
func TestNoRecord(t *testing.T) {
	srv := rpctest.NewServer(t, rpctest.WithJetStream())
	js, err := jetstream.New(srv.Connect())
	must(t, err)
	stream, err := Ensure(t.Context(), js, "", 1)
	must(t, err)
	for _, data := range []string{"hello", `{"msg":1}`, `{"msg":"a record"}`} {
		_, err := js.Publish(t.Context(), "logs.by.hand", []byte(data))
		must(t, err)
	}
	records, err := Read(t.Context(), stream, time.Time{})
	must(t, err)
	var got []string
	for _, r := range records {
		if got = append(got, r.Message); r.Subject != "logs.by.hand" || (r.Attributes["err"] != nil && r.Time.IsZero()) {
			t.Errorf("record %+v", r)
		}
	}
	if want := []string{`no record: "hello"`, `no record: "{\"msg\":1}"`, "a record"}; !slices.Equal(got, want) {
		t.Errorf("records %q", got)
	}
}

// TestTooLong: what is lost is told of, by a record that has the attributes of all.
func TestTooLong(t *testing.T) {
	nc := rpctest.Connect(t)
	sub, err := nc.SubscribeSync("logs.>")
	must(t, err)
	h := New(nc, "logs.test.1", slog.LevelInfo, slog.String("service.name", "test"))
	slog.New(h).Info(strings.Repeat("x", maxRecord))
	must(t, h.Close(t.Context()))
	if r := next(t, sub); r["dropped"] != 1.0 || r["dropped_in_all"] != 1.0 || r["service.name"] != "test" || r["level"] != "WARN" {
		t.Errorf("record %v", r)
	}
}

// TestFull stops the sender, as a connection that takes nothing does.
func TestFull(t *testing.T) {
	nc := rpctest.Connect(t)
	sub, err := nc.SubscribeSync("logs.>")
	must(t, err)
	h := New(nc, "logs.test.1", slog.LevelInfo)
	stuck, freed := make(chan error), make(chan struct{})
	go func() { <-freed; <-stuck }()
	h.queue <- item{sent: stuck} // the sender waits for its reader
	log := slog.New(h)
	var writers sync.WaitGroup
	for range 4 {
		writers.Go(func() {
			for range queueLength {
				log.Info("much to say")
			}
		})
	}
	writers.Wait()
	lost := h.Dropped()
	if lost < 3*queueLength {
		t.Errorf("%d of %d records were dropped", lost, 4*queueLength)
	}
	close(freed)
	must(t, h.Close(t.Context()))
	sent, told := int64(0), 0.0
	for sent+int64(told) < 4*queueLength {
		if r := next(t, sub); r["dropped"] != nil {
			told += r["dropped"].(float64)
		} else {
			sent++
		}
	}
	if int64(told) != lost {
		t.Errorf("%d were lost, and %v told of", lost, told)
	}
}

// TestGone: where NATS is gone for good, all is dropped, and nothing waits.
func TestGone(t *testing.T) {
	nc := rpctest.Connect(t)
	h := New(nc, "logs.test.1", slog.LevelInfo)
	nc.Close()
	log := slog.New(h)
	for range 10 {
		log.Info("nobody hears")
	}
	if err := h.Close(t.Context()); err == nil || h.Dropped() != 10 {
		t.Errorf("error %v, %d dropped", err, h.Dropped())
	}
}
