package pool

import (
	"runtime"
	"slices"
	"testing"
	"testing/synctest"
)

// FuzzPool gives a pool tasks that return at once, wait or end their goroutine. At most as many as
// may are running, each one that was taken runs once and in order, none waits while it may run, and
// a pool that is closed takes none and ends when all have run. The first byte has the limits, each
// other is a step.
func FuzzPool(f *testing.F) {
	f.Add([]byte("\x11\x00\x01\x02\x01\x01\x03\x03\x00"))
	f.Add([]byte("\x30\x01\x01\x01\x01\x02\x03\x04\x00\x03\x05\x00\x01\x04"))
	f.Add([]byte("\x01\x02\x02\x02\x01\x04\x03\x05\x02"))
	f.Fuzz(func(t *testing.T, steps []byte) {
		if len(steps) == 0 || len(steps) > 200 {
			return
		}
		limit, queueLimit := 1+int(steps[0]>>4&3), int(steps[0]&7)
		synctest.Test(t, func(t *testing.T) {
			left := new(answers)
			p := newPool(limit, queueLimit, left)
			ended := (<-chan struct{})(nil)
			goOn := make(chan struct{})
			taken, blocking := 0, 0
			var ran []int // changed by one task at a time, as the bubble is waited for
			var waits []bool
			begun := make(chan int, len(steps))
			submit := func(f func()) {
				number := taken
				if p.submit(func() { begun <- number; left.held.Add(1); f() }) {
					taken++
				} else if ended == nil && blocking < limit+queueLimit {
					t.Fatalf("a task is refused while %d of %d are there", blocking, limit+queueLimit)
				}
			}
			for _, step := range steps[1:] {
				before := taken
				switch step % 6 {
				case 0:
					submit(func() {})
				case 1:
					submit(func() { <-goOn })
				case 2:
					submit(runtime.Goexit)
				case 3:
					if len(ran) > 0 && runningOf(ran, waits) > 0 {
						goOn <- struct{}{}
						for i, waiting := range waits {
							if waiting && slices.Contains(ran, i) {
								waits[i] = false // which one it was makes no difference
								break
							}
						}
					}
				case 4:
					ended = p.Close()
				default:
					p.Open()
					ended = nil
				}
				if taken > before {
					waits = append(waits, step%6 == 1)
				}
				synctest.Wait()
				for len(begun) > 0 {
					ran = append(ran, <-begun)
				}
				running := runningOf(ran, waits)
				if running > limit || running < limit && len(ran) < taken {
					t.Fatalf("%d of %d run, and %d of %d tasks have begun", running, limit, len(ran), taken)
				}
				blocking = running + taken - len(ran)
			}
			close(goOn)
			<-p.Close()
			for len(begun) > 0 {
				ran = append(ran, <-begun)
			}
			if len(ran) != taken {
				t.Fatalf("%d of %d tasks have begun", len(ran), taken)
			}
			for i, number := range ran {
				if i != number && limit == 1 { // others begin side by side
					t.Fatalf("task %d begins as number %d", number, i)
				}
			}
			p.Close()
			synctest.Wait()
			if left.held.Load() > 0 {
				t.Errorf("%d answers are left", left.held.Load())
			}
		})
	})
}

// runningOf returns how many of the tasks that have begun wait.
func runningOf(ran []int, waits []bool) (n int) {
	for _, i := range ran {
		if waits[i] {
			n++
		}
	}
	return n
}
