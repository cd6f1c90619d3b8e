package main

import (
	"context"
	"fmt"
	"time"

	"github.com/natscall/natscall/rpc"

	chaosv1 "github.com/natscall/natscall/internal/chaos/gen/chaos/v1"
)

const (
	methodAdd    = "Add"
	methodPay    = "Pay"
	methodPut    = "Put"
	methodGet    = "Get"
	methodNote   = "Note"
	methodWatch  = "Watch"
	methodImport = "Import"
	methodTalk   = "Talk"
)

// large is more than max_payload of the nodes: such a message is sent as a stream.
const large = 3 * maxPayload

// callUnary makes a call of a method without streams.
func (c *caller) callUnary() {
	switch n := c.random.IntN(10); {
	case n < 3:
		c.work(methodAdd, c.api.Add)
	case n < 5:
		c.work(methodPay, c.api.Pay)
	case n < 7:
		c.work(methodPut, c.api.Put)
	case n < 9:
		c.work(methodGet, c.api.Get)
	default:
		c.note()
	}
}

type workMethod = func(context.Context, *chaosv1.WorkRequest, ...rpc.CallOption) (*chaosv1.WorkResponse, error)

func (c *caller) work(method string, do workMethod) {
	timeout, work := c.timeout(), c.duration()
	if c.load.Deadline > 0 && idempotent(method) {
		// The first instance may die at the last moment.
		timeout = min(timeout, c.load.Deadline+2*work)
	}
	k := c.begin(record{Method: method}, timeout)
	req := c.request(k.id, c.size(), work)
	options := c.callOptions()
	if method == methodPay {
		options = append(options, rpc.WithIdempotencyKey(k.id))
	}
	if c.chance(5) {
		timer := time.AfterFunc(c.upTo(50*time.Millisecond), k.giveUp)
		defer timer.Stop()
	}
	res, err := do(k.ctx, req, options...)
	if err != nil {
		k.end(record{}, err)
		return
	}
	k.end(record{Run: res.GetRun(), Wrong: wrongAnswer(k.id, int(req.GetReplySize()), res)}, nil)
}

func wrongAnswer(call string, size int, res *chaosv1.WorkResponse) string {
	switch {
	case res.GetCall() != call:
		return fmt.Sprintf("the response of the call %s", res.GetCall())
	case len(res.GetData()) != size:
		return fmt.Sprintf("a response of %d bytes where %d were asked for", len(res.GetData()), size)
	}
	return wrongContent(call, responseNumber, res.GetData())
}

func (c *caller) request(call string, size int, work time.Duration) *chaosv1.WorkRequest {
	reply := c.size()
	return &chaosv1.WorkRequest{
		Call: call, Fail: c.chance(5), SleepUs: uint32(work.Microseconds()),
		Data: content(call, requestNumber, size), ReplySize: uint32(reply),
	}
}

// size is small for most messages; some pay to be compressed, and some do not fit into max_payload.
func (c *caller) size() int {
	switch n := c.random.IntN(100); {
	case n < 3:
		return large
	case n < 10:
		return 8 << 10
	}
	return c.random.IntN(300)
}

// duration is how long a handler works. Some work for so long that a fault finds them running,
// and that their clients send alive queries.
func (c *caller) duration() time.Duration {
	if c.load.Work > 0 {
		return c.load.Work/2 + c.upTo(c.load.Work)
	}
	switch n := c.random.IntN(100); {
	case n < 3:
		return c.upTo(1500 * time.Millisecond)
	case n < 15:
		return c.upTo(100 * time.Millisecond)
	}
	return c.upTo(5 * time.Millisecond)
}

// note publishes a one-way message, which has no answer.
func (c *caller) note() {
	k := c.begin(record{Method: methodNote}, patience)
	req := c.request(k.id, c.random.IntN(300), c.duration())
	k.end(record{}, c.api.Note(k.ctx, req))
}
