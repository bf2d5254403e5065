package horizon_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"example.com/keytrail/domain"
	"example.com/keytrail/ingest/horizon"
	"example.com/keytrail/internal/archive"
	"example.com/keytrail/internal/eventlog"
)

const (
	archived = "kt.usage-client-00"
	plain    = "kt.usage-verify-vn1"
	kept     = "kt.usage-import-00"
)

var began = time.Date(2026, 3, 1, 22, 0, 0, 0, time.UTC)

// world is a log of ten days of usage and what a keeper needs.
type world struct {
	t     *testing.T
	log   *memLog
	dir   *archive.Dir
	below uint64
	now   time.Time
}

// newWorld has one batch every six hours in each of three streams.
func newWorld(t *testing.T) *world {
	t.Helper()
	dir, err := archive.OpenDir(filepath.Join(t.TempDir(), "archive"))
	if err != nil {
		t.Fatal(err)
	}
	w := &world{t: t, log: newMemLog(began), dir: dir, below: ^uint64(0), now: began.Add(15*24*time.Hour - time.Hour)}
	for i := range 40 {
		for _, stream := range []string{archived, plain, kept} {
			w.log.use(stream, domain.AccountID(fmt.Sprintf("a%d", i/20)), 1+i%3)
		}
		w.log.pass(6 * time.Hour)
	}
	return w
}

func (w *world) config() horizon.Config {
	return horizon.Config{
		Log: w.log, Seals: archive.NewSeals(w.log), Home: func() domain.AccountID { return "home" },
		Classes: map[string]horizon.Class{"client": {Horizon: 8 * 24 * time.Hour, Archive: w.dir}, "verify": {Horizon: 9 * 24 * time.Hour}},
		Streams: func(context.Context) ([]string, error) {
			return []string{archived, plain, kept, "kt.usage-client-01"}, nil
		},
		Guards: []horizon.Guard{{Name: "the tables", Below: func(context.Context) (uint64, error) { return w.below, nil }}},
		Now:    func() time.Time { return w.now }, Logger: slog.New(slog.DiscardHandler),
	}
}

func (w *world) keeper(change ...func(*horizon.Config)) *horizon.Keeper {
	w.t.Helper()
	cfg := w.config()
	for _, c := range change {
		c(&cfg)
	}
	k, err := horizon.New(cfg)
	if err != nil {
		w.t.Fatal(err)
	}
	return k
}

func (w *world) pass(k *horizon.Keeper) horizon.Result {
	w.t.Helper()
	res, err := k.Pass(w.t.Context())
	if err != nil {
		w.t.Fatal(err)
	}
	return res
}

// seals returns what is sealed, by a fresh reader, which checks each stream's chain.
func (w *world) seals() *archive.Seals {
	w.t.Helper()
	s := archive.NewSeals(w.log)
	if err := s.Refresh(w.t.Context()); err != nil {
		w.t.Error(err)
	}
	return s
}

// check holds the invariants: whatever is cut is sealed and, where its class keeps
// archives, whole in the archive; each segment is what the log held; the newest event of
// each stream stays.
func (w *world) check() {
	w.t.Helper()
	seals := w.seals()
	for stream, all := range w.log.streams {
		before := w.log.cut[stream]
		if before == 0 {
			continue
		}
		of := seals.Of(stream)
		if len(of) == 0 || before > of[len(of)-1].LastRevision+1 || !slices.ContainsFunc(of, func(s domain.UsageSegmentSealed) bool { return s.LastRevision+1 == before }) {
			w.t.Errorf("%s is cut before %d, which is no end of a sealed segment", stream, before)
		}
		if before >= uint64(len(all)) {
			w.t.Errorf("%s: the newest event is cut", stream)
		}
		if stream == kept || !strings.HasPrefix(stream, domain.UsageStreams) {
			w.t.Errorf("%s is cut", stream)
		}
	}
	for _, seal := range seals.All() {
		chain, err := archive.NewChain(seal.Previous)
		if err != nil {
			w.t.Error(err)
			continue
		}
		for _, raw := range w.log.streams[seal.Stream][seal.FirstRevision : seal.LastRevision+1] {
			chain.Add(&raw)
		}
		if chain.Sum() != seal.SHA256 {
			w.t.Errorf("segment %d of %s is not what the log held", seal.Segment, seal.Stream)
		}
		if class, _ := domain.UsageClassOf(seal.Stream); (class == "client") != (seal.Archive != nil) {
			w.t.Errorf("segment %d of %s: archive %v", seal.Segment, seal.Stream, seal.Archive)
		}
		if seal.Archive != nil {
			if err := w.dir.Check(seal); err != nil {
				w.t.Error(err)
			}
		}
	}
}

func TestOldRangesAreSealedArchivedAndCut(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	metrics, err := horizon.NewMetrics(prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	k := w.keeper(func(c *horizon.Config) { c.Metrics = metrics })
	first := w.pass(k)
	if first.Sealed == 0 || first.Cut != 0 {
		t.Errorf("the first pass sealed %d and cut %d segments; want some and none", first.Sealed, first.Cut)
	}
	second := w.pass(k)
	if second.Sealed != 0 || second.Cut != first.Sealed {
		t.Errorf("the second pass sealed %d and cut %d segments, want 0 and %d", second.Sealed, second.Cut, first.Sealed)
	}
	w.check()
	// 15 days after the beginning: the days of the first seven are old enough, and whole.
	for stream, days := range map[string]int{archived: 7, plain: 6} {
		of := w.seals().Of(stream)
		if len(of) != days || w.log.cut[stream] != of[len(of)-1].LastRevision+1 {
			t.Errorf("%s: %d segments, cut before %d", stream, len(of), w.log.cut[stream])
		}
		if of[0].Events != 1 || of[1].Events != 4 || of[1].Records == 0 || len(of[1].Accounts) != 1 || of[1].Accounts[0].Failures != of[1].Records || of[1].Accounts[0].Bytes != 5*of[1].Records {
			t.Errorf("%s: the second segment is %+v", stream, of[1])
		}
	}
	if s := k.Status(); s.Error != "" || s.Sealed != 13 || s.Archived != 7 || s.Bytes == 0 || s.LastPass == nil || len(s.Classes) != 2 {
		t.Errorf("status %+v", s)
	}
	if r, err := k.Check(t.Context(), nil); err != nil || !r.OK() || r.Archived != 7 || r.Unkept != 6 {
		t.Errorf("check %+v, %v", r, err)
	}
	if third := w.pass(k); third.Sealed != 0 || third.Cut != 0 {
		t.Errorf("a third pass did something: %+v", third)
	}
}

// TestWhereverAKeeperDiesNothingIsLostOrSealedTwice fails each change of the log in turn,
// before and after it happens, and goes on with a new keeper, as a restarted process does.
func TestWhereverAKeeperDiesNothingIsLostOrSealedTwice(t *testing.T) {
	t.Parallel()
	var total int
	for _, v := range []verdict{failBefore, failAfter} {
		for at := 1; ; at++ {
			w := newWorld(t)
			died := false
			w.log.fault = func(string) verdict {
				w.log.ops++
				if w.log.ops == at {
					died = true
				}
				if died && w.log.ops >= at {
					if w.log.ops == at {
						return v
					}
					return failBefore // Dead: nothing more happens.
				}
				return goOn
			}
			k := w.keeper()
			for range 2 {
				if _, err := k.Pass(t.Context()); (err != nil) != died {
					t.Fatalf("fault %d at change %d: %v", v, at, err)
				}
				w.check()
			}
			if !died {
				break
			}
			total++
			w.log.fault = func(string) verdict { return goOn }
			k = w.keeper()
			w.pass(k)
			w.pass(k)
			w.check()
			if n := len(w.seals().All()); n != 13 || w.log.cut[archived] != 25 || w.log.cut[plain] != 21 {
				t.Errorf("fault %d at change %d: %d segments, cut before %d and %d", v, at, n, w.log.cut[archived], w.log.cut[plain])
			}
		}
	}
	if total < 2*13 {
		t.Errorf("only %d faults tried", total)
	}
}

// TestAnArchiveWrittenButNotSealedIsNoHarm: the file of the keeper that died is found
// again, or stays beside, and the segment is sealed once.
func TestAnArchiveWrittenButNotSealedIsNoHarm(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.log.fault = func(string) verdict { return failBefore }
	if _, err := w.keeper().Pass(t.Context()); err == nil {
		t.Fatal("the log failed, and the pass did not")
	}
	files, err := os.ReadDir(w.dir.Path())
	if err != nil || len(files) != 1 || len(w.seals().All()) != 0 {
		t.Fatalf("%d files, %d seals: %v", len(files), len(w.seals().All()), err)
	}
	w.log.fault = func(string) verdict { return goOn }
	w.pass(w.keeper())
	w.check()
	if again, err := os.ReadDir(w.dir.Path()); err != nil || len(again) != 7 {
		t.Errorf("%d files for 7 archived segments: %v", len(again), err)
	}
}

// TestTwoKeepersSealEachSegmentOnce runs two at once, again and again.
func TestTwoKeepersSealEachSegmentOnce(t *testing.T) {
	t.Parallel()
	for range 8 {
		w := newWorld(t)
		done := make(chan error, 2)
		for range 2 {
			k := w.keeper()
			go func() {
				var err error
				for range 4 {
					_, e := k.Pass(t.Context())
					err = errors.Join(err, e)
				}
				done <- err
			}()
		}
		for range 2 {
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
		w.check()
		if n := len(w.seals().All()); n != 13 {
			t.Errorf("%d segments, want 13", n)
		}
	}
}

func TestWhatIsStillNeededIsNotCut(t *testing.T) {
	t.Parallel()
	half := func(w *world) uint64 { return w.log.streams[archived][10].Position }
	tests := []struct {
		name    string
		prepare func(w *world, c *horizon.Config)
		// before is where the archived stream is cut after two passes.
		before uint64
		why    string
		fails  bool
	}{
		{name: "nothing", before: 25},
		{name: "what the tables have not completed", before: 9, why: "the tables", prepare: func(w *world, _ *horizon.Config) { w.below = half(w) }},
		{name: "what one of two guards needs", before: 9, why: "a rebuild", prepare: func(w *world, c *horizon.Config) {
			c.Guards = append(c.Guards, horizon.Guard{Name: "a rebuild", Below: func(context.Context) (uint64, error) { return half(w), nil }})
		}},
		{name: "anything, where a guard does not answer", fails: true, prepare: func(_ *world, c *horizon.Config) {
			c.Guards = append(c.Guards, horizon.Guard{Name: "a rebuild", Below: func(context.Context) (uint64, error) { return 0, errors.New("no answer") }})
		}},
		{name: "anything under a hold on everything", why: "legal hold h", prepare: func(w *world, _ *horizon.Config) {
			w.log.hold(domain.LegalHoldSet{Hold: "h", Reason: "r"})
		}},
		{name: "anything, once the held account is in it", before: 17, why: "legal hold h", prepare: func(w *world, _ *horizon.Config) {
			w.log.hold(domain.LegalHoldSet{Hold: "h", Account: "a1", Reason: "r"})
		}},
		{name: "nothing, where another account is held", before: 25, prepare: func(w *world, _ *horizon.Config) {
			w.log.hold(domain.LegalHoldSet{Hold: "h", Account: "a9", Reason: "r"})
		}},
		{name: "nothing, where the hold is released", before: 25, prepare: func(w *world, _ *horizon.Config) {
			w.log.hold(domain.LegalHoldSet{Hold: "h", Reason: "r"})
			w.log.hold(domain.LegalHoldReleased{Hold: "h", Reason: "r"})
		}},
		{name: "anything, where no class may be cut", prepare: func(_ *world, c *horizon.Config) { c.Classes = nil }},
		{name: "what is not old enough", before: 1, why: "", prepare: func(_ *world, c *horizon.Config) {
			c.Classes = map[string]horizon.Class{"client": {Horizon: 14 * 24 * time.Hour, Archive: c.Classes["client"].Archive}}
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			k := w.keeper(func(c *horizon.Config) {
				if tt.prepare != nil {
					tt.prepare(w, c)
				}
			})
			var res horizon.Result
			for range 2 {
				var err error
				if res, err = k.Pass(t.Context()); (err != nil) != tt.fails {
					t.Fatalf("pass: %v", err)
				}
			}
			if w.log.cut[archived] != tt.before {
				t.Errorf("cut before %d, want %d", w.log.cut[archived], tt.before)
			}
			if res.Waiting[archived] != tt.why {
				t.Errorf("what is left waits for %q, want %q", res.Waiting[archived], tt.why)
			}
			w.check()
		})
	}
}

// TestADamagedArchiveIsNotCutBehind damages and removes files between seal and cut.
func TestADamagedArchiveIsNotCutBehind(t *testing.T) {
	t.Parallel()
	for name, damage := range map[string]func(path string) error{
		"removed": os.Remove,
		"cut off": func(path string) error { return os.Truncate(path, 50) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			k := w.keeper()
			w.pass(k)
			seal := w.seals().Of(archived)[2]
			if err := damage(filepath.Join(w.dir.Path(), seal.Archive.Name)); err != nil {
				t.Fatal(err)
			}
			_, err := k.Pass(t.Context())
			if err == nil || !strings.Contains(err.Error(), seal.Archive.Name) {
				t.Errorf("the pass does not name the file: %v", err)
			}
			if w.log.cut[archived] != 0 {
				t.Errorf("cut before %d behind a damaged archive", w.log.cut[archived])
			}
			if w.log.cut[plain] == 0 {
				t.Error("another stream was kept from being cut")
			}
			if s := k.Status(); !strings.Contains(s.Error, seal.Archive.Name) {
				t.Errorf("status %+v", s)
			}
			if r, err := k.Check(t.Context(), nil); err != nil || r.OK() {
				t.Errorf("check %+v, %v", r, err)
			}
		})
	}
}

// TestAHoldThatComesFirstIsSeen sets a hold between a keeper's look at the holds and its
// cut: the cut's exact revision is lost, and nothing is cut.
func TestAHoldThatComesFirstIsSeen(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	k := w.keeper()
	w.pass(k)
	w.log.fault = func(op string) verdict {
		if op == "append "+domain.LegalHoldStream && len(w.log.streams[domain.LegalHoldStream]) == 0 {
			w.log.propose(domain.LegalHoldStream, domain.LegalHoldSet{Hold: "h", Reason: "r"})
		}
		return goOn
	}
	if res := w.pass(k); res.Cut != 0 || len(w.log.cut) != 0 {
		t.Errorf("%d segments cut under a hold: %v", res.Cut, w.log.cut)
	}
}

// TestAHoldStopsADecidedCutThatNobodyCarriedOut: the keeper died between the two.
func TestAHoldStopsADecidedCutThatNobodyCarriedOut(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.log.fault = func(op string) verdict {
		if strings.HasPrefix(op, "cut ") {
			return failBefore
		}
		return goOn
	}
	k := w.keeper()
	w.pass(k)
	if _, err := k.Pass(t.Context()); err == nil {
		t.Fatal("the cut failed, and the pass did not")
	}
	w.log.fault = func(string) verdict { return goOn }
	// It covers what was decided to be cut, and nothing after it.
	w.log.hold(domain.LegalHoldSet{Hold: "h", Account: "a0", Reason: "r"})
	w.now = w.now.Add(48 * time.Hour)
	k = w.keeper()
	w.pass(k)
	w.pass(k)
	if len(w.log.cut) != 0 {
		t.Errorf("cut under a hold: %v", w.log.cut)
	}
	w.log.hold(domain.LegalHoldReleased{Hold: "h", Account: "a0", Reason: "r"})
	w.pass(k)
	w.check()
	if w.log.cut[archived] == 0 {
		t.Error("not cut after the hold is over")
	}
}

// TestWhatCannotBeReadIsNotSealed puts an event into the stream that is no usage.
func TestWhatCannotBeReadIsNotSealed(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.log.streams[archived][6].Data = []byte("KTU1 broken")
	k := w.keeper()
	for range 2 {
		if _, err := k.Pass(t.Context()); err == nil {
			t.Error("an event that cannot be counted was sealed")
		}
	}
	if of := w.seals().Of(archived); len(of) != 2 || w.log.cut[archived] != 5 {
		t.Errorf("%d segments, cut before %d: want those before the event", len(of), w.log.cut[archived])
	}
	w.check()
}

// TestACutThatWeDidNotMakeIsSeen hides events that nobody sealed.
func TestACutThatWeDidNotMakeIsSeen(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.log.cut[archived] = 3
	if _, err := w.keeper().Pass(t.Context()); err == nil || len(w.seals().Of(archived)) != 0 {
		t.Errorf("sealed over a gap: %v", err)
	}
}

func TestSegmentsAreBounded(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.log = newMemLog(began)
	for range domain.SegmentEventsMax + 10 {
		w.log.use(plain, "a1", 1)
	}
	uses := make([]domain.AccountID, domain.SegmentAccountsMax+1)
	w.log.pass(24 * time.Hour)
	for i := range uses {
		w.log.use(plain, domain.AccountID(fmt.Sprint("a", i)), 1)
	}
	w.log.pass(24 * time.Hour)
	w.log.use(plain, "a1", 1)
	w.pass(w.keeper())
	of := w.seals().Of(plain)
	if len(of) != 3 || of[0].Events != domain.SegmentEventsMax || of[1].Events != 10 {
		t.Fatalf("%d segments: %d, %d events", len(of), of[0].Events, of[1].Events)
	}
	if of[2].Accounts != nil || of[2].AccountsOmitted != domain.SegmentAccountsMax+1 {
		t.Errorf("%d accounts are listed, %d omitted", len(of[2].Accounts), of[2].AccountsOmitted)
	}
}

func TestWrongConfigurationsAreRefused(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for name, change := range map[string]func(*horizon.Config){
		"a horizon below intake's memory": func(c *horizon.Config) { c.Classes = map[string]horizon.Class{"client": {Horizon: 7 * 24 * time.Hour}} },
		"a negative horizon":              func(c *horizon.Config) { c.Classes = map[string]horizon.Class{"client": {Horizon: -1}} },
		"no log":                          func(c *horizon.Config) { c.Log = nil },
		"a negative interval":             func(c *horizon.Config) { c.Every = -1 },
	} {
		cfg := w.config()
		change(&cfg)
		if _, err := horizon.New(cfg); err == nil {
			t.Errorf("%s was taken", name)
		}
	}
}

// TestRunGoesOnAfterAFailedPass until its context ends.
func TestRunGoesOnAfterAFailedPass(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	cut := make(chan struct{})
	failed := false
	w.log.fault = func(op string) verdict {
		if !failed {
			failed = true
			return failBefore
		}
		if op == "cut "+plain {
			close(cut)
		}
		return goOn
	}
	k := w.keeper(func(c *horizon.Config) { c.Every = time.Millisecond })
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- k.Run(ctx) }()
	<-cut
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

var _ horizon.Log = (*eventlog.Log)(nil)

// TestTheNewestEventsOfAStreamStay lets everything grow old: what no event follows may
// still get company, and a stream's revisions go on from its newest event.
func TestTheNewestEventsOfAStreamStay(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.now = w.now.Add(365 * 24 * time.Hour)
	k := w.keeper()
	for range 3 {
		w.pass(k)
	}
	w.check()
	of := w.seals().Of(archived)
	if last := of[len(of)-1]; last.LastRevision != 36 || w.log.cut[archived] != 37 {
		t.Errorf("sealed up to revision %d, cut before %d; the last day, from 37 to 39, may go on", last.LastRevision, w.log.cut[archived])
	}
}

// TestWhatWasNeededAPassAgoStaysForOne moves the tables on between two passes: a request
// may still go by what they said before.
func TestWhatWasNeededAPassAgoStaysForOne(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.below = w.log.streams[archived][10].Position
	k := w.keeper()
	w.pass(k)
	w.below = ^uint64(0)
	if w.pass(k); w.log.cut[archived] != 9 {
		t.Errorf("cut before %d, want 9: the tables were at revision 10 a pass ago", w.log.cut[archived])
	}
	if w.pass(k); w.log.cut[archived] != 25 {
		t.Errorf("cut before %d, want 25 now", w.log.cut[archived])
	}
}
