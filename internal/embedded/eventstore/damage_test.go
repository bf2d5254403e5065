package eventstore_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"example.com/keytrail/internal/embedded/eventstore"
)

// variety serves a folder with streams of all kinds, and returns an image of it in
// which the newest appends are in the journal only.
func variety(t *testing.T) (dir string, streams []string) {
	t.Helper()
	cfg := eventstore.Config{Dir: t.TempDir()}
	lazy(&cfg)
	s, stop := open(t, cfg)
	c := dial(t, s)
	n := 0
	add := func(stream, typ string, data []byte) {
		n++
		if a, err := c.append(t.Context(), stream, anyRevision, typ, data, number(n)); err != nil || !a.ok {
			t.Fatalf("append: %+v, %v", a, err)
		}
	}
	for i := range 400 {
		add(fmt.Sprintf("kt.%d", i%37), "t", fmt.Appendf(nil, `{"n":%d}`, i))
	}
	add("$$kt.1", "$metadata", []byte(`{"$maxCount":3}`))
	add("$$kt.2", "$metadata", []byte(`{"$tb":4}`))
	if _, err := s.Scavenge(t.Context()); err != nil {
		t.Fatal(err)
	}
	add("$$kt.3", "$metadata", []byte(`{"$maxCount":2}`))
	if err := s.Fold(t.Context()); err != nil {
		t.Fatal(err)
	}
	for i := range 40 {
		add(fmt.Sprintf("kt.%d", i%41), "t", fmt.Appendf(nil, `{"late":%d}`, i))
	}
	dir = image(t, cfg.Dir)
	stop()
	for i := range 42 {
		streams = append(streams, fmt.Sprintf("kt.%d", i), fmt.Sprintf("$$kt.%d", i))
	}
	return dir, streams
}

// served opens the log in dir and returns all that it shows, or the error.
func served(t *testing.T, dir string, streams []string) (map[string][]seen, error) {
	t.Helper()
	s, err := eventstore.Open(eventstore.Config{Dir: dir, Socket: filepath.Join(shortDir(t), "s"), Logger: testLogger(t)})
	if err != nil {
		return nil, err
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		if err := s.Close(ctx); err != nil {
			t.Logf("close: %v", err) // Damaged files may not close well.
		}
	}()
	c := dial(t, s)
	all := reads(t, c, streams)
	events, err := c.readAll(t.Context(), false, 1<<40)
	// A scavenge that was lost with SQLite's WAL is made again; until then log
	// shows what the streams hide.
	all["$all"] = slices.DeleteFunc(events, func(e seen) bool { return strings.HasPrefix(e.Stream, "kt.1") || strings.HasPrefix(e.Stream, "kt.2") })
	return all, err
}

// A byte that flips anywhere in any file is reported at open, or changes nothing that
// is read. Only the last commit before a kill cannot be told from a torn one while it
// is in the journal alone: it is cut off, whole.
func TestFlippedByteIsNeverServed(t *testing.T) {
	dir, streams := variety(t)
	want, err := served(t, image(t, dir), streams)
	if err != nil {
		t.Fatal(err)
	}
	places, err := eventstore.RecordPlaces(t.Context(), image(t, dir)) // It lets SQLite tidy up.
	if err != nil || len(places) < 2 {
		t.Fatalf("the journal has the records %v, %v", places, err)
	}
	last := places[len(places)-1]
	random := rand.New(rand.NewPCG(5, 6))
	var found, harmless int
	for _, name := range []string{"events.db", "events.db-wal", filepath.Base(last.Path)} {
		whole, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		limit := len(whole)
		if name == filepath.Base(last.Path) {
			limit = last.At
		}
		for range 25 {
			at, bit := random.IntN(max(1, limit)), byte(1<<random.IntN(8))
			damaged := image(t, dir)
			patch(t, filepath.Join(damaged, name), at, []byte{whole[at] ^ bit})
			got, err := served(t, damaged, streams)
			if err != nil {
				found++
				continue
			}
			harmless++
			if d := cmp.Diff(want, got); d != "" {
				t.Errorf("byte %d of %s flipped (-want +got):\n%.2000s", at, name, d)
			}
		}
	}
	t.Logf("%d reported, %d harmless", found, harmless)
}
