package calls

import (
	"slices"
	"testing"

	"github.com/natscall/natscall/rpc/internal/wire"
)

// FuzzTable compares a table with a map and, for each shard, a list of the cancels that it
// remembers. Each two bytes are a step: what is done, and with which of 256 calls in four shards.
func FuzzTable(f *testing.F) {
	f.Add([]byte("\x00\x01\x00\x01\x02\x01\x01\x01\x02\x02\x00\x02\x03\x03"))
	var cancels []byte
	for i := range 256 {
		cancels = append(cancels, 2, byte(i))
	}
	f.Add(slices.Concat(cancels, cancels, []byte{0, 7, 1, 7, 0, 7}))
	f.Add(slices.Concat([]byte{0, 4, 0, 8}, slices.Repeat([]byte{6, 4, 10, 0}, 200)))
	f.Fuzz(func(t *testing.T, steps []byte) {
		var table Table[int]
		calls := map[wire.ID]int{}
		canceled := map[byte][]wire.ID{} // by shard, the oldest first
		for i := 0; i+1 < len(steps); i += 2 {
			id := wire.ID{steps[i+1] % 4, steps[i+1], steps[i] >> 2}
			shard := id[0]
			call, there := calls[id]
			switch steps[i] % 4 {
			case 0:
				want := New
				switch {
				case slices.Contains(canceled[shard], id):
					want = Canceled
				case there:
					want = Duplicate
				default:
					calls[id] = i
				}
				if got := table.Add(id, i); got != want {
					t.Fatalf("step %d: Add of %v is %v, want %v", i, id, got, want)
				}
			case 1:
				table.Remove(id)
				delete(calls, id)
			case 2:
				if got, ok := table.Cancel(id); ok != there || got != call {
					t.Fatalf("step %d: Cancel of %v is %v, %v", i, id, got, ok)
				}
				if there || slices.Contains(canceled[shard], id) {
					break
				}
				if canceled[shard] = append(canceled[shard], id); len(canceled[shard]) > maxCanceled {
					canceled[shard] = canceled[shard][1:]
				}
			default:
				if got, ok := table.Get(id); ok != there || got != call {
					t.Fatalf("step %d: Get of %v is %v, %v", i, id, got, ok)
				}
			}
		}
		if n := len(table.All()); n != len(calls) {
			t.Errorf("%d calls are there, want %d", n, len(calls))
		}
	})
}
