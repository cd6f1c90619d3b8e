package rpc

import "github.com/natscall/natscall/rpc/internal/wire"

// Execution says what is known about whether the handler of a failed call ran. Its values are not
// those of the wire: executionOf and onWire translate.
type Execution uint8

const (
	// ExecutionMayHaveRun means that it is not known. Only idempotent work may be sent again.
	ExecutionMayHaveRun Execution = iota
	// ExecutionNotRun means that the handler certainly did not run.
	ExecutionNotRun
	// ExecutionDidRun means that the handler ran.
	ExecutionDidRun
)

// String returns "may have run", "not run" or "did run".
func (x Execution) String() string {
	return [...]string{"may have run", "not run", "did run"}[min(x, ExecutionDidRun)]
}

// executionOf returns what an error that came over the wire says about the execution.
func executionOf(x wire.Execution) Execution {
	switch x {
	case wire.DidRun:
		return ExecutionDidRun
	case wire.NotRun, wire.Refused:
		return ExecutionNotRun
	}
	return ExecutionMayHaveRun
}

// onWire returns what an instance may say about a call on the wire. alone says that no other
// instance got the request.
func (x Execution) onWire(refused, alone bool) wire.Execution {
	switch {
	case x == ExecutionDidRun:
		return wire.DidRun
	case x == ExecutionMayHaveRun || !alone:
		return wire.MayHaveRun
	case refused:
		return wire.Refused
	}
	return wire.NotRun
}
