package main

import "syscall"

// childAttributes make a child end with this process, and keep Ctrl-C for this process alone.
func childAttributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}
