package main

import (
	"context"
	"os"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

const (
	// heapSpareBytes is how much the heap may grow beyond what lives before it is collected,
	// where less than that lives. A server at work has some 30 MB: at Go's own setting it
	// would collect every 30 MB, several times a second under load, for a tenth of the
	// processor's time.
	heapSpareBytes = 96 << 20
	// garbagePercent is Go's own setting: collect when the heap has doubled.
	garbagePercent = 100
	garbageMax     = 400
	garbageEvery   = 5 * time.Second
)

// tuneGarbage keeps the collector's setting fit for the live heap until ctx ends. It does
// nothing where the operator has set it.
func tuneGarbage(ctx context.Context) error {
	if os.Getenv("GOGC") != "" || os.Getenv("GOMEMLIMIT") != "" {
		return nil
	}
	live := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	tick := time.NewTicker(garbageEvery)
	defer tick.Stop()
	defer debug.SetGCPercent(debug.SetGCPercent(garbagePercent)) // As it was before.
	for {
		metrics.Read(live)
		debug.SetGCPercent(percentFor(live[0].Value.Uint64()))
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// percentFor returns by how many percent a heap of which so much lives may grow.
func percentFor(liveBytes uint64) int {
	if liveBytes == 0 {
		return garbageMax
	}
	return int(min(max(heapSpareBytes*100/liveBytes, garbagePercent), garbageMax))
}

// syncThreads is how many threads of the embedded event store wait for the disk at a time:
// the journal's and the tables'.
const syncThreads = 2

// tuneProcessors lets as many goroutines run while the embedded event store waits for the
// disk as without it: a thread in a system call keeps its place among the running ones
// until the runtime takes it away, which it does late. It does nothing where the operator
// has set the number.
func tuneProcessors() {
	if os.Getenv("GOMAXPROCS") == "" {
		runtime.GOMAXPROCS(runtime.GOMAXPROCS(0) + syncThreads)
	}
}
