package projections

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	"example.com/keytrail/internal/clickhouse"
)

const tableGeneration = "generation"

// admit returns nil if store holds the tables of a generation of the log named logID,
// and nothing that this log does not hold. New tables are given the log's name. An error
// that is errRefused says that they must not be read nor written; any other, that nobody
// knows.
func admit(ctx context.Context, log Log, store *clickhouse.Store, logID, generation string) error {
	owner, err := ownerOf(ctx, store)
	if err != nil {
		return fmt.Errorf("read whose the tables of generation %s are: %w", generation, err)
	}
	if owner != "" && owner != logID {
		return fmt.Errorf("%w: the database %s holds the tables of another log (%s; this one is %s): name the right stores, or remove the database and start again",
			errRefused, store.Database(), owner, logID)
	}
	newest, err := newestBlock(ctx, store)
	if err != nil {
		return err
	}
	if err := notNewer(ctx, log, newest, generation); err != nil {
		return err
	}
	if owner != "" {
		return nil
	}
	_, err = store.Insert(ctx, tableGeneration, []string{"log_id", "name"}, clickhouse.InsertOptions{Fsync: true}, func(b clickhouse.Batch) error {
		return b.Append(logID, generation)
	})
	if err != nil {
		return fmt.Errorf("mark the tables of generation %s: %w", generation, err)
	}
	return nil
}

// notNewer returns errRefused if the ledger does not know block newest, of which the
// tables hold rows. A block is planned before it is inserted, so the ledger is read after
// the tables: whoever works on them meanwhile.
func notNewer(ctx context.Context, log Log, newest uint64, generation string) error {
	l, err := readLedger(ctx, log, LedgerStream(generation))
	if err != nil {
		return err
	}
	planned := l.done.Block
	if l.plan != nil {
		planned = l.plan.Block
	}
	if newest <= planned {
		return nil
	}
	return fmt.Errorf("%w: %w: the tables of generation %s hold block %d, the log's ledger ends at block %d: the log is an older copy than the tables. "+
		"Restore a newer copy of the log, or make the tables again with 'keytrail rebuild NEWNAME'", errFatal, errRefused, generation, newest, planned)
}

// ownerOf returns the name of the log whose tables are in store, "" if nobody marked
// them yet.
func ownerOf(ctx context.Context, store *clickhouse.Store) (string, error) {
	var owner string
	err := store.Row(ctx, clickhouse.Select{
		Table: tableGeneration, Scope: clickhouse.ScopeAll(), Columns: []string{"log_id"}, OrderBy: []string{"recorded_at"}, Limit: 1,
	}, &owner)
	if errors.Is(err, clickhouse.ErrNoRows) {
		return "", nil
	}
	return owner, err
}

// newestBlock returns the highest number of a block of which any table holds rows.
func newestBlock(ctx context.Context, store *clickhouse.Store) (uint64, error) {
	var newest uint64
	for _, table := range []string{tableUsage, tableActivity, tableKeyStates, tableAPIKeys, tableFindings, tableViolations} {
		var n uint64
		err := store.Row(ctx, clickhouse.Select{Table: table, Scope: clickhouse.ScopeAll(), Columns: []string{"max(block)"}}, &n)
		if err != nil {
			return 0, fmt.Errorf("newest block in %s: %w", table, err)
		}
		newest = max(newest, n)
	}
	return newest, nil
}

// holdsNothing reports whether no table of the database holds a row, but for the record
// of its migrations.
func holdsNothing(ctx context.Context, store *clickhouse.Store) (bool, error) {
	var rows uint64
	err := store.Row(ctx, clickhouse.Select{
		Table: "system.tables", Scope: clickhouse.ScopeAll(), Columns: []string{"sum(ifNull(total_rows, 1))"},
		Where: []clickhouse.Cond{clickhouse.Eq("database", store.Database()), clickhouse.Ne("name", clickhouse.MigrationsTable)},
	}, &rows)
	if err != nil {
		return false, fmt.Errorf("count rows of %s: %w", store.Database(), err)
	}
	return rows == 0, nil
}

// remove drops the database of a generation, if it is this log's. A worker does it.
func (n *Node) remove(ctx context.Context, name string) error {
	for n.cfg.Worker {
		err := n.drop(ctx, name)
		if err == nil || ctx.Err() != nil {
			return nil //nolint:nilerr // The end of ctx is no error.
		}
		n.cfg.Logger.WarnContext(ctx, "dropped tables cannot be removed, trying again", slog.String("generation", name), slog.Any("error", err))
		if pause(ctx, openEvery) != nil {
			return nil //nolint:nilerr // The end of ctx is no error.
		}
	}
	return nil
}

func (n *Node) drop(ctx context.Context, name string) (err error) {
	store, err := n.cfg.Open(name)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	state, _ := n.book.now()
	owner, err := ownerOf(ctx, store)
	switch e, _ := errors.AsType[*clickhouse.Error](err); {
	case e != nil && e.Code == clickhouse.CodeUnknownDatabase:
		return nil // Removed, or never begun.
	case e != nil && e.Code == clickhouse.CodeUnknownTable:
	case err != nil:
		return err
	}
	ours := owner == state.logID
	if owner == "" { // Given up before it was marked: rows come only after that.
		if ours, err = holdsNothing(ctx, store); err != nil {
			return err
		}
	}
	if !ours {
		n.cfg.Logger.ErrorContext(ctx, "a dropped generation's database is not this log's and is left as it is",
			slog.String("generation", name), slog.String("owner", owner))
		return nil
	}
	return store.Exec(ctx, "DROP DATABASE IF EXISTS `"+store.Database()+"` SYNC")
}
