package main

import (
	"bytes"
	"os"
	"runtime"
	"strconv"
	"time"
)

// usage is what a process has used since its start.
type usage struct {
	At      time.Time
	CPU     time.Duration // user and system
	Allocs  uint64        // heap objects
	Bytes   uint64        // of them
	Writes  uint64        // system calls that write; 0 where the system does not count them
	Handled uint64        // requests and stream messages that came to handlers
}

func currentUsage() usage {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return usage{
		At:      time.Now(),
		CPU:     cpuTime(),
		Allocs:  m.Mallocs,
		Bytes:   m.TotalAlloc,
		Writes:  writeCalls(),
		Handled: handled.Load(),
	}
}

func writeCalls() uint64 {
	data, err := os.ReadFile("/proc/self/io")
	if err != nil {
		return 0
	}
	for line := range bytes.Lines(data) {
		if value, ok := bytes.CutPrefix(line, []byte("syscw: ")); ok {
			n, _ := strconv.ParseUint(string(bytes.TrimSpace(value)), 10, 64)
			return n
		}
	}
	return 0
}

// cost is what a process used in the window, by call.
type cost struct {
	CPU    float64 // seconds for 100,000 calls
	Allocs float64
	Bytes  float64
	Writes float64
}

func (c cost) plus(d cost) cost {
	return cost{CPU: c.CPU + d.CPU, Allocs: c.Allocs + d.Allocs, Bytes: c.Bytes + d.Bytes, Writes: c.Writes + d.Writes}
}

// costBetween divides by the calls of the time between two usages, at so many a second: the
// windows of the processes differ slightly.
func costBetween(before, after usage, rate float64) cost {
	calls := rate * after.At.Sub(before.At).Seconds()
	if calls == 0 {
		return cost{}
	}
	return cost{
		CPU:    (after.CPU - before.CPU).Seconds() / calls * 100_000,
		Allocs: float64(after.Allocs-before.Allocs) / calls,
		Bytes:  float64(after.Bytes-before.Bytes) / calls,
		Writes: float64(after.Writes-before.Writes) / calls,
	}
}
