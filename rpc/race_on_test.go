//go:build race

package rpc_test

import "time"

// The race detector dies of more than 8128 goroutines, and each costs more.
const (
	callsInFlight = 3000
	streamsOpen   = 1000
	idleTime      = time.Minute
)
