package projections_test

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"example.com/keytrail/domain"
	"example.com/keytrail/internal/clickhouse/clickhousetest"
	"example.com/keytrail/internal/eventlog"
	"example.com/keytrail/projections"
)

// story is evidence of every kind around a few keys, with late facts, ties and poison.
type story struct {
	*stores

	rng  *rand.Rand
	base time.Time
	n    int
}

func newStory(s *stores, seed uint64) *story {
	return &story{stores: s, rng: rand.New(rand.NewPCG(seed, 7)), base: time.Date(2026, 5, 4, 10, 0, 0, 0, time.UTC)}
}

// at is a minute of four hours: uses, changes and expiries often fall together.
func (s *story) at() time.Time { return s.base.Add(time.Duration(s.rng.IntN(240)) * time.Minute) }

// tell appends n random events and returns the position of the last.
func (s *story) tell(n int) uint64 {
	s.tb.Helper()
	var position uint64
	for range n {
		s.n++
		switch k := s.rng.IntN(20); {
		case k < 9:
			position = s.record(domain.UsageSlotStream("c", s.rng.IntN(3)), domain.UsageRecorded{Batch: batchOf(s.uses(1 + s.rng.IntN(40)))}, s.base)
		case k < 16:
			position = s.keyFact()
		case k < 18:
			f := domain.Finding{ID: domain.DeriveID("f", fmt.Sprint(s.rng.IntN(3))), Rule: "r", RuleVersion: 1, Account: "a1", KeyID: "K-1", Title: "t", Count: uint64(s.n), FirstSeen: s.base, LastSeen: s.at()}
			position = s.record(domain.FindingStream(f.ID), domain.FindingExtended{After: f}, s.at())
		case k < 19:
			position = s.record("kt.refused-w", domain.CommandRefused{Action: "iam-identity.user-apikey.delete", Account: "a1", Target: "K-1", Status: 409, Code: domain.Conflict, Reason: "locked", Request: json.RawMessage(`{"a":1}`), Count: 1, First: s.base, Last: s.base}, s.at())
		default:
			position = s.append("kt.account-broken", eventlog.Proposed{ID: domain.DeriveID("broken", fmt.Sprint(s.n)), Type: domain.TypeRolesSet, JSON: true, Data: []byte("[]"), Meta: []byte("{}")})
		}
	}
	return position
}

// keyFact appends a state of a key, often late and often at the time of another.
func (s *story) keyFact() uint64 {
	s.tb.Helper()
	account := domain.AccountID(fmt.Sprintf("a%d", 1+s.rng.IntN(2)))
	id := domain.KeyID(fmt.Sprintf("K-%d", s.rng.IntN(4)))
	state := keyState(id)
	state.Account, state.Name = account, fmt.Sprintf("name \"%d\"\n", s.n)
	state.Disabled, state.Deleted, state.Locked = s.rng.IntN(3) == 0, s.rng.IntN(6) == 0, s.rng.IntN(2) == 0
	if s.rng.IntN(3) == 0 {
		at := s.at()
		state.ExpiresAt = &at
	}
	return s.record(domain.ExternalKeyStream(account, id), domain.KeyObserved{Fact: domain.ObservedDisabled, SourceEvent: fmt.Sprint(s.n), After: state}, s.at())
}

func (s *story) uses(n int) []domain.Use {
	uses := make([]domain.Use, n)
	for i := range uses {
		u := domain.Use{
			ID: fmt.Sprintf("u%d-%d", s.n, i), Account: domain.AccountID(fmt.Sprintf("a%d", 1+s.rng.IntN(2))), IAMID: "IBMid-1",
			KeyID: domain.KeyID(fmt.Sprintf("K-%d", s.rng.IntN(4))), Time: s.at(), Action: fmt.Sprintf("svc.thing.%d", s.rng.IntN(3)),
			Outcome: domain.OutcomeSuccess, Status: 200, Bytes: uint64(s.rng.IntN(1000)), LatencyMS: 3, ASN: 64500, Country: "DE",
			Source: []string{"192.0.2.1", "2001:db8::1", "::ffff:192.0.2.9", "host.example", ""}[s.rng.IntN(5)], UserAgent: "agent \x00'\"\\", Target: "crn:v1:…",
		}
		if s.rng.IntN(4) == 0 {
			u.Outcome, u.Status, u.ErrorCode = domain.OutcomeFailure, 403, "AccessDenied"
			u.Labels = map[string]string{"k": "v", "": "empty", "quote'": "\"\t"}
		}
		if s.rng.IntN(10) == 0 {
			u.KeyID, u.KeyFingerprint = "", "hmac-sha256:ab"
		}
		uses[i] = u
	}
	return uses
}

// verify reads everything back.
func (s *stores) verify() projections.Report {
	s.tb.Helper()
	r, err := projections.Verify(s.tb.Context(), projections.NewLog(s.log), s.store, projections.VerifyOptions{Generation: generation})
	if err != nil {
		s.tb.Fatal(err)
	}
	return r
}

func (s *stores) mustBeExact() projections.Report {
	s.tb.Helper()
	r := s.verify()
	for _, d := range r.First {
		s.tb.Errorf("difference: %+v", d)
	}
	return r
}

// roll computes the rollups as of one more block.
func (s *story) roll(skip time.Duration) int {
	s.tb.Helper()
	roller, err := projections.NewRoller(projections.RollerConfig{
		Store: s.store, Now: func() time.Time { return now().Add(skip) }, Metrics: newMetrics(s.tb), Logger: clickhousetest.Logger(s.tb),
	})
	if err != nil {
		s.tb.Fatal(err)
	}
	s.project(s.keyFact(), func(c *projections.RunnerConfig) { c.Roller = roller })
	n, err := roller.Roll(s.tb.Context())
	if err != nil {
		s.tb.Fatal(err)
	}
	return n
}

// smallBlocks makes blocks end early, so that a story has many.
func smallBlocks(c *projections.RunnerConfig) {
	c.Limits = projections.Limits{Rows: 150, Bytes: 1 << 20, Delay: 20 * time.Millisecond, KeysDelay: 5 * time.Millisecond}
}

func TestTablesAreTheLogOnRealStores(t *testing.T) {
	s := newStory(newStores(t), 1)
	for round := range 4 {
		s.project(s.tell(40), smallBlocks)
		r := s.mustBeExact()
		if round == 3 {
			if n := s.roll(time.Minute); n == 0 {
				t.Error("no hour was rolled up")
			}
			r = s.mustBeExact()
			if r.Hours == 0 || r.HoursDirty != 0 {
				t.Errorf("%d hours compared, %d dirty after rolling up all", r.Hours, r.HoursDirty)
			}
		}
		t.Logf("report: %+v", r)
	}
	if r := s.mustBeExact(); r.Poisoned == 0 || r.Rows["findings"] == 0 || r.Rows["usage"] == 0 {
		t.Errorf("the story lacks a kind of event: %+v", r)
	}
}

// TestVerifyFindsPlantedFaults plants one fault after another into good tables.
func TestVerifyFindsPlantedFaults(t *testing.T) {
	tests := []struct {
		name, sql string
		where     string
	}{
		{"a use is deleted", "DELETE FROM usage WHERE use_id = (SELECT min(use_id) FROM usage)", "usage"},
		{"a use is doubled", "INSERT INTO usage SELECT * FROM usage ORDER BY position, idx LIMIT 1", "usage"},
		{"a use has another address", "ALTER TABLE usage UPDATE address = toIPv6('203.0.113.9') WHERE use_id = (SELECT max(use_id) FROM usage) SETTINGS mutations_sync = 2", "usage"},
		{"a use has other labels", "ALTER TABLE usage UPDATE labels = map('x', 'y') WHERE use_id = (SELECT max(use_id) FROM usage) SETTINGS mutations_sync = 2", "usage"},
		{"an activity record is deleted", "DELETE FROM activity WHERE position = (SELECT min(position) FROM activity)", "activity"},
		{"an activity record is changed", "ALTER TABLE activity UPDATE message = 'x' WHERE position = (SELECT min(position) FROM activity) SETTINGS mutations_sync = 2", "activity"},
		{"a key state is deleted", "DELETE FROM key_states WHERE position = (SELECT max(position) FROM key_states)", "key_states"},
		{"a key state is doubled", "INSERT INTO key_states SELECT * FROM key_states LIMIT 1", "key_states"},
		{"a key state is changed", "ALTER TABLE key_states UPDATE disabled = NOT disabled WHERE position = (SELECT max(position) FROM key_states) SETTINGS mutations_sync = 2", "key_states"},
		{"a key is missing", "DELETE FROM api_keys WHERE (account_id, id) = (SELECT min((account_id, id)) FROM api_keys)", "api_keys"},
		{"a key's newest state is gone", "DELETE FROM api_keys WHERE version = (SELECT max(version) FROM api_keys)", "api_keys"},
		{"a key is renamed", "ALTER TABLE api_keys UPDATE name = 'x' WHERE version = (SELECT max(version) FROM api_keys) SETTINGS mutations_sync = 2", "api_keys"},
		{"a finding is missing", "DELETE FROM findings WHERE id = (SELECT min(id) FROM findings)", "findings"},
		{"a finding is changed", "ALTER TABLE findings UPDATE count = count + 1 WHERE 1 SETTINGS mutations_sync = 2", "findings"},
		{"a violation is missing", "DELETE FROM use_violations WHERE (position, idx) = (SELECT min((position, idx)) FROM use_violations FINAL WHERE retracted = 0)", "use_violations"},
		{"a violation is invented", "INSERT INTO use_violations SELECT * REPLACE (12345678 AS position) FROM use_violations LIMIT 1", "use_violations"},
		{"a violation has another status", "ALTER TABLE use_violations UPDATE status = 'x' WHERE 1 SETTINGS mutations_sync = 2", "use_violations"},
		{"a rollup's count is wrong", "ALTER TABLE usage_hourly UPDATE count = count + 1 WHERE 1 SETTINGS mutations_sync = 2", "usage_hourly"},
		{"a rollup row is missing", "DELETE FROM usage_hourly WHERE (account_id, hour, key_id, action) = (SELECT min((account_id, hour, key_id, action)) FROM usage_hourly)", "usage_hourly"},
		{"a rollup row is invented", "INSERT INTO usage_hourly SELECT * REPLACE ('zzz' AS action) FROM usage_hourly LIMIT 1", "usage_hourly"},
		{"a mark is missing", "DELETE FROM usage_buckets WHERE hour = (SELECT min(hour) FROM usage_buckets)", "usage_buckets"},
		{"rows of a block that nobody planned", "INSERT INTO activity SELECT * REPLACE (block + 1000 AS block) FROM activity LIMIT 1", "activity"},
	}
	s := newStory(newStores(t), 2)
	s.project(s.tell(70), smallBlocks)
	s.roll(time.Minute)
	s.mustBeExact()
	exec := func(t *testing.T, sql string) {
		t.Helper()
		if err := s.store.Exec(t.Context(), sql); err != nil {
			t.Fatalf("%s: %v", sql, err)
		}
	}
	saved := map[string]bool{}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if good := "good_" + tt.where; !saved[tt.where] {
				exec(t, "CREATE TABLE "+good+" AS "+tt.where)
				exec(t, "INSERT INTO "+good+" SELECT * FROM "+tt.where)
				saved[tt.where] = true
			}
			exec(t, tt.sql)
			r := s.verify()
			exec(t, "TRUNCATE TABLE "+tt.where)
			exec(t, "INSERT INTO "+tt.where+" SELECT * FROM good_"+tt.where+" SETTINGS insert_deduplicate = 0")
			if r.OK() {
				t.Fatal("not found")
			}
			if !slices.ContainsFunc(r.First, func(d projections.Difference) bool { return d.Where == tt.where }) {
				t.Errorf("found, but not in %s: %+v", tt.where, r.First)
			}
		})
	}
	s.mustBeExact()
}

// brokenLedger is a log whose ledger was tampered with.
type brokenLedger struct {
	projections.Log
	change func([]eventlog.Raw) []eventlog.Raw
}

func (b brokenLedger) ReadStream(ctx context.Context, stream string, from uint64, limit int) ([]eventlog.Raw, error) {
	events, err := b.Log.ReadStream(ctx, stream, from, limit)
	if strings.HasPrefix(stream, "ktx.blocks-") {
		events = b.change(events)
	}
	return events, err
}

func TestVerifyFindsATamperedLedger(t *testing.T) {
	s := newStory(newStores(t), 3)
	s.project(s.tell(80), smallBlocks)
	drop := func(typ string) func([]eventlog.Raw) []eventlog.Raw {
		return func(events []eventlog.Raw) []eventlog.Raw {
			for i, e := range events {
				if e.Type == typ && e.Revision > 1 {
					return append(events[:i:i], events[i+1:]...)
				}
			}
			return events
		}
	}
	replace := func(old, with string) func([]eventlog.Raw) []eventlog.Raw {
		return func(events []eventlog.Raw) []eventlog.Raw {
			for i := range events {
				if events[i].Type == "block.planned.v1" && events[i].Revision > 1 {
					events[i].Data = []byte(strings.Replace(string(events[i].Data), old, with, 1))
					break
				}
			}
			return events
		}
	}
	tests := []struct {
		name   string
		change func([]eventlog.Raw) []eventlog.Raw
	}{
		{"a plan is dropped", drop("block.planned.v1")},
		{"a completion is dropped", drop("block.completed.v1")},
		{"a hash is another", replace(`"sha256":"`, `"sha256":"0`)},
		{"a chain is broken", replace(`"previous":"`, `"previous":"0`)},
		{"a count is another", replace(`"events":`, `"events":1`)},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r, err := projections.Verify(t.Context(), brokenLedger{projections.NewLog(s.log), tt.change}, s.store, projections.VerifyOptions{Generation: generation})
			if err != nil {
				t.Fatal(err)
			}
			if r.OK() {
				t.Error("not found")
			}
		})
	}
}
