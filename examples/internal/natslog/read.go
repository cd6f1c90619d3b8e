package natslog

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
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
		record, err := decode(message)
		if err != nil {
			return nil, err
		}
		records = append(records, record)
		if i = about.Sequence.Consumer; about.NumPending == 0 {
			break
		}
	}
	return records, nil
}

func decode(message jetstream.Msg) (r Record, err error) {
	r.Subject = message.Subject()
	if err := errors.Join(json.Unmarshal(message.Data(), &r), json.Unmarshal(message.Data(), &r.Attributes)); err != nil {
		return r, fmt.Errorf("%s: %w", r.Subject, err)
	}
	return r, nil
}
