package natslog

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"sync"

	"go.opentelemetry.io/otel/trace"
)

// encoders make JSON of records. Each encoder has one record at a time, and no lock is held
// meanwhile: values such as a [slog.LogValuer] run code of others, which may log here too.
type encoders struct {
	level slog.Leveler
	open  func(io.Writer) slog.Handler // with its attributes and groups
	free  sync.Pool
}

type encoder struct {
	buffer bytes.Buffer
	line   slog.Handler // writes JSON into buffer
}

func newEncoders(level slog.Leveler, open func(io.Writer) slog.Handler) *encoders {
	return &encoders{level: level, open: open, free: sync.Pool{New: func() any {
		e := new(encoder)
		e.line = open(&e.buffer)
		return e
	}}}
}

// encode returns the record as JSON, with the ids of the span at its top level, whatever groups are
// open.
func (s *encoders) encode(ctx context.Context, r slog.Record) ([]byte, error) {
	e := s.free.Get().(*encoder)
	e.buffer.Reset()
	if err := e.line.Handle(ctx, r); err != nil {
		return nil, err
	}
	line := bytes.TrimSuffix(e.buffer.Bytes(), []byte("\n"))
	if len(line) > maxRecord {
		return line, nil // and the encoder goes, with its buffer
	}
	defer s.free.Put(e)
	span := trace.SpanContextFromContext(ctx)
	if !span.IsValid() {
		return bytes.Clone(line), nil
	}
	const ids = `,"trace_id":"%s","span_id":"%s"}`
	out := append(make([]byte, 0, len(line)+len(ids)+48), bytes.TrimSuffix(line, []byte("}"))...)
	return fmt.Appendf(out, ids, span.TraceID(), span.SpanID()), nil
}
