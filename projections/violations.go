package projections

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"example.com/keytrail/domain"
	"example.com/keytrail/internal/clickhouse"
)

const tableViolations = "use_violations"

// StateAt is one state of a key, with its place in the key's history.
type StateAt struct {
	EffectiveAt time.Time
	EventID     string
	// Block is the block that brought the state.
	Block uint64
	State domain.KeyState
}

// StatusOfUse judges a use at time t by the history of its key, which MUST be sorted
// by (EffectiveAt, EventID). It returns the status in force at t, the state behind
// it, and whether the use is a violation: the key was invalid at t and just before
// it. Before its first state a key is unknown, which is no violation.
func StatusOfUse(history []StateAt, t time.Time) (status domain.KeyStatus, state StateAt, violation bool) {
	now := lastState(history, func(s StateAt) bool { return !s.EffectiveAt.After(t) })
	if now < 0 {
		return domain.StatusUnknown, StateAt{}, false
	}
	state = history[now]
	status = state.State.StatusAt(t)
	before := lastState(history, func(s StateAt) bool { return s.EffectiveAt.Before(t) })
	if before < 0 {
		return status, state, false
	}
	return status, state, status != domain.StatusActive && invalidBefore(history[before].State, t)
}

// lastState returns the index of the last state for which held is true, which must
// be true for a beginning of the history; -1 if it is for none.
func lastState(history []StateAt, held func(StateAt) bool) int {
	i, _ := slices.BinarySearchFunc(history, false, func(s StateAt, _ bool) int {
		if held(s) {
			return -1
		}
		return 1
	})
	return i - 1
}

// invalidBefore reports whether a key in state s was invalid in the moments right
// before t: at the very second of its expiry it was still good just before.
func invalidBefore(s domain.KeyState, t time.Time) bool {
	return s.Deleted || s.Disabled || s.ExpiresAt != nil && s.ExpiresAt.Before(t)
}

// judgedKeysMax is how many keys one statement judges.
const judgedKeysMax = 100

// Judge implements [Sink].
func (s *storeSink) Judge(ctx context.Context, j Judgement) error {
	if j.Uses {
		keys, err := s.usedSuspects(ctx, j)
		if err != nil {
			return fmt.Errorf("judge the uses of block %d: %w", j.Block, err)
		}
		for chunk := range slices.Chunk(keys, judgedKeysMax) {
			if err := s.judge(ctx, j.Block, chunk, fragment{text: "block = ?", args: []any{j.Block}}); err != nil {
				return fmt.Errorf("judge the uses of block %d: %w", j.Block, err)
			}
		}
	}
	doubtful := s.sound.doubtful(j)
	keys, err := s.changedSuspects(ctx, j.Block, doubtful)
	if err != nil {
		return fmt.Errorf("judge the keys of block %d: %w", j.Block, err)
	}
	for chunk := range slices.Chunk(keys, judgedKeysMax) {
		since := sinceOf(chunk, j.Changed)
		if err := s.judge(ctx, j.Block, chunk, since); err != nil {
			return fmt.Errorf("judge the keys of block %d: %w", j.Block, err)
		}
		if err := s.retract(ctx, j.Block, chunk, since); err != nil {
			return fmt.Errorf("retract violations in block %d: %w", j.Block, err)
		}
	}
	s.sound.judged(j, keys)
	return nil
}

// fragment is a piece of SQL made of this file's constants, and its arguments.
type fragment struct {
	text string
	args []any
}

// keysIn is the condition that a row belongs to one of keys.
func keysIn(keys []KeyRef) fragment {
	f := fragment{text: "(account_id, key_id) IN (" + strings.TrimSuffix(strings.Repeat("(?, ?), ", len(keys)), ", ") + ")"}
	for _, k := range keys {
		f.args = append(f.args, string(k.Account), string(k.Key))
	}
	return f
}

// sinceOf is the condition that a row of one of keys is not older than the earliest
// change of that key.
func sinceOf(keys []KeyRef, changed map[KeyRef]KeyChange) fragment {
	one := "(account_id = ? AND key_id = ? AND time >= fromUnixTimestamp64Milli(?, 'UTC'))"
	f := fragment{text: "(" + strings.TrimSuffix(strings.Repeat(one+" OR ", len(keys)), " OR ") + ")"}
	for _, k := range keys {
		f.args = append(f.args, string(k.Account), string(k.Key), changed[k].Since)
	}
	return f
}

// usedSuspects returns the keys used in the block that were invalid at some time up
// to its newest use. Most blocks have few or none, which keeps the judging cheap.
func (s *storeSink) usedSuspects(ctx context.Context, j Judgement) ([]KeyRef, error) {
	newest := clickhouse.Raw("(disabled OR deleted OR ifNull(toUnixTimestamp64Milli(expires_at) < ?, 0))", j.NewestUse)
	used := clickhouse.Select{
		Table: tableUsage, Scope: clickhouse.ScopeAll(), Distinct: true, Columns: []string{"account_id", "key_id"},
		Where: []clickhouse.Cond{clickhouse.Eq("block", j.Block)},
	}
	return s.suspects(ctx, clickhouse.Select{
		Table: tableKeyStates, Alias: "s", Scope: clickhouse.ScopeAll(), Distinct: true,
		Columns: []string{"s.account_id", "s.key_id"},
		Joins: []clickhouse.Join{{
			Kind: clickhouse.SemiJoin, Query: used, Alias: "u",
			On: []clickhouse.Cond{clickhouse.Raw("s.account_id = u.account_id"), clickhouse.Raw("s.key_id = u.key_id")},
		}},
		Where: []clickhouse.Cond{clickhouse.Le("s.block", j.Block), newest},
	})
}

// changedSuspects returns those of changed that were, are or will be invalid at some
// time. A key that never was has no violation to write or to retract.
func (s *storeSink) changedSuspects(ctx context.Context, block uint64, changed []KeyRef) ([]KeyRef, error) {
	var out []KeyRef
	for chunk := range slices.Chunk(changed, 4*judgedKeysMax) {
		in := keysIn(chunk)
		keys, err := s.suspects(ctx, clickhouse.Select{
			Table: tableKeyStates, Scope: clickhouse.ScopeAll(), Distinct: true, Columns: []string{"account_id", "key_id"},
			Where: []clickhouse.Cond{
				clickhouse.Raw(in.text, in.args...), clickhouse.Le("block", block),
				clickhouse.Raw("(disabled OR deleted OR isNotNull(expires_at))"),
			},
		})
		if err != nil {
			return nil, err
		}
		out = append(out, keys...)
	}
	return out, nil
}

func (s *storeSink) suspects(ctx context.Context, q clickhouse.Query) ([]KeyRef, error) {
	rows, err := s.store.Query(ctx, q)
	if err != nil {
		return nil, err
	}
	var out []KeyRef
	for rows.Next() {
		var account, key string
		if err := rows.Scan(&account, &key); err != nil {
			return nil, errors.Join(err, rows.Close())
		}
		out = append(out, KeyRef{Account: domain.AccountID(account), Key: domain.KeyID(key)})
	}
	return out, errors.Join(rows.Err(), rows.Close())
}

// Texts of the statements. never is an expiry that does not come.
const (
	violationColumns = "account_id, key_id, time, position, idx, block, retracted, use_id, iam_id, action, outcome, source, " +
		"user_agent, status, locked, state_since, state_event_id"

	// statesSQL gives one row for each key and effective time: of several states the
	// one with the greatest event id.
	statesSQL = `SELECT account_id, key_id, effective_at, max(event_id) AS winner,
    argMax(disabled, event_id) AS disabled, argMax(deleted, event_id) AS deleted, argMax(locked, event_id) AS locked,
    argMax(ifNull(toUnixTimestamp64Milli(expires_at), 9223372036854775807), event_id) AS expires
  FROM (SELECT account_id, key_id, effective_at, event_id, disabled, deleted, locked, expires_at
        FROM key_states WHERE block <= ? AND %[1]s)
  GROUP BY account_id, key_id, effective_at`

	judgeSQL = `INSERT INTO use_violations (` + violationColumns + `)
SELECT now.account_id, now.key_id, now.time, now.position, now.idx, ?, 0, now.use_id, now.iam_id, now.action, now.outcome,
  now.source, now.user_agent, now.status, now.locked, now.since, now.winner
FROM (
  SELECT u.account_id AS account_id, u.key_id AS key_id, u.time AS time, u.position AS position, u.idx AS idx, u.use_id AS use_id,
    u.iam_id AS iam_id, u.action AS action, u.outcome AS outcome, u.source AS source, u.user_agent AS user_agent,
    multiIf(s.deleted, 'deleted', s.disabled, 'disabled', s.expires <= toUnixTimestamp64Milli(u.time), 'expired', '') AS status,
    s.locked AS locked, s.effective_at AS since, s.winner AS winner
  FROM (SELECT account_id, key_id, time, position, idx, use_id, iam_id, action, outcome, source, user_agent
        FROM usage WHERE %[1]s AND %[2]s AND block <= ?) AS u
  ASOF JOIN (` + statesSQL + `) AS s
    ON u.account_id = s.account_id AND u.key_id = s.key_id AND u.time >= s.effective_at
) AS now
ASOF JOIN (` + statesSQL + `) AS p
  ON now.account_id = p.account_id AND now.key_id = p.key_id AND now.time > p.effective_at
WHERE now.status != '' AND (p.deleted OR p.disabled OR p.expires < toUnixTimestamp64Milli(now.time))`

	retractSQL = `INSERT INTO use_violations (` + violationColumns + `)
SELECT account_id, key_id, time, position, idx, ?, 1, use_id, iam_id, action, outcome, source, user_agent, status, locked,
  state_since, state_event_id
FROM (SELECT * FROM use_violations FINAL WHERE %[1]s)
WHERE retracted = 0 AND block < ?
SETTINGS use_skip_indexes_if_final = 0`
)

// judge writes the violations among the uses of keys that scope selects.
func (s *storeSink) judge(ctx context.Context, block uint64, keys []KeyRef, scope fragment) error {
	in := keysIn(keys)
	args := append([]any{block}, in.args...)
	args = append(args, scope.args...)
	args = append(args, block)
	for range 2 { // Both sides of the moment.
		args = append(append(args, block), in.args...)
	}
	return s.store.Exec(ctx, fmt.Sprintf(judgeSQL, in.text, scope.text), args...)
}

// retract takes back what was a violation and was not judged one again under block.
func (s *storeSink) retract(ctx context.Context, block uint64, keys []KeyRef, since fragment) error {
	in := keysIn(keys)
	args := append([]any{block}, in.args...)
	args = append(append(args, since.args...), block)
	return s.store.Exec(ctx, fmt.Sprintf(retractSQL, in.text+" AND "+since.text), args...)
}
