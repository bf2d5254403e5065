package ingest_test

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"example.com/keytrail/domain"
	"example.com/keytrail/ingest"
	"example.com/keytrail/internal/auth"
	"example.com/keytrail/internal/eventlog"
	"example.com/keytrail/internal/usagebatch"
)

// memLog is an event log in memory that can fail as a real one does.
type memLog struct {
	mu       sync.Mutex
	streams  map[string][]eventlog.Raw
	position uint64
	now      func() time.Time
	// fault, if set, is asked before each append what is to go wrong.
	fault   func(stream string, n int) fault
	appends int
}

type fault int

const (
	fine    fault = iota
	lost          // Not stored, no answer.
	stored        // Stored, no answer.
	refused       // Not stored, and said so.
)

func newMemLog() *memLog {
	return &memLog{streams: make(map[string][]eventlog.Raw), now: func() time.Time { return usageNow }}
}

var _ ingest.UsageLog = (*memLog)(nil)

func (l *memLog) Append(_ context.Context, stream string, exp eventlog.Expected, events ...eventlog.Proposed) (eventlog.Appended, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.appends++
	f := fine
	if l.fault != nil {
		f = l.fault(stream, l.appends)
	}
	switch f {
	case lost:
		return eventlog.Appended{}, eventlog.ErrOutcomeUnknown
	case refused:
		return eventlog.Appended{}, eventlog.ErrUnavailable
	case fine, stored:
	}
	at, err := l.append(stream, exp, events)
	if f == stored && err == nil {
		return eventlog.Appended{}, eventlog.ErrOutcomeUnknown
	}
	return at, err
}

func (l *memLog) append(stream string, exp eventlog.Expected, events []eventlog.Proposed) (eventlog.Appended, error) {
	s := l.streams[stream]
	if uint64(len(s)) != exp.Next() {
		if from := int(exp.Next()); from+len(events) <= len(s) && slices.EqualFunc(s[from:from+len(events)], events, func(r eventlog.Raw, p eventlog.Proposed) bool { return r.ID == p.ID }) {
			last := s[from+len(events)-1]
			return eventlog.Appended{Revision: last.Revision, Position: last.Position}, nil
		}
		return eventlog.Appended{}, &eventlog.WrongRevision{Stream: stream, Expected: exp}
	}
	size := 0
	for _, e := range events {
		if size += len(e.Data) + len(e.Meta); size > 1<<20 {
			return eventlog.Appended{}, eventlog.ErrTooLarge
		}
		l.position += 3
		s = append(s, eventlog.Raw{
			Stream: stream, Revision: uint64(len(s)), Position: l.position, ID: e.ID, Type: e.Type, JSON: e.JSON,
			Data: slices.Clone(e.Data), Meta: slices.Clone(e.Meta), RecordedAt: l.now(),
		})
	}
	l.streams[stream] = s
	return eventlog.Appended{Revision: uint64(len(s) - 1), Position: l.position}, nil
}

func (l *memLog) ReadStream(_ context.Context, stream string, from uint64, limit int) ([]eventlog.Raw, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := l.streams[stream]
	if from >= uint64(len(s)) {
		return nil, nil
	}
	return slices.Clone(s[from:min(uint64(len(s)), from+uint64(limit))]), nil
}

func (l *memLog) ReadStreamBackwards(_ context.Context, stream string, from *uint64, limit int) ([]eventlog.Raw, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := l.streams[stream]
	end := len(s)
	if from != nil {
		end = int(*from) + 1
	}
	page := slices.Clone(s[max(0, end-limit):end])
	slices.Reverse(page)
	return page, nil
}

func (l *memLog) Last(_ context.Context, stream string) (eventlog.Raw, bool, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := l.streams[stream]
	if len(s) == 0 {
		return eventlog.Raw{}, false, nil
	}
	return s[len(s)-1], true, nil
}

// reader is what checks need of a log, real or not.
type reader interface {
	ReadStream(ctx context.Context, stream string, from uint64, limit int) ([]eventlog.Raw, error)
}

// usesIn returns every use of the slots of a class, in the order of each slot, and
// checks what always holds: every event decodes, its header tells the truth, no event
// id and no use id occurs twice.
func usesIn(tb testing.TB, log reader, class string) []domain.Use {
	tb.Helper()
	codec, err := usagebatch.New()
	if err != nil {
		tb.Fatal(err)
	}
	var all []domain.Use
	events, ids := map[domain.EventID]bool{}, map[string]bool{}
	for slot := range domain.UsageSlots {
		var raws []eventlog.Raw
		for {
			page, err := log.ReadStream(tb.Context(), domain.UsageSlotStream(class, slot), uint64(len(raws)), 16)
			if err != nil {
				tb.Fatal(err)
			}
			if raws = append(raws, page...); len(page) < 16 {
				break
			}
		}
		var effective time.Time
		for _, raw := range raws {
			rec, err := eventlog.Decode(raw)
			if err != nil {
				tb.Fatal(err)
			}
			b := rec.Event.(domain.UsageRecorded).Batch
			uses, err := codec.Decode(b.Columns)
			if err != nil {
				tb.Fatal(err)
			}
			if events[raw.ID] || len(raw.Data) > 1<<20 || len(uses) != int(b.Count) || !rec.Meta.EffectiveAt.After(effective) {
				tb.Fatalf("event %s@%d: id twice %v, %d bytes, %d uses of %d, effective %s after %s", raw.Stream, raw.Revision,
					events[raw.ID], len(raw.Data), len(uses), b.Count, rec.Meta.EffectiveAt, effective)
			}
			events[raw.ID], effective = true, rec.Meta.EffectiveAt
			for _, u := range uses {
				k := fmt.Sprint(len(u.Account), u.Account, u.ID)
				if ids[k] {
					tb.Fatalf("use %s stands in the log twice", u.ID)
				}
				if u.Time.Before(b.From) || u.Time.After(b.To) {
					tb.Fatalf("use at %s outside %s to %s", u.Time, b.From, b.To)
				}
				ids[k] = true
			}
			all = append(all, uses...)
		}
	}
	return all
}

var usageNow = time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)

const (
	mine   = domain.AccountID("acc-mine")
	theirs = domain.AccountID("acc-theirs")
)

// order is a request of a caller who may ingest in mine.
func order() ingest.Order { return orderOf("IBMid-1") }

func orderOf(iam domain.IAMID) ingest.Order {
	return ingest.Order{
		Caller:        auth.NewCaller(domain.Initiator{IAMID: iam, Account: mine}, auth.FixedStandings{mine: {Member: true, Roles: []domain.Role{domain.RoleIngester}}}),
		CorrelationID: "trace-1", RequestID: "request-1",
	}
}

// fakeKeys knows one key of mine and one of theirs by their values' hashes.
type fakeKeys struct{}

var (
	mySecret    = "my secret value"
	theirSecret = "their secret value"
)

func (fakeKeys) KeyByHash(h [32]byte) (domain.KeyState, bool) {
	switch h {
	case sha256.Sum256([]byte(mySecret)):
		return domain.KeyState{ID: "ApiKey-mine", Account: mine, IAMID: "IBMid-7"}, true
	case sha256.Sum256([]byte(theirSecret)):
		return domain.KeyState{ID: "ApiKey-theirs", Account: theirs, IAMID: "IBMid-8"}, true
	}
	return domain.KeyState{}, false
}

func (fakeKeys) Key(id domain.KeyID) (domain.KeyState, bool) {
	switch id {
	case "ApiKey-mine":
		return domain.KeyState{ID: id, Account: mine, IAMID: "IBMid-7"}, true
	case "ApiKey-theirs":
		return domain.KeyState{ID: id, Account: theirs, IAMID: "IBMid-8"}, true
	}
	return domain.KeyState{}, false
}

func (fakeKeys) Fingerprint(h [32]byte) string { return "hmac-sha256:" + hex.EncodeToString(h[:4]) }

// table is the usage table: it holds what the log held at some moment.
type table struct {
	log   *memLog
	class string
	mu    sync.Mutex
	upTo  uint64
	asked int
}

// project lets the table catch up with the log.
func (t *table) project() {
	t.log.mu.Lock()
	defer t.log.mu.Unlock()
	t.mu.Lock()
	defer t.mu.Unlock()
	t.upTo = t.log.position
}

func (t *table) Known(ctx context.Context, account domain.AccountID, ids []string, from, to time.Time) (map[string]struct{}, uint64, error) {
	t.mu.Lock()
	upTo := t.upTo
	t.asked++
	t.mu.Unlock()
	known := make(map[string]struct{})
	for slot := range domain.UsageSlots {
		raws, err := t.log.ReadStream(ctx, domain.UsageSlotStream(t.class, slot), 0, 1<<20)
		if err != nil {
			return nil, 0, err
		}
		for _, raw := range raws {
			if raw.Position > upTo {
				continue
			}
			rec, err := eventlog.Decode(raw)
			if err != nil {
				return nil, 0, err
			}
			uses, err := usagebatch.Decode(rec.Event.(domain.UsageRecorded).Batch.Columns)
			if err != nil {
				return nil, 0, err
			}
			for _, u := range uses {
				if u.Account == account && !u.Time.Before(from) && !u.Time.After(to) && slices.Contains(ids, u.ID) {
					known[u.ID] = struct{}{}
				}
			}
		}
	}
	return known, upTo, nil
}

func testLogger(tb testing.TB) *slog.Logger {
	tb.Helper()
	return slog.New(slog.NewTextHandler(tb.Output(), nil))
}

func newUsage(tb testing.TB, log ingest.UsageLog, set func(*ingest.UsageConfig)) *ingest.Usage {
	tb.Helper()
	cfg := ingest.UsageConfig{
		Log: log, Keys: fakeKeys{}, SpoolDir: tb.TempDir(), Workers: 2,
		Now: func() time.Time { return usageNow }, Logger: testLogger(tb),
	}
	if set != nil {
		set(&cfg)
	}
	u, err := ingest.NewUsage(cfg)
	if err != nil {
		tb.Fatal(err)
	}
	return u
}

func body(s string) io.Reader { return strings.NewReader(s) }

// lines returns n good lines; prefix makes their ids.
func lines(prefix string, n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, `{"id":"%s-%d","time":"2026-04-30T10:%02d:%02d.5Z","key_id":"ApiKey-mine","action":"storage.object.read","status":200,"source_ip":"10.0.0.%d","user_agent":"sdk/1","latency_ms":%d,"shard":"%d"}`+"\n",
			prefix, i, i/60%60, i%60, i%250, i%97, i%7)
	}
	return b.String()
}

func hashOf(s string) string { h := sha256.Sum256([]byte(s)); return hex.EncodeToString(h[:]) }
