//go:build !faults

package main

import "time"

// clock returns the clock that every part of the program is given. A build with the tag
// 'faults' has another, which the torture test moves.
func clock() func() time.Time { return time.Now }
