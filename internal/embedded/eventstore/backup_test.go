package eventstore_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"example.com/keytrail/internal/embedded/eventstore"
)

// scan returns all events of the log in dir.
func scan(tb testing.TB, dir string) []eventstore.StoredEvent {
	tb.Helper()
	var events []eventstore.StoredEvent
	err := eventstore.Scan(tb.Context(), dir, 0, func(e eventstore.StoredEvent) error {
		events = append(events, e)
		return nil
	})
	if err != nil {
		tb.Fatalf("scan: %v", err)
	}
	return events
}

// A backup taken while writing goes on holds whole appends, none missing between its
// beginning and its end, and what is restored from it is what it was made from.
func TestBackupWhileWritingIsOneStateOfTheLog(t *testing.T) {
	cfg := eventstore.Config{Dir: t.TempDir()}
	small(&cfg)
	s, stop := open(t, cfg)
	c := dial(t, s)
	const writers, perAppend = 4, 3
	stopWriting := make(chan struct{})
	var wg sync.WaitGroup
	begun := make(chan struct{}, writers)
	for w := range writers {
		stream := fmt.Sprintf("kt.%d", w)
		wg.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-stopWriting:
					return
				default:
				}
				n := (w*1000000 + i) * perAppend
				a, err := c.append(t.Context(), stream, int64(i*perAppend)-1, "t", make([]byte, 2000), number(n), number(n+1), number(n+2))
				if err != nil || !a.ok {
					t.Errorf("append: %+v, %v", a, err)
					return
				}
				if i == 20 {
					begun <- struct{}{}
				}
			}
		})
	}
	for range writers {
		<-begun
	}
	backups := make([]bytes.Buffer, 5)
	reports := make([]eventstore.Report, len(backups))
	for i := range backups {
		var err error
		if reports[i], err = eventstore.Backup(t.Context(), cfg.Dir, &backups[i]); err != nil {
			t.Errorf("backup: %v", err)
		}
	}
	close(stopWriting)
	wg.Wait()
	stop()
	all := scan(t, cfg.Dir)
	for i := range backups {
		dir := filepath.Join(t.TempDir(), "new")
		r, err := eventstore.Restore(t.Context(), &backups[i], dir)
		if err != nil || r != reports[i] {
			t.Fatalf("restore: %+v, %v, want %+v", r, err, reports[i])
		}
		verify(t, dir, r.Events)
		got := scan(t, dir)
		if d := cmp.Diff(all[:len(got)], got); d != "" || len(got)%perAppend != 0 || len(got) != r.Events {
			t.Fatalf("the restored log of %d events (-want +got):\n%s", len(got), d)
		}
		s, stop := open(t, eventstore.Config{Dir: dir})
		if a, err := dial(t, s).append(t.Context(), "kt.new", noStream, "t", nil, number(1)); err != nil || !a.ok {
			t.Errorf("append to the restored log: %+v, %v", a, err)
		}
		stop()
		verify(t, dir, r.Events+1)
	}
}

// What the journal alone holds is in a backup too, of a log that nobody serves.
func TestBackupOfAKilledServerHoldsItsJournal(t *testing.T) {
	const n = 9
	dir := unfolded(t, n)
	var b bytes.Buffer
	if r, err := eventstore.Backup(t.Context(), dir, &b); err != nil || r.Events != 2*n {
		t.Fatalf("backup: %+v, %v, want %d events", r, err, 2*n)
	}
	to := t.TempDir()
	if _, err := eventstore.Restore(t.Context(), &b, to); err != nil {
		t.Fatal(err)
	}
	verify(t, to, 2*n)
	if d := cmp.Diff(scan(t, dir), scan(t, to)); d != "" {
		t.Errorf("the restored log (-want +got):\n%s", d)
	}
}

// A backup with any byte changed, or cut anywhere, restores nothing.
func TestDamagedBackupRestoresNothing(t *testing.T) {
	var b bytes.Buffer
	if _, err := eventstore.Backup(t.Context(), unfolded(t, 3), &b); err != nil {
		t.Fatal(err)
	}
	whole := b.Bytes()
	random := rand.New(rand.NewPCG(3, 4))
	to := t.TempDir()
	try := func(what string, r io.Reader) {
		if _, err := eventstore.Restore(t.Context(), r, to); err == nil {
			t.Fatalf("%s: it was restored", what)
		}
		if left, err := os.ReadDir(to); err != nil || len(left) > 0 {
			t.Fatalf("%s: %v is left behind, %v", what, left, err)
		}
	}
	for range 60 {
		at := random.IntN(len(whole))
		damaged := bytes.Clone(whole)
		damaged[at] ^= byte(1 << random.IntN(8))
		try(fmt.Sprintf("byte %d changed", at), bytes.NewReader(damaged))
		try(fmt.Sprintf("cut at %d", at), bytes.NewReader(whole[:at]))
	}
}

// Nothing is ever restored over something.
func TestRestoreWantsAnEmptyFolder(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "events.db"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := eventstore.Restore(t.Context(), bytes.NewReader(nil), dir); err == nil {
		t.Error("restored into a folder that is not empty")
	}
}

// A scan from a position begins with that event or the next, and ends when it is told.
func TestScanBeginsAtAPosition(t *testing.T) {
	dir := unfolded(t, 10)
	all := scan(t, dir)
	for i, e := range all {
		for _, from := range []uint64{e.Position, e.Position - 1} {
			errEnough := errors.New("enough")
			err := eventstore.Scan(t.Context(), dir, from, func(got eventstore.StoredEvent) error {
				if d := cmp.Diff(all[i], got); d != "" {
					t.Errorf("from %d (-want +got):\n%s", from, d)
				}
				return errEnough
			})
			if !errors.Is(err, errEnough) {
				t.Errorf("scan: %v", err)
			}
		}
	}
}

// A backup is bytes from elsewhere: whatever they are, nothing worse than an error
// comes of them.
func FuzzRestore(f *testing.F) {
	f.Add([]byte("KTBACKUP\x01\x00\x00\x00\x00"))
	f.Add([]byte("KTBACKUP\x01\x00\x00\x00\x04\x00\x00\x00\x01\x00\x00\x00\x00abcd"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if _, err := eventstore.Restore(t.Context(), bytes.NewReader(b), t.TempDir()); err == nil {
			t.Error("a made-up backup was restored")
		}
	})
}
