package inventory

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"reflect"
	"testing"
	"time"

	inventoryv1 "github.com/natscall/natscall/gen/inventory/v1"
	"github.com/natscall/natscall/rpc"
)

var noon = time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)

// The states that a reservation "r" of 3 apples can be in, of 10 that came in.
func apples(t *testing.T, s state) product {
	t.Helper()
	p, err := product{ID: "apple"}.add(10)
	if s != "" && err == nil {
		p, err = p.reserve("r", 3)
	}
	switch {
	case err != nil:
	case s == confirmed:
		p, err = p.confirm("r", noon)
	case s == released:
		p, err = p.release("r", noon)
	}
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestTransitions(t *testing.T) {
	reserve := func(n int32) func(product) (product, error) {
		return func(p product) (product, error) { return p.reserve("r", n) }
	}
	confirm := func(p product) (product, error) { return p.confirm("r", noon) }
	release := func(p product) (product, error) { return p.release("r", noon) }
	for _, tt := range []struct {
		name   string
		from   state
		change func(product) (product, error)
		code   rpc.Code
		to     state
	}{
		{"reserve", "", reserve(3), rpc.CodeOK, open},
		{"reserve all", "", reserve(10), rpc.CodeOK, open},
		{"reserve too much", "", reserve(11), rpc.CodeFailedPrecondition, ""},
		{"reserve again", open, reserve(3), rpc.CodeOK, open},
		{"reserve again after confirm", confirmed, reserve(3), rpc.CodeOK, confirmed},
		{"reserve another quantity", open, reserve(4), rpc.CodeAlreadyExists, open},
		{"reserve another quantity after confirm", confirmed, reserve(4), rpc.CodeAlreadyExists, confirmed},
		{"reserve after release", released, reserve(3), rpc.CodeFailedPrecondition, released},
		{"confirm", open, confirm, rpc.CodeOK, confirmed},
		{"confirm again", confirmed, confirm, rpc.CodeOK, confirmed},
		{"confirm what is not reserved", "", confirm, rpc.CodeNotFound, ""},
		{"confirm after release", released, confirm, rpc.CodeFailedPrecondition, released},
		{"release", open, release, rpc.CodeOK, released},
		{"release again", released, release, rpc.CodeOK, released},
		{"release before reserve", "", release, rpc.CodeOK, released},
		{"release after confirm", confirmed, release, rpc.CodeFailedPrecondition, confirmed},
	} {
		t.Run(tt.name, func(t *testing.T) {
			before := apples(t, tt.from)
			after, err := tt.change(before)
			if rpc.CodeOf(err) != tt.code {
				t.Errorf("error %v, want code %v", err, tt.code)
			}
			if got := after.Reservations["r"].State; got != tt.to {
				t.Errorf("state %q, want %q", got, tt.to)
			}
			if tt.from == tt.to && !reflect.DeepEqual(after, before) {
				t.Errorf("changed to %+v from %+v", after, before)
			}
			checkSums(t, after)
		})
	}
}

func TestOutOfStockSaysHowMany(t *testing.T) {
	_, err := apples(t, open).reserve("other", 8)
	var e *rpc.Error
	if !errors.As(err, &e) || len(e.Details()) != 1 {
		t.Fatalf("error %v, want one with a detail", err)
	}
	detail, ok := e.Details()[0].(*inventoryv1.OutOfStock)
	if !ok || detail.GetProductId() != "apple" || detail.GetRequested() != 8 || detail.GetAvailable() != 7 {
		t.Errorf("detail %v, want apple, 8 requested, 7 available", e.Details()[0])
	}
}

func TestUnknownProduct(t *testing.T) {
	late, err := product{ID: "pear"}.release("r", noon)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := late.reserve("other", 1); rpc.CodeOf(err) != rpc.CodeNotFound {
		t.Errorf("reserve: %v, want NOT_FOUND", err)
	}
	if p, err := late.add(5); err != nil || p.Available != 5 {
		t.Errorf("add: %+v, %v", p, err)
	}
}

func TestAddDoesNotOverflow(t *testing.T) {
	full, err := product{ID: "sand"}.add(maxReceived)
	if err != nil {
		t.Fatal(err)
	}
	p, err := full.add(1)
	if rpc.CodeOf(err) != rpc.CodeOutOfRange || !reflect.DeepEqual(p, full) {
		t.Errorf("%+v, %v, want OUT_OF_RANGE and no change", p, err)
	}
}

// A delivery that is sent again, or whose line does not fit, adds nothing twice.
func TestDeliver(t *testing.T) {
	lines := []line{{1, 5}, {4, 5}, {7, 10}}
	p, err := product{ID: "apple"}.deliver("d", lines[:2], noon)
	if err != nil || p.Available != 10 {
		t.Fatalf("%+v, %v, want 10", p, err)
	}
	if again, err := p.deliver("d", lines[:2], noon.Add(time.Second)); err != nil || !reflect.DeepEqual(again, p) {
		t.Errorf("again: %+v, %v, want no change", again, err)
	}
	if all, err := p.deliver("d", lines, noon); err != nil || all.Available != 20 {
		t.Errorf("all: %+v, %v, want 20", all, err)
	}
	if other, err := p.deliver("other", lines, noon); err != nil || other.Available != 30 {
		t.Errorf("another delivery: %+v, %v, want 30", other, err)
	}
	if full, err := p.deliver("d", append(lines, line{9, maxReceived - 15}), noon); rpc.CodeOf(err) != rpc.CodeOutOfRange || !reflect.DeepEqual(full, p) {
		t.Errorf("too much: %+v, %v, want OUT_OF_RANGE and no change", full, err)
	}
	late, err := p.deliver("late", lines, noon.Add(keepSettled+time.Second))
	if _, kept := late.Deliveries["d"]; kept || err != nil || len(late.Deliveries) != 1 {
		t.Errorf("much later: %+v, %v, want the first delivery to be forgotten", late, err)
	}
}

func TestSettledReservationsAreForgotten(t *testing.T) {
	p := apples(t, confirmed)
	p, _ = p.reserve("stays open", 1)
	p, _ = p.release("soon", noon.Add(keepSettled))
	if _, kept := p.Reservations["r"]; !kept {
		t.Error("forgotten too early")
	}
	p, _ = p.release("later", noon.Add(keepSettled+time.Second))
	if _, kept := p.Reservations["r"]; kept || len(p.Reservations) != 3 {
		t.Errorf("kept %v", p.Reservations)
	}
	checkSums(t, p)
}

// A random walk: whatever is asked for, in whatever order, nothing is lost and
// nothing is sold twice, and what went wrong changed nothing.
func TestRandomWalk(t *testing.T) {
	for walk := range 30 {
		t.Run(fmt.Sprint("seed ", walk), func(t *testing.T) {
			random := rand.New(rand.NewPCG(uint64(walk), 1))
			p := product{ID: "apple"}
			for range 200 {
				id, n := fmt.Sprint(random.IntN(12)), 1+random.Int32N(20)
				before := clone(t, p)
				next, err := randomStep(random, p, id, n)
				if !reflect.DeepEqual(before, clone(t, p)) {
					t.Fatalf("the product that a step began with has changed: %+v, was %+v", p, before)
				}
				if err != nil && !reflect.DeepEqual(next, p) {
					t.Fatalf("a step that failed (%v) changed %+v to %+v", err, p, next)
				}
				checkForward(t, p.Reservations[id], next.Reservations[id])
				checkSums(t, next)
				p = next
			}
		})
	}
}

func randomStep(random *rand.Rand, p product, id string, n int32) (product, error) {
	switch random.IntN(9) {
	case 0:
		return p.add(n)
	case 8:
		return p.deliver(id, []line{{n, n}, {n + 1, 1}}, noon)
	case 1, 2:
		return p.confirm(id, noon)
	case 3:
		return p.release(id, noon)
	default:
		return p.reserve(id, n)
	}
}

// checkForward fails where a reservation went back, or changed its quantity.
func checkForward(t *testing.T, before, after reservation) {
	t.Helper()
	order := map[state]int{"": 0, open: 1, confirmed: 2, released: 2}
	switch {
	case before.State == after.State && before.Quantity == after.Quantity:
	case order[after.State] <= order[before.State]:
		t.Fatalf("reservation went from %+v to %+v", before, after)
	case before.State == open && before.Quantity != after.Quantity:
		t.Fatalf("reservation changed from %+v to %+v", before, after)
	}
}

func checkSums(t *testing.T, p product) {
	t.Helper()
	if p.Available < 0 || p.Sold < 0 || p.Available+p.reserved()+p.Sold != p.Received {
		t.Fatalf("%d available + %d reserved + %d sold is not %d received", p.Available, p.reserved(), p.Sold, p.Received)
	}
}

// clone goes through JSON, as the bucket does.
func clone(t *testing.T, p product) (out product) {
	t.Helper()
	b, err := json.Marshal(p)
	if err == nil {
		err = json.Unmarshal(b, &out)
	}
	if err != nil {
		t.Fatal(err)
	}
	return out
}
