package detect

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"example.com/keytrail/domain"
	"example.com/keytrail/internal/clickhouse"
)

// Store runs reads. *clickhouse.Store is one.
type Store interface {
	Query(ctx context.Context, q clickhouse.Query) (clickhouse.Rows, error)
}

// Engine evaluates rules over the tables. It keeps nothing between calls and is safe
// for concurrent use.
type Engine struct {
	store Store
	rules []*Rule
}

// NewEngine returns an engine for rules, which it does not change.
func NewEngine(store Store, rules []*Rule) *Engine {
	return &Engine{store: store, rules: slices.Clone(rules)}
}

// Rules returns the engine's rules in the order of their ids.
func (e *Engine) Rules() []*Rule { return slices.Clone(e.rules) }

// EvaluateBlocks returns the findings of every span of every group that blocks from to
// to, both included, added records to. All blocks up to the last must be complete. A
// finding is computed whole, from all that the tables know of its span up to block to,
// so the caller compares it with what it has ([domain.Finding.SameCase]).
func (e *Engine) EvaluateBlocks(ctx context.Context, from, to uint64) ([]domain.Finding, error) {
	touched, err := e.touched(ctx, from, to)
	if err != nil {
		return nil, fmt.Errorf("what blocks %d to %d added: %w", from, to, err)
	}
	var out []domain.Finding
	for i, r := range e.rules {
		found, err := e.evaluateTouched(ctx, r, touched[i], to)
		if err != nil {
			return nil, fmt.Errorf("rule %s: blocks %d to %d: %w", r.ID, from, to, err)
		}
		out = append(out, found...)
	}
	return out, nil
}

// Backtest returns the findings that r makes of the records of scope's accounts with
// from <= time < to, as if nothing else had happened. Live evaluation of the same set
// gives the same findings.
func (e *Engine) Backtest(ctx context.Context, r *Rule, scope clickhouse.Scope, from, to time.Time) ([]domain.Finding, error) {
	q := r.rowsQuery(func(t table) clickhouse.Select {
		return t.newest(clickhouse.Select{Scope: scope, Where: []clickhouse.Cond{clickhouse.Range(t.time, from, to)}})
	})
	found, err := e.run(ctx, r, q, func(item) bool { return true }, func(Group, time.Time) bool { return true })
	if err != nil {
		return nil, fmt.Errorf("backtest of rule %s: %w", r.ID, err)
	}
	return found, nil
}

// touch is the stretch of time in which a group received records.
type touch struct {
	group    Group
	min, max time.Time
}

// groupsMax bounds the groups that one query asks for, and so the length of its text.
const groupsMax = 1000

func (e *Engine) evaluateTouched(ctx context.Context, r *Rule, touched []touch, to uint64) ([]domain.Finding, error) {
	var out []domain.Finding
	for chunk := range slices.Chunk(touched, groupsMax) {
		chunk, err := e.met(ctx, r, chunk, to)
		if err != nil {
			return nil, err
		}
		if len(chunk) == 0 {
			continue
		}
		found, err := e.evaluateGroups(ctx, r, chunk, to)
		if err != nil {
			return nil, err
		}
		out = append(out, found...)
	}
	return out, nil
}

// touched returns, for each rule by its number and ordered, the groups that the blocks
// added matching records to. It asks once for all rules, since most blocks concern few
// of them or none.
func (e *Engine) touched(ctx context.Context, from, to uint64) ([][]touch, error) {
	out := make([][]touch, len(e.rules))
	if len(e.rules) == 0 {
		return out, nil
	}
	var all clickhouse.UnionAll
	for i, r := range e.rules {
		all = append(all, touchQuery(i, r.rowsQuery(func(table) clickhouse.Select {
			return clickhouse.Select{
				Scope: clickhouse.ScopeAll(),
				Where: []clickhouse.Cond{clickhouse.Ge("block", from), clickhouse.Le("block", to)},
			}
		})))
	}
	err := e.touches(ctx, clickhouse.Select{
		From: all, Columns: []string{"rule", "account", "actor_key", "actor", "low", "high"},
		OrderBy: append([]string{"rule"}, groupColumns()...),
	}, func(rule uint32, t touch) { out[rule] = append(out[rule], t) })
	return out, err
}

// touchQuery returns the groups in rows, with the number of the rule.
func touchQuery(rule int, rows clickhouse.Query, having ...clickhouse.Cond) clickhouse.Select {
	return clickhouse.Select{
		From:       rows,
		Columns:    []string{"toUInt32(?) AS rule", "account", "actor_key", "actor", "min(at) AS low", "max(at) AS high"},
		ColumnArgs: []any{rule}, GroupBy: groupColumns(), Having: having,
	}
}

// met returns those of touched in which a window near the new records can be met. It
// asks for more than a window holds, never for less: the others need not be read.
func (e *Engine) met(ctx context.Context, r *Rule, touched []touch, to uint64) ([]touch, error) {
	if r.shape == Each {
		return touched, nil
	}
	low, high := bounds(touched)
	var met []clickhouse.Cond
	for _, w := range r.windows {
		form := "countIf(at >= ? AND at <= ?) >= ?"
		if r.shape == Distinct {
			form = "uniqExactIf(val, val != '' AND at >= ? AND at <= ?) >= ?"
		}
		met = append(met, clickhouse.Raw(form, low.Add(-w.Within), high.Add(w.Within), w.Threshold))
	}
	rows := r.groupsQuery(touched, low.Add(-r.reach()), high.Add(r.reach()), to)
	candidates := map[Group]bool{}
	err := e.touches(ctx, touchQuery(0, rows, clickhouse.Or(met...)), func(_ uint32, t touch) { candidates[t.group] = true })
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(slices.Clone(touched), func(t touch) bool { return !candidates[t.group] }), nil
}

// touches runs a query whose columns are those of touchQuery.
func (e *Engine) touches(ctx context.Context, q clickhouse.Query, take func(rule uint32, t touch)) error {
	rows, err := e.store.Query(ctx, q)
	if err != nil {
		return err //nolint:wrapcheck // The caller names the rule and the blocks.
	}
	for rows.Next() {
		var rule uint32
		var account, key, actor string
		var t touch
		if err := rows.Scan(&rule, &account, &key, &actor, &t.min, &t.max); err != nil {
			return errors.Join(err, rows.Close())
		}
		t.group = groupOf(account, key, actor)
		t.min, t.max = t.min.UTC(), t.max.UTC()
		take(rule, t)
	}
	return errors.Join(rows.Err(), rows.Close())
}

// evaluateGroups reads the whole spans that the touches lie in, and what the windows
// at their beginning reach back to, and evaluates them.
func (e *Engine) evaluateGroups(ctx context.Context, r *Rule, touched []touch, to uint64) ([]domain.Finding, error) {
	touched = slices.Clone(touched)
	spans := make(map[Group]touch, len(touched)) // The first and the last span of each.
	for i, t := range touched {
		t.min, t.max = t.min.Truncate(r.span), t.max.Add(r.reach()).Truncate(r.span)
		spans[t.group], touched[i] = t, t
	}
	low, high := bounds(touched)
	needed := func(it item) bool {
		t, ok := spans[it.group]
		return ok && !it.time.Before(t.min.Add(-r.reach())) && it.time.Before(t.max.Add(r.span))
	}
	keep := func(g Group, span time.Time) bool {
		return !span.Before(spans[g].min) && !span.After(spans[g].max)
	}
	return e.run(ctx, r, r.groupsQuery(touched, low.Add(-r.reach()), high.Add(r.span), to), needed, keep)
}

// run evaluates the rows of union.
func (e *Engine) run(ctx context.Context, r *Rule, union clickhouse.Query, needed func(item) bool, keep func(Group, time.Time) bool) ([]domain.Finding, error) {
	rows, err := e.store.Query(ctx, clickhouse.Select{
		From:    union,
		Columns: []string{"account", "actor_key", "actor", "at", "place", "nth", "id", "act", "failed", "val", "since"},
		OrderBy: append(groupColumns(), "at", "place", "nth"),
	})
	if err != nil {
		return nil, err //nolint:wrapcheck // The caller names the rule and the blocks.
	}
	found, err := r.evaluate(func(yield func(item, error) bool) {
		for rows.Next() {
			it, err := scanItem(rows)
			if err == nil && !needed(it) {
				continue
			}
			if !yield(it, err) || err != nil {
				return
			}
		}
		if err := rows.Err(); err != nil {
			yield(item{}, err)
		}
	}, keep)
	if err := errors.Join(err, rows.Close()); err != nil {
		return nil, err
	}
	return found, nil
}

func scanItem(rows clickhouse.Rows) (item, error) {
	var account, key, actor string
	var failed uint8
	var it item
	if err := rows.Scan(&account, &key, &actor, &it.time, &it.position, &it.index, &it.id, &it.action, &failed, &it.value, &it.since); err != nil {
		return item{}, err //nolint:wrapcheck // The caller names the rule and the blocks.
	}
	it.group, it.time, it.since, it.failed = groupOf(account, key, actor), it.time.UTC(), it.since.UTC(), failed != 0
	return it, nil
}

func groupOf(account, key, actor string) Group {
	return Group{Account: domain.AccountID(account), Key: domain.KeyID(key), Identity: domain.IAMID(actor)}
}

// bounds returns the earliest and the latest time of touched, which is not empty.
func bounds(touched []touch) (low, high time.Time) {
	low, high = touched[0].min, touched[0].max
	for _, t := range touched[1:] {
		if t.min.Before(low) {
			low = t.min
		}
		if t.max.After(high) {
			high = t.max
		}
	}
	return low, high
}
