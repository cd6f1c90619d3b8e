package rpcdedup

import (
	"context"
	"errors"
	"time"
)

// Store keeps records by key. All its methods may be called concurrently, and by several processes
// at once if these share it. A record should be kept for longer than any caller repeats a call, and
// must be kept for longer than two leases ([WithLease]). A store should return when ctx ends.
type Store interface {
	// Create stores a value under a key that has none, and returns its revision. It returns
	// ErrExists if there is one.
	Create(ctx context.Context, key string, value []byte) (revision uint64, err error)
	// Get returns the value of a key, or ErrNotFound. It may return what was before; revisions grow
	// with each change, so it shows.
	Get(ctx context.Context, key string) (value []byte, revision uint64, err error)
	// Update replaces a value that has the revision. It returns ErrConflict if it has another one,
	// and ErrTooLarge if the store does not take values of this size.
	Update(ctx context.Context, key string, value []byte, revision uint64) (next uint64, err error)
	// Delete removes a value that has the revision. It returns ErrConflict if it has another one.
	Delete(ctx context.Context, key string, revision uint64) error
	// TTL returns how long a record is kept after its last change, or 0 if it is kept for good.
	TTL() time.Duration
}

// The errors of a Store. Any other one means that the store could not be asked, or has not
// answered; then a change may have been made.
var (
	ErrExists   = errors.New("rpcdedup: the key has a value")
	ErrNotFound = errors.New("rpcdedup: the key has no value")
	ErrConflict = errors.New("rpcdedup: the value has another revision")
	ErrTooLarge = errors.New("rpcdedup: the value is too large")
)
