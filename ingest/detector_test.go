package ingest_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"example.com/keytrail/domain"
	"example.com/keytrail/ingest"
	"example.com/keytrail/internal/eventlog"
)

var detectorEpoch = time.Date(2026, 5, 4, 8, 0, 0, 0, time.UTC)

// seenUse is a use of key K, at a second, in a block.
type seenUse struct {
	block  uint64
	second int
}

// gapRule finds the uses that follow one another within ten seconds, three at least.
type gapRule struct{ uses []seenUse }

func (g gapRule) EvaluateBlocks(_ context.Context, from, to uint64) ([]domain.Finding, error) {
	var all []seenUse
	for _, u := range g.uses {
		if u.block <= to {
			all = append(all, u)
		}
	}
	slices.SortFunc(all, func(a, b seenUse) int { return a.second - b.second })
	var out []domain.Finding
	for len(all) > 0 {
		n := 1
		for n < len(all) && all[n].second-all[n-1].second <= 10 {
			n++
		}
		if n >= 3 && slices.ContainsFunc(all[:n], func(u seenUse) bool { return u.block >= from }) {
			out = append(out, gapFinding(all[:n]))
		}
		all = all[n:]
	}
	return out, nil
}

func gapFinding(uses []seenUse) domain.Finding {
	f := domain.Finding{
		Rule: "gap", RuleVersion: 1, Level: domain.LevelHigh, Account: "acc", KeyID: "K", DedupeKey: "K", Status: domain.FindingOpen,
		Title: "Gap", Reason: fmt.Sprintf("%d uses", len(uses)), Count: uint64(len(uses)),
	}
	for _, u := range uses {
		f.Evidence = append(f.Evidence, domain.Evidence{
			EventID: fmt.Sprint("use-", u.second), Position: uint64(u.second), Time: detectorEpoch.Add(time.Duration(u.second) * time.Second),
		})
	}
	f.FirstSeen, f.LastSeen = f.Evidence[0].Time, f.Evidence[len(uses)-1].Time
	f.ID = domain.FindingID(f.Rule, f.RuleVersion, f.DedupeKey, f.Evidence[0])
	return f
}

// detectorMemLog is an event log in memory whose appends can fail on purpose.
type detectorMemLog struct {
	mu      sync.Mutex
	events  []eventlog.Raw
	changed chan struct{}
	appends int
	// fault is asked before each append: what to answer, and whether to store it all
	// the same.
	fault func(n int) (err error, stored bool)
}

func newDetectorMemLog() *detectorMemLog { return &detectorMemLog{changed: make(chan struct{})} }

func (l *detectorMemLog) stream(name string) []eventlog.Raw {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.streamLocked(name)
}

func (l *detectorMemLog) streamLocked(name string) []eventlog.Raw {
	var out []eventlog.Raw
	for _, e := range l.events {
		if e.Stream == name {
			out = append(out, e)
		}
	}
	return out
}

func (l *detectorMemLog) Append(_ context.Context, stream string, exp eventlog.Expected, events ...eventlog.Proposed) (eventlog.Appended, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.appends++
	var fail error
	stored := true
	if l.fault != nil {
		fail, stored = l.fault(l.appends)
	}
	if !stored {
		return eventlog.Appended{}, fail
	}
	at, err := l.appendLocked(stream, exp, events)
	if fail != nil {
		err = fail
	}
	return at, err
}

func (l *detectorMemLog) appendLocked(stream string, exp eventlog.Expected, events []eventlog.Proposed) (eventlog.Appended, error) {
	have := l.streamLocked(stream)
	if next := exp.Next(); next != uint64(len(have)) {
		if next < uint64(len(have)) && have[next].ID == events[0].ID {
			return eventlog.Appended{Revision: next, Position: have[next].Position}, nil
		}
		return eventlog.Appended{}, &eventlog.WrongRevision{Stream: stream, Expected: exp}
	}
	e := events[0]
	raw := eventlog.Raw{
		Stream: stream, Revision: uint64(len(have)), Position: uint64(len(l.events)+1) * 7, ID: e.ID, Type: e.Type, JSON: e.JSON, Data: e.Data, Meta: e.Meta,
	}
	l.events = append(l.events, raw)
	close(l.changed)
	l.changed = make(chan struct{})
	return eventlog.Appended{Revision: raw.Revision, Position: raw.Position}, nil
}

func (l *detectorMemLog) Last(_ context.Context, stream string) (eventlog.Raw, bool, error) {
	have := l.stream(stream)
	if len(have) == 0 {
		return eventlog.Raw{}, false, nil
	}
	return have[len(have)-1], true, nil
}

func (l *detectorMemLog) Head(_ context.Context, prefixes []string) (uint64, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	var head uint64
	for _, e := range l.events {
		if strings.HasPrefix(e.Stream, prefixes[0]) {
			head = e.Position
		}
	}
	return head, nil
}

func (l *detectorMemLog) SetMaxCount(context.Context, string, uint64) error { return nil }

func (l *detectorMemLog) Subscribe(_ context.Context, opt eventlog.SubscribeOptions) (ingest.DetectorFeed, error) {
	return &memFeed{log: l, prefix: opt.Prefixes[0]}, nil
}

type memFeed struct {
	log    *detectorMemLog
	prefix string
	next   int
	told   bool
}

func (f *memFeed) Next(ctx context.Context) (eventlog.Delivery, error) {
	for {
		f.log.mu.Lock()
		for f.next < len(f.log.events) {
			e := f.log.events[f.next]
			f.next++
			if strings.HasPrefix(e.Stream, f.prefix) {
				f.log.mu.Unlock()
				return eventlog.Delivery{Event: &e, Position: e.Position}, nil
			}
		}
		changed := f.log.changed
		f.log.mu.Unlock()
		if !f.told {
			f.told = true
			return eventlog.Delivery{CaughtUp: true}, nil
		}
		select {
		case <-ctx.Done():
			return eventlog.Delivery{}, ctx.Err()
		case <-changed:
		}
	}
}

func (f *memFeed) Close() {}

// memBlocks are completed up to a block; idle is called when a detector waits beyond.
type memBlocks struct {
	block uint64
	idle  func()
}

func (b memBlocks) WaitBlock(ctx context.Context, after uint64) (block, position uint64, err error) {
	if b.block > after {
		return b.block, 0, nil
	}
	b.idle()
	<-ctx.Done()
	return 0, 0, ctx.Err()
}

// runDetector runs a detector until it has evaluated all blocks up to block, or kill
// was called.
func runDetector(t *testing.T, log *detectorMemLog, rule ingest.FindingEvaluator, block uint64, generation string) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	d, err := ingest.NewDetector(ingest.DetectorConfig{
		Log: log, Blocks: memBlocks{block: block, idle: cancel}, Evaluator: rule, Generation: generation,
		Now: func() time.Time { return detectorEpoch.Add(time.Hour) }, RetryAfter: time.Second, Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Run(ctx); err != nil {
		t.Fatal(err)
	}
	if d.Evaluated() != block {
		t.Fatalf("evaluated %d blocks, want %d", d.Evaluated(), block)
	}
}

// checkFindings holds every finding stream to its rules and returns the newest state
// of each finding in the order of opening: opened once, then only extended, each event
// saying more than the last and nothing twice, all by the system, times rising.
func checkFindings(t *testing.T, log *detectorMemLog) []domain.Finding {
	t.Helper()
	var order []string
	last := map[string]domain.Finding{}
	effective := map[string]time.Time{}
	for _, raw := range log.events {
		if !strings.HasPrefix(raw.Stream, domain.FindingStreams) {
			continue
		}
		rec, err := eventlog.Decode(raw)
		if err != nil {
			t.Fatal(err)
		}
		var after domain.Finding
		switch e := rec.Event.(type) { //nolint:gochecksumtype // All others are faults here.
		case domain.FindingOpened:
			after = e.After
			if raw.Revision != 0 {
				t.Errorf("%s was opened at revision %d", raw.Stream, raw.Revision)
			}
			order = append(order, raw.Stream)
		case domain.FindingExtended:
			after = e.After
			before := last[raw.Stream]
			if after.ID != before.ID || after.Count <= before.Count || after.FirstSeen.After(before.FirstSeen) || after.LastSeen.Before(before.LastSeen) {
				t.Errorf("%s@%d extends nothing, or rewrites:\n%s", raw.Stream, raw.Revision, cmp.Diff(before, after))
			}
			if !rec.Meta.EffectiveAt.After(effective[raw.Stream]) {
				t.Errorf("%s@%d is effective at %s, not after %s", raw.Stream, raw.Revision, rec.Meta.EffectiveAt, effective[raw.Stream])
			}
		default:
			t.Errorf("%s@%d is a %s", raw.Stream, raw.Revision, raw.Type)
		}
		if raw.Stream != domain.FindingStream(after.ID) || !rec.Meta.Initiator.IsSystem() || rec.Meta.CorrelationID == "" {
			t.Errorf("%s@%d: finding %s by %+v", raw.Stream, raw.Revision, after.ID, rec.Meta)
		}
		last[raw.Stream], effective[raw.Stream] = after, rec.Meta.EffectiveAt
	}
	out := make([]domain.Finding, 0, len(order))
	for _, s := range order {
		out = append(out, last[s])
	}
	return out
}

// wholeFindings is what the rule says of the whole set at once.
func wholeFindings(t *testing.T, rule gapRule) []domain.Finding {
	t.Helper()
	out, err := rule.EvaluateBlocks(t.Context(), 0, 1<<40)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// inOrder are uses in the order of their times: two cases, one over several blocks.
var inOrder = gapRule{uses: []seenUse{
	{1, 0}, {1, 5}, {2, 9}, {3, 12}, {3, 100}, {4, 105}, {5, 20}, {6, 106}, {6, 107}, {90, 300}, {90, 301}, {200, 302}, {200, 303},
}}

func TestDetectorOpensAndExtendsFindings(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := newDetectorMemLog()
		runDetector(t, log, inOrder, 200, "g1")
		got := checkFindings(t, log)
		if diff := cmp.Diff(wholeFindings(t, inOrder), got); diff != "" {
			t.Errorf("findings (-whole +detector):\n%s", diff)
		}
	})
}

// Block by block, one detector after another, and in one go: the same findings.
func TestDetectorResumesWhereAnotherEnded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := newDetectorMemLog()
		for block := uint64(1); block <= 200; block++ {
			runDetector(t, log, inOrder, block, "g1")
		}
		if diff := cmp.Diff(wholeFindings(t, inOrder), checkFindings(t, log)); diff != "" {
			t.Errorf("findings (-whole +detector):\n%s", diff)
		}
		before := len(log.events)
		runDetector(t, log, inOrder, 200, "g1")
		if len(log.events) != before {
			t.Errorf("a detector with nothing to do wrote %d events", len(log.events)-before)
		}
	})
}

// askedFrom remembers the first block that it was asked for.
type askedFrom struct {
	gapRule
	from *uint64
}

func (a askedFrom) EvaluateBlocks(ctx context.Context, from, to uint64) ([]domain.Finding, error) {
	if *a.from == 0 {
		*a.from = from
	}
	return a.gapRule.EvaluateBlocks(ctx, from, to)
}

// What a progress event says is evaluated is not evaluated again.
func TestDetectorBeginsAfterItsProgress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := newDetectorMemLog()
		runDetector(t, log, inOrder, 100, "g1")
		var from uint64
		runDetector(t, log, askedFrom{inOrder, &from}, 200, "g1")
		if from < 91 || from > 101 { // The last findings were in block 90, evaluated with blocks up to 100.
			t.Errorf("the second detector began at block %d, want one after the progress", from)
		}
	})
}

// stepBlocks completes blocks when it is told to.
type stepBlocks chan uint64

func (b stepBlocks) WaitBlock(ctx context.Context, _ uint64) (block, position uint64, err error) {
	select {
	case block = <-b:
		return block, 0, nil
	case <-ctx.Done():
		return 0, 0, ctx.Err()
	}
}

// A finding that another detector opened while this one was waiting is known to it
// before it judges the next block.
func TestDetectorKnowsWhatAnotherOpenedMeanwhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log, blocks := newDetectorMemLog(), make(stepBlocks)
		late := gapRule{uses: []seenUse{{1, 10}, {1, 12}, {1, 14}, {2, 5}}}
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		d, err := ingest.NewDetector(ingest.DetectorConfig{
			Log: log, Blocks: blocks, Evaluator: late, Generation: "g2", Now: func() time.Time { return detectorEpoch }, Logger: slog.New(slog.DiscardHandler),
		})
		if err != nil {
			t.Fatal(err)
		}
		var done sync.WaitGroup
		done.Go(func() {
			if err := d.Run(ctx); err != nil {
				t.Error(err)
			}
		})
		synctest.Wait() // It has read the log, which is empty.
		runDetector(t, log, late, 1, "g1")
		blocks <- 2 // Its first look: the late use moved the id that it computes.
		synctest.Wait()
		cancel()
		done.Wait()
		if got := checkFindings(t, log); len(got) != 1 || got[0].Count != 4 {
			t.Errorf("got %d findings, want the other's one, extended to 4 uses", len(got))
		}
	})
}

// A rebuilt generation is evaluated from its beginning and says nothing twice.
func TestNewGenerationFindsWhatIsThere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := newDetectorMemLog()
		runDetector(t, log, inOrder, 200, "g1")
		want := checkFindings(t, log)
		whole := gapRule{}
		for _, u := range inOrder.uses {
			whole.uses = append(whole.uses, seenUse{1, u.second})
		}
		before := len(log.events)
		runDetector(t, log, whole, 1, "g2")
		if diff := cmp.Diff(want, checkFindings(t, log)); diff != "" || len(log.events) != before+1 {
			t.Errorf("the new generation wrote %d events, want its progress only:\n%s", len(log.events)-before, diff)
		}
	})
}

// A late use that reaches back before a finding, or joins two, extends the earlier one
// under its id.
func TestLateUseExtendsAFindingUnderItsID(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := newDetectorMemLog()
		rule := gapRule{uses: []seenUse{{1, 10}, {1, 12}, {1, 14}, {2, 30}, {2, 32}, {2, 34}, {3, 5}, {4, 22}}}
		for block := uint64(1); block <= 4; block++ {
			runDetector(t, log, rule, block, "g1")
		}
		got := checkFindings(t, log)
		if len(got) != 2 {
			t.Fatalf("got %d findings, want the two that were opened", len(got))
		}
		whole := wholeFindings(t, rule)[0]
		opened := gapFinding([]seenUse{{1, 10}, {1, 12}, {1, 14}})
		whole.ID = opened.ID
		if diff := cmp.Diff(whole, got[0]); diff != "" {
			t.Errorf("the first finding (-whole +got):\n%s", diff)
		}
		if got[1].Count != 3 {
			t.Errorf("the swallowed finding has %d uses, want its 3", got[1].Count)
		}
	})
}

var errInjected = errors.New("injected")

// A failure or a death at any append, stored all the same or not, changes nothing in
// the end: each finding is opened once and holds all its evidence.
func TestNothingIsLostOrDoubledWhereverAnAppendFails(t *testing.T) {
	clean := newDetectorMemLog()
	synctest.Test(t, func(t *testing.T) { runDetector(t, clean, inOrder, 200, "g1") })
	want := wholeFindings(t, inOrder)
	for n := 1; n <= clean.appends; n++ {
		for _, stored := range []bool{false, true} {
			for _, killed := range []bool{false, true} {
				t.Run(fmt.Sprintf("append=%d/stored=%t/killed=%t", n, stored, killed), func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) {
						log := newDetectorMemLog()
						hit := false
						kill := func() {}
						log.fault = func(at int) (error, bool) {
							if at != n {
								return nil, true
							}
							hit = true
							kill()
							return errInjected, stored
						}
						if killed {
							ctx, cancel := context.WithCancel(t.Context())
							kill = cancel
							startDetector(ctx, t, log, inOrder, 200)
						}
						runDetector(t, log, inOrder, 200, "g1")
						if !hit {
							t.Fatal("the failure was never met")
						}
						if diff := cmp.Diff(want, checkFindings(t, log)); diff != "" {
							t.Errorf("findings (-want +got):\n%s", diff)
						}
					})
				})
			}
		}
	}
}

// startDetector runs a detector until ctx ends.
func startDetector(ctx context.Context, t *testing.T, log *detectorMemLog, rule gapRule, block uint64) {
	t.Helper()
	d, err := ingest.NewDetector(ingest.DetectorConfig{
		Log: log, Blocks: memBlocks{block: block, idle: func() {}}, Evaluator: rule, Generation: "g1",
		Now: func() time.Time { return detectorEpoch.Add(time.Hour) }, Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Run(ctx); err != nil {
		t.Error(err)
	}
}

// Two detectors that work on the same log at once leave what one of them leaves.
func TestTwoDetectorsAtOnceAreHarmless(t *testing.T) {
	for round := range 20 {
		t.Run(fmt.Sprint("round=", round), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				log := newDetectorMemLog()
				ctx, cancel := context.WithCancel(t.Context())
				var both sync.WaitGroup
				for range 2 {
					both.Go(func() { startDetector(ctx, t, log, inOrder, 200) })
				}
				synctest.Wait()
				cancel()
				both.Wait()
				if diff := cmp.Diff(wholeFindings(t, inOrder), checkFindings(t, log)); diff != "" {
					t.Errorf("findings (-want +got):\n%s", diff)
				}
			})
		})
	}
}

// A finding stream with an event that cannot be read does not stop the others.
func TestUnreadableFindingIsLeftAloneAndOthersGoOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := newDetectorMemLog()
		bad := wholeFindings(t, inOrder)[0]
		stream := domain.FindingStream(bad.ID)
		if _, err := log.Append(t.Context(), stream, eventlog.NoStream(), eventlog.Proposed{ID: domain.DeriveID("x"), Type: "finding.dreamt.v9", Data: []byte("{}"), Meta: []byte("{}")}); err != nil {
			t.Fatal(err)
		}
		runDetector(t, log, inOrder, 200, "g1")
		if n := len(log.stream(stream)); n != 1 {
			t.Errorf("the unreadable finding has %d events, want its one", n)
		}
		opened := 0
		for _, e := range log.events {
			if e.Type == domain.TypeFindingOpened {
				opened++
			}
		}
		if want := len(wholeFindings(t, inOrder)) - 1; opened != want {
			t.Errorf("%d findings were opened, want the other %d", opened, want)
		}
	})
}

func TestDetectorWantsAllItNeeds(t *testing.T) {
	if _, err := ingest.NewDetector(ingest.DetectorConfig{}); err == nil {
		t.Error("a detector without anything was made")
	}
}

// slowRule is gapRule on a store that takes its time, and remembers what it was asked.
type slowRule struct {
	gapRule
	took  time.Duration
	asked [][2]uint64
	ended []time.Time
}

func (r *slowRule) EvaluateBlocks(ctx context.Context, from, to uint64) ([]domain.Finding, error) {
	r.asked = append(r.asked, [2]uint64{from, to})
	<-time.After(r.took)
	r.ended = append(r.ended, time.Now())
	return r.gapRule.EvaluateBlocks(ctx, from, to)
}

// growingBlocks completes a block every 50 ms, up to last.
type growingBlocks struct {
	began time.Time
	last  uint64
	idle  func()
}

func (b growingBlocks) WaitBlock(ctx context.Context, after uint64) (block, position uint64, err error) {
	if after >= b.last {
		b.idle()
		<-ctx.Done()
		return 0, 0, ctx.Err()
	}
	due := b.began.Add(time.Duration(after+1) * 50 * time.Millisecond)
	select {
	case <-time.After(time.Until(due)):
	case <-ctx.Done():
		return 0, 0, ctx.Err()
	}
	return min(uint64(time.Since(b.began)/(50*time.Millisecond)), b.last), 0, nil
}

// While blocks keep coming they are evaluated together, in an eighth of the time,
// each within two evaluations and two seconds; the findings are those of one by one.
func TestBlocksThatKeepComingAreEvaluatedTogether(t *testing.T) {
	for _, took := range []time.Duration{0, 20 * time.Millisecond, 150 * time.Millisecond, 900 * time.Millisecond} {
		t.Run(took.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				const blocks = 200 // Ten seconds.
				log, ctx, began := newDetectorMemLog(), t.Context(), time.Now()
				ctx, cancel := context.WithCancel(ctx)
				defer cancel()
				rule := &slowRule{gapRule: inOrder, took: took}
				d, err := ingest.NewDetector(ingest.DetectorConfig{
					Log: log, Blocks: growingBlocks{began: began, last: blocks, idle: cancel}, Evaluator: rule, Generation: "g1",
					Now: time.Now, RetryAfter: time.Second, Logger: slog.New(slog.DiscardHandler),
				})
				if err != nil {
					t.Fatal(err)
				}
				if err := d.Run(ctx); err != nil {
					t.Fatal(err)
				}
				next, late := uint64(1), time.Duration(0)
				for i, a := range rule.asked {
					if a[0] != next {
						t.Fatalf("evaluation %d begins at block %d, want %d", i, a[0], next)
					}
					late = max(late, rule.ended[i].Sub(began)-time.Duration(a[0])*50*time.Millisecond)
					next = a[1] + 1
				}
				if next != blocks+1 {
					t.Errorf("evaluated up to block %d, want %d", next-1, blocks)
				}
				busy, all := time.Duration(len(rule.asked))*took, time.Since(began)
				if took < 200*time.Millisecond && busy > all/8+took {
					t.Errorf("evaluating took %s of %s", busy, all)
				}
				if late > 2*time.Second+2*took {
					t.Errorf("a block was evaluated %s after it was completed", late)
				}
				if diff := cmp.Diff(wholeFindings(t, inOrder), checkFindings(t, log)); diff != "" {
					t.Errorf("findings (-whole +detector):\n%s", diff)
				}
			})
		})
	}
}
