package natslog

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
)

// sender is what the handlers of one New share.
type sender struct {
	nc      *nats.Conn
	subject string
	queue   chan item
	stop    chan struct{} // closed by Close
	stopped chan struct{} // closed when send has returned
	own     *encoders     // for the record that says how many were dropped

	mu      sync.Mutex
	closing bool
	dropped int64
	said    int64 // how many of them a record has told of
}

// item is a record, or the wish to know when those before it have been sent.
type item struct {
	line []byte
	sent chan<- error
}

// put queues a record, or drops it.
func (s *sender) put(line []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closing || len(line) > maxRecord {
		s.dropped++
		return
	}
	select {
	case s.queue <- item{line: line}:
	default:
		s.dropped++
	}
}

// send publishes what is queued until Close.
func (s *sender) send() {
	defer close(s.stopped)
	for {
		select {
		case next := <-s.queue:
			s.handle(next)
			if len(s.queue) == 0 {
				s.sayDropped()
			}
		case <-s.stop:
			return
		}
	}
}

func (s *sender) handle(next item) {
	if next.sent != nil {
		s.sayDropped()
		next.sent <- s.nc.FlushTimeout(flushTimeout)
		return
	}
	if err := s.nc.Publish(s.subject, next.line); err != nil {
		s.mu.Lock()
		s.dropped++
		s.mu.Unlock()
	}
}

// sayDropped sends a record about those that were dropped, if it has not told of them.
func (s *sender) sayDropped() {
	s.mu.Lock()
	dropped, said := s.dropped, s.said
	s.mu.Unlock()
	if dropped == said {
		return
	}
	r := slog.NewRecord(time.Now(), slog.LevelWarn, "log records were dropped", 0)
	r.AddAttrs(slog.Int64("dropped", dropped-said), slog.Int64("dropped_in_all", dropped))
	line, err := s.own.encode(context.Background(), r)
	if err == nil && s.nc.Publish(s.subject, line) == nil {
		s.mu.Lock()
		s.said = dropped
		s.mu.Unlock()
	}
}

// Dropped returns how many records were lost: those that found no place in the queue, that were
// longer than 64 KiB, came after Close, or that NATS did not take.
func (s *sender) Dropped() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.dropped
}

// Flush returns when the records of before are with NATS.
func (s *sender) Flush(ctx context.Context) error {
	sent := make(chan error, 1)
	select {
	case s.queue <- item{sent: sent}:
	case <-s.stopped:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case err := <-sent:
		return err
	case <-s.stopped:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Close flushes, and ends what New has begun. Records that come later are dropped. The connection
// stays open.
func (s *sender) Close(ctx context.Context) error {
	s.mu.Lock()
	again := s.closing
	s.closing = true
	s.mu.Unlock()
	if again {
		return nil
	}
	err := s.Flush(ctx)
	close(s.stop)
	select {
	case <-s.stopped:
	case <-ctx.Done(): // it waits for NATS, and ends with the connection
	}
	return err
}
