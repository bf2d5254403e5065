package clickhouse

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

const (
	// healFile, in the data folder, is as old as the last start that was made for a
	// damaged part.
	healFile = "engine.healed"
	// healEvery bounds how often that is tried: what a start does not mend, the next
	// one does not either.
	healEvery = 30 * time.Second
	// healGrace is how long answers under way may take before the engine ends for it.
	healGrace = time.Second
)

// damaged reports whether code is how the engine says, while it reads, that a part of a
// table is not what it was when it was written.
//
// Seen with 26.7: a merge that runs out of disk leaves a part of empty files, and the
// engine takes it for whole until somebody reads it. The parts that it was made of are
// still there for eight minutes (old_parts_lifetime). A start of the engine checks
// every part, sets the broken one aside (detached/broken-on-start_…) and takes those
// instead: nothing is lost. So the child ends, and its supervisor starts another.
func damaged(code int) bool {
	const (
		readAfterEnd     = 32
		cannotReadAll    = 33
		checksumMismatch = 40
		noFileInPart     = 226
		corruptedData    = 246
	)
	switch code {
	case readAfterEnd, cannotReadAll, checksumMismatch, noFileInPart, corruptedData:
		return true
	}
	return false
}

// mayHeal reports whether a start for a damaged part is due, and notes that it is made.
func mayHeal(dir string, now time.Time) (bool, error) {
	path := filepath.Join(dir, healFile)
	info, err := os.Stat(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return false, fmt.Errorf("last start for a damaged part: %w", err)
	}
	if err == nil && now.Sub(info.ModTime()) < healEvery && !info.ModTime().After(now) {
		return false, nil
	}
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		return false, fmt.Errorf("note a start for a damaged part: %w", err)
	}
	if err := os.Chtimes(path, now, now); err != nil {
		return false, fmt.Errorf("note a start for a damaged part: %w", err)
	}
	return true, nil
}
