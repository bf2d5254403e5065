package archive_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"iter"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"example.com/keytrail/domain"
	"example.com/keytrail/internal/archive"
	"example.com/keytrail/internal/eventlog"
)

const stream = "kt.usage-client-07"

// events are n events of a stream from revision first on.
func events(rng *rand.Rand, first uint64, n, size int) []eventlog.Raw {
	out := make([]eventlog.Raw, n)
	for i := range out {
		data := make([]byte, rng.IntN(size+1))
		for j := range data {
			data[j] = byte(rng.IntN(4))
		}
		out[i] = eventlog.Raw{
			Stream: stream, Revision: first + uint64(i), Position: 100 + 7*(first+uint64(i)), ID: domain.DeriveID("t", fmt.Sprint(first, i)),
			Type: domain.TypeUsageRecorded, JSON: rng.IntN(2) == 0, Data: data, Meta: []byte(`{"v":1}`),
			RecordedAt: time.Date(2026, 3, 1, 0, 0, i, 123456700, time.UTC),
		}
	}
	return out
}

func seq(events []eventlog.Raw) iter.Seq2[eventlog.Raw, error] {
	return func(yield func(eventlog.Raw, error) bool) {
		for _, e := range events {
			if !yield(e, nil) {
				return
			}
		}
	}
}

func headerOf(events []eventlog.Raw) archive.Header {
	return archive.Header{Stream: stream, Segment: 3, FirstRevision: events[0].Revision, LastRevision: events[len(events)-1].Revision, Previous: strings.Repeat("ab", 32)}
}

// fataler is a test, a fuzz target or a property.
type fataler interface {
	Helper()
	Fatal(args ...any)
	Fatalf(format string, args ...any)
}

// write returns a whole archive's bytes.
func write(tb fataler, all []eventlog.Raw) []byte {
	tb.Helper()
	var b bytes.Buffer
	w, err := archive.NewWriter(&b, headerOf(all))
	if err != nil {
		tb.Fatal(err)
	}
	for i := range all {
		if err := w.Add(&all[i]); err != nil {
			tb.Fatal(err)
		}
	}
	_, n, _, err := w.Close()
	if err != nil || n != uint64(b.Len()) {
		tb.Fatalf("%d bytes written, told %d: %v", b.Len(), n, err)
	}
	return b.Bytes()
}

// read reads an archive; err is nil if it was whole.
func read(b []byte) ([]eventlog.Raw, error) {
	r, err := archive.NewReader(bytes.NewReader(b))
	if err != nil {
		return nil, err
	}
	defer r.Close()
	var out []eventlog.Raw
	for {
		raw, err := r.Next()
		if errors.Is(err, io.EOF) {
			return out, nil
		}
		if err != nil {
			return out, err
		}
		out = append(out, raw)
	}
}

func TestAnArchiveGivesBackEveryEventWhole(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		rng := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 1))
		all := events(rng, rapid.Uint64Range(0, 1<<40).Draw(t, "first"), rapid.IntRange(1, 40).Draw(t, "events"), rapid.SampledFrom([]int{0, 100, 3000}).Draw(t, "size"))
		got, err := read(write(t, all))
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(all, got); d != "" {
			t.Errorf("(-written +read):\n%s", d)
		}
	})
}

// TestEveryDamagedByteIsSeen changes, and cuts off at, each byte of an archive.
func TestEveryDamagedByteIsSeen(t *testing.T) {
	t.Parallel()
	all := events(rand.New(rand.NewPCG(1, 2)), 5, 4, 30)
	good := write(t, all)
	for i := range good {
		for _, flip := range []byte{1} {
			bad := bytes.Clone(good)
			bad[i] ^= flip
			if _, err := read(bad); !errors.Is(err, archive.ErrDamaged) {
				t.Fatalf("byte %d of %d changed by %x: %v", i, len(good), flip, err)
			}
		}
		if _, err := read(good[:i]); !errors.Is(err, archive.ErrDamaged) {
			t.Fatalf("cut off at %d of %d: %v", i, len(good), err)
		}
	}
	if _, err := read(append(bytes.Clone(good), 0)); !errors.Is(err, archive.ErrDamaged) {
		t.Errorf("a byte after the end: %v", err)
	}
}

func TestEventsOutOfOrderAreNoArchive(t *testing.T) {
	t.Parallel()
	all := events(rand.New(rand.NewPCG(1, 3)), 0, 5, 10)
	other := all[2]
	other.Stream = "kt.usage-client-08"
	renumbered := all[2]
	renumbered.Revision = 7
	for name, list := range map[string][]eventlog.Raw{
		"one has another revision": {all[0], all[1], renumbered, all[3], all[4]},
		"one is missing":           {all[0], all[1], all[3], all[4]},
		"one is twice":             {all[0], all[1], all[1], all[2], all[3], all[4]},
		"two are swapped":          {all[0], all[2], all[1], all[3], all[4]},
		"one is another's":         {all[0], all[1], other, all[3], all[4]},
		"the last is missing":      {all[0], all[1], all[2], all[3]},
	} {
		var b bytes.Buffer
		w, err := archive.NewWriter(&b, headerOf(all))
		if err != nil {
			t.Fatal(err)
		}
		for i := range list {
			if err := w.Add(&list[i]); err != nil {
				t.Fatal(err)
			}
		}
		if _, _, _, err := w.Close(); err != nil {
			t.Fatal(err)
		}
		if _, err := read(b.Bytes()); !errors.Is(err, archive.ErrDamaged) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestAnArchiveIsReadInBoundedMemory reads 64 MiB of events and looks at the heap.
func TestAnArchiveIsReadInBoundedMemory(t *testing.T) {
	all := events(rand.New(rand.NewPCG(1, 4)), 0, 1, 0)
	pr, pw := io.Pipe()
	go func() {
		h := headerOf(all)
		h.LastRevision = 255
		w, err := archive.NewWriter(pw, h)
		data := make([]byte, 256<<10)
		for i := uint64(0); i < 256 && err == nil; i++ {
			e := all[0]
			e.Revision, e.Position, e.Data = i, 10+i, data
			err = w.Add(&e)
		}
		if err == nil {
			_, _, _, err = w.Close()
		}
		pw.CloseWithError(err)
	}()
	r, err := archive.NewReader(pr)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	var most uint64
	var m runtime.MemStats
	for n := 0; ; n++ {
		if _, err := r.Next(); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		if n%64 == 0 {
			runtime.GC()
			runtime.ReadMemStats(&m)
			most = max(most, m.HeapAlloc)
		}
	}
	if most > 48<<20 {
		t.Errorf("%d MiB of heap in use while reading", most>>20)
	}
}

// sealed stores events in a folder and returns their seal.
func sealed(tb testing.TB, d *archive.Dir, all []eventlog.Raw) domain.UsageSegmentSealed {
	tb.Helper()
	h := headerOf(all)
	a, chain, err := d.Store(h, seq(all))
	if err != nil {
		tb.Fatal(err)
	}
	var places []domain.Place
	for _, e := range all {
		places = append(places, domain.Place{Position: e.Position, Records: 1})
	}
	return domain.UsageSegmentSealed{
		Stream: stream, Segment: h.Segment, FirstRevision: h.FirstRevision, LastRevision: h.LastRevision, Previous: h.Previous,
		Events: uint64(len(all)), SHA256: chain, Archive: &a, Places: domain.PackPlaces(places),
	}
}

func TestCheckComparesAFileWithItsSeal(t *testing.T) {
	t.Parallel()
	rng := rand.New(rand.NewPCG(2, 2))
	all := events(rng, 10, 4, 50)
	tests := []struct {
		name   string
		damage func(t *testing.T, d *archive.Dir, s *domain.UsageSegmentSealed)
		ok     bool
	}{
		{name: "nothing", ok: true, damage: func(*testing.T, *archive.Dir, *domain.UsageSegmentSealed) {}},
		{name: "the file is gone", damage: func(t *testing.T, d *archive.Dir, s *domain.UsageSegmentSealed) {
			t.Helper()
			if err := os.Remove(filepath.Join(d.Path(), s.Archive.Name)); err != nil {
				t.Fatal(err)
			}
		}},
		{name: "a byte is another", damage: func(t *testing.T, d *archive.Dir, s *domain.UsageSegmentSealed) {
			t.Helper()
			rewrite(t, d, s, func(b []byte) []byte { b[len(b)/2] ^= 1; return b })
		}},
		{name: "it is shorter", damage: func(t *testing.T, d *archive.Dir, s *domain.UsageSegmentSealed) {
			t.Helper()
			rewrite(t, d, s, func(b []byte) []byte { return b[:len(b)-1] })
		}},
		{name: "it is a whole file of other events", damage: func(t *testing.T, d *archive.Dir, s *domain.UsageSegmentSealed) {
			t.Helper()
			other := events(rand.New(rand.NewPCG(9, 9)), 10, 4, 60)
			rewrite(t, d, s, func([]byte) []byte { return write(t, other) })
		}},
		{name: "it is another range", damage: func(t *testing.T, d *archive.Dir, s *domain.UsageSegmentSealed) {
			t.Helper()
			rewrite(t, d, s, func([]byte) []byte { return write(t, all[:3]) })
		}},
		{name: "the seal has another hash", damage: func(_ *testing.T, _ *archive.Dir, s *domain.UsageSegmentSealed) { s.SHA256 = "00" }},
		{name: "the seal has other places", damage: func(_ *testing.T, _ *archive.Dir, s *domain.UsageSegmentSealed) {
			s.Places = domain.PackPlaces([]domain.Place{{Position: 1}, {Position: 2}, {Position: 3}, {Position: 4}})
		}},
		{name: "its name leads out of the folder", damage: func(_ *testing.T, _ *archive.Dir, s *domain.UsageSegmentSealed) {
			s.Archive.Name = "../" + s.Archive.Name
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			d, err := archive.OpenDir(filepath.Join(t.TempDir(), "a"))
			if err != nil {
				t.Fatal(err)
			}
			s := sealed(t, d, all)
			name := s.Archive.Name
			tt.damage(t, d, &s)
			err = d.Check(s)
			if (err == nil) != tt.ok {
				t.Errorf("check: %v", err)
			}
			if err != nil && !strings.Contains(err.Error(), name) {
				t.Errorf("the error does not name the file: %v", err)
			}
		})
	}
}

func rewrite(t *testing.T, d *archive.Dir, s *domain.UsageSegmentSealed, change func([]byte) []byte) {
	t.Helper()
	name := filepath.Join(d.Path(), s.Archive.Name)
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, change(b), 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestStoringAgainIsTheSameFile: two workers, or one after a crash, leave one file, and a
// source that breaks off leaves none.
func TestStoringAgainIsTheSameFile(t *testing.T) {
	t.Parallel()
	d, err := archive.OpenDir(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	all := events(rand.New(rand.NewPCG(3, 3)), 0, 5, 50)
	first, second := sealed(t, d, all), sealed(t, d, all)
	if diff := cmp.Diff(first, second); diff != "" {
		t.Error(diff)
	}
	broken := errors.New("broken off")
	_, _, err = d.Store(headerOf(all), func(yield func(eventlog.Raw, error) bool) { _ = yield(all[0], nil) && yield(eventlog.Raw{}, broken) })
	if !errors.Is(err, broken) {
		t.Errorf("store: %v", err)
	}
	entries, err := os.ReadDir(d.Path())
	if err != nil || len(entries) != 1 {
		t.Errorf("%d files: %v", len(entries), err)
	}
}

// FuzzReader: no bytes crash the reader, and what it takes for whole gives the same
// events when written again.
func FuzzReader(f *testing.F) {
	f.Add(write(f, events(rand.New(rand.NewPCG(4, 4)), 0, 3, 40)))
	f.Add(write(f, events(rand.New(rand.NewPCG(5, 5)), 9, 1, 0)))
	f.Add([]byte("KTARC1\r\n\x00\x00\x00\x02{}\x00\x00\x00\x00"))
	f.Fuzz(func(t *testing.T, b []byte) {
		got, err := read(b)
		if err != nil || len(got) == 0 {
			return
		}
		r, err := archive.NewReader(bytes.NewReader(b))
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		var again bytes.Buffer
		w, err := archive.NewWriter(&again, r.Header())
		if err != nil {
			t.Fatal(err)
		}
		for i := range got {
			if err := w.Add(&got[i]); err != nil {
				t.Fatal(err)
			}
		}
		if _, _, _, err := w.Close(); err != nil {
			t.Fatal(err)
		}
		second, err := read(again.Bytes())
		if diff := cmp.Diff(got, second); err != nil || diff != "" {
			t.Errorf("%v %s", err, diff)
		}
	})
}
