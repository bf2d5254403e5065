package query_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/gin-gonic/gin"

	"example.com/keytrail/domain"
	"example.com/keytrail/internal/auth"
	"example.com/keytrail/internal/clickhouse"
	"example.com/keytrail/internal/clickhouse/clickhousetest"
	"example.com/keytrail/internal/httpx"
	"example.com/keytrail/query"
)

// now is the time of every question.
var now = time.Date(2026, 5, 6, 7, 8, 9, 123e6, time.UTC)

const (
	accountA domain.AccountID = "acct-a"
	accountB domain.AccountID = "acct-b"
	accountX domain.AccountID = "acct-x" // Not the caller's.
	accountM domain.AccountID = "acct-m" // The caller is a member without a role.
)

// progress is a [query.Progress] that a test moves.
type progress struct {
	mu              sync.Mutex
	block, position uint64
	moved           chan struct{}
}

func (p *progress) set(block, position uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.block, p.position = block, position
	close(p.moved)
	p.moved = make(chan struct{})
}

func (p *progress) Completed() (block, position uint64, at time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.block, p.position, now
}

func (p *progress) Lag() time.Duration { return 1500 * time.Millisecond }

func (p *progress) Wait(ctx context.Context, position uint64) error {
	for {
		p.mu.Lock()
		done, moved := p.position >= position, p.moved
		p.mu.Unlock()
		if done {
			return nil
		}
		select {
		case <-moved:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// oneTable is a [query.Tables] of one generation, beside others that a test adds.
type oneTable struct {
	live   query.Generation
	others map[string]query.Generation
	err    error
}

func (o *oneTable) Live() (query.Generation, error) { return o.live, o.err }

func (o *oneTable) Named(name string) (query.Generation, bool) {
	g, ok := o.others[name]
	return g, ok
}

func (o *oneTable) Wait(ctx context.Context, position uint64) error {
	return o.live.Progress.Wait(ctx, position)
}

// tables returns store's tables as generation "1".
func tables(store query.Store, p query.Progress) *oneTable {
	return &oneTable{live: query.Generation{Name: "1", Store: store, Progress: p}}
}

// access records exports in memory, or fails.
type access struct {
	mu     sync.Mutex
	events []domain.AuditAccessed
	fail   error
}

func (a *access) RecordAccess(_ context.Context, _ domain.Initiator, _ string, accounts []domain.AccountID, e domain.AuditAccessed) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.fail != nil {
		return a.fail
	}
	for _, id := range accounts {
		e.Account = id
		a.events = append(a.events, e)
	}
	return nil
}

func (a *access) recorded() []domain.AuditAccessed {
	a.mu.Lock()
	defer a.mu.Unlock()
	return append([]domain.AuditAccessed(nil), a.events...)
}

// refusals keeps what was refused, or fails as told.
type refusals struct {
	mu     sync.Mutex
	events []domain.CommandRefused
	err    error
}

func (r *refusals) Record(_ context.Context, _ domain.Initiator, _ string, e domain.CommandRefused) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.err == nil {
		r.events = append(r.events, e)
	}
	return r.err
}

type projectionList []query.ProjectionStatus

func (l projectionList) Projections(context.Context) ([]query.ProjectionStatus, error) { return l, nil }

// fixture is a handler over real tables, and the caller who asks it.
type fixture struct {
	t        testing.TB
	store    *clickhouse.Store
	progress *progress
	access   *access
	refused  *refusals
	handler  *query.Handler
	engine   *gin.Engine
}

// newFixture opens empty tables.
func newFixture(tb testing.TB) *fixture {
	tb.Helper()
	f := &fixture{t: tb, store: clickhousetest.Store(tb), progress: &progress{moved: make(chan struct{})}, access: &access{}, refused: &refusals{}}
	if err := f.store.Migrate(tb.Context(), os.DirFS("../projections/schema")); err != nil {
		tb.Fatalf("schema: %v", err)
	}
	f.engine, f.handler = newEngine(tb, f.store, f.progress, f.access, func(c *query.Config) { c.Refusals = f.refused })
	return f
}

func newEngine(tb testing.TB, store query.Store, p query.Progress, a query.AccessRecorder, change func(*query.Config)) (*gin.Engine, *query.Handler) {
	tb.Helper()
	cfg := query.Config{
		Tables: tables(store, p), Access: a, Refusals: &refusals{}, Projections: projectionList{{Name: "tables", Block: "1", Position: "2", Head: "3"}},
		CursorKey: []byte("0123456789abcdef0123456789abcdef"), Version: "test", Now: func() time.Time { return now }, Logger: clickhousetest.Logger(tb),
	}
	if change != nil {
		change(&cfg)
	}
	h, err := query.New(cfg)
	if err != nil {
		tb.Fatal(err)
	}
	engine := httpx.NewEngine(cfg.Logger)
	h.RegisterPublic(engine)
	reader := domain.Standing{Member: true, Roles: []domain.Role{domain.RoleAuditor}}
	caller := auth.NewCaller(domain.Initiator{IAMID: "IBMid-auditor", Account: accountA}, auth.FixedStandings{
		accountA: reader, accountB: reader, accountM: {Member: true},
	})
	h.Register(engine.Group("", func(c *gin.Context) { auth.WithCaller(c, caller) }))
	return engine, h
}

// get asks and returns the answer; with into, a 200 is expected and decoded.
func (f *fixture) get(path string, params url.Values, into any) *httptest.ResponseRecorder {
	f.t.Helper()
	rec := ask(f.t, f.engine, path, params)
	if into == nil {
		return rec
	}
	if rec.Code != http.StatusOK {
		f.t.Fatalf("GET %s?%s: %d %s", path, params.Encode(), rec.Code, rec.Body)
	}
	if err := json.Unmarshal(rec.Body.Bytes(), into); err != nil {
		f.t.Fatalf("GET %s: %v in %s", path, err, rec.Body)
	}
	return rec
}

func ask(tb testing.TB, engine http.Handler, path string, params url.Values) *httptest.ResponseRecorder {
	tb.Helper()
	rec := httptest.NewRecorder()
	engine.ServeHTTP(rec, httptest.NewRequestWithContext(tb.Context(), http.MethodGet, path+"?"+params.Encode(), nil))
	return rec
}

// refusal returns the message code of a refusal and the parameter that it names.
func refusal(tb testing.TB, rec *httptest.ResponseRecorder) (code, field string) {
	tb.Helper()
	var body httpx.ErrorBody
	if err := json.Unmarshal(rec.Body.Bytes(), &body); err != nil || len(body.Errors) == 0 {
		tb.Fatalf("refusal %d %s is not in the error shape (%v)", rec.Code, rec.Body, err)
	}
	return body.Errors[0].MessageCode, body.Errors[0].Details
}

// event is one row of table activity.
type event struct {
	domain.Activity
	position, block, revision uint64
	stream, eventType         string
}

// use is one row of table usage.
type use struct {
	domain.Use
	position, block uint64
	index           uint32
}

func (f *fixture) insert(table string, columns []string, n int, row func(i int) []any) {
	f.t.Helper()
	if _, err := f.store.Insert(f.t.Context(), table, columns, clickhouse.InsertOptions{}, func(b clickhouse.Batch) error {
		for i := range n {
			if err := b.Append(row(i)...); err != nil {
				return err
			}
		}
		return nil
	}); err != nil {
		f.t.Fatalf("insert into %s: %v", table, err)
	}
}

func address(source string) netip.Addr {
	a, err := netip.ParseAddr(source)
	if err != nil {
		return netip.IPv6Unspecified()
	}
	return netip.AddrFrom16(a.As16())
}

func (f *fixture) addEvents(events ...event) {
	f.t.Helper()
	columns := []string{
		"account_id", "event_time", "position", "idx", "block", "recorded_at", "event_id", "stream", "revision", "event_type", "action",
		"outcome", "reason_code", "reason", "severity", "initiator_id", "initiator_name", "initiator_authn_id", "initiator_authn_name",
		"initiator_type", "initiator_account", "credential_type", "credential_id", "source", "address", "user_agent", "target_id",
		"target_name", "target_type", "key_id", "correlation_id", "message", "request_data",
	}
	f.insert("activity", columns, len(events), func(i int) []any {
		e := events[i]
		in := e.Initiator
		return []any{
			string(e.Account), e.EventTime, e.position, uint32(0), e.block, now, e.ID, e.stream, e.revision, e.eventType, e.Action,
			string(e.Outcome), uint16(e.ReasonCode), e.Reason, string(e.Severity), string(in.IAMID), in.Name, in.AuthnID, in.AuthnName,
			string(in.Type), string(in.Account), in.Credential, string(in.CredentialID), in.Address, address(in.Address), in.Agent, e.TargetID,
			e.TargetName, e.TargetType, string(e.KeyID), e.CorrelationID, e.Message, string(e.RequestData),
		}
	})
}

func (f *fixture) addUses(uses ...use) {
	f.t.Helper()
	columns := []string{
		"account_id", "key_id", "time", "position", "idx", "block", "recorded_at", "use_id", "iam_id", "action", "access", "outcome", "status",
		"error_code", "source", "address", "network", "country", "asn", "user_agent", "region", "target", "request_id", "latency_ms", "bytes",
		"key_fingerprint", "labels",
	}
	f.insert("usage", columns, len(uses), func(i int) []any {
		u := uses[i]
		labels := u.Labels
		if labels == nil {
			labels = map[string]string{}
		}
		return []any{
			string(u.Account), string(u.KeyID), u.Time, u.position, u.index, u.block, now, u.ID, string(u.IAMID), u.Action, string(u.Access),
			string(u.Outcome), uint16(u.Status), u.ErrorCode, u.Source, address(u.Source), u.Network(), u.Country, u.ASN, u.UserAgent, u.Region,
			u.Target, u.RequestID, u.LatencyMS, u.Bytes, u.KeyFingerprint, labels,
		}
	})
}

// keyEvent is a plain event about a key.
func keyEvent(account domain.AccountID, key domain.KeyID, at time.Time, position uint64) event {
	return event{
		Activity: domain.Activity{
			ID: domain.DeriveID("test", fmt.Sprint(position)).String(), EventTime: at, Account: account, Action: "iam-identity.user-apikey.update",
			Outcome: domain.OutcomeSuccess, ReasonCode: 200, Severity: domain.SeverityWarning, KeyID: key,
			Initiator:  domain.Initiator{IAMID: "IBMid-1", Name: "Ann", Type: domain.ActorUser, Address: "192.0.2.7", Agent: "curl/8"},
			TargetID:   domain.KeyCRN(account, key),
			TargetName: "demo", TargetType: "iam-identity/user-apikey", CorrelationID: "corr", Message: "update",
			RequestData: json.RawMessage(`{"changes":[{"field":"name","old":"a","new":"b"}],"lock":true,"nested":{"n":5}}`),
		},
		position: position, block: 1, revision: 3, stream: domain.KeyStream(key), eventType: domain.TypeKeyUpdated,
	}
}

// keyUse is a plain use of a key.
func keyUse(account domain.AccountID, key domain.KeyID, at time.Time, position uint64, index uint32) use {
	return use{
		Use: domain.Use{
			ID: fmt.Sprintf("use-%d-%d", position, index), Time: at, Account: account, KeyID: key, IAMID: "IBMid-1", Action: "s3.object.get",
			Outcome: domain.OutcomeSuccess, Status: 200, Source: "192.0.2.7", UserAgent: "aws-cli/2",
		},
		position: position, index: index, block: 1,
	}
}

// brokenStore fails a query's rows after some of them.
type brokenStore struct {
	query.Store
	after int
}

var errBroken = errors.New("the engine died")

func (s brokenStore) Query(ctx context.Context, q clickhouse.Query) (clickhouse.Rows, error) {
	rows, err := s.Store.Query(ctx, q)
	if err != nil {
		return nil, err
	}
	return &brokenRows{Rows: rows, left: s.after}, nil
}

type brokenRows struct {
	clickhouse.Rows
	left int
}

func (r *brokenRows) Next() bool {
	r.left--
	return r.left >= 0 && r.Rows.Next()
}

func (r *brokenRows) Err() error {
	if r.left < 0 {
		return fmt.Errorf("read: %w", errBroken)
	}
	return r.Rows.Err()
}
