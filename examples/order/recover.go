package order

import (
	"context"
	"sync"
	"time"

	"github.com/natscall/natscall/examples/internal/kvtable"
	orderv1 "github.com/natscall/natscall/gen/order/v1"
)

const (
	// takeOvers is how many orders a replica finishes at once for others: a
	// few, as it has calls of its own to serve.
	takeOvers = 8

	// rescan is after which time the bucket is read again, should a change have
	// escaped the watch.
	rescan = 5 * time.Minute
)

// recovery looks after the orders of all replicas.
type recovery struct {
	*Service
	unfinished map[string]sighting // by order id
	free       chan struct{}       // has a place for each order that is being taken over
	running    sync.WaitGroup
}

// sighting is an order as it was seen last, and since when it has not changed.
type sighting struct {
	row
	since time.Time
}

// Recover takes over the orders whose owners have stopped working on them, and
// finishes them: those that it finds at the start, and those that come to be,
// until ctx ends. All replicas do so, for each other and for those before them.
//
// An owner has the lease for each state. Whoever looks after it measures that
// by its own clock, from when it saw the order change last. So the replicas'
// clocks need not agree.
func (s *Service) Recover(ctx context.Context) {
	r := recovery{Service: s, free: make(chan struct{}, takeOvers)}
	defer r.running.Wait()
	for range persistence.Attempts(ctx) {
		if err := r.watch(ctx); err != nil {
			s.log.Warn("cannot see which orders others have left", "err", err)
		}
	}
}

// watch sees all orders, and then each change, until it is time to start over.
func (r *recovery) watch(ctx context.Context) error {
	watched, cancel := context.WithTimeout(ctx, rescan)
	defer cancel()
	changes, err := r.orders.Watch(watched, kvtable.AllKeys)
	if err != nil {
		return err
	}
	tick := time.NewTicker(r.lease / 8)
	defer tick.Stop()
	r.unfinished = map[string]sighting{}
	for {
		select {
		case seen, ok := <-changes:
			if !ok {
				return nil
			}
			r.see(seen)
		case <-tick.C:
			r.takeOverStalled(ctx)
		}
	}
}

func (r *recovery) see(seen row) {
	if seen.Value.finished() {
		delete(r.unfinished, seen.Key)
		return
	}
	r.unfinished[seen.Key] = sighting{row: seen, since: time.Now()}
}

// takeOverStalled leaves orders some time more than the lease, as an owner
// learns of its write later than those who watch may.
func (r *recovery) takeOverStalled(ctx context.Context) {
	for key, order := range r.unfinished {
		if time.Since(order.since) < r.lease*5/4 {
			continue
		}
		select {
		case r.free <- struct{}{}:
		default:
			return // at the next tick
		}
		// It is tried again, should this come to nothing.
		r.unfinished[key] = sighting{row: order.row, since: time.Now()}
		r.running.Go(func() {
			defer func() { <-r.free }()
			r.takeOver(ctx, order.row)
		})
	}
}

// takeOver makes this replica the order's owner, and finishes it: forward if
// everything was reserved, back if not, as whoever asked for it is told to do so
// again. One that was published always goes forward: nobody would be told.
func (s *Service) takeOver(ctx context.Context, order row) {
	log := s.log.With("order", order.Key, "state", order.Value.state())
	claim, cancel := context.WithTimeout(ctx, s.lease)
	defer cancel()
	err := s.advance(claim, &order, func(next *record) {
		next.Owner = newOwner()
		if next.state() == pending && !next.published() {
			next.Order.Msg.State = releasing
			next.Order.Msg.Rejection = &orderv1.Rejection{
				Reason:  orderv1.RejectionReason_REJECTION_REASON_INTERRUPTED,
				Message: "it was interrupted before everything was reserved",
			}
		}
	})
	if err != nil {
		log.Debug("order is not taken over", "err", err) // as a rule another replica was faster
		return
	}
	if err := s.work(ctx, &order); err != nil {
		log.Warn("order was taken over, but is not finished", "err", err)
		return
	}
	log.Info("order was taken over and is finished", "now", order.Value.state())
}
