package auth

import (
	"time"

	"golang.org/x/sys/unix"
)

// SinceBoot is a clock that nobody sets and that goes on while the process is stopped and
// while the machine sleeps.
func SinceBoot() time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		panic(err) // Every Linux that Go runs on has it.
	}
	return time.Duration(ts.Nano())
}
