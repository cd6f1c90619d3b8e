package liveness

import (
	"sync"

	"github.com/nats-io/nats.go"

	"github.com/natscall/natscall/internal/names"
	"github.com/natscall/natscall/rpc/internal/wire"
)

// maxAbandoned is how many calls of a service one cancel names: 16 KiB. What is more in a tick is
// left out.
const maxAbandoned = 1024

// Abandoned has the calls that a client no longer waits for, because of their deadline or of the
// silence of their instance. That instance has the deadline too; but if it stands still, or is cut
// off, it will have their requests when it is back. So all instances are told, with the next tick:
// one message for each service. All methods may be called concurrently. The zero value has no
// calls.
type Abandoned struct {
	mu     sync.Mutex
	byRoot map[string][]wire.ID
}

// Add adds a call of the service with a root.
func (a *Abandoned) Add(root string, id wire.ID) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.byRoot == nil {
		a.byRoot = map[string][]wire.ID{}
	}
	if ids := a.byRoot[root]; len(ids) < maxAbandoned {
		a.byRoot[root] = append(ids, id)
	}
}

// Cancel publishes what has been added. It is an attempt: nobody waits for anything any more.
func (a *Abandoned) Cancel(conn Conn) {
	a.mu.Lock()
	all := a.byRoot
	a.byRoot = nil
	a.mu.Unlock()
	for root, ids := range all {
		Cancel(conn, root, ids...)
	}
}

// Cancel tells the instances of a service that the callers of calls have gone.
func Cancel(conn Conn, root string, ids ...wire.ID) {
	_ = conn.PublishMsg(&nats.Msg{Subject: names.Join(root, wire.CancelToken), Data: wire.AppendCancel(nil, ids...)})
}
