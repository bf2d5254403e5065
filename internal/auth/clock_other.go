//go:build !linux

package auth

import (
	"time"

	"golang.org/x/sys/unix"
)

// SinceBoot is a clock that nobody sets and that goes on while the process is stopped; on
// some systems it stands still while the machine sleeps.
func SinceBoot() time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
		panic(err) // Every system that we build for has it.
	}
	return time.Duration(ts.Nano())
}
