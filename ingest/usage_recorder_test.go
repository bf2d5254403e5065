package ingest_test

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"example.com/keytrail/domain"
	"example.com/keytrail/ingest"
	"example.com/keytrail/internal/eventlog"
	"example.com/keytrail/internal/usagebatch"
)

func newRecorder(tb testing.TB, log ingest.UsageLog) *ingest.UsageRecorder {
	tb.Helper()
	r, err := ingest.NewUsageRecorder(ingest.UsageRecorderConfig{
		Log: log, Writer: "node1", Nonce: rand.Text(), Now: func() time.Time { return usageNow }, Logger: testLogger(tb),
	})
	if err != nil {
		tb.Fatal(err)
	}
	return r
}

// seen counts the uses by target in the recorder's stream, and the events.
func seen(tb testing.TB, log *memLog) (map[string]int, int) {
	tb.Helper()
	raws := log.streams["kt.usage-verify-vnode1"]
	got, events := map[string]int{}, map[domain.EventID]bool{}
	for _, raw := range raws {
		rec, err := eventlog.Decode(raw)
		if err != nil {
			tb.Fatal(err)
		}
		uses, err := usagebatch.Decode(rec.Event.(domain.UsageRecorded).Batch.Columns)
		if err != nil {
			tb.Fatal(err)
		}
		if events[raw.ID] {
			tb.Fatalf("event %s twice", raw.ID)
		}
		events[raw.ID] = true
		for _, u := range uses {
			if u.ID == "" {
				tb.Fatal("a use without id")
			}
			got[u.Target]++
		}
	}
	return got, len(raws)
}

func TestEveryUseThatIsAnsweredIsRecordedOnceAndAppendsAreShared(t *testing.T) {
	log := newMemLog()
	gate := make(chan struct{})
	var once sync.Once
	log.fault = func(string, int) fault { once.Do(func() { <-gate }); return fine }
	r := newRecorder(t, log)
	var wg sync.WaitGroup
	for i := range 200 {
		wg.Go(func() {
			pos, err := r.RecordUse(t.Context(), domain.Use{Time: usageNow, Target: fmt.Sprint(i)})
			if err != nil || pos == 0 {
				t.Errorf("use %d: %d, %v", i, pos, err)
			}
		})
	}
	close(gate)
	wg.Wait()
	got, events := seen(t, log)
	for i := range 200 {
		if got[fmt.Sprint(i)] != 1 {
			t.Fatalf("use %d is recorded %d times", i, got[fmt.Sprint(i)])
		}
	}
	t.Logf("200 uses in %d events", events)
}

func TestARecorderGoesOnAfterAnAppendWithoutAnswer(t *testing.T) {
	for name, f := range map[string]fault{"not stored": lost, "stored": stored} {
		for _, restart := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/restart=%v", name, restart), func(t *testing.T) {
				log := newMemLog()
				r := newRecorder(t, log)
				use := func(target string) error {
					_, err := r.RecordUse(t.Context(), domain.Use{Time: usageNow, Target: target})
					return err
				}
				if err := use("1"); err != nil {
					t.Fatal(err)
				}
				log.fault = func(string, int) fault { return f }
				if err := use("2"); domain.CodeOf(err) != domain.Unavailable {
					t.Fatalf("got %v", err)
				}
				log.fault = nil
				if restart {
					r = newRecorder(t, log)
				}
				if err := use("3"); err != nil {
					t.Fatal(err)
				}
				got, _ := seen(t, log)
				want := 0
				if f == stored {
					want = 1
				}
				if got["1"] != 1 || got["2"] != want || got["3"] != 1 {
					t.Errorf("got %v", got)
				}
			})
		}
	}
}

// TestAnAppendThatIsStoredLateIsNotTakenForAnother stores an unanswered append only
// after the recorder has looked and found nothing.
func TestAnAppendThatIsStoredLateIsNotTakenForAnother(t *testing.T) {
	log := newMemLog()
	r := newRecorder(t, &lateLog{memLog: log})
	if _, err := r.RecordUse(t.Context(), domain.Use{Time: usageNow, Target: "late"}); domain.CodeOf(err) != domain.Unavailable {
		t.Fatalf("got %v", err)
	}
	if _, err := r.RecordUse(t.Context(), domain.Use{Time: usageNow, Target: "next"}); err != nil {
		t.Fatal(err)
	}
	if got, _ := seen(t, log); got["late"] != 1 || got["next"] != 1 {
		t.Errorf("got %v", got)
	}
}

// TestAnOldProcessThatGoesOnLosesNothingAndDoublesNothing: a node was started again while
// its old process hung, and then both record what looks the same to the byte.
func TestAnOldProcessThatGoesOnLosesNothingAndDoublesNothing(t *testing.T) {
	log := newMemLog()
	old, anew := newRecorder(t, log), newRecorder(t, log)
	same := domain.Use{Time: usageNow, Target: "same"}
	want := 0
	for range 3 {
		for _, r := range []*ingest.UsageRecorder{old, anew, anew, old} {
			if _, err := r.RecordUse(t.Context(), same); err != nil {
				t.Fatal(err)
			}
			want++
		}
	}
	if got, events := seen(t, log); got["same"] != want || events != want {
		t.Errorf("%d uses in %d events, want %d", got["same"], events, want)
	}
}

func TestAUseOfAStrangerCannotMakeAnEventTooLarge(t *testing.T) {
	log := newMemLog()
	r := newRecorder(t, log)
	var wg sync.WaitGroup
	for i := range 400 {
		wg.Go(func() {
			u := domain.Use{Time: usageNow, Target: fmt.Sprint(i), UserAgent: strings.Repeat(domain.DeriveID("x", fmt.Sprint(i)).String(), 30_000)}
			if _, err := r.RecordUse(t.Context(), u); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if got, _ := seen(t, log); len(got) != 400 {
		t.Errorf("%d uses", len(got))
	}
}

// lateLog keeps the first append and stores it right before the second.
type lateLog struct {
	*memLog
	kept func()
}

func (l *lateLog) Append(ctx context.Context, stream string, exp eventlog.Expected, events ...eventlog.Proposed) (eventlog.Appended, error) {
	if l.kept == nil {
		l.kept = func() {
			if _, err := l.memLog.Append(ctx, stream, exp, events...); err != nil {
				panic(errors.Join(errors.New("late append"), err))
			}
		}
		return eventlog.Appended{}, eventlog.ErrOutcomeUnknown
	}
	if l.kept != nil && len(l.streams[stream]) == 0 {
		l.kept()
	}
	return l.memLog.Append(ctx, stream, exp, events...)
}
