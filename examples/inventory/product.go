package inventory

import (
	"fmt"
	"maps"
	"slices"
	"time"

	inventoryv1 "github.com/natscall/natscall/gen/inventory/v1"
	"github.com/natscall/natscall/rpc"
)

const (
	// maxReceived keeps every sum of a product's quantities far below the end of int32.
	maxReceived = 1_000_000_000

	// keepSettled is how long a settled reservation is remembered, so that a
	// repeated request gets the same answer and a late one is refused; and a
	// delivery, so that it can be sent again. It must
	// be longer than any caller goes on trying, which is seconds for the order
	// service, and than the replicas' clocks differ. At some 80 bytes each, an
	// hour lets a product settle 10,000 reservations before its entry nears the
	// megabyte that NATS carries.
	keepSettled = time.Hour
)

// product is all that is known of a product. It is one entry of the bucket,
// so one write decides who gets the last item: received is always available +
// reserved + sold.
//
// Its methods are pure: they return the product as it would be afterwards.
// A reservation goes one way only, and each step can be repeated:
//
//	          reserve           confirm
//	(unknown) ───────▶  open  ───────────▶ confirmed
//	    │                 │
//	    │    release      ▼
//	    └────────────▶ released
//
// An open reservation is kept until somebody settles it: only the one who made
// it knows whether it is still wanted.
type product struct {
	ID           string                 `json:"id"`
	Available    int32                  `json:"available"`
	Sold         int32                  `json:"sold"`
	Received     int32                  `json:"received"`
	Reservations map[string]reservation `json:"reservations,omitempty"`
	Deliveries   map[string]delivery    `json:"deliveries,omitempty"`
}

// delivery is how far the product's lines of a delivery were taken in. They
// come in their order, so the last one says it all.
type delivery struct {
	Line  int32     `json:"line"`
	Taken time.Time `json:"taken"`
}

// line is one of a delivery.
type line struct{ number, quantity int32 }

type reservation struct {
	Quantity int32     `json:"quantity"`
	State    state     `json:"state"`
	Settled  time.Time `json:"settled,omitzero"` // zero while open
}

type state string

const (
	open      state = "open"
	confirmed state = "confirmed"
	released  state = "released"
)

// add takes in what came.
func (p product) add(quantity int32) (product, error) {
	if quantity > maxReceived-p.Received {
		return p, rpc.Errorf(rpc.CodeOutOfRange, "product %q would have received more than %d", p.ID, maxReceived)
	}
	p.Available += quantity
	p.Received += quantity
	return p, nil
}

// deliver takes in those of a delivery's lines that it has not taken before.
func (p product) deliver(id string, lines []line, now time.Time) (product, error) {
	lines = p.fresh(id, lines)
	if len(lines) == 0 {
		return p, nil
	}
	next := p
	for _, l := range lines {
		var err error
		if next, err = next.add(l.quantity); err != nil {
			return p, err
		}
	}
	next.Deliveries = with(p.Deliveries, id, delivery{Line: lines[len(lines)-1].number, Taken: now})
	maps.DeleteFunc(next.Deliveries, func(_ string, old delivery) bool { return now.Sub(old.Taken) > keepSettled })
	return next, nil
}

// fresh returns the lines of a delivery that were not taken before.
func (p product) fresh(id string, lines []line) []line {
	taken := p.Deliveries[id].Line
	first := slices.IndexFunc(lines, func(l line) bool { return l.number > taken })
	if first < 0 {
		return nil
	}
	return lines[first:]
}

// reserve sets a quantity aside under the id.
func (p product) reserve(id string, quantity int32) (product, error) {
	if r, known := p.Reservations[id]; known {
		return p, r.matches(id, quantity)
	}
	if err := p.exists(); err != nil {
		return p, err
	}
	if quantity > p.Available {
		return p, p.outOfStock(quantity)
	}
	p.Available -= quantity
	p.Reservations = with(p.Reservations, id, reservation{Quantity: quantity, State: open})
	return p, nil
}

// matches is the answer to a reserve under an id that is known.
func (r reservation) matches(id string, quantity int32) error {
	switch {
	case r.State == released:
		return rpc.Errorf(rpc.CodeFailedPrecondition, "reservation %q was released", id)
	case r.Quantity != quantity:
		return rpc.Errorf(rpc.CodeAlreadyExists, "reservation %q exists, for %d and not for %d", id, r.Quantity, quantity)
	}
	return nil
}

// confirm sells what is reserved under the id.
func (p product) confirm(id string, now time.Time) (product, error) {
	r, known := p.Reservations[id]
	switch {
	case !known:
		return p, rpc.Errorf(rpc.CodeNotFound, "product %q has no reservation %q", p.ID, id)
	case r.State == released:
		return p, rpc.Errorf(rpc.CodeFailedPrecondition, "reservation %q was released", id)
	case r.State == confirmed:
		return p, nil
	}
	p.Sold += r.Quantity
	return p.settle(id, reservation{Quantity: r.Quantity, State: confirmed, Settled: now}), nil
}

// release makes what is reserved under the id available again. An id that is
// not known is remembered as released, so that a reserve which comes late
// finds it.
func (p product) release(id string, now time.Time) (product, error) {
	r := p.Reservations[id]
	switch r.State {
	case confirmed:
		return p, rpc.Errorf(rpc.CodeFailedPrecondition, "reservation %q was confirmed, so it cannot be released", id)
	case released:
		return p, nil
	}
	p.Available += r.Quantity
	return p.settle(id, reservation{Quantity: r.Quantity, State: released, Settled: now}), nil
}

// settle records what became of a reservation, and forgets those that were
// settled long ago.
func (p product) settle(id string, r reservation) product {
	p.Reservations = with(p.Reservations, id, r)
	maps.DeleteFunc(p.Reservations, func(_ string, old reservation) bool {
		return old.State != open && r.Settled.Sub(old.Settled) > keepSettled
	})
	return p
}

// with returns a copy of the map with one more value.
func with[V any](m map[string]V, id string, v V) map[string]V {
	out := make(map[string]V, len(m)+1)
	maps.Copy(out, m)
	out[id] = v
	return out
}

// exists tells a product from the entry of one that nobody ever delivered,
// which exists where a reservation for it was released.
func (p product) exists() error {
	if p.Received == 0 {
		return rpc.Errorf(rpc.CodeNotFound, "there is no product %q", p.ID)
	}
	return nil
}

func (p product) outOfStock(quantity int32) error {
	return rpc.NewError(rpc.CodeFailedPrecondition,
		fmt.Sprintf("product %q: %d asked for, %d available", p.ID, quantity, p.Available),
		&inventoryv1.OutOfStock{ProductId: p.ID, Requested: quantity, Available: p.Available})
}

func (p product) reserved() (sum int32) {
	for _, r := range p.Reservations {
		if r.State == open {
			sum += r.Quantity
		}
	}
	return sum
}
