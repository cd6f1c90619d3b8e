package connwatch

import (
	"slices"
	"sync"

	"github.com/nats-io/nats.go"

	"github.com/natscall/natscall/rpc/internal/wait"
)

// Subscriptions are the subscriptions of a client or server that are made again after NATS has
// refused them: a user's permissions may change while it is connected, and NATS does not say when
// they come back. All methods may be called concurrently.
//
//	          Refuse            Tend                Tend
//	serving ---------> refused ------> made again ---------> serving
//	 |    ^               ^                 |
//	 |    | Resume        +-----------------+
//	 |    |                     Refuse
//	 +-> paused, from any of them
//	Pause
type Subscriptions struct {
	// Refused holds a token when NATS has refused a subscription that was serving.
	Refused chan struct{}

	mu   sync.Mutex
	subs []*Subscription
}

// NewSubscriptions returns no subscriptions.
func NewSubscriptions() *Subscriptions {
	return &Subscriptions{Refused: make(chan struct{}, 1)}
}

// Subscription is one of Subscriptions. Its fields are protected by their lock.
type Subscription struct {
	Subject   string
	of        *Subscriptions
	subscribe func() (*nats.Subscription, error)

	sub     *nats.Subscription
	refused error // why it does not serve, or nil
	again   bool  // it has been made again since it was refused
	paused  bool
	ended   bool
	changes int // how often it was paused, resumed and ended
}

// Progress returns how many messages the callback has got, and how many are to come or are with it.
func (s *Subscription) Progress() (got int64, pending int) {
	s.of.mu.Lock()
	sub := s.sub
	s.of.mu.Unlock()
	pending, _, err := sub.Pending()
	if err != nil {
		return 0, 0 // it has ended
	}
	got, _ = sub.Delivered()
	return got, pending
}

// Subscribe makes a subscription.
func (s *Subscriptions) Subscribe(subject string, subscribe func() (*nats.Subscription, error)) (*Subscription, error) {
	sub, err := subscribe()
	if err != nil {
		return nil, err
	}
	out := &Subscription{Subject: subject, of: s, subscribe: subscribe, sub: sub}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.subs = append(s.subs, out)
	return out, nil
}

// Refuse notes that NATS has refused the subscriptions to a subject. It reports whether there are
// any that served.
func (s *Subscriptions) Refuse(subject string, err error) (any bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, sub := range s.subs {
		if sub.Subject == subject && !sub.paused {
			any = any || sub.refused == nil
			sub.refused, sub.again = err, false
		}
	}
	if any {
		wait.Signal(s.Refused)
	}
	return any
}

// Tend makes the subscriptions again that NATS has refused. What it has made again, and NATS has
// not refused since the call of Tend before, serves again: Tend returns those, and how many do not
// serve. It is to be called every few seconds while there are any.
func (s *Subscriptions) Tend() (back []*Subscription, refused int) {
	var again []*Subscription
	s.mu.Lock()
	for _, sub := range s.subs {
		switch {
		case sub.refused == nil:
		case sub.again:
			sub.refused, sub.again = nil, false
			back = append(back, sub)
		default:
			refused++
			again = append(again, sub)
		}
	}
	s.mu.Unlock()
	for _, sub := range again {
		sub.renew()
	}
	return back, refused
}

// renew makes the subscription again. The old one goes first: if NATS has it after all, each
// message would come twice.
func (s *Subscription) renew() {
	s.of.mu.Lock()
	old, changes, idle := s.sub, s.changes, s.ended || s.paused
	s.again = !idle // before NATS can refuse it
	s.of.mu.Unlock()
	if idle {
		return
	}
	_ = old.Unsubscribe()
	if s.make(changes) != nil {
		s.of.mu.Lock()
		s.again = false
		s.of.mu.Unlock()
	}
}

// make makes the subscription. If it was paused, resumed or ended since it had seen so many
// changes, somebody else decides what becomes of it.
func (s *Subscription) make(changes int) error {
	sub, err := s.subscribe()
	if err != nil {
		return err
	}
	s.of.mu.Lock()
	current := s.changes == changes
	if current {
		s.sub = sub
	}
	s.of.mu.Unlock()
	if !current {
		_, err = drain(sub) // it may have got something already
	}
	return err
}

// end makes sure that the subscription is not made again, and returns it.
func (s *Subscription) end() *nats.Subscription {
	s.of.mu.Lock()
	defer s.of.mu.Unlock()
	s.ended = true
	s.changes++
	s.of.subs = slices.DeleteFunc(s.of.subs, func(other *Subscription) bool { return other == s })
	return s.sub
}

// Err returns why the subscription does not serve, or nil.
func (s *Subscription) Err() error {
	s.of.mu.Lock()
	defer s.of.mu.Unlock()
	return s.refused
}

// Pause lets the subscription deliver what it has, and get no more until Resume. The channel gets a
// value when it has delivered that. It is nil if there is nothing to wait for.
func (s *Subscription) Pause() (<-chan nats.SubStatus, error) {
	s.of.mu.Lock()
	sub, idle := s.sub, s.ended || s.paused
	s.paused, s.refused, s.again = true, nil, false
	s.changes++
	s.of.mu.Unlock()
	if idle {
		return nil, nil
	}
	return drain(sub)
}

// Resume makes a paused subscription serve again. If it fails, the subscription is still paused.
func (s *Subscription) Resume() error {
	s.of.mu.Lock()
	idle := s.ended || !s.paused
	s.paused = false // before NATS can refuse it
	s.changes++
	changes := s.changes
	s.of.mu.Unlock()
	if idle {
		return nil
	}
	err := s.make(changes)
	if err != nil {
		s.of.mu.Lock()
		s.paused = true
		s.of.mu.Unlock()
	}
	return err
}

// Unsubscribe ends the subscription, also one that drains.
func (s *Subscription) Unsubscribe() error { return s.end().Unsubscribe() }

// Drain ends the subscription after it has delivered what it has. The channel gets a value then.
// If it cannot drain, it ends at once, and the channel is nil.
func (s *Subscription) Drain() (<-chan nats.SubStatus, error) { return drain(s.end()) }

func drain(sub *nats.Subscription) (<-chan nats.SubStatus, error) {
	closed := sub.StatusChanged(nats.SubscriptionClosed)
	if sub.Drain() != nil {
		return nil, sub.Unsubscribe()
	}
	return closed, nil
}
