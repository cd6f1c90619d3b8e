package natslog

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// Record is a record as the stream has it.
type Record struct {
	Time     time.Time `json:"time"`
	Level    string    `json:"level"`
	Message  string    `json:"msg"`
	Service  string    `json:"service.name"`
	Instance string    `json:"service.instance.id"`
	TraceID  string    `json:"trace_id"`
	SpanID   string    `json:"span_id"`

	Subject    string         `json:"-"`
	Attributes map[string]any `json:"-"` // all of it
}

// Read returns the records that the stream has got since a time, or that it has at all, up to now.
// A message that is none becomes a warning that quotes it.
func Read(ctx context.Context, stream jetstream.Stream, since time.Time) (records []Record, err error) {
	var from jetstream.OrderedConsumerConfig // the zero value begins with the first
	if !since.IsZero() {
		from.DeliverPolicy, from.OptStartTime = jetstream.DeliverByStartTimePolicy, &since
	}
	consumer, err := stream.OrderedConsumer(ctx, from)
	if err != nil {
		return nil, err
	}
	messages, err := consumer.Messages()
	if err != nil {
		return nil, err
	}
	defer messages.Stop()
	info, err := consumer.Info(ctx)
	if err != nil {
		return nil, err
	}
	last := info.Delivered.Consumer + info.NumPending // or fewer, where the stream has dropped some
	for i := uint64(0); i < last; {
		message, err := messages.Next(jetstream.NextContext(ctx))
		if err != nil {
			return nil, err
		}
		about, err := message.Metadata()
		if err != nil {
			return nil, err
		}
		records = append(records, decode(message, about.Timestamp))
		if i = about.Sequence.Consumer; about.NumPending == 0 {
			break
		}
	}
	return records, nil
}

// decode returns the record of a message that came at a time. Anybody may publish there.
func decode(message jetstream.Msg, came time.Time) (r Record) {
	r.Subject = message.Subject()
	if err := errors.Join(json.Unmarshal(message.Data(), &r), json.Unmarshal(message.Data(), &r.Attributes)); err != nil {
		return Record{
			Time: came, Level: slog.LevelWarn.String(), Message: fmt.Sprintf("no record: %.200q", message.Data()),
			Subject: message.Subject(), Attributes: map[string]any{"err": err.Error()},
		}
	}
	return r
}
