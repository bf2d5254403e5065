package query

import (
	"context"
	"fmt"
	"time"

	"example.com/keytrail/domain"
	"example.com/keytrail/internal/clickhouse"
)

// KnownUses tells importers which uses the tables hold.
type KnownUses struct{ Tables Tables }

// Known returns those of ids that are recorded for account with a time from from to to,
// both included, and the position up to which the table held everything when it was asked:
// a use at or before upTo that is not in known is not in the log.
func (k KnownUses) Known(ctx context.Context, account domain.AccountID, ids []string, from, to time.Time) (known map[string]struct{}, upTo uint64, err error) {
	tables, err := k.Tables.Live()
	if err != nil {
		return nil, 0, err //nolint:wrapcheck // It is worded for the caller.
	}
	_, upTo, _ = tables.Progress.Completed() // Before the question: rows may only be added meanwhile.
	rows, err := tables.Store.Query(ctx, clickhouse.Select{
		Table: "usage", Columns: []string{"use_id"}, Scope: clickhouse.ScopeAccounts(string(account)),
		Where: []clickhouse.Cond{
			clickhouse.Range("time", from, to.Add(time.Millisecond)),
			clickhouse.In("use_id", ids),
		},
	})
	if err != nil {
		return nil, 0, fmt.Errorf("look up known uses: %w", err)
	}
	defer func() {
		if closeErr := rows.Close(); closeErr != nil && err == nil {
			known, upTo, err = nil, 0, fmt.Errorf("look up known uses: %w", closeErr)
		}
	}()
	known = make(map[string]struct{})
	for rows.Next() {
		var id string
		if err := rows.Scan(&id); err != nil {
			return nil, 0, fmt.Errorf("read known use: %w", err)
		}
		known[id] = struct{}{}
	}
	if err := rows.Err(); err != nil {
		return nil, 0, fmt.Errorf("read known uses: %w", err)
	}
	return known, upTo, nil
}
