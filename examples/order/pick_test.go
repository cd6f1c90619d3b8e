package order

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	orderv1 "github.com/natscall/natscall/gen/order/v1"
	"github.com/natscall/natscall/rpc"
)

func picked(product string, quantity int32) *orderv1.PickOrderRequest {
	return &orderv1.PickOrderRequest{Action: &orderv1.PickOrderRequest_Picked{Picked: line(product, quantity)}}
}

func missing(product string, quantity int32) *orderv1.PickOrderRequest {
	return &orderv1.PickOrderRequest{Action: &orderv1.PickOrderRequest_Missing{Missing: line(product, quantity)}}
}

func ofOrder(id string) *orderv1.PickOrderRequest {
	return &orderv1.PickOrderRequest{Action: &orderv1.PickOrderRequest_OrderId{OrderId: id}}
}

// display is what a scanner shows.
func display(res *orderv1.PickOrderResponse) string {
	s := fmt.Sprintf("pick %d %s", res.GetPick().GetQuantity(), res.GetPick().GetProductId())
	if r := res.GetResult(); r != nil {
		s = "picked" + items(r.GetPicked()) + ", missing" + items(r.GetMissing())
	}
	if res.GetProblem() != "" {
		s += " (" + res.GetProblem() + ")"
	}
	return s
}

func items(lines []*orderv1.Line) (s string) {
	for _, l := range lines {
		s += fmt.Sprintf(" %d %s", l.GetQuantity(), l.GetProductId())
	}
	return s
}

func TestPicking(t *testing.T) {
	p := newPicking(&orderv1.Order{Lines: []*orderv1.Line{line("apple", 3), line("pear", 1)}})
	for _, step := range []struct {
		name string
		req  *orderv1.PickOrderRequest
		want string
	}{
		{"another product", picked("pear", 1), `pick 3 apple ("pear" is not what was to be picked)`},
		{"too many", picked("apple", 4), `pick 3 apple (4 of "apple" are not between 1 and 3)`},
		{"less than none", missing("apple", -1), `pick 3 apple (-1 of "apple" are not between 1 and 3)`},
		{"nothing", ofOrder("o"), "pick 3 apple (what was picked, or is missing, was to be told)"},
		{"some", picked("apple", 1), "pick 2 apple"},
		{"missing", missing("apple", 1), "pick 1 apple"},
		{"the last of a line", picked("apple", 1), "pick 1 pear"},
		{"all of a line is missing", missing("pear", 1), "picked 2 apple, missing 1 apple 1 pear"},
		{"after the end", picked("pear", 1), "picked 2 apple, missing 1 apple 1 pear (what was picked, or is missing, was to be told)"},
	} {
		before := fmt.Sprint(p)
		next, problem := p.after(step.req)
		if got := display(next.told(problem)); got != step.want {
			t.Errorf("%s: %s, want %s", step.name, got, step.want)
		}
		if now := fmt.Sprint(p); now != before {
			t.Errorf("%s: what it began with has changed from %s to %s", step.name, before, now)
		}
		p = next
	}
}

// session is a worker who picks an order.
type session struct {
	t      *testing.T
	stream *rpc.BidiStream[*orderv1.PickOrderRequest, *orderv1.PickOrderResponse]
}

func (w *world) pick(order string) session {
	w.t.Helper()
	stream, err := w.orders.PickOrder(w.t.Context())
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(stream.Close)
	return session{w.t, stream}
}

// does sends a message, and wants the answer to be shown so.
func (s session) does(req *orderv1.PickOrderRequest, want string) {
	s.t.Helper()
	if err := s.stream.Send(req); err != nil {
		s.t.Fatal(err)
	}
	res, err := s.stream.Recv()
	if err != nil || display(res) != want {
		s.t.Fatalf("%v: shows %s, %v, want %s", req, display(res), err, want)
	}
}

// ends wants the session to end after a message.
func (s session) ends(req *orderv1.PickOrderRequest, code rpc.Code, text string) {
	s.t.Helper()
	if err := s.stream.Send(req); err != nil {
		s.t.Fatal(err)
	}
	if _, err := s.stream.Recv(); rpc.CodeOf(err) != code || !strings.Contains(err.Error(), text) {
		s.t.Fatalf("%v: %v, want %v with %s", req, err, code, text)
	}
}

// confirmed places an order that is sold, and returns its id.
func (w *world) confirmed(requestID string, lines ...*orderv1.Line) string {
	w.t.Helper()
	for _, l := range lines {
		w.add(l.GetProductId(), l.GetQuantity())
	}
	res, err := w.orders.PlaceOrder(w.t.Context(), request(requestID, lines...))
	if err != nil {
		w.t.Fatal(err)
	}
	return res.GetOrder().GetOrderId()
}

func TestPickOrder(t *testing.T) {
	w := newWorld(t)
	w.runInventory()
	w.runOrder()
	w.runOrder()
	order := w.confirmed("r", line("apple", 2), line("pear", 2), line("plum", 1))

	first := w.pick(order)
	first.does(ofOrder(order), "pick 2 apple")
	first.does(picked("plum", 1), `pick 2 apple ("plum" is not what was to be picked)`)
	first.does(picked("apple", 2), "pick 2 pear")
	first.does(missing("pear", 1), "pick 1 pear")
	first.stream.CloseSend() // the end of a shift
	if _, err := first.stream.Recv(); !errors.Is(err, io.EOF) {
		t.Errorf("after CloseSend: %v, want a clean end", err)
	}

	cutOff := w.pick(order)
	cutOff.does(ofOrder(order), "pick 1 pear")
	second := w.pick(order)
	second.does(ofOrder(order), "pick 1 pear")
	second.does(picked("pear", 1), "pick 1 plum")
	cutOff.ends(picked("pear", 1), rpc.CodeAborted, "another worker")
	second.does(picked("plum", 1), "picked 2 apple 1 pear 1 plum, missing 1 pear")
	if _, err := second.stream.Recv(); !errors.Is(err, io.EOF) {
		t.Errorf("after the result: %v, want a clean end", err)
	}
	w.pick(order).does(ofOrder(order), "picked 2 apple 1 pear 1 plum, missing 1 pear")
}

func TestPickWhatCannotBePicked(t *testing.T) {
	w := newWorld(t)
	w.runInventory()
	w.runOrder()
	w.add("apple", 1)
	_, err := w.orders.PlaceOrder(t.Context(), request("r", line("apple", 2)))
	rejected := detail(t, err).GetOrderId()
	w.pick(rejected).ends(ofOrder(rejected), rpc.CodeFailedPrecondition, rejected)
	w.pick("").ends(ofOrder("o-1"), rpc.CodeNotFound, "o-1")
	w.pick("").ends(picked("apple", 1), rpc.CodeInvalidArgument, "order_id")
	nothing := w.pick("")
	nothing.stream.CloseSend()
	if _, err := nothing.stream.Recv(); rpc.CodeOf(err) != rpc.CodeInvalidArgument {
		t.Errorf("nothing: %v, want INVALID_ARGUMENT", err)
	}
}

// The instance that leads a session shuts down. What the worker has done is
// kept, and another instance goes on from there.
func TestPickingMovesWhenAReplicaDrains(t *testing.T) {
	w := newWorld(t)
	w.runInventory()
	stop := w.runOrder()
	order := w.confirmed("r", line("apple", 2), line("pear", 1))
	var drained sync.WaitGroup
	drain := sync.OnceFunc(func() {
		drained.Go(stop)
		w.awaitDrain()
		w.runOrder()
	})
	sessions := 0
	for shown := ""; shown != "picked 2 apple 1 pear, missing"; {
		sessions++
		var err error
		if shown, err = w.pick(order).all(order, drain); err != nil && rpc.CodeOf(err) != rpc.CodeUnavailable {
			t.Fatal(err)
		}
	}
	drained.Wait()
	if sessions != 2 {
		t.Errorf("it took %d sessions, want one before and one after the restart", sessions)
	}
}

// all does what the scanner shows until the session ends, and returns what it
// showed last. meanwhile runs after the first.
func (s session) all(order string, meanwhile func()) (shown string, err error) {
	_ = s.stream.Send(ofOrder(order)) // Recv tells what is wrong
	for {
		res, err := s.stream.Recv()
		if errors.Is(err, io.EOF) {
			return shown, nil
		}
		if err != nil {
			return shown, err
		}
		shown = display(res)
		meanwhile()
		if res.GetPick() != nil {
			_ = s.stream.Send(picked(res.GetPick().GetProductId(), 1))
		}
	}
}

// awaitDrain waits until no instance of the order service is to be found: one
// that still works then is draining.
func (w *world) awaitDrain() {
	w.t.Helper()
	for range persistence.Attempts(w.t.Context()) {
		// A ping that meets the end of the subscription gets no answer at all.
		_, err := w.nc.Request("$SRV.PING.OrderService", nil, 100*time.Millisecond)
		if errors.Is(err, nats.ErrNoResponders) {
			return
		}
	}
}
