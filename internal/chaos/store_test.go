package main

import (
	"context"
	"sync"
	"testing"

	"github.com/natscall/natscall/rpc/rpcdedup"
)

// TestCallStore: replicas share the records of calls, with the errors of the store.
func TestCallStore(t *testing.T) {
	s, err := openStore()
	if err != nil {
		t.Fatal(err)
	}
	defer s.close()
	r, err := dialStore(s.address())
	if err != nil {
		t.Fatal(err)
	}
	defer r.close()
	ctx := context.Background()
	if _, _, err := r.Get(ctx, "k"); err != rpcdedup.ErrNotFound {
		t.Errorf("Get of nothing: %v", err)
	}
	first, err := r.Create(ctx, "k", []byte("a"))
	if _, again := r.Create(ctx, "k", []byte("b")); err != nil || again != rpcdedup.ErrExists {
		t.Errorf("Create: %v, and again: %v", err, again)
	}
	second, err := r.Update(ctx, "k", []byte("c"), first)
	if _, again := r.Update(ctx, "k", []byte("d"), first); err != nil || again != rpcdedup.ErrConflict {
		t.Errorf("Update: %v, and again: %v", err, again)
	}
	if value, revision, err := r.Get(ctx, "k"); string(value) != "c" || revision != second || err != nil {
		t.Errorf("Get: %q, %d, %v, want revision %d", value, revision, err, second)
	}
	if err := r.Delete(ctx, "k", second); err != nil {
		t.Error(err)
	}
}

// TestStore: replicas share registers, and each operation takes effect once.
func TestStore(t *testing.T) {
	s, err := openStore()
	if err != nil {
		t.Fatal(err)
	}
	defer s.close()
	const replicas, each = 4, 50
	var all sync.WaitGroup
	for range replicas {
		all.Go(func() {
			r, err := dialStore(s.address())
			if err != nil {
				t.Error(err)
				return
			}
			defer r.close()
			for range each {
				r.apply(methodIncrease, Operation{Key: "a", Value: 2})
			}
		})
	}
	all.Wait()
	r, err := dialStore(s.address())
	if err != nil {
		t.Fatal(err)
	}
	defer r.close()
	const sum = 2 * replicas * each
	for _, step := range []struct {
		method    string
		in        Operation
		value     int64
		exchanged bool
	}{
		{methodRead, Operation{Key: "a"}, sum, false},
		{methodSwap, Operation{Key: "a", Expected: 1, Value: 7}, sum, false},
		{methodSwap, Operation{Key: "a", Expected: sum, Value: 7}, 7, true},
		{methodRead, Operation{Key: "b"}, 0, false},
	} {
		if got := r.apply(step.method, step.in); got.Value != step.value || got.Swapped != step.exchanged {
			t.Errorf("%s of %+v: %+v", step.method, step.in, got)
		}
	}
}
