package query

import (
	"context"
	"errors"
	"fmt"
	"time"

	"example.com/keytrail/domain"
	"example.com/keytrail/internal/clickhouse"
)

// loginSuffix ends the action of every sign-in with a key, labelVerified marks the uses that
// are verifications, whatever their action.
const (
	loginSuffix   = ".login"
	labelVerified = "verified"
)

// KeyActivity returns how often a key was signed in with or verified, successfully, and when
// last, as the tables know it; the zero time if never.
func (h *Handler) KeyActivity(ctx context.Context, account domain.AccountID, id domain.KeyID) (count uint64, last time.Time, err error) {
	tables, err := h.cfg.Tables.Live()
	if err != nil {
		return 0, time.Time{}, err //nolint:wrapcheck // It is worded for the caller.
	}
	rows, err := tables.Store.Query(ctx, clickhouse.Select{
		Table: "usage", Columns: []string{"count()", "max(time)"}, Scope: clickhouse.ScopeAccounts(string(account)),
		Where: []clickhouse.Cond{
			clickhouse.Eq("key_id", string(id)),
			clickhouse.Eq("outcome", string(domain.OutcomeSuccess)),
			clickhouse.Raw("(endsWith(action, ?) OR mapContains(labels, ?))", loginSuffix, labelVerified),
		},
	})
	if err != nil {
		return 0, time.Time{}, fmt.Errorf("count sign-ins: %w", err)
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	if rows.Next() {
		if err := rows.Scan(&count, &last); err != nil {
			return 0, time.Time{}, fmt.Errorf("count sign-ins: %w", err)
		}
	}
	if err := rows.Err(); err != nil {
		return 0, time.Time{}, fmt.Errorf("count sign-ins: %w", err)
	}
	if count == 0 {
		last = time.Time{}
	}
	return count, last, nil
}
