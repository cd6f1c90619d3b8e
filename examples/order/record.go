package order

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/natscall/natscall/examples/internal/check"
	"github.com/natscall/natscall/examples/internal/kvtable"
	orderv1 "github.com/natscall/natscall/gen/order/v1"
	"github.com/natscall/natscall/rpc"
)

// Short names for the states; record has the graph.
const (
	pending    = orderv1.OrderState_ORDER_STATE_PENDING
	confirming = orderv1.OrderState_ORDER_STATE_CONFIRMING
	confirmed  = orderv1.OrderState_ORDER_STATE_CONFIRMED
	releasing  = orderv1.OrderState_ORDER_STATE_RELEASING
	rejected   = orderv1.OrderState_ORDER_STATE_REJECTED
)

// maxLines bounds the work of one order.
const maxLines = 100

// record is an order's entry in the bucket. Only its owner takes it from one
// state to the next, by a write that says which revision it is based on:
//
//	         all reserved              all sold               events sent
//	PENDING ─────────────▶ CONFIRMING ─────────▶ CONFIRMED ──────────────▶ CONFIRMED, announced
//	   │ a line cannot be had, or the owner has gone
//	   ▼        all released
//	RELEASING ──────────────▶ REJECTED
//
// (If the owner of an order that was published has gone, another goes on.) The
// step that leaves PENDING decides: from then on an order goes one way
// whoever works on it. What is done in a state can be done again, so a new
// owner starts the state over, and two who believe to be the owner do no harm:
// the first to write is, and the other notices at its next write.
//
// Orders are kept until somebody removes them, and so is the promise that a
// request id gets one answer, and a published order is placed once.
type record struct {
	Order     message `json:"order"`
	Owner     string  `json:"owner"` // who works on it: new for each try
	Announced bool    `json:"announced,omitempty"`
}

type (
	message = kvtable.Message[orderv1.Order, *orderv1.Order]
	row     = kvtable.Row[record]
)

// newRecord is the order of a request.
func newRecord(req *orderv1.PlaceOrderRequest) row {
	return newRow(&orderv1.Order{
		OrderId: orderID(req.GetRequestId()), RequestId: req.GetRequestId(), Lines: req.GetLines(),
	})
}

// newPublished is the order of a message on orders.new.
func newPublished(event *orderv1.OrderPlacedRequest) (row, error) {
	id, line := event.GetOrderId(), &orderv1.Line{ProductId: event.GetProductId(), Quantity: 1}
	if event.Quantity != nil {
		line.Quantity = event.GetQuantity()
	}
	if strings.HasPrefix(id, requested) {
		return row{}, rpc.Errorf(rpc.CodeInvalidArgument, "order_id: %.80q begins as those of PlaceOrder do", id)
	}
	return newRow(&orderv1.Order{OrderId: id, Lines: []*orderv1.Line{line}}), check.First(
		check.ID("order_id", id),
		check.ID("product_id", line.GetProductId()),
		check.Quantity("quantity", line.GetQuantity()))
}

func newRow(order *orderv1.Order) row {
	order.State, order.Created = pending, timestamppb.Now()
	return row{Key: order.GetOrderId(), Value: record{Order: message{Msg: order}, Owner: newOwner()}}
}

// newOwner is the name of a try to work on an order.
func newOwner() string { return rand.Text() }

// requested begins the ids of orders that were not published.
const requested = "o-"

// orderID follows from the request id, so that creating the order's entry
// finds out whether the request is new.
func orderID(requestID string) string {
	sum := sha256.Sum256([]byte(requestID))
	return requested + hex.EncodeToString(sum[:10]) // 80 bits: no two of a billion orders share one
}

// with returns the record as change makes it; r stays as it is.
func (r record) with(change func(*record)) record {
	r.Order = message{Msg: proto.CloneOf(r.Order.Msg)}
	change(&r)
	return r
}

// same reports whether both are what one owner wrote at one step.
func (r record) same(other record) bool {
	return r.Owner == other.Owner && r.Announced == other.Announced && r.state() == other.state()
}

func (r record) state() orderv1.OrderState { return r.Order.Msg.GetState() }

// decided reports whether PlaceOrder has its answer.
func (r record) decided() bool { return r.state() == confirmed || r.state() == rejected }

// finished reports whether nothing is left to do.
func (r record) finished() bool {
	return r.state() == rejected || r.state() == confirmed && r.Announced
}

// published reports whether the order came by orders.new, so that nobody waits for it.
func (r record) published() bool { return r.Order.Msg.GetRequestId() == "" }

// asks reports whether both are what somebody has asked for once.
func (r record) asks(other record) bool {
	a, b := r.Order.Msg, other.Order.Msg
	return a.GetRequestId() == b.GetRequestId() &&
		slices.EqualFunc(a.GetLines(), b.GetLines(), func(a, b *orderv1.Line) bool { return proto.Equal(a, b) })
}

// id is what whoever asked for the order calls it.
func (r record) id() string {
	if r.published() {
		return fmt.Sprintf("order_id: %q", r.Order.Msg.GetOrderId())
	}
	return fmt.Sprintf("request_id: %q", r.Order.Msg.GetRequestId())
}

// answer is what PlaceOrder says about a decided order.
func (r record) answer() (*orderv1.PlaceOrderResponse, error) {
	order := r.Order.Msg
	if r.state() == confirmed {
		return &orderv1.PlaceOrderResponse{Order: order}, nil
	}
	code := map[orderv1.RejectionReason]rpc.Code{
		orderv1.RejectionReason_REJECTION_REASON_OUT_OF_STOCK:    rpc.CodeFailedPrecondition,
		orderv1.RejectionReason_REJECTION_REASON_UNKNOWN_PRODUCT: rpc.CodeNotFound,
		orderv1.RejectionReason_REJECTION_REASON_INTERRUPTED:     rpc.CodeAborted,
	}[order.GetRejection().GetReason()]
	return nil, rpc.NewError(code, fmt.Sprintf("order %s is rejected: %s", order.GetOrderId(), order.GetRejection().GetMessage()), order)
}

// checkRequest finds what is wrong with a request.
func checkRequest(req *orderv1.PlaceOrderRequest) error {
	if n := len(req.GetRequestId()); n < 1 || n > 128 {
		return rpc.Errorf(rpc.CodeInvalidArgument, "request_id: has %d characters, not 1 to 128", n)
	}
	if n := len(req.GetLines()); n < 1 || n > maxLines {
		return rpc.Errorf(rpc.CodeInvalidArgument, "lines: there are %d, not 1 to %d", n, maxLines)
	}
	first := map[string]int{}
	for i, line := range req.GetLines() {
		field := fmt.Sprintf("lines[%d]", i)
		if err := check.First(
			check.ID(field+".product_id", line.GetProductId()),
			check.Quantity(field+".quantity", line.GetQuantity()),
		); err != nil {
			return err
		}
		if j, twice := first[line.GetProductId()]; twice {
			return rpc.Errorf(rpc.CodeInvalidArgument, "%s.product_id: %q stands in lines[%d] too", field, line.GetProductId(), j)
		}
		first[line.GetProductId()] = i
	}
	return nil
}
