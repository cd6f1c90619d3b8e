package main

import (
	"syscall"
	"time"
)

// cpuTime is what this process has used, user and system.
func cpuTime() time.Duration {
	self, _ := syscall.GetCurrentProcess() // a constant, which stands for this process
	var created, exited, kernel, user syscall.Filetime
	_ = syscall.GetProcessTimes(self, &created, &exited, &kernel, &user) // may be asked of oneself
	return span(kernel) + span(user)
}

// span is a time span in units of 100 ns. Filetime.Nanoseconds takes it for a date.
func span(t syscall.Filetime) time.Duration {
	return time.Duration(int64(t.HighDateTime)<<32|int64(t.LowDateTime)) * 100
}
