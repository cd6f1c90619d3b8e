//go:build unix && !linux

package main

import "syscall"

// childAttributes keep Ctrl-C for this process. If this process is killed its children are left.
func childAttributes() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }
