package ingest_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"example.com/keytrail/domain"
	"example.com/keytrail/ingest"
	"example.com/keytrail/internal/eventlog"
)

// unsteady is a usage table that sometimes does not answer.
type unsteady struct {
	*table
	mu   sync.Mutex // Guards mode.
	mode answering
}

type answering int

const (
	answers answering = iota
	fails
	hangs
)

func (u *unsteady) set(m answering) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.mode = m
}

func (u *unsteady) Known(ctx context.Context, account domain.AccountID, ids []string, from, to time.Time) (map[string]struct{}, uint64, error) {
	u.mu.Lock()
	mode := u.mode
	u.mu.Unlock()
	switch mode {
	case fails:
		return nil, 0, errors.New("refused")
	case hangs:
		<-ctx.Done()
		return nil, 0, ctx.Err()
	case answers:
	}
	return u.table.Known(ctx, account, ids, from, to)
}

// cutLog is a log of which the beginning of streams may be gone.
type cutLog struct {
	*memLog
	first map[string]uint64
}

func (l *cutLog) ReadStream(ctx context.Context, stream string, from uint64, limit int) ([]eventlog.Raw, error) {
	return l.memLog.ReadStream(ctx, stream, max(from, l.first[stream]), limit)
}

func (l *cutLog) ReadStreamBackwards(ctx context.Context, stream string, from *uint64, limit int) ([]eventlog.Raw, error) {
	page, err := l.memLog.ReadStreamBackwards(ctx, stream, from, limit)
	for i, raw := range page {
		if raw.Revision < l.first[stream] {
			return page[:i], err
		}
	}
	return page, err
}

// usedIn is a record of an account at a minute after ten on the 30th of April.
func usedIn(account, id string, minute int) string {
	r := trail(id, minute, "ListUsers", "AKIANEW", "")
	return strings.ReplaceAll(r, "111122223333", account)
}

// sender is a test, of rapid's too.
type sender interface {
	Fatalf(format string, args ...any)
	Context() context.Context
}

// send imports records by imp; it is the 202 that a client would see.
func send(t sender, imp *ingest.Importer, text string) ingest.ImportResult {
	res, err := imp.CloudTrail(t.Context(), order(), ingest.UploadRequest{Body: body(text)})
	if err != nil {
		t.Fatalf("import: %v", err)
	}
	return res
}

// TestImportsAreExactWhateverTheTableAnswers: two nodes take in overlapping sets while the
// table answers, lags, refuses, or restarts come between; every answer counts exactly, and
// the log holds each record once.
func TestImportsAreExactWhateverTheTableAnswers(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		log := newMemLog()
		known := &unsteady{table: &table{log: log, class: "import"}}
		now := usageNow
		log.now = func() time.Time { return now }
		node := func() *ingest.Importer {
			u := newUsage(t, log, func(c *ingest.UsageConfig) { c.Known = known; c.Now = log.now })
			i, err := ingest.NewImporter(u, &ownAccounts{made: map[domain.AccountID]int{}})
			if err != nil {
				rt.Fatal(err)
			}
			return i
		}
		nodes := []*ingest.Importer{node(), node()}
		there := map[string]bool{}
		for range rapid.IntRange(1, 25).Draw(rt, "steps") {
			now = now.Add(time.Duration(rapid.IntRange(0, 10).Draw(rt, "seconds")) * time.Second)
			switch rapid.IntRange(0, 6).Draw(rt, "what") {
			case 0:
				known.set(answers)
			case 1, 2:
				known.set(fails)
			case 3:
				known.project()
			case 4:
				nodes[rapid.IntRange(0, 1).Draw(rt, "restarted")] = node()
			default:
			}
			var text strings.Builder
			fresh, sent := 0, rapid.SliceOfN(rapid.IntRange(0, 60), 1, 30).Draw(rt, "records")
			for _, n := range sent {
				account := fmt.Sprintf("%012d", n%3)
				id := account + fmt.Sprint(n)
				text.WriteString(usedIn(account, fmt.Sprint("r", n), n%60))
				if !there[id] {
					there[id] = true
					fresh++
				}
			}
			res := send(rt, nodes[rapid.IntRange(0, 1).Draw(rt, "node")], text.String())
			if int(res.Uses) != fresh || int(res.Repeated) != len(sent)-fresh || int(res.Accepted) != len(sent) {
				rt.Fatalf("answered %d new, %d repeated of %d; want %d new", res.Uses, res.Repeated, len(sent), fresh)
			}
		}
		if n := len(usesIn(t, log, "import")); n != len(there) {
			rt.Fatalf("the log holds %d records, want %d", n, len(there))
		}
	})
}

// TestImportsAtOnceWithoutTheTableRecordOnce: the expected revision of the slot is the fence,
// with or without the table.
func TestImportsAtOnceWithoutTheTableRecordOnce(t *testing.T) {
	t.Parallel()
	log := newMemLog()
	known := &unsteady{table: &table{log: log, class: "import"}, mode: fails}
	nodes := []*ingest.Importer{newImporter(t, log, known), newImporter(t, log, known), newImporter(t, log, known)}
	var (
		wg   sync.WaitGroup
		mu   sync.Mutex
		uses uint64
		want = map[int]bool{}
	)
	for i := range 24 {
		rng := rand.New(rand.NewPCG(7, uint64(i)))
		var text strings.Builder
		for range 200 {
			n := rng.IntN(1500)
			want[n] = true
			text.WriteString(usedIn("111122223333", fmt.Sprint("r", n), n%60))
		}
		wg.Go(func() {
			for try := range 20 { // Of many writers one may be told to come again.
				res, err := nodes[i%3].CloudTrail(t.Context(), order(), ingest.UploadRequest{Body: body(text.String())})
				if err == nil {
					mu.Lock()
					uses += res.Uses
					mu.Unlock()
					return
				}
				if domain.CodeOf(err) != domain.Unavailable || try == 19 {
					t.Errorf("import: %v", err)
					return
				}
			}
		})
	}
	wg.Wait()
	if got := len(usesIn(t, log, "import")); got != len(want) || uses != uint64(len(want)) {
		t.Errorf("%d records in the log, %d answered as new; want %d", got, uses, len(want))
	}
}

// TestATableThatHangsIsWaitedForOnce: then the log itself is compared with for a while.
func TestATableThatHangsIsWaitedForOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		log := newMemLog()
		known := &unsteady{table: &table{log: log, class: "import"}, mode: hangs}
		u := newUsage(t, log, func(c *ingest.UsageConfig) { c.Known = known; c.Now = time.Now })
		imp, err := ingest.NewImporter(u, &ownAccounts{made: map[domain.AccountID]int{}})
		if err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		for i := range 20 {
			if res := send(t, imp, usedIn("111122223333", fmt.Sprint("r", i%10), 1)); (res.Uses == 1) != (i < 10) {
				t.Errorf("import %d: %+v", i, res)
			}
		}
		if took := time.Since(began); took > 6*time.Second {
			t.Errorf("20 imports took %v", took)
		}
		known.set(answers)
		time.Sleep(6 * time.Second)
		before := known.asked
		if res := send(t, imp, usedIn("111122223333", "r1", 1)); res.Uses != 0 || known.asked == before {
			t.Errorf("after the outage: %+v, the table was asked %d times", res, known.asked-before)
		}
	})
}

// TestWhatTheLogNoLongerHoldsIsNotTakenForNew: where the slot's beginning was cut, records
// that may have stood there wait for the table, and later ones are taken in.
func TestWhatTheLogNoLongerHoldsIsNotTakenForNew(t *testing.T) {
	t.Parallel()
	log := &cutLog{memLog: newMemLog(), first: map[string]uint64{}}
	known := &unsteady{table: &table{log: log.memLog, class: "import"}, mode: fails}
	recorded := time.Date(2026, 4, 30, 11, 0, 0, 0, time.UTC)
	log.now = func() time.Time { return recorded }
	imp := newImporter(t, log, known)
	for i := range 4 {
		send(t, imp, usedIn("111122223333", fmt.Sprint("r", i), i))
	}
	var slot string
	for name := range log.streams {
		if strings.HasPrefix(name, "kt.usage-import-") {
			slot = name
		}
	}
	log.first[slot] = 2
	late := strings.ReplaceAll(usedIn("111122223333", "late", 1), "2026-04-30", "2026-05-20")
	for name, imp := range map[string]*ingest.Importer{"a new process": newImporter(t, log, known), "one that knew it before": imp} {
		_, err := imp.CloudTrail(t.Context(), order(), ingest.UploadRequest{Body: body(usedIn("111122223333", "r0", 0))})
		if domain.CodeOf(err) != domain.Unavailable {
			t.Errorf("%s: a record that may have been cut: %v", name, err)
		}
		send(t, imp, late)
	}
	known.project()
	known.set(answers)
	if res := send(t, newImporter(t, log, known), usedIn("111122223333", "r0", 0)+late); res.Uses != 0 || res.Repeated != 2 {
		t.Errorf("when the table answers: %+v", res)
	}
}

// TestATableFarBehindIsNoReasonToRefuse: the slot tells what cannot be remembered.
func TestATableFarBehindIsNoReasonToRefuse(t *testing.T) {
	t.Parallel()
	w := newImportWorld(t)
	ingest.LimitRecent(w.imp, 5)
	for i := range 40 {
		if res := w.load(t, usedIn("111122223333", fmt.Sprint("r", i%20), i%20)); (res.Uses == 1) != (i < 20) {
			t.Fatalf("import %d: %+v", i, res)
		}
		if i%7 == 0 {
			w.restart(t)
			ingest.LimitRecent(w.imp, 5)
		}
	}
}
