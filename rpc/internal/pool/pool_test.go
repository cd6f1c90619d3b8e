package pool

import (
	"math"
	"runtime"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/natscall/natscall/rpc/internal/admission"
)

// answers counts what tasks leave behind.
type answers struct {
	held, published atomic.Int64
	overdue         atomic.Bool
}

func (a *answers) Holds() bool   { return a.held.Load() > 0 }
func (a *answers) Overdue() bool { return a.overdue.Load() }
func (a *answers) Flush()        { a.published.Add(a.held.Swap(0)) }

// aTask is a function to run.
type aTask struct {
	f      func()
	ticket admission.Ticket
}

func (t *aTask) Run()                      { t.f() }
func (t *aTask) Ticket() *admission.Ticket { return &t.ticket }

// aPool is a pool whose tasks are all of one method.
type aPool struct {
	*Pool
	method *admission.Method
}

func newPool(limit, queueLimit int, a Answers) aPool {
	limits := admission.Limits{Running: limit, Waiting: queueLimit}
	return aPool{New(admission.NewQueue(limits), a), admission.NewMethod(limits)}
}

func (p aPool) submit(f func()) bool {
	return p.Submit(&aTask{f, admission.Ticket{Method: p.method}}, 0, 0)
}

// TestLimits: as many tasks run and wait as may, the next one is refused, and all that were taken
// run.
func TestLimits(t *testing.T) {
	for _, limits := range [][2]int{{1, 0}, {1, 3}, {4, 0}, {4, 7}, {math.MaxInt, 0}, {4, math.MaxInt}} {
		synctest.Test(t, func(t *testing.T) {
			p := newPool(limits[0], limits[1], &answers{})
			goOn := make(chan struct{})
			var running, most, ran atomic.Int64
			submit := func() bool {
				return p.submit(func() {
					most.Store(max(most.Load(), running.Add(1)))
					<-goOn
					running.Add(-1)
					ran.Add(1)
				})
			}
			taken := 0
			for taken < 20 && submit() {
				taken++
				synctest.Wait()
			}
			want := int64(min(20, uint(limits[0])+uint(limits[1])))
			if int64(taken) != want || running.Load() != min(want, int64(limits[0])) {
				t.Errorf("limits %v: %d are taken and %d run", limits, taken, running.Load())
			}
			ended := p.Close()
			if submit() {
				t.Error("a closed pool takes a task")
			}
			close(goOn)
			<-ended
			if ran.Load() != want || most.Load() > int64(limits[0]) {
				t.Errorf("limits %v: %d have run, %d at once", limits, ran.Load(), most.Load())
			}
		})
	}
}

// TestOrder: tasks begin in the order in which they are submitted.
func TestOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPool(1, 100, &answers{})
		var order []int
		for round := range 5 { // the queue moves and grows
			for i := range 20 {
				p.submit(func() { order = append(order, 20*round+i) })
			}
			if round%2 == 0 {
				synctest.Wait()
			}
		}
		<-p.Close()
		for i, n := range order {
			if i != n {
				t.Fatalf("task %d was the %dth", n, i)
			}
		}
		if len(order) != 100 {
			t.Errorf("%d have run", len(order))
		}
	})
}

// TestGoexit: a task that ends its goroutine costs no other one its turn.
func TestGoexit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPool(2, 100, &answers{})
		var ran atomic.Int64
		for i := range 50 {
			p.submit(func() {
				ran.Add(1)
				if i%3 == 0 {
					runtime.Goexit()
				}
			})
		}
		<-p.Close()
		if ran.Load() != 50 {
			t.Errorf("%d have run", ran.Load())
		}
	})
}

// TestAnswersWaitForNoTask: whichever task of a burst takes its time, the answers of the others are
// published meanwhile.
func TestAnswersWaitForNoTask(t *testing.T) {
	const tasks = 20
	for _, limit := range []int{2, 3, tasks} {
		for slow := range tasks {
			synctest.Test(t, func(t *testing.T) {
				a := &answers{}
				p := newPool(limit, tasks, a)
				goOn := make(chan struct{})
				for i := range tasks {
					p.submit(func() {
						if i == slow {
							<-goOn
						}
						a.held.Add(1)
					})
				}
				synctest.Wait()
				if n := a.published.Load(); n != tasks-1 {
					t.Errorf("limit %d: while task %d runs %d answers are published", limit, slow, n)
				}
				close(goOn)
				<-p.Close()
				if n := a.published.Load(); n != tasks {
					t.Errorf("limit %d: in the end %d answers are published", limit, n)
				}
			})
		}
	}
}

// TestParking: goroutines park for later tasks, so many of them, and end with the pool, which can
// be opened again.
func TestParking(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const burst = maxParked + 50
		p := newPool(burst, 0, &answers{})
		for range 2 {
			before := runtime.NumGoroutine()
			goOn := make(chan struct{})
			for range burst {
				p.submit(func() { <-goOn })
				synctest.Wait()
			}
			close(goOn)
			synctest.Wait()
			if n := len(p.parked); n != maxParked {
				t.Errorf("%d are parked", n)
			}
			p.submit(func() { <-time.After(time.Minute) })
			ended := p.Close()
			synctest.Wait()
			select {
			case <-ended:
				t.Error("it has ended while a task runs")
			case <-p.Close():
				t.Error("it has ended while a task runs")
			default:
			}
			<-ended
			synctest.Wait()
			// A goroutine that has left the bubble may be counted for a moment.
			for i := 0; runtime.NumGoroutine() > before && i < 1e6; i++ {
				runtime.Gosched()
			}
			if n := runtime.NumGoroutine(); n > before {
				t.Errorf("%d goroutines are left", n-before)
			}
			p.Open()
			p.Open()
		}
		<-p.Close()
	})
}

// slowAnswers take their time to be published.
type slowAnswers struct {
	answers
	goOn chan struct{}
}

func (a *slowAnswers) Flush() {
	a.held.Store(0)
	<-a.goOn
	a.published.Add(1)
}

// TestFlushing: a goroutine that publishes answers is in nobody's way, takes no more tasks than may
// run when it comes back, and the pool does not end before it.
func TestFlushing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := &slowAnswers{goOn: make(chan struct{})}
		p := newPool(1, 10, a)
		p.submit(func() { a.held.Add(1) })
		synctest.Wait() // it publishes
		goOn := make(chan struct{})
		var running, most, ran atomic.Int64
		for range 2 {
			p.submit(func() {
				most.Store(max(most.Load(), running.Add(1)))
				<-goOn
				running.Add(-1)
				ran.Add(1)
			})
		}
		if synctest.Wait(); running.Load() != 1 {
			t.Errorf("%d tasks run beside it", running.Load())
		}
		a.goOn <- struct{}{}
		if synctest.Wait(); most.Load() != 1 {
			t.Errorf("%d tasks run at once", most.Load())
		}
		close(goOn)
		synctest.Wait()
		p.submit(func() { a.held.Add(1) })
		synctest.Wait() // it publishes again
		ended := p.Close()
		synctest.Wait()
		select {
		case <-ended:
			t.Error("it has ended before its answers were published")
		default:
		}
		a.goOn <- struct{}{}
		<-ended
		if ran.Load() != 2 || a.published.Load() != 2 {
			t.Errorf("%d have run, %d times answers were published", ran.Load(), a.published.Load())
		}
	})
}

// TestOverdue: a goroutine that took long to wake publishes the answers before it runs a task,
// though another one is waking.
func TestOverdue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := &answers{}
		a.held.Store(1)
		a.overdue.Store(true)
		p := newPool(4, 4, a)
		var before atomic.Int64
		p.submit(func() { before.Store(a.published.Load()) })
		p.submit(func() {})
		<-p.Close()
		if before.Load() != 1 {
			t.Error("the task ran before the answers were published")
		}
	})
}
