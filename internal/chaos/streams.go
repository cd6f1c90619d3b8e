package main

import (
	"io"
	"sync"
	"time"

	"github.com/natscall/natscall/rpc"

	chaosv1 "github.com/natscall/natscall/internal/chaos/gen/chaos/v1"
)

// callStream makes a call of a streaming method.
func (c *caller) callStream() {
	switch c.random.IntN(3) {
	case 0:
		c.watch()
	case 1:
		c.importItems()
	default:
		c.talk()
	}
}

// endless is a number of items that no stream gets to.
const endless = 1 << 30

// script is what a stream is meant to do.
type script struct {
	count   int // of items
	size    int // of each
	pause   time.Duration
	leaveAt int // the number of items after which the client gives up, or endless
	failAt  int // the number of the item at which the handler is to fail, or endless
}

func (c *caller) script() script {
	s := script{count: c.random.IntN(300), size: c.random.IntN(1000), pause: c.upTo(5 * time.Millisecond), leaveAt: endless, failAt: endless}
	switch n := c.random.IntN(10); {
	case n < 3:
		s.leaveAt = c.random.IntN(s.count + 1)
	case n < 4:
		s.failAt = c.random.IntN(s.count + 1)
	case n < 5: // as fast as it goes
		s.count, s.size, s.pause = 3000, c.random.IntN(2000), 0
	}
	return s
}

// watch receives what a handler sends. Half of the streams that are left early have no end.
func (c *caller) watch() {
	k, s := c.begin(record{Method: methodWatch}, c.timeout()), c.script()
	req := &chaosv1.WatchRequest{Call: k.id, Count: uint32(s.count), Size: uint32(s.size), PauseUs: uint32(s.pause.Microseconds()), Fail: s.failAt < endless}
	if s.leaveAt < endless && c.chance(50) {
		req.Count = endless
	}
	closes := c.chance(50)
	stream, err := c.api.Watch(k.ctx, req, c.callOptions()...)
	if err != nil {
		k.end(record{}, err)
		return
	}
	defer stream.Close()
	in := items{call: k.id}
	for n := 0; ; n++ {
		if n == s.leaveAt {
			k.leave(closes, stream.Close)
		}
		item, err := stream.Recv()
		if err != nil {
			k.end(record{Got: in.got, Wrong: in.wrong}, cleanEnd(err))
			return
		}
		in.add(item)
	}
}

// leave ends a stream early, in one of the two ways that there are.
func (k *call) leave(closes bool, end func()) {
	if !closes {
		k.giveUp()
		return
	}
	k.gaveUp.Store(int64(now()))
	end()
}

// cleanEnd is nil for io.EOF.
func cleanEnd(err error) error {
	if err == io.EOF {
		return nil
	}
	return err
}

// importItems sends items and commits them, unless it gives up before.
func (c *caller) importItems() {
	k, s := c.begin(record{Method: methodImport}, c.timeout()), c.script()
	stream, err := c.api.Import(k.ctx, append(c.callOptions(), rpc.WithHeader(callHeader, k.id))...)
	if err != nil {
		k.end(record{}, err)
		return
	}
	defer stream.Close()
	sent, err := k.sendItems(s, stream.Send)
	if err != nil && err != io.EOF {
		k.end(record{Sent: sent}, err)
		return
	}
	closed := err == nil && k.open()
	res, err := stream.CloseAndRecv()
	k.end(record{Sent: sent, Closed: closed, Run: res.GetRun(), Count: int(res.GetCount()), Wrong: wrongImport(k.id, res)}, err)
}

func wrongImport(call string, res *chaosv1.ImportResponse) string {
	if res != nil && res.GetCall() != call {
		return "the response of the call " + res.GetCall()
	}
	return ""
}

// sendItems sends what the script says, until an error, and says how many items Send has taken.
func (k *call) sendItems(s script, send func(*chaosv1.Item) error) (sent int, err error) {
	for sent < s.count {
		if sent == s.leaveAt {
			k.giveUp()
		}
		item := newItem(k.id, sent, s.size)
		item.Fail = sent == s.failAt
		if err := send(item); err != nil {
			return sent, err
		}
		sent++
		_ = sleep(k.ctx, s.pause) // the next Send says what has happened
	}
	if s.leaveAt == s.count {
		k.giveUp()
	}
	return sent, nil
}

// talk sends items while it receives them back.
func (c *caller) talk() {
	k, s := c.begin(record{Method: methodTalk}, c.timeout()), c.script()
	stream, err := c.api.Talk(k.ctx, append(c.callOptions(), rpc.WithHeader(callHeader, k.id))...)
	if err != nil {
		k.end(record{}, err)
		return
	}
	defer stream.Close()
	var sender sync.WaitGroup
	sent, closed := 0, false
	sender.Go(func() {
		var err error
		sent, err = k.sendItems(s, stream.Send)
		if closed = err == nil && k.open(); closed {
			stream.CloseSend()
		}
	})
	in := items{call: k.id}
	for err == nil {
		var item *chaosv1.Item
		if item, err = stream.Recv(); err == nil {
			in.add(item)
		}
	}
	end := now()
	stream.Close() // wakes the sender where it waits
	sender.Wait()
	k.end(record{At: end, Sent: sent, Closed: closed, Got: in.got, Wrong: in.wrong}, cleanEnd(err))
}
