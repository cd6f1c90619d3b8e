package main

import (
	"context"
	"fmt"
	"time"

	"github.com/natscall/natscall/rpc"

	chaosv1 "github.com/natscall/natscall/internal/chaos/gen/chaos/v1"
)

const (
	methodRead     = "Read"
	methodIncrease = "Increase"
	methodSwap     = "Swap"
)

// Every two seconds all clients take other registers, two of them. So histories are short, and few
// calls of each have an outcome that nobody knows: those make a history hard to check.
const (
	registerTime  = 2 * time.Second
	registerCount = 2
)

// callRegister makes a call of a method of registers.
func (c *caller) callRegister() {
	key := fmt.Sprintf("%d.%d", time.Now().UnixNano()/int64(registerTime), c.random.IntN(registerCount))
	if key != c.seen.Key {
		c.seen = Operation{Key: key}
	}
	switch n := c.random.IntN(10); {
	case n < 3:
		c.operate(methodRead, c.api.Read, Operation{Key: key})
	case n < 7:
		c.operate(methodIncrease, c.api.Increase, Operation{Key: key, Value: 1 + c.random.Int64N(1000)})
	default:
		c.operate(methodSwap, c.api.Swap, Operation{Key: key, Value: c.random.Int64N(1e6), Expected: c.seen.Value})
	}
}

type registerMethod = func(context.Context, *chaosv1.RegisterRequest, ...rpc.CallOption) (*chaosv1.RegisterResponse, error)

func (c *caller) operate(method string, do registerMethod, o Operation) {
	timeout := patience
	if c.chance(3) {
		timeout = c.timeout()
	}
	k := c.begin(record{Method: method, Op: &o}, timeout)
	req := &chaosv1.RegisterRequest{
		Call: k.id, Key: o.Key, Value: o.Value, Expected: o.Expected, Fail: c.chance(3), SleepUs: uint32(c.upTo(5 * time.Millisecond).Microseconds()),
	}
	res, err := do(k.ctx, req)
	if err != nil {
		k.end(record{}, err)
		return
	}
	c.seen.Value = res.GetValue()
	answer := &Operation{Key: o.Key, Value: res.GetValue(), Swapped: res.GetSwapped()}
	r := record{Run: res.GetRun(), Op: answer}
	if res.GetCall() != k.id {
		r.Wrong = "the response of the call " + res.GetCall()
	}
	k.end(r, nil)
}
