//go:build faults

package main

import (
	"testing"
	"time"
)

func TestAMovedClockMovesWallTimeAndNoDuration(t *testing.T) {
	for _, seconds := range []int64{0, 1, -1, 3600, -86_400, 90 * 86_400, -90 * 86_400} {
		before := time.Now()
		moved := shiftWall(before, seconds)
		if got, want := moved.UnixNano(), before.UnixNano()+seconds*int64(time.Second); got != want {
			t.Errorf("%d s: wall time is %d, want %d", seconds, got, want)
		}
		if got := moved.Sub(before); got != 0 {
			t.Errorf("%d s: %v passed between a time and itself", seconds, got)
		}
		if got, want := moved.UTC().Format(time.RFC3339Nano), before.UTC().Add(time.Duration(seconds)*time.Second).Format(time.RFC3339Nano); got != want {
			t.Errorf("%d s: is written %s, want %s", seconds, got, want)
		}
	}
	stored := time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)
	if got, want := shiftWall(stored, 60), stored.Add(time.Minute); !got.Equal(want) {
		t.Errorf("a time without a monotonic reading became %v, want %v", got, want)
	}
}
