package faults

import (
	"fmt"
	"os"
	"strconv"
	"time"
)

// ClockEnv names the variable that tells a server built with the tag 'faults' which file
// holds the offset of its wall clock, in whole seconds. Any other build ignores it.
const ClockEnv = "KEYTRAIL_FAULT_CLOCK"

// Clock is the wall clock of the servers that were started with its environment.
type Clock struct{ path string }

// NewClock returns a clock that is right until it is set; path is the file to use.
func NewClock(path string) *Clock { return &Clock{path: path} }

// Env is what a server's environment must hold to follow the clock.
func (c *Clock) Env() string { return ClockEnv + "=" + c.path }

// Set moves the wall clock to so much beside the true time, at once.
func (c *Clock) Set(offset time.Duration) error {
	// A reader must see the old or the new offset, never half a file.
	next := c.path + ".next"
	if err := os.WriteFile(next, strconv.AppendInt(nil, int64(offset/time.Second), 10), 0o600); err != nil {
		return fmt.Errorf("set clock: %w", err)
	}
	if err := os.Rename(next, c.path); err != nil {
		return fmt.Errorf("set clock: %w", err)
	}
	return nil
}
