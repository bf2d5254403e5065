package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"example.com/keytrail/domain"
	"example.com/keytrail/internal/clickhouse"
	"example.com/keytrail/internal/obs"
	"example.com/keytrail/projections"
	"example.com/keytrail/query"
)

// tablesAtStartMax bounds how long the start waits for ClickHouse; then the server serves
// without it and goes on trying.
const tablesAtStartMax = 10 * time.Second

// buildProjections makes this node's part in the tables and begins it: faults of the schema
// are found before anything serves.
func (a *app) buildProjections(ctx context.Context) error {
	metrics, err := projections.NewMetrics(a.metrics)
	if err != nil {
		return fmt.Errorf("projections: %w", err)
	}
	a.tables, err = projections.NewNode(projections.NodeConfig{
		Log: a.whole, Open: a.stores.open, Worker: a.cfg.roles.has(roleWorker),
		Holder: a.node + "-" + a.nonce, Alone: a.cfg.stores.eventstore == "", Now: a.now, Decode: decode(), Metrics: metrics, Logger: a.log,
	})
	if err != nil {
		return fmt.Errorf("projections: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, tablesAtStartMax)
	defer cancel()
	return a.tables.Start(ctx)
}

// tablesReady says whether the live tables can be read and written here.
func (a *app) tablesReady() error { return a.tables.Live().Fault() }

// generation is one generation's tables, which may not be open yet.
type generation struct {
	*projections.Tables
	server *obs.Watch
}

// Query implements [query.Store] and [detect.Store].
func (g generation) Query(ctx context.Context, q clickhouse.Query) (clickhouse.Rows, error) {
	// While ClickHouse is known to be away nobody waits for it.
	if err := g.server.Err(); err != nil {
		return nil, fmt.Errorf("%w: %w", clickhouse.ErrUnavailable, err)
	}
	store, err := g.Store()
	if err != nil {
		return nil, err
	}
	return store.Query(ctx, q)
}

// view is the generation as the read side sees it.
func (g generation) view() query.Generation {
	return query.Generation{Name: g.Name, Store: g, Progress: g.Tracker, Poisoned: g.Tracker.Status().Poisoned}
}

// answering implements [query.Tables].
type answering struct {
	node   *projections.Node
	server *obs.Watch
}

var _ query.Tables = answering{}

// Live implements [query.Tables].
func (t answering) Live() (query.Generation, error) {
	live := t.node.Live()
	if err := live.Refused(); err != nil {
		refusal := domain.Errorf(domain.Unavailable, "the tables are not those of the log; an operator must see to it").WithMessageCode("tables_refused")
		return query.Generation{}, fmt.Errorf("%w: %w", refusal, err)
	}
	return generation{live, t.server}.view(), nil
}

// Named implements [query.Tables].
func (t answering) Named(name string) (query.Generation, bool) {
	g, ok := t.node.Named(name)
	if !ok || g.Refused() != nil {
		return query.Generation{}, false
	}
	return generation{g, t.server}.view(), true
}

// Wait implements [query.Tables].
func (t answering) Wait(ctx context.Context, position uint64) error {
	if err := t.node.Wait(ctx, position); err != nil {
		return errors.Join(errors.New("wait for the tables"), err)
	}
	return nil
}
