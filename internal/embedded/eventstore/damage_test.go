package eventstore_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/EventStore/EventStore-Client-Go/v4/protos/shared"
	api "github.com/EventStore/EventStore-Client-Go/v4/protos/streams"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

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

// shown is all that a log shows.
type shown struct {
	reads map[string][]seen
	// contents are the whole messages of $all's events, by position.
	contents map[uint64]string
}

// served opens the log in dir and returns all that it shows, or the error.
func served(t *testing.T, dir string, streams []string) (*shown, error) {
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
	all := &shown{reads: reads(t, c, streams), contents: map[uint64]string{}}
	o := allFrom(0, false)
	o.UuidOption = &api.ReadReq_Options_UUIDOption{Content: &api.ReadReq_Options_UUIDOption_Structured{Structured: &shared.Empty{}}}
	down, err := c.Read(t.Context(), &api.ReadReq{Options: o})
	if err != nil {
		return nil, err
	}
	for {
		m, err := down.Recv()
		if errors.Is(err, io.EOF) {
			return all, nil
		}
		if err != nil {
			return nil, err
		}
		e := m.GetEvent().GetEvent()
		// A scavenge that was lost with SQLite's WAL is made again; until then the log
		// shows what the streams hide.
		if name := string(e.GetStreamIdentifier().GetStreamName()); !strings.HasPrefix(name, "kt.1") && !strings.HasPrefix(name, "kt.2") {
			all.contents[e.GetCommitPosition()] = e.String()
		}
	}
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
	tidied := image(t, dir) // Here the tables' file holds all that is in the tables.
	if _, err := eventstore.RecordPlaces(t.Context(), tidied); err != nil {
		t.Fatal(err)
	}
	for _, file := range []struct{ dir, name string }{{tidied, "events.db"}, {dir, "events.db-wal"}, {dir, filepath.Base(last.Path)}} {
		whole, err := os.ReadFile(filepath.Join(file.dir, file.name))
		if err != nil {
			t.Fatal(err)
		}
		limit := len(whole)
		if file.name == filepath.Base(last.Path) {
			limit = last.At
		}
		for range 25 {
			at, bit := random.IntN(max(1, limit)), byte(1<<random.IntN(8))
			damaged := image(t, file.dir)
			patch(t, filepath.Join(damaged, file.name), at, []byte{whole[at] ^ bit})
			got, err := served(t, damaged, streams)
			if err != nil {
				found++
				continue
			}
			harmless++
			if d := cmp.Diff(want, got, cmp.AllowUnexported(shown{})); d != "" {
				t.Errorf("byte %d of %s flipped (-want +got):\n%.2000s", at, file.name, d)
			}
		}
	}
	t.Logf("%d reported, %d harmless", found, harmless)
}

// A row whose columns contradict its events, which have the checksum that it names: a start
// looks at every row of a small log only, so reads have to see it. Of several reads of each
// kind every one is right or an error, and one at least is the error.
func TestARowThatContradictsItsEventsIsNeverServed(t *testing.T) {
	for _, test := range []struct{ name, sql string }{
		{"it says that it ends later", `UPDATE blocks SET last_pos = (SELECT max(last_pos) FROM blocks)`},
		{"it says that it ends earlier", `UPDATE blocks SET last_pos = last_pos - 2`},
		{"it says that it begins later", `UPDATE blocks SET first_pos = last_pos - 1`},
		{"it says that it holds fewer events", `UPDATE blocks SET events = events - 1`},
		{"it says that it holds more events", `UPDATE blocks SET events = events + 1`},
	} {
		t.Run(test.name, func(t *testing.T) {
			dir := t.TempDir()
			fillTables(t, dir)
			s, stop := open(t, eventstore.Config{Dir: dir}) // Now nothing is in memory.
			defer stop()
			c := dial(t, s)
			want, err := c.readAll(t.Context(), false, 1<<40)
			if err != nil || len(want) == 0 {
				t.Fatalf("%d events, %v", len(want), err)
			}
			tamper(t, dir, test.sql)
			refused := 0
			check := func(what string, want, got []seen, err error) {
				t.Helper()
				if err != nil {
					refused++
				} else if d := cmp.Diff(want, got, cmpopts.EquateEmpty()); d != "" {
					t.Errorf("%s (-want +got):\n%.1000s", what, d)
				}
			}
			for i := range want {
				got, _, err := c.read(t.Context(), allFrom(want[i].Pos, false))
				check(fmt.Sprintf("forwards from %d", want[i].Pos), want[i:], got, err)
				got, _, err = c.read(t.Context(), allFrom(want[i].Pos, true))
				slices.Reverse(got)
				check(fmt.Sprintf("backwards from %d", want[i].Pos), want[:i], got, err)
			}
			stream, _, err := c.readStream(t.Context(), "kt.1", false, nil, 1<<40)
			check("a stream", slices.DeleteFunc(slices.Clone(want), func(e seen) bool { return e.Stream != "kt.1" }), stream, err)
			if refused == 0 {
				t.Error("nothing was refused")
			}
		})
	}
}

// fillTables makes a log in dir that is longer than what one query fetches, all of it in the
// tables.
func fillTables(t *testing.T, dir string) {
	t.Helper()
	s, stop := open(t, eventstore.Config{Dir: dir})
	defer stop()
	c := dial(t, s)
	for i := range 150 {
		if a, err := c.append(t.Context(), fmt.Sprintf("kt.%d", i%3), anyRevision, "t", make([]byte, eventstore.ChunkBytes/50), number(i)); err != nil || !a.ok {
			t.Fatalf("append: %+v, %v", a, err)
		}
	}
}

// tamper changes the tables of a log that may be served.
func tamper(t *testing.T, dir, statement string) {
	t.Helper()
	db, err := sql.Open("sqlite", filepath.Join(dir, "events.db"))
	if err != nil {
		t.Fatal(err)
	}
	_, err = db.ExecContext(t.Context(), statement)
	if err := errors.Join(err, db.Close()); err != nil {
		t.Fatal(err)
	}
}

// allFrom asks for $all to its end: forwards with the event at pos, backwards without it.
func allFrom(pos uint64, back bool) *api.ReadReq_Options {
	o := &api.ReadReq_Options{
		StreamOption: &api.ReadReq_Options_All{All: &api.ReadReq_Options_AllOptions{AllOption: &api.ReadReq_Options_AllOptions_Position{
			Position: &api.ReadReq_Options_Position{CommitPosition: pos, PreparePosition: pos},
		}}},
		CountOption: &api.ReadReq_Options_Count{Count: 1 << 40},
	}
	if back {
		o.ReadDirection = api.ReadReq_Options_Backwards
	}
	return o
}
