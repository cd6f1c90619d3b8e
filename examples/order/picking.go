package order

import (
	"fmt"

	orderv1 "github.com/natscall/natscall/gen/order/v1"
)

// picking is what was done of an order in the warehouse. It is an entry of a
// bucket of its own: the order's entry belongs to the saga until its events
// are sent, and picking may begin before.
//
// Its methods are pure: they return the picking as it would be afterwards.
type picking struct {
	Lines []pickedLine `json:"lines"` // those of the order, in the same order
}

type pickedLine struct {
	ProductID string `json:"product_id"`
	Ordered   int32  `json:"ordered"`
	Picked    int32  `json:"picked,omitempty"`
	Missing   int32  `json:"missing,omitempty"`
}

func newPicking(order *orderv1.Order) (p picking) {
	for _, l := range order.GetLines() {
		p.Lines = append(p.Lines, pickedLine{ProductID: l.GetProductId(), Ordered: l.GetQuantity()})
	}
	return p
}

// left is how many are still to be picked.
func (l pickedLine) left() int32 { return l.Ordered - l.Picked - l.Missing }

// current is the index of the line to pick, len(p.Lines) where none is left.
func (p picking) current() int {
	for i, l := range p.Lines {
		if l.left() > 0 {
			return i
		}
	}
	return len(p.Lines)
}

func (p picking) finished() bool { return p.current() == len(p.Lines) }

// after is the picking after what a worker has done. problem says why that
// does not count.
func (p picking) after(req *orderv1.PickOrderRequest) (next picking, problem string) {
	items := req.GetPicked()
	if items == nil {
		items = req.GetMissing()
	}
	if items == nil || p.finished() {
		return p, "what was picked, or is missing, was to be told"
	}
	i := p.current()
	line := p.Lines[i]
	switch {
	case items.GetProductId() != line.ProductID:
		return p, fmt.Sprintf("%.80q is not what was to be picked", items.GetProductId())
	case items.GetQuantity() < 1 || items.GetQuantity() > line.left():
		return p, fmt.Sprintf("%d of %q are not between 1 and %d", items.GetQuantity(), line.ProductID, line.left())
	case req.GetPicked() != nil:
		line.Picked += items.GetQuantity()
	default:
		line.Missing += items.GetQuantity()
	}
	next.Lines = append(append(append(next.Lines, p.Lines[:i]...), line), p.Lines[i+1:]...)
	return next, ""
}

// told is what the worker is told.
func (p picking) told(problem string) *orderv1.PickOrderResponse {
	if p.finished() {
		return &orderv1.PickOrderResponse{Next: &orderv1.PickOrderResponse_Result{Result: p.result()}, Problem: problem}
	}
	line := p.Lines[p.current()]
	pick := &orderv1.Line{ProductId: line.ProductID, Quantity: line.left()}
	return &orderv1.PickOrderResponse{Next: &orderv1.PickOrderResponse_Pick{Pick: pick}, Problem: problem}
}

func (p picking) result() *orderv1.PickResult {
	res := new(orderv1.PickResult)
	for _, l := range p.Lines {
		if l.Picked > 0 {
			res.Picked = append(res.Picked, &orderv1.Line{ProductId: l.ProductID, Quantity: l.Picked})
		}
		if l.Missing > 0 {
			res.Missing = append(res.Missing, &orderv1.Line{ProductId: l.ProductID, Quantity: l.Missing})
		}
	}
	return res
}
