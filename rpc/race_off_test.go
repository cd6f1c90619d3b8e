//go:build !race

package rpc_test

const (
	callsInFlight = 100_000
	streamsOpen   = 10_000
)
