package torture_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"time"

	"example.com/keytrail/internal/faults"
)

const (
	// sectorBytes is what a disk writes whole.
	sectorBytes = 512
	// syncDelay holds every sync back, so that what was written just now is not durable
	// yet and nobody was told that it is.
	syncDelay = 800 * time.Millisecond
	// tornMax is how old, at the kill, the last look at the files may be.
	tornMax = syncDelay / 2
)

// tear kills the server between a write to the journal and its sync, and then makes the
// files what a power cut could have left: of all sectors that were written and not synced
// any may be old, new or garbage.
func tear(ctx context.Context, e *episode) error {
	n := e.nodes[0]
	tr, err := faults.StartTrace(ctx, n.pid(), faults.Spoil{Calls: syncCalls(), Inject: "delay_enter=" + micros(syncDelay)})
	if err != nil {
		return err
	}
	before, looked, err := e.untilWritten()
	age := time.Since(looked)
	// The kill takes effect at once, also on threads that wait in a sync: those never sync.
	// Only its end waits for strace.
	killErr := n.end()
	if err := errors.Join(err, killErr, e.unspoil(tr)); err != nil {
		return err
	}
	if age < tornMax {
		if err := e.scramble(before); err != nil {
			return err
		}
	} else {
		e.log.note("killed %v after the last look: nothing is torn", age)
	}
	return n.start(ctx)
}

// untilWritten watches the journal until something is written to it. It returns the files
// as they were before that, and when they were so.
func (e *episode) untilWritten() (map[string][]byte, time.Time, error) {
	looked := time.Now()
	before, err := e.journal()
	deadline := looked.Add(10 * time.Second)
	for err == nil && time.Now().Before(deadline) {
		var now map[string][]byte
		at := time.Now()
		if now, err = e.journal(); err != nil || !same(before, now) {
			break
		}
		before, looked = now, at
		pause(time.Duration(e.rng.IntN(8)) * time.Millisecond)
	}
	return before, looked, err
}

func same(a, b map[string][]byte) bool {
	if len(a) != len(b) {
		return false
	}
	for path, content := range a {
		if !bytes.Equal(content, b[path]) {
			return false
		}
	}
	return true
}

// journal returns the content of the journal's files.
func (e *episode) journal() (map[string][]byte, error) {
	paths, err := filepath.Glob(filepath.Join(e.data, "eventstore", "journal-*"))
	if err != nil {
		return nil, err
	}
	files := map[string][]byte{}
	for _, path := range paths {
		b, err := os.ReadFile(path)
		if errors.Is(err, os.ErrNotExist) {
			continue // Folded and removed meanwhile.
		}
		if err != nil {
			return nil, err
		}
		files[path] = b
	}
	return files, nil
}

// scramble undoes or garbles some of what changed in the journal since before.
func (e *episode) scramble(before map[string][]byte) error {
	now, err := e.journal()
	if err != nil {
		return err
	}
	kept := e.rng.IntN(3) // How likely a sector is as it was written.
	changed, spoilt := 0, 0
	for path, content := range now {
		old := append(bytes.Clone(before[path]), make([]byte, max(0, len(content)-len(before[path])))...)
		for at := 0; at < len(content); at += sectorBytes {
			end := min(at+sectorBytes, len(content))
			if bytes.Equal(content[at:end], old[at:end]) {
				continue
			}
			changed++
			switch draw := e.rng.IntN(4); {
			case draw < kept:
				continue
			case draw == 3:
				for i := at; i < end; i++ {
					content[i] = byte(e.rng.Uint32())
				}
			default:
				copy(content[at:end], old[at:end])
			}
			spoilt++
		}
		if err := os.WriteFile(path, content, 0o600); err != nil {
			return err
		}
	}
	e.log.note("%d sectors were written and not synced, %d of them are old or garbage now", changed, spoilt)
	e.total.torn(spoilt)
	return nil
}
