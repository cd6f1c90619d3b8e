// Package kvtable keeps values of one Go type in a JetStream key-value bucket,
// as JSON, so that "nats kv get" shows them.
//
// Every write says which revision of the entry it is based on, and fails if
// there is a newer one. So any number of processes can work on the same entry,
// and none undoes what another did.
package kvtable

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/natscall/natscall/examples/internal/backoff"
	"github.com/natscall/natscall/rpc"
)

var (
	// ErrNotFound is returned by Get when there is no entry under the key.
	ErrNotFound = errors.New("kvtable: not found")

	// ErrConflict is returned by Put when the entry's revision is not the one
	// that the write is based on. Nothing was written.
	ErrConflict = errors.New("kvtable: changed meanwhile")

	// errNoLeader is what a cluster answers while too few of its nodes are there.
	errNoLeader = &jetstream.APIError{ErrorCode: 10008} // JSClusterNotAvailErr of nats-server
)

// contention is how Update goes on after a conflict: for some two seconds, in
// which hundreds of writers get their turn, as a write takes a millisecond.
var contention = backoff.Policy{First: 2 * time.Millisecond, Limit: 100 * time.Millisecond, Max: 40}

// A request to a bucket that has no leader at the moment, because its servers
// elect one, gets no answer at all. So whatever can be asked again is asked
// with a time of its own.
const answerTime = time.Second

var (
	// reading is bounded by the deadline of the call.
	reading = backoff.Policy{First: 10 * time.Millisecond, Limit: 200 * time.Millisecond}

	// opening goes on for as long as a cluster says that it has no leader yet.
	opening = backoff.Policy{First: 50 * time.Millisecond, Limit: 400 * time.Millisecond}
)

// patience is how often Open may fail otherwise. It lasts for the election that follows when a
// bucket was made, and for the time in which the first node of a cluster answers nothing (some ten
// seconds), and half as often where there is no JetStream.
const patience = 16

// Config says which bucket.
type Config struct {
	Prefix      string        // keeps the buckets of several shops apart; may be empty
	Name        string        // the bucket's
	Description string        // for "nats kv ls"
	Replicas    int           // how many servers of a cluster keep it; 0 is 1
	MaxAge      time.Duration // after which an entry that nobody writes goes; 0 is never
	Log         *slog.Logger  // is told that Open waits; may be nil
}

// Bucket is the bucket's full name. A name has no dots, a prefix may.
func (c Config) Bucket() string {
	if c.Prefix == "" {
		return c.Name
	}
	return strings.ReplaceAll(c.Prefix, ".", "-") + "-" + c.Name
}

// Table is a bucket whose values are of type T. It is safe for concurrent use.
//
// Methods return an *rpc.Error, ready to be a handler's answer: UNAVAILABLE
// where JetStream does not answer, when a write may have happened or not.
type Table[T any] struct {
	kv jetstream.KeyValue
}

// Open opens the bucket, and makes it if it does not exist. One that exists is
// used as it is. It waits until ctx ends for a cluster that is about to start.
func Open[T any](ctx context.Context, js jetstream.JetStream, c Config) (*Table[T], error) {
	var err error
	waits, failures := false, 0
	for range opening.Attempts(ctx) {
		var kv jetstream.KeyValue
		if kv, err = c.open(ctx, js); err == nil {
			return New[T](kv), nil
		}
		if !errors.Is(err, errNoLeader) {
			if failures++; failures == patience || noJetStream(err) && failures >= patience/2 {
				break
			}
		} else if !waits && c.Log != nil {
			waits = true
			c.Log.Warn("JetStream is not there yet, waiting", "bucket", c.Bucket(), "err", err)
		}
	}
	switch ended := ctx.Err(); {
	case ended != nil && err != nil && !errors.Is(err, ended):
		err = fmt.Errorf("%w, after %w", ended, err) // a signal that ends a process is no failure
	case ended != nil:
		err = ended
	case noJetStream(err):
		return nil, rpc.Errorf(rpc.CodeUnavailable, "NATS has no JetStream, or none for this account: start it as nats-server -js (cannot open %s: %w)", c.Bucket(), err)
	}
	return nil, unavailable("open", c.Bucket(), err)
}

// noJetStream reports whether nobody answers JetStream's requests, or a server says that it has it
// for others only.
func noJetStream(err error) bool {
	return errors.Is(err, nats.ErrNoResponders) || errors.Is(err, jetstream.ErrJetStreamNotEnabled) ||
		errors.Is(err, jetstream.ErrJetStreamNotEnabledForAccount)
}

// open tries once. It may fail where another replica makes the bucket at the
// same time.
func (c Config) open(ctx context.Context, js jetstream.JetStream) (jetstream.KeyValue, error) {
	ctx, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	kv, err := js.KeyValue(ctx, c.Bucket())
	if !errors.Is(err, jetstream.ErrBucketNotFound) {
		return kv, err
	}
	if _, err := js.CreateStream(ctx, c.stream()); err != nil {
		return nil, err
	}
	return js.KeyValue(ctx, c.Bucket())
}

// stream is what js.CreateKeyValue would make, but for AllowDirect: with it
// any replica of the bucket answers a read, also one that has not heard of
// the last write yet. Decisions are made on what is read here, so all reads
// go to the leader.
func (c Config) stream() jetstream.StreamConfig {
	return jetstream.StreamConfig{
		Name:              "KV_" + c.Bucket(),
		Description:       c.Description,
		Subjects:          []string{"$KV." + c.Bucket() + ".>"},
		MaxMsgsPerSubject: 1,
		MaxAge:            c.MaxAge,
		Replicas:          max(c.Replicas, 1),
		Discard:           jetstream.DiscardNew,
		AllowRollup:       true,
		DenyDelete:        true,
	}
}

// New is a table of the bucket kv.
func New[T any](kv jetstream.KeyValue) *Table[T] { return &Table[T]{kv} }

// Row is an entry. Revision 0 means that it does not exist yet.
type Row[T any] struct {
	Key      string
	Value    T
	Revision uint64

	raw []byte // the value as it was read
}

// Get reads the entry under key. Its error is ErrNotFound where there is none.
func (t *Table[T]) Get(ctx context.Context, key string) (Row[T], error) {
	e, err := t.get(ctx, key)
	switch {
	case errors.Is(err, jetstream.ErrKeyNotFound): // also of one that was deleted
		return Row[T]{Key: key}, ErrNotFound
	case err != nil:
		return Row[T]{}, unavailable("read", t.name(key), err)
	}
	return t.decode(e)
}

func (t *Table[T]) get(ctx context.Context, key string) (e jetstream.KeyValueEntry, err error) {
	for range reading.Attempts(ctx) {
		attempt, cancel := context.WithTimeout(ctx, answerTime)
		e, err = t.kv.Get(attempt, key)
		cancel()
		if !errors.Is(err, context.DeadlineExceeded) {
			return e, err
		}
	}
	return nil, cmp.Or(err, ctx.Err())
}

func (t *Table[T]) decode(e jetstream.KeyValueEntry) (Row[T], error) {
	row := Row[T]{Key: e.Key(), Revision: e.Revision(), raw: e.Value()}
	if err := json.Unmarshal(row.raw, &row.Value); err != nil {
		return row, rpc.Errorf(rpc.CodeDataLoss, "%s: %v", t.name(row.Key), err)
	}
	return row, nil
}

// Put writes the row if its entry still has the row's revision, and returns
// the new one. Its error is ErrConflict if the entry has another.
func (t *Table[T]) Put(ctx context.Context, row Row[T]) (uint64, error) {
	value, err := json.Marshal(row.Value)
	if err != nil {
		return 0, rpc.Errorf(rpc.CodeInternal, "%s: %v", t.name(row.Key), err)
	}
	return t.put(ctx, row, value)
}

func (t *Table[T]) put(ctx context.Context, row Row[T], value []byte) (rev uint64, err error) {
	if row.Revision == 0 {
		rev, err = t.kv.Create(ctx, row.Key, value) // also over an entry that was deleted
	} else {
		rev, err = t.kv.Update(ctx, row.Key, value, row.Revision)
	}
	switch {
	case errors.Is(err, jetstream.ErrKeyExists), errors.Is(err, jetstream.ErrKeyRevisionMismatch):
		return 0, ErrConflict
	case err != nil:
		return 0, unavailable("write", t.name(row.Key), err)
	}
	return rev, nil
}

// Update replaces the value under key by what change makes of it, and returns
// that. change gets the zero value where there is no entry. Its error ends
// Update, and is returned. It is called again when the entry has changed
// meanwhile, so it must not have effects of its own.
//
// Only a conflict is tried again: it certainly wrote nothing. Where conflicts
// persist Update fails with ABORTED.
func (t *Table[T]) Update(ctx context.Context, key string, change func(T) (T, error)) (T, error) {
	for range contention.Attempts(ctx) {
		value, err := t.updateOnce(ctx, key, change)
		if !errors.Is(err, ErrConflict) {
			return value, err
		}
	}
	var none T
	if err := ctx.Err(); err != nil {
		return none, unavailable("write", t.name(key), err)
	}
	return none, rpc.Errorf(rpc.CodeAborted, "%s is written by too many at once", t.name(key))
}

func (t *Table[T]) updateOnce(ctx context.Context, key string, change func(T) (T, error)) (T, error) {
	row, err := t.Get(ctx, key)
	if err != nil && !errors.Is(err, ErrNotFound) {
		return row.Value, err
	}
	if row.Value, err = change(row.Value); err != nil {
		return row.Value, err
	}
	value, err := json.Marshal(row.Value)
	if err != nil {
		return row.Value, rpc.Errorf(rpc.CodeInternal, "%s: %v", t.name(key), err)
	}
	if bytes.Equal(value, row.raw) {
		return row.Value, nil // a repeated request changes nothing, and costs no write
	}
	_, err = t.put(ctx, row, value)
	return row.Value, err
}

// Check is a health check: it fails if JetStream does not say what the bucket is.
func (t *Table[T]) Check(ctx context.Context) error {
	if _, err := t.kv.Status(ctx); err != nil {
		return fmt.Errorf("JetStream bucket %s: %w", t.kv.Bucket(), err)
	}
	return nil
}

func (t *Table[T]) name(key string) string { return t.kv.Bucket() + "/" + key }

// unavailable makes the caller's answer of an error of JetStream.
func unavailable(what, name string, err error) error {
	return rpc.Errorf(rpc.CodeUnavailable, "cannot %s %s: %w", what, name, err)
}
