package connwatch

import (
	"errors"
	"testing"

	"github.com/nats-io/nats.go"
)

// TestSubscriptions: what NATS refuses is made again until it is not refused, and what has ended is
// not.
func TestSubscriptions(t *testing.T) {
	s := NewSubscriptions()
	made := map[string]int{}
	var failing error
	subscribe := func(subject string) *Subscription {
		sub, err := s.Subscribe(subject, func() (*nats.Subscription, error) {
			made[subject]++
			return &nats.Subscription{Subject: subject}, failing
		})
		if err != nil {
			t.Fatal(err)
		}
		return sub
	}
	a, b := subscribe("a"), subscribe("b")
	why := errors.New("why")
	tend := func(wantBack, wantRefused, wantMade int) {
		t.Helper()
		back, refused := s.Tend()
		if len(back) != wantBack || refused != wantRefused || made["a"] != wantMade || made["b"] != 1 {
			t.Errorf("%d are back, %d refused, made: %v", len(back), refused, made)
		}
	}
	tend(0, 0, 1)
	if s.Refuse("c", why) {
		t.Error("a subject that nobody has was refused")
	}
	if !s.Refuse("a", why) || s.Refuse("a", why) || a.Err() != why || b.Err() != nil {
		t.Error("a is not refused, once")
	}
	<-s.Refused
	tend(0, 1, 2)
	s.Refuse("a", why) // still
	tend(0, 1, 3)
	if a.Err() == nil {
		t.Error("a serves before it is known to")
	}
	tend(1, 0, 3)
	if a.Err() != nil || len(s.Refused) > 0 {
		t.Error("a does not serve")
	}
	tend(0, 0, 3)

	s.Refuse("a", why)
	failing = errors.New("the connection is closed")
	tend(0, 1, 4)
	tend(0, 1, 5)
	failing = nil
	tend(0, 1, 6)
	tend(1, 0, 6)

	s.Refuse("a", why)
	_ = a.Unsubscribe() // no connection has it
	tend(0, 0, 6)
	if s.Refuse("a", why) {
		t.Error("what has ended is refused")
	}
	if _, err := s.Subscribe("d", func() (*nats.Subscription, error) { return nil, why }); err != why {
		t.Errorf("Subscribe is %v", err)
	}
}

// TestSubscriptionEndsMeanwhile: one that ends while it is made again does not stay behind.
func TestSubscriptionEndsMeanwhile(t *testing.T) {
	s := NewSubscriptions()
	var sub *Subscription
	made := 0
	sub, err := s.Subscribe("a", func() (*nats.Subscription, error) {
		if made++; made == 2 {
			_ = sub.Unsubscribe()
		}
		return &nats.Subscription{Subject: "a"}, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	s.Refuse("a", errors.New("why"))
	s.Tend()
	if back, refused := s.Tend(); len(back) > 0 || refused > 0 || made != 2 {
		t.Errorf("%d are back, %d refused, %d made", len(back), refused, made)
	}
}

// TestPause: a paused subscription is not made again until Resume, whatever NATS said before.
func TestPause(t *testing.T) {
	s := NewSubscriptions()
	var made []*nats.Subscription
	var meanwhile func()
	a, err := s.Subscribe("a", func() (*nats.Subscription, error) {
		made = append(made, new(nats.Subscription))
		if meanwhile != nil {
			meanwhile()
		}
		return made[len(made)-1], nil
	})
	if err != nil {
		t.Fatal(err)
	}
	pause := func() { _, _ = a.Pause() } // the error is that these subscriptions have no connection
	s.Refuse("a", errors.New("why"))
	pause()
	pause()
	if a.Err() != nil || s.Refuse("a", errors.New("why")) {
		t.Error("a paused subscription is refused")
	}
	if back, refused := s.Tend(); len(back)+refused != 0 || len(made) != 1 {
		t.Errorf("%d are back, %d refused, %d made", len(back), refused, len(made))
	}
	for range 2 {
		if err := a.Resume(); err != nil || len(made) != 2 || a.sub != made[1] {
			t.Errorf("%v, %d made", err, len(made))
		}
	}
	if !s.Refuse("a", errors.New("why")) {
		t.Error("a subscription that was resumed cannot be refused")
	}
	meanwhile = pause
	s.Tend()
	if len(made) != 3 || a.sub != made[1] {
		t.Error("a subscription that was made while it was paused is used")
	}
	_ = a.Resume()
	if len(made) != 4 || a.sub != made[1] {
		t.Error("a subscription that was paused while it was resumed is used")
	}
	meanwhile = nil
	_ = a.Unsubscribe()
	if err := a.Resume(); err != nil || len(made) != 4 {
		t.Errorf("%v, %d made: one that has ended was made again", err, len(made))
	}
}
