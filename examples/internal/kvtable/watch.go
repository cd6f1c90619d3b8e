package kvtable

import (
	"context"
	"errors"
	"iter"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// All yields every entry, in the order in which they were written last. An
// error ends it.
func (t *Table[T]) All(ctx context.Context) iter.Seq2[Row[T], error] {
	return func(yield func(Row[T], error) bool) {
		for e, err := range t.entries(ctx) {
			if err != nil {
				yield(Row[T]{}, err)
				return
			}
			if !yield(t.decode(e)) {
				return
			}
		}
	}
}

// entries yields what is in the bucket, or an error at the end: a list that
// was cut short must not look like a whole one.
func (t *Table[T]) entries(ctx context.Context, opts ...jetstream.WatchOpt) iter.Seq2[jetstream.KeyValueEntry, error] {
	return func(yield func(jetstream.KeyValueEntry, error) bool) {
		w, stop, err := t.watch(ctx, []string{AllKeys}, opts...)
		if err != nil {
			yield(nil, unavailable("list", t.kv.Bucket(), err))
			return
		}
		defer stop()
		for {
			e, err := next(ctx, w)
			if err != nil {
				yield(nil, unavailable("list", t.kv.Bucket(), err))
				return
			}
			if e == nil || !yield(e, nil) { // nil: that was all
				return
			}
		}
	}
}

// AllKeys makes Watch watch every entry.
const AllKeys = jetstream.AllKeys

// Watch sends the entries under the keys as they are, and then each as it is
// after a change. A reader that is slow may miss what was changed again
// meanwhile, but never the last. The channel closes when ctx ends or the
// connection is closed.
func (t *Table[T]) Watch(ctx context.Context, keys ...string) (<-chan Row[T], error) {
	w, stop, err := t.watch(ctx, keys)
	if err != nil {
		return nil, unavailable("watch", t.name(strings.Join(keys, ", ")), err)
	}
	rows := make(chan Row[T])
	go func() { // ends with ctx
		defer close(rows)
		defer stop()
		t.forward(ctx, w, rows)
	}()
	return rows, nil
}

func (t *Table[T]) forward(ctx context.Context, w jetstream.KeyWatcher, rows chan<- Row[T]) {
	for {
		e, err := next(ctx, w)
		if err != nil {
			return
		}
		if e == nil {
			continue // all that there was has been sent; changes follow
		}
		row, err := t.decode(e)
		if err != nil {
			continue // not written by us, and nothing to work on
		}
		select {
		case rows <- row:
		case <-ctx.Done():
			return
		}
	}
}

var errWatchEnded = errors.New("the connection was closed")

func next(ctx context.Context, w jetstream.KeyWatcher) (jetstream.KeyValueEntry, error) {
	select {
	case e, ok := <-w.Updates():
		if !ok {
			return nil, errWatchEnded
		}
		return e, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// watch begins to watch, if that succeeds in time, until ctx ends or stop is called.
func (t *Table[T]) watch(ctx context.Context, keys []string, opts ...jetstream.WatchOpt) (w jetstream.KeyWatcher, stop func(), err error) {
	ctx, cancel := context.WithCancel(ctx) // ends the watch, so it cannot bound its beginning
	late := time.AfterFunc(answerTime, cancel)
	w, err = t.kv.WatchFiltered(ctx, keys, append(opts, jetstream.IgnoreDeletes())...)
	inTime := late.Stop()
	if err != nil {
		cancel()
		return nil, nil, err
	}
	stop = func() {
		cancel()
		_ = w.Stop()            // fails only where it has ended
		for range w.Updates() { // the watcher's goroutine waits for a reader
		}
	}
	if !inTime {
		stop()
		return nil, nil, context.DeadlineExceeded
	}
	return w, stop, nil
}

// Page returns at most size entries in the order of their keys, beginning
// after the key after, and whether there are more.
//
// It lists all keys to find them: right for a shop, not for a million entries.
func (t *Table[T]) Page(ctx context.Context, after string, size int) (rows []Row[T], more bool, err error) {
	keys, err := t.keys(ctx, after)
	if err != nil {
		return nil, false, err
	}
	for _, key := range keys {
		if len(rows) == size {
			return rows, true, nil
		}
		row, err := t.Get(ctx, key)
		if errors.Is(err, ErrNotFound) {
			continue // deleted meanwhile
		}
		if err != nil {
			return nil, false, err
		}
		rows = append(rows, row)
	}
	return rows, false, nil
}

func (t *Table[T]) keys(ctx context.Context, after string) ([]string, error) {
	var keys []string
	for e, err := range t.entries(ctx, jetstream.MetaOnly()) {
		if err != nil {
			return nil, err
		}
		if e.Key() > after {
			keys = append(keys, e.Key())
		}
	}
	slices.Sort(keys)
	return keys, nil
}
