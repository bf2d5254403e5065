package query

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"example.com/keytrail/domain"
	"example.com/keytrail/internal/clickhouse"
)

// loginSuffix ends the action of every sign-in with a key. Uses that are verifications count
// too, whatever their action.
const loginSuffix = ".login"

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
			clickhouse.Raw("(endsWith(action, ?) OR mapContains(labels, ?))", loginSuffix, domain.LabelVerified),
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

// AccountActivity returns who and what there was in an account at until, and when each
// last signed in, as the tables hold the log up to position. It asks once for each kind.
func (h *Handler) AccountActivity(ctx context.Context, account domain.AccountID, position uint64, until time.Time) (domain.AccountActivity, error) {
	tables, err := h.cfg.Tables.Live()
	if err != nil {
		return domain.AccountActivity{}, err //nolint:wrapcheck // It is worded for the caller.
	}
	out := domain.AccountActivity{KeyLast: map[domain.KeyID]time.Time{}, KeyLastUse: map[domain.KeyID]time.Time{}, IdentityLast: map[domain.IAMID]time.Time{}}
	q := activityRead{scope: clickhouse.ScopeAccounts(string(account)), position: position, until: until}
	for _, read := range []struct {
		what  string
		query clickhouse.Select
		take  func(clickhouse.Rows) error
	}{
		{"keys", q.keys(), takeKeyState(&out)},
		{"sign-ins", q.lastUses(), takeLastUse(&out)},
		{"service IDs", q.serviceIDs(), takeServiceID(&out)},
	} {
		rows, err := tables.Store.Query(ctx, read.query)
		if err != nil {
			return out, fmt.Errorf("read %s: %w", read.what, err)
		}
		if err := each(rows, func() error { return read.take(rows) }); err != nil {
			return out, fmt.Errorf("read %s: %w", read.what, err)
		}
	}
	return out, nil
}

// activityRead makes the queries of [Handler.AccountActivity].
type activityRead struct {
	scope    clickhouse.Scope
	position uint64
	until    time.Time
}

// keys are the states of all keys then, the deleted ones too.
func (a activityRead) keys() clickhouse.Select {
	return clickhouse.Select{
		Table: "key_states", Scope: a.scope, Columns: []string{"argMax(state, (effective_at, event_id))"}, GroupBy: []string{"key_id"},
		Where: []clickhouse.Cond{clickhouse.Le("position", a.position), clickhouse.Le("effective_at", a.until)},
	}
}

func takeKeyState(out *domain.AccountActivity) func(clickhouse.Rows) error {
	return func(rows clickhouse.Rows) error {
		var (
			text string
			k    domain.KeyState
		)
		if err := rows.Scan(&text); err != nil {
			return err //nolint:wrapcheck // The caller says of what.
		}
		if err := json.Unmarshal([]byte(text), &k); err != nil {
			return fmt.Errorf("state of a key: %w", err)
		}
		if !k.Deleted {
			out.Keys = append(out.Keys, k)
		}
		return nil
	}
}

// lastUses are the last successful sign-ins, and the last successful uses of any kind.
func (a activityRead) lastUses() clickhouse.Select {
	return clickhouse.Select{
		Table: "usage", Scope: a.scope, ColumnArgs: []any{loginSuffix, domain.LabelVerified}, GroupBy: []string{"key_id", "iam_id", "sign_in"},
		Columns: []string{"key_id", "iam_id", "(endsWith(action, ?) OR mapContains(labels, ?)) AS sign_in", "max(time)"},
		Where: []clickhouse.Cond{
			clickhouse.Le("position", a.position), clickhouse.Le("time", a.until), clickhouse.Eq("outcome", string(domain.OutcomeSuccess)),
		},
	}
}

func takeLastUse(out *domain.AccountActivity) func(clickhouse.Rows) error {
	return func(rows clickhouse.Rows) error {
		var (
			key    string
			iam    string
			signIn bool
			last   time.Time
		)
		if err := rows.Scan(&key, &iam, &signIn, &last); err != nil {
			return err //nolint:wrapcheck // The caller says of what.
		}
		later(out.KeyLastUse, domain.KeyID(key), last)
		if signIn {
			later(out.KeyLast, domain.KeyID(key), last)
			later(out.IdentityLast, domain.IAMID(iam), last)
		}
		return nil
	}
}

func later[K comparable](lasts map[K]time.Time, id K, t time.Time) {
	if id != *new(K) && t.After(lasts[id]) {
		lasts[id] = t
	}
}

// serviceIDs are all service IDs with the name that they had then.
func (a activityRead) serviceIDs() clickhouse.Select {
	return clickhouse.Select{
		Table: "activity", Scope: a.scope, ColumnArgs: []any{domain.TypeServiceIDDeleted}, GroupBy: []string{"target_id"},
		Columns: []string{"target_id", "argMax(target_name, position)", "countIf(event_type = ?) > 0"},
		Where: []clickhouse.Cond{
			clickhouse.Le("position", a.position), clickhouse.Le("event_time", a.until), clickhouse.Raw("startsWith(stream, ?)", domain.ServiceIDStreams),
		},
	}
}

func takeServiceID(out *domain.AccountActivity) func(clickhouse.Rows) error {
	return func(rows clickhouse.Rows) error {
		var (
			target  string
			name    string
			deleted bool
		)
		if err := rows.Scan(&target, &name, &deleted); err != nil {
			return err //nolint:wrapcheck // The caller says of what.
		}
		if id := target[strings.LastIndexByte(target, ':')+1:]; !deleted {
			out.ServiceIDs = append(out.ServiceIDs, domain.InactiveServiceID{ID: id, Name: name})
		}
		return nil
	}
}
