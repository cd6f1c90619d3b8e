package rpcdedup

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// messageTooLarge is JetStream's code for a message that exceeds the MaxValueSize of its bucket.
const messageTooLarge jetstream.ErrorCode = 10054

// Bucket is a Store in a key-value bucket of JetStream, which all instances of a service share.
type Bucket struct {
	kv  jetstream.KeyValue
	ttl time.Duration
}

// NewBucket returns a store in a bucket, as in
//
//	kv, err := js.CreateOrUpdateKeyValue(ctx, jetstream.KeyValueConfig{
//		Bucket: "order-calls", TTL: 24 * time.Hour, Replicas: 3,
//	})
//
// Records are kept for the TTL of the bucket; without one it grows without end. Its records are not
// to be changed by anybody else. Several services may share a bucket: the method is a part of each
// key. NewBucket asks JetStream for the TTL; its error is that of JetStream.
func NewBucket(ctx context.Context, kv jetstream.KeyValue) (*Bucket, error) {
	status, err := kv.Status(ctx)
	if err != nil {
		return nil, fmt.Errorf("rpcdedup: bucket %s: %w", kv.Bucket(), err)
	}
	return &Bucket{kv, status.TTL()}, nil
}

// TTL implements Store.
func (b *Bucket) TTL() time.Duration { return b.ttl }

// Create implements Store.
func (b *Bucket) Create(ctx context.Context, key string, value []byte) (uint64, error) {
	revision, err := b.kv.Create(ctx, key, value)
	if errors.Is(err, jetstream.ErrKeyExists) {
		return 0, ErrExists
	}
	return revision, err
}

// Get implements Store.
func (b *Bucket) Get(ctx context.Context, key string) ([]byte, uint64, error) {
	entry, err := b.kv.Get(ctx, key)
	switch {
	case errors.Is(err, jetstream.ErrKeyNotFound):
		return nil, 0, ErrNotFound
	case err != nil:
		return nil, 0, err
	}
	return entry.Value(), entry.Revision(), nil
}

// Update implements Store.
func (b *Bucket) Update(ctx context.Context, key string, value []byte, revision uint64) (uint64, error) {
	next, err := b.kv.Update(ctx, key, value, revision)
	var api *jetstream.APIError
	switch {
	case errors.Is(err, jetstream.ErrKeyRevisionMismatch):
		return 0, ErrConflict
	case errors.Is(err, nats.ErrMaxPayload), errors.As(err, &api) && api.ErrorCode == messageTooLarge:
		return 0, ErrTooLarge
	}
	return next, err
}

// Delete implements Store.
func (b *Bucket) Delete(ctx context.Context, key string, revision uint64) error {
	err := b.kv.Purge(ctx, key, jetstream.LastRevision(revision))
	if errors.Is(err, jetstream.ErrKeyRevisionMismatch) {
		return ErrConflict
	}
	return err
}
