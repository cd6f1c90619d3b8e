package main

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/anishathalye/porcupine"

	"github.com/natscall/natscall/rpc"
)

// registerLimit bounds the check of a register's history. A history that takes longer is undecided.
const registerLimit = 10 * time.Second

// registerModel is what a register does, one operation after the other.
var registerModel = porcupine.Model{
	Init: func() any { return int64(0) },
	Step: func(state, input, output any) (bool, any) {
		in, out := input.(registerCall), output.(registerAnswer)
		after, swapped := in.apply(in.method, state.(int64))
		return !out.known || out.Value == after && out.Swapped == swapped, after
	},
	DescribeOperation: func(input, output any) string { return fmt.Sprintf("%v -> %v", input, output) },
}

type registerCall struct {
	method string
	Operation
	call string
}

func (c registerCall) String() string {
	switch c.method {
	case methodSwap:
		return fmt.Sprintf("Swap(%d, %d) %s", c.Expected, c.Value, c.call)
	case methodIncrease:
		return fmt.Sprintf("Increase(%d) %s", c.Value, c.call)
	}
	return "Read() " + c.call
}

// registerAnswer is unknown after an error.
type registerAnswer struct {
	known bool
	Operation
	said string
}

func (a registerAnswer) String() string {
	if !a.known {
		return a.said
	}
	return fmt.Sprintf("%d %t", a.Value, a.Swapped)
}

// registerHistory is the calls that name a register.
type registerHistory struct {
	key     string
	calls   []porcupine.Operation
	unknown int // calls of unknown outcome
	records []*record
}

// registerHistories sorts the calls by register. The clocks of clients are those of one machine,
// read within a moment of each other, so they agree by less than a call takes.
func registerHistories(calls []*history) (out []*registerHistory) {
	byKey := map[string]*registerHistory{}
	for _, c := range calls {
		if c.began == nil || c.began.Op == nil {
			continue
		}
		h := byKey[c.began.Op.Key]
		if h == nil {
			h = &registerHistory{key: c.began.Op.Key}
			byKey[h.key] = h
			out = append(out, h)
		}
		h.add(c)
	}
	slices.SortFunc(out, func(a, b *registerHistory) int { return cmp.Compare(a.key, b.key) })
	return out
}

// add adds a call. What its client was told decides what it must explain: a call that has run took
// effect before it ended, one that has not run never does, and any other may still do so after all
// others, which is as if it did not.
func (h *registerHistory) add(c *history) {
	h.records = append(h.records, c.records...)
	op := porcupine.Operation{
		Input: registerCall{c.began.Method, *c.began.Op, c.id}, Call: int64(c.began.At),
		Output: registerAnswer{said: "nothing"}, Return: math.MaxInt64,
	}
	claim := ""
	if len(c.ended) > 0 {
		e := c.ended[0]
		claim = e.Claim
		op.Output = registerAnswer{said: e.Code + ", " + claim}
		if e.Code == okCode && e.Op != nil {
			op.Output = registerAnswer{known: true, Operation: *e.Op}
		}
		if e.Code == okCode || claim == rpc.ExecutionDidRun.String() {
			op.Return = int64(e.At)
		}
	}
	switch {
	case claim == rpc.ExecutionNotRun.String():
		return
	case op.Return == math.MaxInt64 && c.began.Method == methodRead:
		return
	case op.Return == math.MaxInt64:
		h.unknown++
	}
	h.calls = append(h.calls, op)
}

// check returns what is wrong with a history, or nil, and whether that could be found out.
func (h *registerHistory) check() (v *violation, decided bool) {
	switch porcupine.CheckOperationsTimeout(registerModel, h.calls, registerLimit) {
	case porcupine.Unknown:
		return nil, false
	case porcupine.Ok:
		return nil, true
	}
	slices.SortStableFunc(h.records, func(a, b *record) int { return cmp.Compare(a.At, b.At) })
	return &violation{
		What:    fmt.Sprintf("register %s: its history is not linearizable", h.key),
		Records: h.records,
		draw: func(dir string) (string, error) {
			path := fmt.Sprintf("%s/register-%s.html", dir, h.key)
			_, info := porcupine.CheckOperationsVerbose(registerModel, h.calls, registerLimit)
			return path, porcupine.VisualizePath(registerModel, info, path)
		},
	}, true
}

// registerFigures are what the check of registers was about.
type registerFigures struct{ histories, calls, unknown, undecided int }

// checkRegisters checks all histories.
func (v evidence) checkRegisters() (out []violation, f registerFigures) {
	for _, h := range registerHistories(v.calls) {
		f.histories++
		f.calls += len(h.calls)
		f.unknown += h.unknown
		wrong, decided := h.check()
		if wrong != nil {
			out = append(out, *wrong)
		}
		if !decided {
			f.undecided++
		}
	}
	return out, f
}
