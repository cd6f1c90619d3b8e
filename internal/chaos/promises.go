package main

import "time"

// The figures in what callers are promised. A change of the runtime that makes a promise tighter
// changes them too.
const (
	// maxLate is by how much a call may end after its deadline, or after its caller has canceled,
	// beside the time in which its process did not get to run. A machine with much more to do than
	// it has CPUs for has other stalls too, of up to 240 ms, that nobody records.
	maxLate = 300 * time.Millisecond
	// deathLimit is how long after its replica was killed a call ends, as far as maxLate does not
	// explain more.
	deathLimit = 3*time.Second + maxLate
	// permissionLimit is how long after NATS has given back a permission calls may fail for the
	// lack of it.
	permissionLimit = 5 * time.Second
)
