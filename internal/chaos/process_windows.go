package main

import "syscall"

// Windows has no such signals. Sending one is an error, which ends the run with its reason: the
// checker can be built and tested there, but faults need Unix.
const (
	signalPause    = syscall.Signal(0x101)
	signalResume   = syscall.Signal(0x102)
	signalLameDuck = syscall.Signal(0x103)
	signalIll      = syscall.Signal(0x104)
	signalWell     = syscall.Signal(0x105)
)

// childAttributes keep Ctrl-C for this process. If this process is killed its children are left.
func childAttributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{CreationFlags: syscall.CREATE_NEW_PROCESS_GROUP}
}
