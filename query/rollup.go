package query

import (
	"context"
	"fmt"
	"slices"
	"time"

	"example.com/keytrail/internal/clickhouse"
)

const (
	// rollupTries is how often a question is put to the rollup before the base table
	// answers all of it.
	rollupTries = 3
	// baseRangesMax bounds the stretches of hours that are taken from the base table
	// beside the rollup; beyond it the base table answers all.
	baseRangesMax = 512
)

// counting is a question about uses in a range of event time, as of one position. Its
// answer is that of counting the uses themselves; whole hours whose rollup is known
// to be right are taken from there.
//
// Which hours those are is decided before and once more after the reading. The tables
// change meanwhile: an hour that takes in rows is marked dirty before its rollup is
// computed anew, and marked clean after. So if no further hour is dirty afterwards and
// no rollup newer than its mark was met, what was read is what the position holds; if
// not, the question is put again.
type counting struct {
	tables   Generation
	scope    clickhouse.Scope
	from, to time.Time
	// block and position are what the answer is of.
	block, position uint64
	// where holds over both tables: conditions on key_id, iam_id and action.
	where []clickhouse.Cond
	// baseWhere holds over the base table; with any, the rollup is of no use.
	baseWhere []clickhouse.Cond
	// base and rollup are the expressions to group by over either table, the time
	// being in `time` and in `hour`. Without rollup the base table answers all.
	base, rollup []string
	// groups names the columns of base and rollup in the answer.
	groups []string
	// only, if any, keeps the rows whose last group is one of these.
	only    []string
	orderBy []string
	limit   int
}

// tally is one row of an answer beside its groups.
type tally struct{ count, failures, addresses uint64 }

// scanGroup reads one row: dest are the groups' values, the tally comes beside.
type scanGroup func(scan func(dest ...any) (tally, error)) error

// stretch is a range of time, from <= t < to.
type stretch struct{ from, to time.Time }

// count puts q and calls each for every row of the answer. reset is called before
// every try: what each was given before it is void.
func (h *Handler) count(ctx context.Context, q counting, reset func(), each scanGroup) error {
	var dirty []stretch
	for try := 0; q.rollable() && try < rollupTries; try++ {
		found, err := h.dirtyHours(ctx, q)
		if err != nil {
			return err
		}
		dirty = union(dirty, found)
		if len(dirty) > baseRangesMax {
			break
		}
		reset()
		torn, err := h.tally(ctx, q, q.fromBoth(dirty), each)
		if err != nil {
			return err
		}
		after, err := h.dirtyHours(ctx, q)
		if err != nil {
			return err
		}
		if !torn && slices.Equal(union(dirty, after), dirty) {
			return nil
		}
	}
	reset()
	_, err := h.tally(ctx, q, q.fromBase(stretch{q.from, q.to}), each)
	return err
}

func (q counting) rollable() bool {
	return len(q.rollup) > 0 && len(q.baseWhere) == 0 && q.firstHour().Before(q.lastHour())
}

// firstHour and lastHour bound the whole hours in the range.
func (q counting) firstHour() time.Time {
	return q.from.Add(time.Hour - time.Millisecond).Truncate(time.Hour)
}

func (q counting) lastHour() time.Time { return q.to.Truncate(time.Hour) }

// dirtyHours returns the hours in the range whose rollup does not show exactly the
// uses up to q's block, joined to stretches. An hour without a mark has no uses.
func (h *Handler) dirtyHours(ctx context.Context, q counting) ([]stretch, error) {
	rows, err := q.tables.Store.Query(ctx, clickhouse.Select{
		From: clickhouse.Select{
			Table: "usage_buckets", Scope: q.scope, GroupBy: []string{"account_id", "hour"},
			Columns: []string{"hour", "max(dirty) AS newest", "max(clean) AS rolled"},
			Where:   []clickhouse.Cond{between("hour", q.firstHour(), q.lastHour())},
		},
		Columns: []string{"hour"}, Distinct: true, OrderBy: []string{"hour"}, Settings: readSettings(),
		Where: []clickhouse.Cond{clickhouse.Raw("rolled < newest OR rolled > ?", q.block)},
	})
	if err != nil {
		return nil, fmt.Errorf("read dirty hours: %w", err)
	}
	var out []stretch
	err = each(rows, func() error {
		var hour time.Time
		if err := rows.Scan(&hour); err != nil {
			return err //nolint:wrapcheck // Wrapped below.
		}
		hour = hour.UTC()
		out = union(out, []stretch{{hour, hour.Add(time.Hour)}})
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read dirty hours: %w", err)
	}
	return out, nil
}

// union returns the times in a or b, as few stretches in order. a is in order already.
func union(a, b []stretch) []stretch {
	if len(b) == 1 && (len(a) == 0 || a[len(a)-1].to.Before(b[0].from)) {
		return append(a, b[0])
	}
	all := slices.Concat(a, b)
	slices.SortFunc(all, func(x, y stretch) int { return x.from.Compare(y.from) })
	out := all[:0]
	for _, s := range all {
		if n := len(out); n > 0 && !s.from.After(out[n-1].to) {
			if s.to.After(out[n-1].to) {
				out[n-1].to = s.to
			}
			continue
		}
		out = append(out, s)
	}
	return out
}

// fromBoth reads the rollup, and the base table for what the rollup does not hold:
// the dirty hours, and the parts of hours at both ends.
func (q counting) fromBoth(dirty []stretch) clickhouse.Query {
	base := slices.DeleteFunc([]stretch{{q.from, q.firstHour()}, {q.lastHour(), q.to}}, func(s stretch) bool { return !s.from.Before(s.to) })
	base = append(base, dirty...)
	if len(base) == 0 {
		return clickhouse.UnionAll{q.fromRollup(dirty)}
	}
	return clickhouse.UnionAll{q.fromRollup(dirty), q.fromBase(base...)}
}

// fromBase counts the uses themselves.
func (q counting) fromBase(spans ...stretch) clickhouse.Select {
	in := make([]clickhouse.Cond, len(spans))
	for i, s := range spans {
		in[i] = between("time", s.from, s.to)
	}
	where := append([]clickhouse.Cond{clickhouse.Or(in...), clickhouse.Le("position", q.position)}, q.where...)
	return clickhouse.Select{
		Table: tableUsage, Scope: q.scope, Where: append(where, q.baseWhere...), GroupBy: q.groups,
		Columns: q.named(q.base, "count() AS n", "countIf(outcome = 'failure') AS bad", "uniqExactState(toString(source)) AS seen",
			"toUInt64(0) AS newer"),
	}
}

// fromRollup sums what the rollup says of the whole hours that are not dirty. A row
// newer than its hour's mark makes the answer void.
func (q counting) fromRollup(dirty []stretch) clickhouse.Select {
	hours := between("r.hour", q.firstHour(), q.lastHour())
	where := append([]clickhouse.Cond{hours}, q.where...)
	for _, s := range dirty {
		where = append(where, clickhouse.Not(between("r.hour", s.from, s.to)))
	}
	return clickhouse.Select{
		Table: "usage_hourly", Alias: "r", Final: true, Scope: q.scope, Where: where, GroupBy: q.groups,
		Joins: []clickhouse.Join{{
			Kind: clickhouse.InnerJoin, Alias: "b",
			Query: clickhouse.Select{
				Table: "usage_buckets", Scope: q.scope, GroupBy: []string{"account_id", "hour"},
				Columns: []string{"account_id", "hour", "max(clean) AS rolled"},
				Where:   []clickhouse.Cond{between("hour", q.firstHour(), q.lastHour())},
			},
			On: []clickhouse.Cond{clickhouse.Raw("r.account_id = b.account_id"), clickhouse.Raw("r.hour = b.hour")},
		}},
		Columns: q.named(q.rollup, "sumIf(r.count, r.version = b.rolled) AS n", "sumIf(r.failures, r.version = b.rolled) AS bad",
			"uniqExactMergeStateIf(r.addresses, r.version = b.rolled) AS seen", "countIf(r.version > b.rolled) AS newer"),
	}
}

// named gives each expression the name of its group, and adds the rest.
func (q counting) named(exprs []string, rest ...string) []string {
	out := make([]string, 0, len(exprs)+len(rest))
	for i, e := range exprs {
		out = append(out, e+" AS "+q.groups[i])
	}
	return append(out, rest...)
}

// tally sums what from holds by group and reports whether it met a rollup that was
// being replaced.
func (h *Handler) tally(ctx context.Context, q counting, from clickhouse.Query, read scanGroup) (torn bool, err error) {
	var where []clickhouse.Cond
	if len(q.only) > 0 {
		where = append(where, clickhouse.In(q.groups[len(q.groups)-1], q.only))
	}
	rows, err := q.tables.Store.Query(ctx, clickhouse.Select{
		From: from, Where: where, GroupBy: q.groups, OrderBy: q.orderBy, Limit: q.limit, Settings: readSettings(),
		Having: []clickhouse.Cond{clickhouse.Raw("sum(n) > 0 OR sum(newer) > 0")},
		Columns: slices.Concat(q.groups, []string{
			"sum(n) AS total", "sum(bad) AS failed", "uniqExactMerge(seen) AS distinct_addresses", "sum(sum(newer)) OVER () AS torn",
		}),
	})
	if err != nil {
		return false, fmt.Errorf("count uses: %w", err)
	}
	scan := func(dest ...any) (tally, error) {
		var (
			t     tally
			newer uint64
		)
		err := rows.Scan(append(dest, &t.count, &t.failures, &t.addresses, &newer)...)
		torn = torn || newer > 0
		return t, err //nolint:wrapcheck // Wrapped below.
	}
	if err := each(rows, func() error { return read(scan) }); err != nil {
		return false, fmt.Errorf("count uses: %w", err)
	}
	return torn, nil
}
