package main

import (
	"context"
	"crypto/sha256"
	"fmt"
	"strconv"
	"time"

	"example.com/keytrail/domain"
	"example.com/keytrail/ingest"
	"example.com/keytrail/internal/auth"
	"example.com/keytrail/internal/keystore"
	"example.com/keytrail/projections"
	"example.com/keytrail/query"
)

// The types of this file join rooms that must not import each other.

// keyLookup tells the usage intake what is known of the keys that uploads name.
type keyLookup struct {
	directory *auth.Directory
	keys      *keystore.Store
}

// KeyByHash implements [ingest.UsageKeys].
func (k keyLookup) KeyByHash(hash [sha256.Size]byte) (domain.KeyState, bool) {
	return k.directory.KeyByFingerprint(k.keys.Fingerprint(hash))
}

// Key implements [ingest.UsageKeys].
func (k keyLookup) Key(id domain.KeyID) (domain.KeyState, bool) { return k.directory.Key(id) }

// Fingerprint implements [ingest.UsageKeys].
func (k keyLookup) Fingerprint(hash [sha256.Size]byte) string { return k.keys.Fingerprint(hash) }

// knownUses asks the tables which records an import has brought before.
func (a *app) knownUses() ingest.KnownUses {
	return query.KnownUses{Tables: answering{a.tables, a.tablesUp}}
}

// waiter lets a list wait for what this node has just written.
type waiter struct{ tables *projections.Node }

// Wait implements [ingest.Waiter].
func (w waiter) Wait(ctx context.Context, position uint64) (uint64, error) {
	err := w.tables.Wait(ctx, position)
	_, reached, _ := w.tables.Completed()
	if err != nil && ctx.Err() == nil {
		return reached, fmt.Errorf("wait for the tables: %w", err)
	}
	return reached, nil
}

// positions reports how far the tables and the detector are.
type positions struct{ *app }

// Projections implements [query.Projections]. The head is read from the log at the moment
// of the question: who waits for it waits for all that was acknowledged before.
func (p positions) Projections(ctx context.Context) ([]query.ProjectionStatus, error) {
	head, err := p.stores.log.Head(ctx, []string{domain.EvidencePrefix})
	if err != nil {
		return nil, fmt.Errorf("read the end of the log: %w", err)
	}
	evaluated, err := p.evaluatedAnywhere(ctx)
	if err != nil {
		return nil, err
	}
	live := p.tables.Live()
	s := live.Tracker.Status()
	tables := query.ProjectionStatus{
		Name: "tables", Block: number(s.Block), Position: number(s.Position), Head: number(head),
		LagSeconds: s.Lag.Seconds(), Poisoned: s.Poisoned, Generation: s.Generation, State: s.State, Events: s.Events, Rows: s.Rows,
		EventsPerSecond: s.EventsPerSecond, Attempt: s.Attempt, Holder: s.Holder, Runner: string(s.Runner), RollupsPending: live.RollupsPending(),
	}
	if s.Planned > 0 {
		tables.Planned = number(s.Planned)
	}
	if live.Fault() != nil {
		tables.Fault = "the tables cannot be read or written as they should"
	}
	detector := query.ProjectionStatus{Name: "detector", Block: number(evaluated), Position: number(s.Position), Head: number(head)}
	return []query.ProjectionStatus{tables, detector}, nil
}

func number(n uint64) string { return strconv.FormatUint(n, 10) }

// keyLister lists keys from the tables. The query handler is set before it serves: each of
// the two describes the other's routes.
type keyLister struct{ query *query.Handler }

// ListKeys implements [ingest.KeyLister].
func (l *keyLister) ListKeys(ctx context.Context, q domain.KeysQuery) (domain.KeysPage, error) {
	return l.query.Keys().ListKeys(ctx, q) //nolint:wrapcheck // The words are for the caller.
}

// AccountActivity implements [ingest.AccountActivityReader].
func (l *keyLister) AccountActivity(ctx context.Context, account domain.AccountID, position uint64, until time.Time) (domain.AccountActivity, error) {
	return l.query.AccountActivity(ctx, account, position, until) //nolint:wrapcheck // It says what was attempted.
}

// KeyActivity implements [ingest.ActivityReader]: it counts sign-ins from the tables.
func (l *keyLister) KeyActivity(ctx context.Context, account domain.AccountID, id domain.KeyID) (ingest.KeyActivity, error) {
	count, last, err := l.query.KeyActivity(ctx, account, id)
	out := ingest.KeyActivity{AuthnCount: count}
	if count > 0 {
		out.LastAuthn = &last
	}
	return out, err //nolint:wrapcheck // It says what was attempted.
}

// UsedActions implements [ingest.UsedReader]: it counts uses from the tables.
func (l *keyLister) UsedActions(ctx context.Context, account domain.AccountID, keys []domain.KeyID, from, to time.Time) (map[domain.KeyID][]ingest.UsedAction, error) {
	list, err := l.query.UsedActions(ctx, account, keys, from, to)
	out := map[domain.KeyID][]ingest.UsedAction{}
	for _, u := range list {
		out[u.KeyID] = append(out[u.KeyID], ingest.UsedAction{Action: u.Action, Count: u.Count, Last: u.Last})
	}
	return out, err //nolint:wrapcheck // It says what was attempted.
}
