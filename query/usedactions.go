package query

import (
	"context"
	"errors"
	"fmt"
	"time"

	"example.com/keytrail/domain"
	"example.com/keytrail/internal/clickhouse"
)

// usedActionsMax bounds how many actions of one key are told apart.
const usedActionsMax = 10_000

// UsedAction is what was done with a key, how often, and when last.
type UsedAction struct {
	KeyID  domain.KeyID
	Action string
	Count  uint64
	Last   time.Time
}

// UsedActions returns what was done with the given keys of account in [from, to), as the
// tables know it: successful uses that are no sign-ins. Of one key it tells at most 10,000
// actions apart, those most used.
func (h *Handler) UsedActions(ctx context.Context, account domain.AccountID, keys []domain.KeyID, from, to time.Time) (out []UsedAction, err error) {
	if len(keys) == 0 {
		return nil, nil
	}
	tables, err := h.cfg.Tables.Live()
	if err != nil {
		return nil, err //nolint:wrapcheck // It is worded for the caller.
	}
	ids := make([]string, len(keys))
	for i, id := range keys {
		ids[i] = string(id)
	}
	rows, err := tables.Store.Query(ctx, clickhouse.Select{
		Table: "usage", Columns: []string{"key_id", "action", "count() AS uses", "max(time)"}, Scope: clickhouse.ScopeAccounts(string(account)),
		Where: []clickhouse.Cond{
			clickhouse.In("key_id", ids), clickhouse.Range("time", from, to), clickhouse.Eq("outcome", string(domain.OutcomeSuccess)),
			clickhouse.Ne("action", ""), clickhouse.Raw("NOT endsWith(action, ?)", loginSuffix),
		},
		GroupBy: []string{"key_id", "action"}, OrderBy: []string{"key_id", "uses DESC", "action"}, LimitBy: []string{"key_id"}, LimitByRows: usedActionsMax,
		Settings: readSettings(),
	})
	if err != nil {
		return nil, worded(fmt.Errorf("count actions: %w", err))
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		var u UsedAction
		var key string
		if err := rows.Scan(&key, &u.Action, &u.Count, &u.Last); err != nil {
			return nil, fmt.Errorf("count actions: %w", err)
		}
		u.KeyID = domain.KeyID(key)
		out = append(out, u)
	}
	if err := rows.Err(); err != nil {
		return nil, worded(fmt.Errorf("count actions: %w", err))
	}
	return out, nil
}
