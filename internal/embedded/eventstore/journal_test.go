package eventstore_test

import (
	"bytes"
	"database/sql"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"example.com/keytrail/internal/embedded/eventstore"
)

// image copies a data folder as it is: what a kill would leave.
func image(tb testing.TB, dir string) string {
	tb.Helper()
	to := tb.TempDir()
	if err := os.CopyFS(to, os.DirFS(dir)); err != nil {
		tb.Fatal(err)
	}
	return to
}

// unfolded serves a folder with n appends of two events each that are in the journal
// only, and returns an image of it.
func unfolded(t *testing.T, n int) string {
	t.Helper()
	cfg := eventstore.Config{Dir: t.TempDir()}
	lazy(&cfg)
	s, stop := open(t, cfg)
	c := dial(t, s)
	for i := range n {
		if a, err := c.append(t.Context(), fmt.Sprintf("kt.%d", i%3), anyRevision, "t", []byte("data"), number(2*i), number(2*i+1)); err != nil || !a.ok {
			t.Fatalf("append: %+v, %v", a, err)
		}
	}
	dir := image(t, cfg.Dir)
	stop()
	return dir
}

func patch(tb testing.TB, path string, at int, p []byte) {
	tb.Helper()
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		tb.Fatal(err)
	}
	if _, err := f.WriteAt(p, int64(at)); err != nil {
		tb.Fatal(err)
	}
	if err := f.Close(); err != nil {
		tb.Fatal(err)
	}
}

// What a kill left of the journal is what was acknowledged; it is served and
// verified before it is in the tables and after.
func TestJournalIsReadBackAfterAKill(t *testing.T) {
	const n = 20
	dir := unfolded(t, n)
	verify(t, dir, 2*n)
	for range 2 {
		s, stop := open(t, eventstore.Config{Dir: dir})
		events, err := dial(t, s).readAll(t.Context(), false, 1000)
		if err != nil || len(events) != 2*n {
			t.Fatalf("the log shows %d events, %v, want %d", len(events), err, 2*n)
		}
		for i, e := range events {
			if e.ID != number(i) {
				t.Errorf("event %d has id %d", i, e.ID>>16)
			}
		}
		stop()
		verify(t, dir, 2*n)
	}
	if files, err := eventstore.JournalFiles(dir); err != nil || len(files) > 0 {
		t.Errorf("a log that was closed has a journal: %v, %v", files, err)
	}
}

// A write that was torn at any byte, with zeros or garbage behind the tear, leaves
// the commits before it, and a log that goes on.
func TestTornCommitIsCutOff(t *testing.T) {
	const n = 5
	dir := unfolded(t, n)
	places, err := eventstore.RecordPlaces(t.Context(), dir)
	if err != nil || len(places) != n {
		t.Fatalf("the journal has the records %v, %v, want %d", places, err, n)
	}
	last := places[n-1]
	whole, err := os.ReadFile(last.Path)
	if err != nil {
		t.Fatal(err)
	}
	whole = whole[last.At : last.At+last.Length]
	random := rand.New(rand.NewPCG(1, 2))
	for k := range last.Length {
		for _, garbage := range []bool{false, true} {
			torn := make([]byte, (last.Length+4095)/4096*4096)
			if garbage {
				for i := range torn {
					torn[i] = byte(random.Uint32())
				}
			}
			copy(torn, whole[:k])
			if torn[k] == whole[k] {
				torn[k] ^= 0x80
			}
			patch(t, last.Path, last.At, torn)
			if got, err := eventstore.CountRecords(dir, places[0]); err != nil || got != n-1 {
				t.Fatalf("torn at byte %d: %d records, %v, want %d", k, got, err, n-1)
			}
			if k%61 != 0 {
				continue
			}
			verify(t, dir, 2*(n-1))
			at := image(t, dir)
			s, stop := open(t, eventstore.Config{Dir: at})
			c := dial(t, s)
			if a, err := c.append(t.Context(), "kt.new", noStream, "t", nil, number(100)); err != nil || !a.ok {
				t.Fatalf("append behind the tear: %+v, %v", a, err)
			}
			if events, err := c.readAll(t.Context(), false, 1000); err != nil || len(events) != 2*n-1 {
				t.Fatalf("torn at byte %d: the log shows %v, %v", k, events, err)
			}
			stop()
			verify(t, at, 2*n-1)
		}
	}
}

// Damage before the last commit is no tear: it is reported when the log is opened
// and when it is verified, with its place, and nothing is served.
func TestDamagedJournalIsReported(t *testing.T) {
	const n = 6
	dir := unfolded(t, n)
	places, err := eventstore.RecordPlaces(t.Context(), dir)
	if err != nil || len(places) != n {
		t.Fatalf("the journal has the records %v, %v, want %d", places, err, n)
	}
	for _, p := range places[:n-1] {
		for at := 0; at < p.Length; at += 1 + p.Length/11 {
			damaged := image(t, dir)
			path := filepath.Join(damaged, filepath.Base(p.Path))
			body, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			patch(t, path, p.At+at, []byte{body[p.At+at] ^ 0x10})
			mustBeCorrupt(t, damaged, fmt.Sprintf("record %d", p.Seq))
		}
	}
	gone := image(t, dir)
	if err := os.Remove(filepath.Join(gone, filepath.Base(places[0].Path))); err != nil {
		t.Fatal(err)
	}
	mustBeCorrupt(t, gone, "missing")
}

// mustBeCorrupt requires that the log in dir is neither opened nor verified.
func mustBeCorrupt(t *testing.T, dir, place string) {
	t.Helper()
	_, err := eventstore.Verify(t.Context(), dir)
	if !errors.Is(err, eventstore.ErrCorrupt) || !strings.Contains(err.Error(), place) {
		t.Errorf("verify: got %v, want %v at %s", err, eventstore.ErrCorrupt, place)
	}
	s, err := eventstore.Open(eventstore.Config{Dir: dir, Socket: filepath.Join(shortDir(t), "s"), Logger: testLogger(t)})
	if err == nil {
		t.Errorf("a log with damage at %s was opened", place)
		if err := s.Close(t.Context()); err != nil {
			t.Error(err)
		}
		return
	}
	if !errors.Is(err, eventstore.ErrCorrupt) || !strings.Contains(err.Error(), place) {
		t.Errorf("open: got %v, want %v at %s", err, eventstore.ErrCorrupt, place)
	}
}

// Segments are used again in any number, and the journal stays small.
func TestJournalStaysSmall(t *testing.T) {
	cfg := eventstore.Config{Dir: t.TempDir()}
	small(&cfg)
	s, stop := open(t, cfg)
	c := dial(t, s)
	const n = 400
	for i := range n {
		if a, err := c.append(t.Context(), "kt.a", int64(i)-1, "t", bytes.Repeat([]byte{'x'}, 20<<10), number(i)); err != nil || !a.ok {
			t.Fatalf("append: %+v, %v", a, err)
		}
	}
	verify(t, cfg.Dir, n)
	files, err := eventstore.JournalFiles(cfg.Dir)
	if err != nil || len(files) == 0 || len(files) > 12 {
		t.Errorf("the journal has %d files, %v", len(files), err)
	}
	stop()
	verify(t, cfg.Dir, n)
}

// A log of schema version 1 is brought to the present one when it is opened.
func TestOlderLogIsBroughtUpToDate(t *testing.T) {
	dir := t.TempDir()
	s, stop := open(t, eventstore.Config{Dir: dir})
	c := dial(t, s)
	for i := range 10 {
		if a, err := c.append(t.Context(), fmt.Sprintf("kt.%d", i%3), anyRevision, "t", []byte("data"), number(i)); err != nil || !a.ok {
			t.Fatalf("append: %+v, %v", a, err)
		}
	}
	stop()
	want := tablesOf(t, dir)
	tamper(t, dir, `DROP INDEX tombstones; ALTER TABLE streams DROP COLUMN cut_below; ALTER TABLE runs ADD COLUMN at INTEGER NOT NULL DEFAULT 0; DROP TABLE journal; PRAGMA user_version = 1`)
	s, stop = open(t, eventstore.Config{Dir: dir})
	c = dial(t, s)
	if a, err := c.append(t.Context(), "kt.0", streamExists, "t", nil, number(10)); err != nil || a.rev != 4 {
		t.Errorf("append: %+v, %v", a, err)
	}
	stop()
	verify(t, dir, 11)
	if d := cmp.Diff(want, tablesOf(t, dir)); d != "" {
		t.Errorf("the tables of the older log (-of a new one +got):\n%s", d)
	}
}

// tablesOf returns what a log's tables and indexes are made of.
func tablesOf(t *testing.T, dir string) []string {
	t.Helper()
	db, err := sql.Open("sqlite", filepath.Join(dir, "events.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	}()
	var all string
	const question = `SELECT group_concat(line, char(10)) FROM (
SELECT m.type || ' ' || m.name || ': ' || c.name || ' ' || c.type || ' ' || c."notnull" || ' ' || c.pk AS line FROM sqlite_schema m, pragma_table_info(m.name) c
UNION SELECT m.type || ' ' || m.name || ' on ' || m.tbl_name FROM sqlite_schema m ORDER BY 1)`
	if err := db.QueryRowContext(t.Context(), question).Scan(&all); err != nil {
		t.Fatal(err)
	}
	return strings.Split(all, "\n")
}
