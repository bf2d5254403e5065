package ingest_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
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

// heldLog is a log whose hold-th append does not reach it before it is released.
type heldLog struct {
	*detectorMemLog
	hold    int
	appends int
	release chan struct{}
	held    bool
}

func (l *heldLog) Append(ctx context.Context, stream string, exp eventlog.Expected, events ...eventlog.Proposed) (eventlog.Appended, error) {
	l.appends++
	if l.appends == l.hold {
		l.held = true
		<-l.release
	}
	return l.detectorMemLog.Append(ctx, stream, exp, events...)
}

// TestTwoDetectorsNeverOpenTwoFindingsForOneThing has a detector stand still before each of
// its appends while another, which has seen a late record that reaches back before the first
// evidence, does the whole work.
func TestTwoDetectorsNeverOpenTwoFindingsForOneThing(t *testing.T) {
	rule := gapRule{uses: []seenUse{{1, 10}, {1, 12}, {1, 14}, {2, 5}}}
	for hold := 1; ; hold++ {
		held := false
		t.Run(fmt.Sprint("append=", hold), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				log := newDetectorMemLog()
				slow := &heldLog{detectorMemLog: log, hold: hold, release: make(chan struct{})}
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				d := newDetector(t, slow, memBlocks{block: 1, idle: func() {}}, rule, "g1")
				var done sync.WaitGroup
				done.Go(func() {
					if err := d.Run(ctx); err != nil {
						t.Error(err)
					}
				})
				synctest.Wait()
				held = slow.held
				runDetector(t, log, rule, 2, "g2")
				close(slow.release)
				synctest.Wait()
				cancel()
				done.Wait()
				if got := checkFindings(t, log); len(got) != 1 || got[0].Count != 4 || len(got[0].Evidence) != 4 {
					t.Errorf("%d findings were opened, want one of 4 uses: %+v", len(got), got)
				}
				checkClaims(t, log)
			})
		})
		if !held {
			if hold < 4 {
				t.Errorf("the detector made %d appends, want a claim, a finding and its progress at least", hold-1)
			}
			return
		}
	}
}

func newDetector(t *testing.T, log ingest.DetectorLog, blocks ingest.CompletedBlocks, rule ingest.FindingEvaluator, generation string) *ingest.Detector {
	t.Helper()
	d, err := ingest.NewDetector(ingest.DetectorConfig{
		Log: log, Blocks: blocks, Evaluator: rule, Generation: generation,
		Now: func() time.Time { return detectorEpoch.Add(time.Hour) }, RetryAfter: time.Second, Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// claimed is what a claim says of a finding.
type claimed struct {
	ID        domain.EventID `json:"id"`
	FirstSeen time.Time      `json:"first_seen"`
	LastSeen  time.Time      `json:"last_seen"`
}

func (c claimed) overlaps(o claimed) bool {
	return !c.LastSeen.Before(o.FirstSeen) && !o.LastSeen.Before(c.FirstSeen)
}

// checkClaims holds the claims to their rules: claimed findings stay, a new one is about
// nothing that another is about, and a finding is about no more than was claimed for it
// before, nor there without a claim.
func checkClaims(tb rapid.TB, log *detectorMemLog) {
	tb.Helper()
	last := map[string]map[domain.EventID]claimed{} // By case stream.
	all := map[domain.EventID]claimed{}
	for _, raw := range log.events {
		if strings.HasPrefix(raw.Stream, domain.FindingStreams) {
			rec, err := eventlog.Decode(raw)
			if err != nil {
				tb.Fatalf("%s: %v", raw.Stream, err)
			}
			var f domain.Finding
			switch e := rec.Event.(type) { //nolint:gochecksumtype // All others are faults here.
			case domain.FindingOpened:
				f = e.After
			case domain.FindingExtended:
				f = e.After
			}
			if c, ok := all[f.ID]; !ok || f.FirstSeen.Before(c.FirstSeen) || f.LastSeen.After(c.LastSeen) {
				tb.Errorf("%s@%d is about %s to %s, claimed is %+v", raw.Stream, raw.Revision, f.FirstSeen, f.LastSeen, c)
			}
		}
		if !strings.HasPrefix(raw.Stream, "ktx.case-") {
			continue
		}
		var claims struct {
			Findings []claimed `json:"findings"`
		}
		if err := json.Unmarshal(raw.Data, &claims); err != nil {
			tb.Fatalf("%s: %v", raw.Stream, err)
		}
		before, now := last[raw.Stream], map[domain.EventID]claimed{}
		for _, c := range claims.Findings {
			now[c.ID], all[c.ID] = c, c
			if _, known := before[c.ID]; known {
				continue
			}
			for _, o := range before {
				if c.overlaps(o) {
					tb.Errorf("%s@%d: %+v is claimed where %+v is already", raw.Stream, raw.Revision, c, o)
				}
			}
		}
		if len(now) < len(before) {
			tb.Errorf("%s@%d gives up a claim", raw.Stream, raw.Revision)
		}
		last[raw.Stream] = now
	}
}

// TestDetectorsThatRaceOpenWhatNoneIsAbout lets three detectors, each at blocks of its own,
// race over random uses that come late, while appends fail and persist all the same.
func TestDetectorsThatRaceOpenWhatNoneIsAbout(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		// Drawn here: another goroutine must not, and a bubble is one.
		seed, uses := rapid.Uint64().Draw(rt, "seed"), rapid.IntRange(3, 40).Draw(rt, "uses")
		synctest.Test(t, func(t *testing.T) {
			rng := rand.New(rand.NewPCG(seed, 8))
			var rule gapRule
			for range uses {
				rule.uses = append(rule.uses, seenUse{block: 1 + rng.Uint64N(8), second: rng.IntN(150)})
			}
			log := newDetectorMemLog()
			log.fault = func(int) (error, bool) {
				if rng.IntN(5) == 0 {
					return errInjected, rng.IntN(2) == 0
				}
				return nil, true
			}
			ctx, cancel := context.WithCancel(t.Context())
			var done sync.WaitGroup
			for i := range 3 {
				blocks := &wanderingBlocks{last: 8, rng: rand.New(rand.NewPCG(rng.Uint64(), uint64(i)))}
				d := newDetector(t, &dawdlingLog{log, rand.New(rand.NewPCG(rng.Uint64(), 1))}, blocks, rule, fmt.Sprint("g", i))
				done.Go(func() {
					if err := d.Run(ctx); err != nil {
						t.Error(err)
					}
				})
			}
			<-time.After(10 * time.Minute)
			cancel()
			done.Wait()
			checkClaims(rt, log)
			got := checkFindings(t, log)
			for _, whole := range wholeFindings(t, rule) {
				covered := uint64(0)
				for _, f := range got {
					if f.SameCase(whole) {
						covered = max(covered, f.Count)
					}
				}
				if covered < whole.Count {
					rt.Errorf("%d uses from %s are in no finding whole: %+v", whole.Count, whole.FirstSeen, got)
				}
			}
		})
	})
}

// wanderingBlocks completes a few blocks at a time, at random moments.
type wanderingBlocks struct {
	last uint64
	rng  *rand.Rand
}

func (b *wanderingBlocks) WaitBlock(ctx context.Context, after uint64) (block, position uint64, err error) {
	if after >= b.last {
		<-ctx.Done()
		return 0, 0, ctx.Err()
	}
	select {
	case <-time.After(time.Duration(b.rng.IntN(3000)) * time.Millisecond):
		return min(after+1+b.rng.Uint64N(3), b.last), 0, nil
	case <-ctx.Done():
		return 0, 0, ctx.Err()
	}
}

// dawdlingLog is a log whose appends are on their way for up to two seconds.
type dawdlingLog struct {
	*detectorMemLog
	rng *rand.Rand
}

func (l *dawdlingLog) Append(ctx context.Context, stream string, exp eventlog.Expected, events ...eventlog.Proposed) (eventlog.Appended, error) {
	select {
	case <-time.After(time.Duration(l.rng.IntN(2000)) * time.Millisecond):
		return l.detectorMemLog.Append(ctx, stream, exp, events...)
	case <-ctx.Done():
		return eventlog.Appended{}, errors.Join(eventlog.ErrUnavailable, ctx.Err())
	}
}
