package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"example.com/keytrail/internal/clickhouse"
	"example.com/keytrail/projections"
)

const (
	// migrateAtStartMax bounds how long the start waits for ClickHouse; then the server
	// serves without it and goes on trying.
	migrateAtStartMax = 10 * time.Second
	// migrateMax bounds one try later on, migrateEvery is the pause between two.
	migrateMax   = 2 * time.Minute
	migrateEvery = time.Second
)

// migrate makes the database and brings its tables up to date.
func (a *app) migrate(ctx context.Context) error {
	if err := a.stores.tables.CreateDatabase(ctx); err != nil {
		return fmt.Errorf("open database %s: %w", a.stores.tables.Database(), err)
	}
	if err := a.stores.tables.Migrate(ctx, projections.Schema()); err != nil {
		return fmt.Errorf("bring the tables up to date: %w", err)
	}
	close(a.migrated)
	return nil
}

// migrateAtStart finds faults of the schema before anything serves. A ClickHouse that does
// not answer is none: prepareTables goes on trying.
func (a *app) migrateAtStart(ctx context.Context) error {
	limited, cancel := context.WithTimeout(ctx, migrateAtStartMax)
	defer cancel()
	err := a.migrate(limited)
	if err == nil || !errors.Is(err, clickhouse.ErrUnavailable) {
		return err
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	a.log.ErrorContext(ctx, "ClickHouse does not answer; commands and intake go on without it (check --clickhouse and that the server is up)", slog.Any("error", err))
	return nil
}

// prepareTables tries until the tables are up to date. Its error says that they do not fit
// this program.
func (a *app) prepareTables(ctx context.Context) error {
	select {
	case <-a.migrated:
		return nil
	default:
	}
	tick := time.NewTicker(migrateEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		limited, cancel := context.WithTimeout(ctx, migrateMax)
		err := a.migrate(limited)
		cancel()
		if err == nil {
			a.log.InfoContext(ctx, "the tables are there")
			return nil
		}
		if !errors.Is(err, clickhouse.ErrUnavailable) {
			return err
		}
	}
}

// readStore answers queries once the tables are there.
type readStore struct {
	store    *clickhouse.Store
	migrated <-chan struct{}
}

// errNoTables is what a query gets while ClickHouse has not answered since the start.
var errNoTables = fmt.Errorf("the tables are not there yet: %w", clickhouse.ErrUnavailable)

// Query implements [query.Store] and [detect.Store].
func (r readStore) Query(ctx context.Context, q clickhouse.Query) (clickhouse.Rows, error) {
	select {
	case <-r.migrated:
		return r.store.Query(ctx, q)
	default:
		return nil, errNoTables
	}
}
