//go:build unix

package main

import "syscall"

// What is done to children by signals.
const (
	signalPause    = syscall.SIGSTOP
	signalResume   = syscall.SIGCONT
	signalLameDuck = syscall.SIGUSR2 // a NATS node takes leave of its clients
	signalIll      = syscall.SIGUSR1 // a replica is not healthy
	signalWell     = syscall.SIGUSR2 // it is again
)
