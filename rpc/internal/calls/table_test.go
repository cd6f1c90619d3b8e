package calls

import (
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/natscall/natscall/rpc/internal/wire"
)

// TestTable drives a table and a model of it at random. Ids are few, so that all cases come.
func TestTable(t *testing.T) {
	var table Table[int]
	model := map[wire.ID]int{}
	var canceled []wire.ID // of one shard, the oldest first
	ids := make([]wire.ID, 3*maxCanceled)
	for i := range ids {
		ids[i] = wire.ID{shardCount, byte(i)} // in one shard, as if a caller had chosen them
	}
	for n := range 100_000 {
		id := ids[rand.IntN(len(ids))]
		call, there := model[id]
		switch rand.IntN(4) {
		case 0:
			want := New
			switch {
			case slices.Contains(canceled, id):
				want = Canceled
			case there:
				want = Duplicate
			default:
				model[id] = n
			}
			if got := table.Add(id, n); got != want {
				t.Fatalf("step %d: Add returned %v, want %v", n, got, want)
			}
		case 1:
			if there {
				table.Remove(id)
				delete(model, id)
			}
		case 2:
			if got, ok := table.Get(id); ok != there || got != call {
				t.Fatalf("step %d: Get returned %d, %v", n, got, ok)
			}
		case 3:
			if got, ok := table.Cancel(id); ok != there || got != call {
				t.Fatalf("step %d: Cancel returned %d, %v", n, got, ok)
			}
			if !there && !slices.Contains(canceled, id) {
				canceled = append(canceled, id)[max(0, len(canceled)+1-maxCanceled):]
			}
		}
	}
	if all := table.All(); len(all) != len(model) {
		t.Errorf("All returned %d calls, want %d", len(all), len(model))
	}
}

// TestConcurrent: of many that add a call with one id, one succeeds.
func TestConcurrent(t *testing.T) {
	var table Table[int]
	for range 100 {
		id := wire.NewID()
		var added atomic.Int64
		var wg sync.WaitGroup
		for i := range 8 {
			wg.Go(func() {
				if table.Add(id, i) == New {
					added.Add(1)
				}
			})
		}
		wg.Wait()
		if added.Load() != 1 {
			t.Fatalf("%d were added", added.Load())
		}
		table.Remove(id)
	}
	if n := len(table.All()); n > 0 {
		t.Errorf("%d calls are left", n)
	}
}

// TestOneCancel: a single cancel that came before its request is remembered.
func TestOneCancel(t *testing.T) {
	for range 100 {
		var table Table[int]
		id := wire.NewID()
		if _, ok := table.Cancel(id); ok {
			t.Fatal("there is a call")
		}
		if got := table.Add(id, 1); got != Canceled {
			t.Fatalf("Add returned %v", got)
		}
	}
}

// TestAll: All returns the calls of all shards.
func TestAll(t *testing.T) {
	var table Table[wire.ID]
	want := map[wire.ID]bool{}
	for range 1000 {
		id := wire.NewID()
		table.Add(id, id)
		want[id] = true
	}
	for _, id := range table.All() {
		if !want[id] {
			t.Errorf("%v is there twice, or was not added", id)
		}
		delete(want, id)
	}
	if len(want) > 0 {
		t.Errorf("%d are not there", len(want))
	}
}
