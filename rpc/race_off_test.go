//go:build !race

package rpc_test

import "time"

const (
	callsInFlight = 100_000
	streamsOpen   = 10_000
	idleTime      = 10 * time.Minute
)
