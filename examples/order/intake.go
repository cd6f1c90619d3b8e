package order

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/natscall/natscall/examples/internal/backoff"
	orderv1 "github.com/natscall/natscall/gen/order/v1"
	"github.com/natscall/natscall/gen/order/v1/orderv1nats"
	"github.com/natscall/natscall/rpc"
)

// intakes is how many messages a replica works on at once. More of them would
// get into each other's way, where all want the same product.
const intakes = 4

// opening lasts for the election that follows when a stream was made. JetStream
// answers each try within answerTime, or not at all, as its request was lost.
var opening = backoff.Policy{First: 50 * time.Millisecond, Limit: time.Second, Max: 8}

const answerTime = 2 * time.Second

// maxReason is how many bytes are told of why an order was not placed.
const maxReason = 200

// Intake places the orders that anybody publishes on orders.new, each once.
//
// A JetStream stream keeps what is published there, also while no service
// runs, until one of the replicas, which share a consumer, has acknowledged it.
// That is when the order is decided: confirmed or rejected. Until then the
// message comes again, after a crash as well as while the inventory cannot be
// asked. That does no harm: the id of the order is the key of its entry, so a
// message that comes again, or was published again, finds the order there.
//
// What can never be placed is terminated: it does not come again, and the
// reason is in the log and in an advisory of JetStream. What was sold comes by
// on orders.new too, and is acknowledged.
type Intake struct {
	orders   *Service
	js       jetstream.JetStream
	stream   jetstream.StreamConfig
	consumer jetstream.ConsumerConfig
	free     chan struct{} // has a place for each message that is worked on
	running  sync.WaitGroup
}

// NewIntake makes a stream that captures orders.new, if there is none. One
// that exists is used as it is.
func NewIntake(ctx context.Context, nc *nats.Conn, orders *Service, c Config) (*Intake, error) {
	js, err := jetstream.New(nc)
	if err != nil {
		return nil, err
	}
	subjects, err := orderv1nats.OrderFeedServiceMethods.OrderPlaced.Subjects(c.Prefix)
	if err != nil {
		return nil, err
	}
	i := &Intake{
		orders: orders,
		js:     js,
		stream: jetstream.StreamConfig{
			Name:        strings.ReplaceAll(subjects.Request, ".", "-"),
			Description: "Orders that are to be placed",
			Subjects:    []string{subjects.Request},
			Retention:   jetstream.WorkQueuePolicy,
			Replicas:    max(c.Replicas, 1),
		},
		consumer: jetstream.ConsumerConfig{
			Durable:       "order-service",
			FilterSubject: subjects.Request,
			AckPolicy:     jetstream.AckExplicitPolicy,
			AckWait:       3 * orders.lease, // one for each state
			MaxDeliver:    -1,               // for as long as the inventory is away
		},
		free: make(chan struct{}, intakes),
	}
	for range opening.Attempts(ctx) {
		if _, err = i.open(ctx); err == nil {
			return i, nil
		}
	}
	return nil, fmt.Errorf("cannot open a stream of %s: %w", subjects.Request, errors.Join(err, ctx.Err()))
}

// open makes what does not exist yet.
func (i *Intake) open(ctx context.Context) (jetstream.Consumer, error) {
	ctx, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	name, err := i.js.StreamNameBySubject(ctx, i.consumer.FilterSubject)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		name = i.stream.Name
		_, err = i.js.CreateStream(ctx, i.stream)
	}
	if err != nil {
		return nil, err
	}
	return i.js.CreateOrUpdateConsumer(ctx, name, i.consumer)
}

// Run places orders until ctx ends, and finishes those that it has begun.
func (i *Intake) Run(ctx context.Context) {
	defer i.running.Wait()
	for range persistence.Attempts(ctx) {
		if err := i.takeAll(ctx); ctx.Err() == nil {
			i.orders.log.Warn("cannot take the orders that are published", "err", err)
		}
	}
}

func (i *Intake) takeAll(ctx context.Context) error {
	consumer, err := i.open(ctx)
	if err != nil {
		return err
	}
	for {
		i.free <- struct{}{}
		m, err := consumer.Next(jetstream.FetchContext(ctx))
		if err == nil {
			i.running.Go(func() {
				defer func() { <-i.free }()
				i.orders.take(ctx, m)
			})
			continue
		}
		<-i.free
		if !errors.Is(err, nats.ErrTimeout) { // that is, none was published
			return err
		}
	}
}

// take places the order of a message, and tells JetStream what has become of it.
func (s *Service) take(ctx context.Context, m jetstream.Msg) {
	ctx, cancel := context.WithTimeout(ctx, s.lease)
	defer cancel()
	log := s.log.With("message", fmt.Sprintf("%.200s", m.Data()))
	err := s.placePublished(ctx, m.Data())
	switch rpc.CodeOf(err) {
	case rpc.CodeOK:
		err = m.Ack()
	case rpc.CodeInvalidArgument, rpc.CodeAlreadyExists:
		reason := brief(err.Error())
		log.Warn("a published order is refused", "err", reason)
		err = m.TermWithReason(reason)
	default:
		log.Warn("a published order is not decided yet, and is tried again", "err", brief(err.Error()))
		err = m.NakWithDelay(s.lease)
	}
	if err != nil {
		log.Warn("JetStream was not told, so the message comes again", "err", err)
	}
}

// brief cuts a reason, which may quote the message. One that NATS does not take
// because it is too long would make the message come again for ever.
func brief(reason string) string {
	return strings.ToValidUTF8(reason[:min(len(reason), maxReason)], "")
}

// placePublished returns nil where nothing is left to do for the message.
func (s *Service) placePublished(ctx context.Context, message []byte) error {
	event, err := parseEvent(message)
	if err != nil || event.GetSold() {
		return err
	}
	order, err := newPublished(event)
	if err != nil {
		return err
	}
	end, err := s.place(ctx, order)
	if err != nil {
		return err
	}
	s.log.Info("a published order is decided", "order", order.Key, "now", end.state(), "because", end.Order.Msg.GetRejection().GetMessage())
	return nil
}

// parseEvent reads JSON, or Protobuf from typed clients. A field that it does
// not know might have mattered.
func parseEvent(data []byte) (*orderv1.OrderPlacedRequest, error) {
	event := new(orderv1.OrderPlacedRequest)
	unmarshal := proto.Unmarshal
	if bytes.HasPrefix(bytes.TrimSpace(data), []byte("{")) {
		unmarshal = protojson.Unmarshal
	}
	if err := unmarshal(data, event); err != nil {
		return nil, rpc.Errorf(rpc.CodeInvalidArgument, "%w", err)
	}
	if unknown := event.ProtoReflect().GetUnknown(); len(unknown) > 0 {
		return nil, rpc.Errorf(rpc.CodeInvalidArgument, "has unknown fields: %.80q", unknown)
	}
	return event, nil
}
