package rpcdedup

import (
	"context"
	"sync"
	"time"
)

// sweepEvery is how many new keys come between two looks for records that are too old.
const sweepEvery = 1024

// Memory is a Store in the memory of the process. It is for tests, and for a service that only ever
// has one instance: another one, or the same after a restart, knows nothing of what it has.
type Memory struct {
	keep time.Duration

	mu       sync.Mutex
	records  map[string]memoryRecord
	revision uint64
	created  int // since the last sweep
}

type memoryRecord struct {
	value    []byte
	revision uint64
	changed  time.Time
}

// NewMemory returns an empty store, which keeps a record for so long after its last change.
func NewMemory(keep time.Duration) *Memory {
	return &Memory{keep: keep, records: map[string]memoryRecord{}}
}

// TTL implements Store.
func (m *Memory) TTL() time.Duration { return max(m.keep, time.Nanosecond) }

// Create implements Store.
func (m *Memory) Create(_ context.Context, key string, value []byte) (uint64, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.created++; m.created > sweepEvery {
		m.sweepLocked()
	}
	if _, ok := m.getLocked(key); ok {
		return 0, ErrExists
	}
	return m.putLocked(key, value), nil
}

// Get implements Store.
func (m *Memory) Get(_ context.Context, key string) ([]byte, uint64, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if r, ok := m.getLocked(key); ok {
		return r.value, r.revision, nil
	}
	return nil, 0, ErrNotFound
}

// Update implements Store.
func (m *Memory) Update(_ context.Context, key string, value []byte, revision uint64) (uint64, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if r, ok := m.getLocked(key); !ok || r.revision != revision {
		return 0, ErrConflict
	}
	return m.putLocked(key, value), nil
}

// Delete implements Store.
func (m *Memory) Delete(_ context.Context, key string, revision uint64) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if r, ok := m.getLocked(key); !ok || r.revision != revision {
		return ErrConflict
	}
	delete(m.records, key)
	return nil
}

func (m *Memory) getLocked(key string) (memoryRecord, bool) {
	r, ok := m.records[key]
	return r, ok && time.Since(r.changed) <= m.keep
}

func (m *Memory) putLocked(key string, value []byte) uint64 {
	m.revision++
	m.records[key] = memoryRecord{value, m.revision, time.Now()}
	return m.revision
}

func (m *Memory) sweepLocked() {
	m.created = 0
	for key, r := range m.records {
		if time.Since(r.changed) > m.keep {
			delete(m.records, key)
		}
	}
}
