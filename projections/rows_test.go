package projections_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"example.com/keytrail/domain"
	"example.com/keytrail/internal/clickhouse"
	"example.com/keytrail/internal/eventlog"
	"example.com/keytrail/projections"
)

var (
	recordedAt  = time.Date(2026, 5, 4, 10, 0, 0, 7e6, time.UTC)
	effectiveAt = time.Date(2026, 5, 4, 9, 59, 59, 999e6, time.UTC)
)

func rawOf(tb testing.TB, e domain.Event, effective time.Time) eventlog.Raw {
	tb.Helper()
	p, err := eventlog.Propose(domain.DeriveID("t", "1"), e, domain.Metadata{
		EffectiveAt: effective, CorrelationID: "c1", Initiator: domain.Initiator{IAMID: "IBMid-1", Name: "Ada", Address: "2001:db8::1", Agent: "cli", Type: domain.ActorUser},
	})
	if err != nil {
		tb.Fatal(err)
	}
	return eventlog.Raw{Stream: "kt.s", Revision: 3, Position: 77, ID: p.ID, Type: p.Type, JSON: p.JSON, Data: p.Data, Meta: p.Meta, RecordedAt: recordedAt}
}

// named returns row i of a table as a map.
func named(rows projections.Rows, i int) map[string]any {
	out := map[string]any{}
	for n, v := range rows.Row(i) {
		if p, ok := v.(*int64); ok {
			v = nil
			if p != nil {
				v = *p
			}
		}
		out[rows.Columns[n].Name] = v
	}
	return out
}

func tableOf(tb testing.TB, raw eventlog.Raw, table string) projections.Rows {
	tb.Helper()
	tables, err := projections.RowsOf(raw, 5)
	if err != nil {
		tb.Fatal(err)
	}
	for _, rows := range tables {
		if rows.Table == table {
			return rows
		}
	}
	return projections.Rows{Table: table}
}

func TestAUseIsOneRowWithEverythingItsSourceSaid(t *testing.T) {
	use := domain.Use{
		ID: "u1", Time: effectiveAt, Account: "a1", KeyID: "K", KeyFingerprint: "hmac-sha256:00", IAMID: "IBMid-1", Action: "s3:Get",
		Access: domain.AccessRead, Outcome: domain.OutcomeFailure, Status: 403, ErrorCode: "AccessDenied", Source: "192.0.2.9", UserAgent: "ua",
		Region: "eu", Target: "crn", RequestID: "r1", LatencyMS: 7, Bytes: 1 << 40, Country: "DE", ASN: 64500, Labels: map[string]string{"k": "v"},
	}
	raw := rawOf(t, domain.UsageRecorded{Batch: batchOf([]domain.Use{use, {Time: effectiveAt, Source: "host.example"}})}, effectiveAt)
	rows := tableOf(t, raw, "usage")
	want := map[string]any{
		"account_id": "a1", "key_id": "K", "time": effectiveAt.UnixMilli(), "position": uint64(77), "idx": uint32(0), "block": uint64(5),
		"recorded_at": recordedAt.UnixMilli(), "use_id": "u1", "iam_id": "IBMid-1", "action": "s3:Get", "access": "read", "outcome": "failure",
		"status": uint16(403), "error_code": "AccessDenied", "source": "192.0.2.9", "address": netip.MustParseAddr("192.0.2.9"), "network": "192.0.2.0/24",
		"country": "DE", "asn": uint32(64500), "user_agent": "ua", "region": "eu", "target": "crn", "request_id": "r1", "latency_ms": uint32(7),
		"bytes": uint64(1 << 40), "key_fingerprint": "hmac-sha256:00", "labels": map[string]string{"k": "v"},
	}
	addr := cmp.Comparer(func(a, b netip.Addr) bool { return a == b })
	if d := cmp.Diff(want, named(rows, 0), addr); d != "" {
		t.Errorf("row (-want +got):\n%s", d)
	}
	second := named(rows, 1)
	if second["idx"] != uint32(1) || second["address"] != netip.IPv6Unspecified() || second["network"] != "" || second["source"] != "host.example" {
		t.Errorf("use without an address: %v", second)
	}
	buckets := tableOf(t, raw, "usage_buckets")
	wantBucket := map[string]any{"account_id": "a1", "hour": effectiveAt.Truncate(time.Hour).Unix(), "dirty": uint64(5), "clean": uint64(0)}
	if d := cmp.Diff(wantBucket, named(buckets, 0)); d != "" || buckets.Len() != 2 {
		t.Errorf("%d buckets, first (-want +got):\n%s", buckets.Len(), d)
	}
}

func TestAKeyEventIsAStateAKeyAndAnActivityRecord(t *testing.T) {
	never := time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC)
	state := keyState("K")
	state.Disabled, state.ExpiresAt, state.Description = true, &never, "d"
	raw := rawOf(t, domain.KeyDisabled{After: state}, effectiveAt)
	row := named(tableOf(t, raw, "key_states"), 0)
	text, _ := row["state"].(string)
	delete(row, "state")
	want := map[string]any{
		"account_id": "a1", "key_id": "K", "effective_at": effectiveAt.UnixMilli(), "event_id": raw.ID.String(), "position": uint64(77), "block": uint64(5),
		"recorded_at": recordedAt.UnixMilli(), "event_type": domain.TypeKeyDisabled, "kind": "user", "iam_id": "IBMid-1", "name": "key",
		"locked": false, "disabled": true, "deleted": false, "expires_at": time.Date(2299, 12, 31, 23, 59, 59, 999e6, time.UTC).UnixMilli(),
	}
	if d := cmp.Diff(want, row); d != "" {
		t.Errorf("state (-want +got):\n%s", d)
	}
	var back domain.KeyState
	if err := json.Unmarshal([]byte(text), &back); err != nil {
		t.Fatal(err)
	}
	if back.SecretHash != "" || strings.Contains(text, state.SecretHash) {
		t.Errorf("the fingerprint of the secret is in the row: %s", text)
	}
	if !back.ExpiresAt.Equal(never) {
		t.Errorf("the state's expiry is %v, the column alone is cut", back.ExpiresAt)
	}
	key := named(tableOf(t, raw, "api_keys"), 0)
	if version, _ := key["version"].(uint64); version>>22 != uint64(effectiveAt.UnixMilli()) || key["description"] != "d" {
		t.Errorf("key: %v", key)
	}
	record := named(tableOf(t, raw, "activity"), 0)
	for column, want := range map[string]any{
		"event_id": raw.ID.String(), "stream": "kt.s", "revision": uint64(3), "event_type": domain.TypeKeyDisabled, "initiator_id": "IBMid-1",
		"initiator_name": "Ada", "address": netip.MustParseAddr("2001:db8::1"), "key_id": "K", "correlation_id": "c1", "idx": uint32(0),
	} {
		if record[column] != want {
			t.Errorf("activity %s = %v, want %v", column, record[column], want)
		}
	}
}

// TestVersionsOrderStatesAsTheDomainDoes compares versions of states that differ in
// time, and in id at one time.
func TestVersionsOrderStatesAsTheDomainDoes(t *testing.T) {
	version := func(at time.Time, id byte) uint64 {
		raw := rawOf(t, domain.KeyUpdated{After: keyState("K")}, at)
		raw.ID = domain.EventID{id}
		v, _ := named(tableOf(t, raw, "api_keys"), 0)["version"].(uint64)
		return v
	}
	later := effectiveAt.Add(time.Millisecond)
	if a, b := version(effectiveAt, 9), version(later, 1); a >= b {
		t.Errorf("version %d of the older state is not below %d", a, b)
	}
	if a, b := version(effectiveAt, 1), version(effectiveAt, 9); a >= b {
		t.Errorf("version %d of the lesser id is not below %d", a, b)
	}
}

func TestWhatCannotBeARowIsRefusedWhole(t *testing.T) {
	batch := func(change func(*domain.UsageBatch)) domain.Event {
		b := batchOf([]domain.Use{{Time: effectiveAt}})
		change(&b)
		return domain.UsageRecorded{Batch: b}
	}
	uses := func(u domain.Use) domain.Event {
		return domain.UsageRecorded{Batch: batchOf([]domain.Use{{Time: effectiveAt}, u})}
	}
	tests := []struct {
		name      string
		event     domain.Event
		effective time.Time
	}{
		{"a batch that counts wrong", batch(func(b *domain.UsageBatch) { b.Count++ }), effectiveAt},
		{"a batch that is cut", batch(func(b *domain.UsageBatch) { b.Columns = b.Columns[:len(b.Columns)-1] }), effectiveAt},
		{"a use before 1970", uses(domain.Use{Time: time.Date(1969, 12, 31, 23, 59, 59, 0, time.UTC)}), effectiveAt},
		{"a use after 2106", uses(domain.Use{Time: time.Date(2107, 1, 1, 0, 0, 0, 0, time.UTC)}), effectiveAt},
		{"a status below zero", uses(domain.Use{Time: effectiveAt, Status: -1}), effectiveAt},
		{"a status above 16 bits", uses(domain.Use{Time: effectiveAt, Status: 1 << 16}), effectiveAt},
		{"a state without a time", domain.KeyUpdated{After: keyState("K")}, time.Time{}},
		{"a finding of a negative rule version", domain.FindingOpened{After: domain.Finding{RuleVersion: -1}}, effectiveAt},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			tables, err := projections.RowsOf(rawOf(t, tt.event, tt.effective), 1)
			if err == nil || tables != nil {
				t.Errorf("rows %v, error %v", tables, err)
			}
		})
	}
}

// FuzzRowsOf feeds foreign bytes of every type: rows or an error, never a panic, and
// every column of a table equally long.
func FuzzRowsOf(f *testing.F) {
	state := keyState("K")
	for _, e := range []domain.Event{
		domain.KeyCreated{After: state},
		domain.KeyObserved{After: state},
		domain.FindingOpened{After: domain.Finding{Account: "a"}},
		domain.UsageRecorded{Batch: batchOf([]domain.Use{{Time: effectiveAt}})},
		domain.CommandRefused{Action: "a"},
		domain.RolesSet{},
		domain.AccountSettingsSet{},
	} {
		raw := rawOf(f, e, effectiveAt)
		f.Add(raw.Type, raw.Data, raw.Meta)
	}
	f.Fuzz(func(t *testing.T, typ string, data, meta []byte) {
		raw := eventlog.Raw{Stream: "kt.s", Type: typ, Data: data, Meta: meta, RecordedAt: recordedAt}
		tables, err := projections.RowsOf(raw, 1)
		if err != nil {
			return
		}
		for _, rows := range tables {
			for i := range rows.Len() {
				rows.Row(i)
			}
			for _, c := range rows.Columns {
				if n := (projections.Rows{Columns: []projections.Column{c}}).Len(); n != rows.Len() {
					t.Errorf("%s.%s has %d values, the table %d rows", rows.Table, c.Name, n, rows.Len())
				}
			}
		}
	})
}

// judgement is a use of a key with a history, and what is to be said of it.
type judgement struct {
	name      string
	history   []projections.StateAt
	use       time.Time
	status    domain.KeyStatus
	violation bool
}

func judgements() []judgement {
	at := func(s int) time.Time { return effectiveAt.Truncate(time.Second).Add(time.Duration(s) * time.Second) }
	state := func(s int, id string, change func(*domain.KeyState)) projections.StateAt {
		k := keyState("K")
		change(&k)
		return projections.StateAt{EffectiveAt: at(s), EventID: id, State: k}
	}
	active := func(*domain.KeyState) {}
	disabled := func(k *domain.KeyState) { k.Disabled = true }
	deleted := func(k *domain.KeyState) { k.Disabled, k.Deleted = true, true }
	expires := func(s int) func(*domain.KeyState) {
		return func(k *domain.KeyState) { e := at(s); k.ExpiresAt = &e }
	}
	both := func(a, b func(*domain.KeyState)) func(*domain.KeyState) {
		return func(k *domain.KeyState) { a(k); b(k) }
	}
	return []judgement{
		{"nothing is known", nil, at(5), domain.StatusUnknown, false},
		{"before the first state", []projections.StateAt{state(10, "a", disabled)}, at(5), domain.StatusUnknown, false},
		{"active", []projections.StateAt{state(0, "a", active)}, at(5), domain.StatusActive, false},
		{"disabled", []projections.StateAt{state(0, "a", active), state(4, "b", disabled)}, at(5), domain.StatusDisabled, true},
		{"at the moment of disabling", []projections.StateAt{state(0, "a", active), state(5, "b", disabled)}, at(5), domain.StatusDisabled, false},
		{"a millisecond after disabling", []projections.StateAt{state(0, "a", active), state(5, "b", disabled)}, at(5).Add(time.Millisecond), domain.StatusDisabled, true},
		{"at the moment of enabling", []projections.StateAt{state(0, "a", disabled), state(5, "b", active)}, at(5), domain.StatusActive, false},
		{"at the moment of deleting a disabled key", []projections.StateAt{state(0, "a", disabled), state(5, "b", deleted)}, at(5), domain.StatusDeleted, true},
		{"at the very first state", []projections.StateAt{state(5, "a", disabled)}, at(5), domain.StatusDisabled, false},
		{"at the second of expiry", []projections.StateAt{state(0, "a", expires(5))}, at(5), domain.StatusExpired, false},
		{"a millisecond after expiry", []projections.StateAt{state(0, "a", expires(5))}, at(5).Add(time.Millisecond), domain.StatusExpired, true},
		{"expired, then extended at that moment", []projections.StateAt{state(0, "a", expires(3)), state(5, "b", active)}, at(5), domain.StatusActive, false},
		{"deleted wins over expired", []projections.StateAt{state(0, "a", both(deleted, expires(1)))}, at(5), domain.StatusDeleted, true},
		{"disabled wins over expired", []projections.StateAt{state(0, "a", both(disabled, expires(1)))}, at(5), domain.StatusDisabled, true},
		{"expiring from the moment on, disabled before", []projections.StateAt{state(0, "a", disabled), state(5, "b", expires(5))}, at(5), domain.StatusExpired, true},
		{"of two states at one time the last counts", []projections.StateAt{state(0, "a", disabled), state(0, "b", active)}, at(5), domain.StatusActive, false},
	}
}

func TestStatusOfUse(t *testing.T) {
	for _, tt := range judgements() {
		t.Run(tt.name, func(t *testing.T) {
			status, since, violation := projections.StatusOfUse(tt.history, tt.use)
			if status != tt.status || violation != tt.violation {
				t.Errorf("StatusOfUse = %s, violation %t; want %s, %t", status, violation, tt.status, tt.violation)
			}
			if status != domain.StatusUnknown && since.EffectiveAt.After(tt.use) {
				t.Errorf("the state behind it is of %s, after the use", since.EffectiveAt)
			}
		})
	}
}

// TestTheStoreJudgesUsesAsStatusOfUse gives the same histories to the SQL, in two
// orders of arrival.
func TestTheStoreJudgesUsesAsStatusOfUse(t *testing.T) {
	for _, order := range []string{"states first", "uses first"} {
		t.Run(order, func(t *testing.T) {
			s := newStores(t)
			states := func() (last uint64) {
				for i, j := range judgements() {
					for _, h := range j.history {
						h.State.ID = domain.KeyID(fmt.Sprint("K-", i))
						last = s.record(domain.KeyStream(h.State.ID), domain.KeyUpdated{After: h.State}, h.EffectiveAt)
					}
				}
				return last
			}
			uses := func() uint64 {
				uses := make([]domain.Use, 0, len(judgements()))
				for i, j := range judgements() {
					uses = append(uses, domain.Use{ID: j.name, Account: "a1", KeyID: domain.KeyID(fmt.Sprint("K-", i)), Time: j.use})
				}
				return s.record("kt.usage-c-00", domain.UsageRecorded{Batch: batchOf(uses)}, effectiveAt)
			}
			if order == "states first" {
				s.project(states())
				s.project(uses())
			} else {
				s.project(uses())
				s.project(states())
			}
			rows, err := s.store.Query(t.Context(), clickhouse.Select{
				Table: "use_violations", Final: true, Scope: clickhouse.ScopeAll(), Columns: []string{"use_id", "status"},
				Where: []clickhouse.Cond{clickhouse.Raw("retracted = 0")},
			})
			if err != nil {
				t.Fatal(err)
			}
			got, want := map[string]string{}, map[string]string{}
			for rows.Next() {
				var id, status string
				if err := rows.Scan(&id, &status); err != nil {
					t.Fatal(err)
				}
				got[id] = status
			}
			if err := errors.Join(rows.Err(), rows.Close()); err != nil {
				t.Fatal(err)
			}
			ties := map[string]bool{"of two states at one time the last counts": true} // Ids of real events are not ours to choose.
			for _, j := range judgements() {
				if j.violation && !ties[j.name] {
					want[j.name] = string(j.status)
				}
			}
			for name := range ties {
				delete(got, name)
			}
			if d := cmp.Diff(want, got); d != "" {
				t.Errorf("violations (-StatusOfUse +store):\n%s", d)
			}
			s.mustBeExact()
		})
	}
}

func TestTheSchemaHasEveryColumnOfEveryRow(t *testing.T) {
	s := newStores(t)
	sink := projections.NewSink(s.store)
	for i, e := range []domain.Event{
		domain.UsageRecorded{Batch: batchOf([]domain.Use{{Time: effectiveAt, Account: "a"}})},
		domain.KeyCreated{After: keyState("K")},
		domain.FindingOpened{After: domain.Finding{Account: "a"}},
	} {
		tables, err := projections.RowsOf(rawOf(t, e, effectiveAt), uint64(i+1))
		if err != nil {
			t.Fatal(err)
		}
		for _, rows := range tables {
			if err := sink.Insert(t.Context(), rows, fmt.Sprint(i)); err != nil {
				t.Errorf("insert into %s: %v", rows.Table, err)
			}
		}
	}
}
