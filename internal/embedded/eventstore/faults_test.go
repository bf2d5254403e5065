package eventstore_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"example.com/keytrail/internal/embedded/eventstore"
)

var errInjected = errors.New("injected")

// disk is a file system with faults for the records of the journal. The zero value
// has none.
type disk struct {
	mu sync.Mutex // Guards all below.
	// write says how many bytes of a record get to the file, and the error.
	write func(p []byte) (int, error)
	// sync is called before a file with a new record is synced (persisted false) and
	// after (true).
	sync func(persisted bool) error
	// make is called before a file is made.
	make func() error
}

func (d *disk) set(fn func(d *disk)) {
	d.mu.Lock()
	defer d.mu.Unlock()
	fn(d)
}

func (d *disk) heal() { d.set(func(d *disk) { d.write, d.sync, d.make = nil, nil, nil }) }

func (d *disk) Open(path string, create bool) (eventstore.File, error) {
	d.mu.Lock()
	fault := d.make
	d.mu.Unlock()
	if create && fault != nil {
		if err := fault(); err != nil {
			return nil, err
		}
	}
	f, err := eventstore.OSFiles().Open(path, create)
	if err != nil {
		return nil, err
	}
	return &diskFile{File: f, disk: d}, nil
}

func (d *disk) Remove(path string) error { return eventstore.OSFiles().Remove(path) }

func (d *disk) SyncFolder(dir string) error { return eventstore.OSFiles().SyncFolder(dir) }

type diskFile struct {
	eventstore.File

	disk   *disk
	record bool // The last write was one.
}

func (f *diskFile) WriteAt(p []byte, at int64) (int, error) {
	f.disk.mu.Lock()
	fault := f.disk.write
	f.disk.mu.Unlock()
	f.record = strings.HasPrefix(string(p), "KTJ1")
	if fault == nil || !f.record {
		return f.File.WriteAt(p, at)
	}
	n, fail := fault(p)
	if _, err := f.File.WriteAt(p[:n], at); err != nil {
		return 0, err
	}
	return n, fail
}

func (f *diskFile) Sync() error {
	f.disk.mu.Lock()
	fault := f.disk.sync
	f.disk.mu.Unlock()
	if fault == nil || !f.record {
		return f.File.Sync()
	}
	if err := fault(false); err != nil {
		return err
	}
	if err := f.File.Sync(); err != nil {
		return err
	}
	return fault(true)
}

// failing returns EIO if yes.
func failing(yes bool) error {
	if yes {
		return syscall.EIO
	}
	return nil
}

// small bounds make a short test fill segments and fold.
func small(cfg *eventstore.Config) {
	cfg.Bound(eventstore.Bounds{
		SegmentBytes: 64 << 10, SegmentBytesMax: 256 << 10, FoldBytes: 64 << 10, FoldAfter: 20 * time.Millisecond,
		TailBytesMax: 1 << 20, JournalBytesMax: 1 << 20, Patience: time.Second,
	})
}

// lazy bounds keep everything in the journal.
func lazy(cfg *eventstore.Config) {
	cfg.Bound(eventstore.Bounds{
		SegmentBytes: 64 << 10, SegmentBytesMax: 256 << 10, FoldBytes: 1 << 30, FoldAfter: time.Hour,
		TailBytesMax: 1 << 40, JournalBytesMax: 1 << 40, Patience: time.Second,
	})
}

// A record that could not be written, or not be made durable, or that is durable
// although the sync failed: every append in it is refused as not stored, and so it
// is, now and after a restart. The server goes on.
func TestFailedCommitStoresNothing(t *testing.T) {
	for _, test := range []struct {
		name  string
		fault func(*disk)
	}{
		{"no byte is written", func(d *disk) {
			d.write = func([]byte) (int, error) { return 0, syscall.EIO }
		}},
		{"the disk is full in the middle", func(d *disk) {
			d.write = func(p []byte) (int, error) { return len(p) / 2, syscall.ENOSPC }
		}},
		{"all is written and the write fails", func(d *disk) {
			d.write = func(p []byte) (int, error) { return len(p), syscall.EIO }
		}},
		{"the sync fails", func(d *disk) {
			d.sync = func(persisted bool) error { return failing(!persisted) }
		}},
		{"the sync fails but all is persisted", func(d *disk) {
			d.sync = failing
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			dir := t.TempDir()
			d := &disk{}
			s, stop := open(t, eventstore.Config{Dir: dir, Files: d})
			c := dial(t, s)
			if a, err := c.append(t.Context(), "kt.a", noStream, "t", nil, number(0)); err != nil || !a.ok {
				t.Fatalf("append: %+v, %v", a, err)
			}
			d.set(test.fault)
			_, err := c.append(t.Context(), "kt.new", noStream, "t", nil, number(1), number(2))
			if status.Code(err) != codes.Aborted {
				t.Fatalf("append during the fault: got %v, want %s", err, codes.Aborted)
			}
			verify(t, image(t, dir), 1) // What a kill would leave that comes before anything else.
			d.heal()
			if events, err := c.readAll(t.Context(), false, 100); err != nil || len(events) != 1 {
				t.Errorf("the log holds %v, %v, want the first event only", events, err)
			}
			if a, err := c.append(t.Context(), "kt.a", 0, "t", nil, number(1), number(2)); err != nil || a.rev != 2 {
				t.Errorf("append after the fault: %+v, %v", a, err)
			}
			verify(t, dir, 3)
			stop()
			verify(t, dir, 3)
			s, stop = open(t, eventstore.Config{Dir: dir})
			c = dial(t, s)
			if a, err := c.append(t.Context(), "kt.new", noStream, "t", nil, number(1)); err != nil || a.rev != 0 {
				t.Errorf("append to a stream that was never made: %+v, %v", a, err)
			}
			stop()
			verify(t, dir, 4)
		})
	}
}

// A commit that may be on disk, and that cannot be undone because the tables fail
// too, is in doubt for its writer; the doubt ends with the fault, and a repeat is
// one success.
func TestCommitInDoubtIsFoundByTheRepeat(t *testing.T) {
	dir := t.TempDir()
	d := &disk{}
	cfg := eventstore.Config{Dir: dir, Files: d}
	lazy(&cfg)
	s, stop := open(t, cfg)
	c := dial(t, s)
	d.set(func(d *disk) {
		d.sync = failing
	})
	s.FailFolds(func(context.Context, *sql.Conn) error { return errInjected }, nil)
	if _, err := c.append(t.Context(), "kt.a", noStream, "t", nil, number(1), number(2)); status.Code(err) != codes.Unknown {
		t.Fatalf("append: got %v, want %s", err, codes.Unknown)
	}
	// Who comes later is not in doubt: nothing is tried for him.
	if _, err := c.append(t.Context(), "kt.b", noStream, "t", nil, number(3)); status.Code(err) != codes.Aborted {
		t.Fatalf("append: got %v, want %s", err, codes.Aborted)
	}
	d.heal()
	s.FailFolds(nil, nil)
	if a, err := c.append(t.Context(), "kt.a", noStream, "t", nil, number(1), number(2)); err != nil || !a.ok || a.rev != 1 {
		t.Errorf("repeat: %+v, %v", a, err)
	}
	for rev := int64(1); rev < 4; rev++ {
		if a, err := c.append(t.Context(), "kt.a", rev, "t", nil, number(int(rev)+2)); err != nil || !a.ok {
			t.Errorf("append: %+v, %v", a, err)
		}
	}
	// The journal was begun anew once, not for each append since.
	if places, err := eventstore.RecordPlaces(t.Context(), dir); err != nil || len(places) != 4 {
		t.Errorf("the journal has the records %v, %v, want those of all four appends", places, err)
	}
	stop()
	verify(t, dir, 5)
}

// While the tables cannot be written, appends go on as far as the journal may run
// ahead; then they are refused as not stored, at once. Reads go on. When there is
// room again, so do they, without a restart.
func TestFullTablesRefuseAppendsUntilThereIsRoom(t *testing.T) {
	for _, test := range []struct {
		name  string
		fault func(context.Context, *sql.Conn) error
	}{
		{"an error before the commit", func(context.Context, *sql.Conn) error { return errInjected }},
		{"a full disk", func(ctx context.Context, conn *sql.Conn) error {
			// The file may not grow any more, and then it has to.
			if _, err := conn.ExecContext(ctx, `PRAGMA max_page_count = 1`); err != nil {
				return err
			}
			_, err := conn.ExecContext(ctx, `INSERT INTO blocks VALUES (1, 1, 1, 1, zeroblob(10000000))`)
			_, undo := conn.ExecContext(context.WithoutCancel(ctx), `PRAGMA max_page_count = 1000000000`)
			return errors.Join(err, undo)
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			dir := t.TempDir()
			cfg := eventstore.Config{Dir: dir}
			small(&cfg)
			s, stop := open(t, cfg)
			c := dial(t, s)
			s.FailFolds(test.fault, nil)
			stored := 0
			for ; ; stored++ {
				a, err := c.append(t.Context(), "kt.a", int64(stored)-1, "t", make([]byte, 10<<10), number(stored))
				if status.Code(err) == codes.Aborted {
					break
				}
				if err != nil || !a.ok || stored > 200 {
					t.Fatalf("append %d: %+v, %v", stored, a, err)
				}
			}
			if memory, journal := s.Unfolded(); stored < 50 || memory > 2<<20 || journal > 2<<20 {
				t.Errorf("%d appends went on, %d bytes in memory, %d in the journal", stored, memory, journal)
			}
			if events, err := c.readAll(t.Context(), false, 1000); err != nil || len(events) != stored {
				t.Errorf("the log shows %d events, %v, want %d", len(events), err, stored)
			}
			verify(t, dir, stored)
			s.FailFolds(nil, nil)
			if err := s.Fold(t.Context()); err != nil {
				t.Fatal(err)
			}
			total := 2*stored + 1
			if err := fillWhileFoldsWait(t, s, c, stored, total); err != nil {
				t.Errorf("appends while a fold is slow: %v", err)
			}
			stop()
			verify(t, dir, total)
		})
	}
}

// fillWhileFoldsWait appends from revision on up to total, more than fits before a fold,
// while the fold stands still, and lets it go on once the last append must be waiting for
// it.
func fillWhileFoldsWait(t *testing.T, s *eventstore.Server, c client, from, total int) error {
	t.Helper()
	goOn := make(chan struct{})
	s.FailFolds(func(context.Context, *sql.Conn) error {
		<-goOn
		return nil
	}, nil)
	done := make(chan error, 1)
	go func() {
		for i := from; i < total; i++ {
			if a, err := c.append(t.Context(), "kt.a", int64(i)-1, "t", make([]byte, 10<<10), number(i)); err != nil || !a.ok {
				done <- fmt.Errorf("append %d: %+v, %w", i, a, err)
				return
			}
		}
		done <- nil
	}()
	var err error
	select {
	case err = <-done:
		err = errors.Join(err, errors.New("nobody waited for the fold"))
	case <-time.After(300 * time.Millisecond):
	}
	close(goOn)
	if err == nil {
		err = <-done
	}
	return err
}

// A fold that is stored although it failed is not folded again.
func TestFoldStoredButFailedIsNotRepeated(t *testing.T) {
	dir := t.TempDir()
	cfg := eventstore.Config{Dir: dir}
	lazy(&cfg)
	s, stop := open(t, cfg)
	c := dial(t, s)
	for i := range 10 {
		if a, err := c.append(t.Context(), fmt.Sprintf("kt.%d", i%3), anyRevision, "t", nil, number(i)); err != nil || !a.ok {
			t.Fatalf("append: %+v, %v", a, err)
		}
	}
	s.FailFolds(nil, func() error { return errInjected })
	if err := s.Fold(t.Context()); !errors.Is(err, errInjected) {
		t.Fatalf("fold: got %v, want %v", err, errInjected)
	}
	s.FailFolds(nil, nil)
	if err := s.Fold(t.Context()); err != nil {
		t.Errorf("fold again: %v", err)
	}
	if memory, journal := s.Unfolded(); memory != 0 || journal != 0 {
		t.Errorf("%d bytes in memory and %d in the journal are still to be folded", memory, journal)
	}
	stop()
	verify(t, dir, 10)
}
