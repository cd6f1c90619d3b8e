package rpctest

import "time"

// SetCloseTimeout changes how long a Bubble waits for connections that are still open.
func SetCloseTimeout(d time.Duration) { closeTimeout = d }
