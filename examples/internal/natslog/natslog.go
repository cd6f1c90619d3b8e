// Package natslog is a handler of log/slog that sends records to NATS, so that the logs of all
// processes can be read in one place: with `nats sub 'logs.>'` as they come, and from the JetStream
// stream that [Ensure] makes.
//
//	h := natslog.New(nc, natslog.Subject("", "order", "1"), slog.LevelInfo)
//	defer h.Close(ctx)
//	log := slog.New(slog.NewMultiHandler(h, slog.NewTextHandler(os.Stderr, nil)))
//
// A record is the JSON that [slog.JSONHandler] writes, with the trace_id and span_id of the span in
// its context. Logging never waits for NATS: records that find no place in the queue are dropped,
// and a record says how many. Nor does the handler log anything about itself: give it a connection
// of its own, whose handlers do not log here.
package natslog

import (
	"context"
	"io"
	"log/slog"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// queueLength is how many records may wait: those of a second in which there is much to do.
const queueLength = 8192

// maxRecord is the longest record that is sent, well below the max_payload of any NATS server.
const maxRecord = 64 << 10

// flushTimeout is how long Flush waits for NATS.
const flushTimeout = 5 * time.Second

// What the stream keeps: enough to look into what has just happened. A collector that forwards the
// records elsewhere needs no more either.
const (
	keepFor   = 24 * time.Hour
	keepBytes = 256 << 20
)

// Handler is a [slog.Handler]. Those that its WithAttrs and WithGroup return share its queue.
type Handler struct {
	*sender
	encoders *encoders
}

// New returns a handler that sends the records of a level, and of those above, to subject. They all
// have the attributes. nc should be used for nothing else.
func New(nc *nats.Conn, subject string, level slog.Leveler, attrs ...slog.Attr) *Handler {
	s := &sender{
		nc: nc, subject: subject,
		queue: make(chan item, queueLength), stop: make(chan struct{}), stopped: make(chan struct{}),
	}
	s.own = newEncoders(level, func(w io.Writer) slog.Handler {
		return slog.NewJSONHandler(w, &slog.HandlerOptions{Level: level}).WithAttrs(attrs)
	})
	go s.send() // ended by Close
	return &Handler{sender: s, encoders: s.own}
}

// Enabled implements [slog.Handler].
func (h *Handler) Enabled(_ context.Context, level slog.Level) bool {
	return level >= h.encoders.level.Level()
}

// WithAttrs implements [slog.Handler].
func (h *Handler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return h.with(func(line slog.Handler) slog.Handler { return line.WithAttrs(attrs) })
}

// WithGroup implements [slog.Handler].
func (h *Handler) WithGroup(name string) slog.Handler {
	return h.with(func(line slog.Handler) slog.Handler { return line.WithGroup(name) })
}

func (h *Handler) with(more func(slog.Handler) slog.Handler) *Handler {
	open := h.encoders.open
	return &Handler{sender: h.sender, encoders: newEncoders(h.encoders.level, func(w io.Writer) slog.Handler { return more(open(w)) })}
}

// Handle implements [slog.Handler]. It does not wait, and returns no error for what is dropped.
func (h *Handler) Handle(ctx context.Context, r slog.Record) error {
	line, err := h.encoders.encode(ctx, r)
	if err != nil {
		return err
	}
	h.put(line)
	return nil
}

// Ensure makes the JetStream stream LOGS, or sets it right: it keeps the records below `logs.`, or
// below `<prefix>.logs.`, of the last day, and at most 256 MiB of them.
func Ensure(ctx context.Context, js jetstream.JetStream, prefix string, replicas int) (jetstream.Stream, error) {
	return js.CreateOrUpdateStream(ctx, jetstream.StreamConfig{
		Name:        Stream(prefix),
		Description: "Logs of all services",
		Subjects:    []string{Subject(prefix, ">")},
		Discard:     jetstream.DiscardOld,
		MaxAge:      keepFor,
		MaxBytes:    keepBytes,
		Replicas:    max(1, replicas),
	})
}

// Stream is the name of the stream.
func Stream(prefix string) string {
	if prefix == "" {
		return "LOGS"
	}
	return strings.ReplaceAll(prefix, ".", "-") + "-LOGS"
}

// Subject joins the prefix, "logs" and the tokens, such as a service and its instance.
func Subject(prefix string, tokens ...string) string {
	all := append([]string{"logs"}, tokens...)
	if prefix != "" {
		all = append([]string{prefix}, all...)
	}
	return strings.Join(all, ".")
}
