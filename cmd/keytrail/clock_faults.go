//go:build faults

package main

import (
	"os"
	"strconv"
	"strings"
	"time"
	"unsafe"
)

// clockEnv names the file that holds how many whole seconds the wall clock is off.
const clockEnv = "KEYTRAIL_FAULT_CLOCK"

// clock returns a clock that the torture test moves. A file that is missing or holds no
// number means no offset, so that a server can start before the first jump.
func clock() func() time.Time {
	path := os.Getenv(clockEnv)
	if path == "" {
		return time.Now
	}
	return func() time.Time {
		b, err := os.ReadFile(path) //nolint:gosec // The test that started us names it.
		if err != nil {
			return time.Now()
		}
		seconds, err := strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64)
		if err != nil {
			return time.Now()
		}
		return shiftWall(time.Now(), seconds)
	}
}

// shiftWall returns t with its wall time moved by so many seconds and its monotonic
// reading as it is: that, and not t.Add, is what a moved clock does to [time.Now].
func shiftWall(t time.Time, seconds int64) time.Time {
	const hasMonotonic, secondShift = 1 << 63, 30
	// The first word of a time with a monotonic reading holds a flag, the seconds since
	// 1885, and the nanoseconds below. A test holds this to the library's own arithmetic.
	wall := (*uint64)(unsafe.Pointer(&t)) //nolint:gosec // There is no other way to part the two.
	if *wall&hasMonotonic == 0 {
		return t.Add(time.Duration(seconds) * time.Second)
	}
	*wall += uint64(seconds) << secondShift //nolint:gosec // Wraps as it should where seconds is negative.
	return t
}
