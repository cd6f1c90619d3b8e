package main

import (
	"os"
	"path/filepath"
	"reflect"
	"sync"
	"testing"
)

// TestJournal writes records concurrently, and reads them.
func TestJournal(t *testing.T) {
	dir := t.TempDir()
	const writers, each = 8, 100
	for _, process := range []string{"a", "b"} {
		j, err := openJournal(dir, process)
		if err != nil {
			t.Fatal(err)
		}
		var wg sync.WaitGroup
		for range writers {
			wg.Go(func() {
				for range each {
					j.write(record{Kind: run, Call: "c"})
				}
			})
		}
		wg.Wait()
		if err := j.close(); err != nil {
			t.Fatal(err)
		}
	}
	all, err := readJournals(dir)
	if err != nil {
		t.Fatal(err)
	}
	count := map[string]int{}
	for _, r := range all {
		if r.Kind != run || r.Call != "c" || r.At == 0 {
			t.Fatalf("%+v", r)
		}
		count[r.Process]++
	}
	if want := map[string]int{"a": writers * each, "b": writers * each}; !reflect.DeepEqual(count, want) {
		t.Errorf("%v, want %v", count, want)
	}
}

// TestRecord writes and reads a record that has everything.
func TestRecord(t *testing.T) {
	dir := t.TempDir()
	j, err := openJournal(dir, "a")
	if err != nil {
		t.Fatal(err)
	}
	want := record{
		At: 1, Process: "a", Kind: ended, Call: "c", Method: methodTalk, Run: "r", Deadline: 2, GaveUp: 3,
		Code: "ok", Claim: "did run", Text: "t", Wrong: "w", Sent: 4, Got: tally{{0, 5}, {6, 7}}, Closed: true, Count: 8, Since: 9,
	}
	j.write(want)
	if err := j.close(); err != nil {
		t.Fatal(err)
	}
	got, err := readJournals(dir)
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got, []record{want}) {
		t.Errorf("%+v, want %+v", got, want)
	}
}

// TestBadJournal reads a file that is cut off: the checker must not take it for a whole one.
func TestBadJournal(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "a.jsonl"), []byte(`{"kind":"run"}`+"\n"+`{"kind":"ra`), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := readJournals(dir); err == nil {
		t.Error("no error")
	}
}

func TestTally(t *testing.T) {
	tests := []struct {
		name  string
		in    []int
		want  tally
		count int
		whole bool
	}{
		{"nothing", nil, nil, 0, true},
		{"in order", []int{0, 1, 2}, tally{{0, 3}}, 3, true},
		{"a gap", []int{0, 2}, tally{{0, 1}, {2, 3}}, 2, false},
		{"a double", []int{0, 1, 1, 2}, tally{{0, 2}, {1, 3}}, 4, false},
		{"out of order", []int{1, 0}, tally{{1, 2}, {0, 1}}, 2, false},
		{"a late start", []int{1, 2}, tally{{1, 3}}, 2, false},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			var got tally
			for _, n := range test.in {
				got.add(n)
			}
			if !reflect.DeepEqual(got, test.want) || got.count() != test.count || got.whole() != test.whole {
				t.Errorf("%v, %d, whole: %t", got, got.count(), got.whole())
			}
		})
	}
}
