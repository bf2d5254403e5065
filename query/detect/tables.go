package detect

import (
	"maps"
	"slices"
	"time"

	"example.com/keytrail/internal/clickhouse"
)

// table is how a source's rows are read.
type table struct {
	name            string
	key, actor      string
	time, id        string
	action, outcome string
	since           string
	final           bool
}

const noTime = "toDateTime64(0, 3, 'UTC')"

// useID is the id of a use's record, as search shows it.
const useID = "if(use_id = '', concat(toString(position), '-', toString(idx)), use_id)"

func tableOf(s Source) table {
	switch s {
	case Usage:
		return table{
			name: "usage", key: "key_id", actor: "iam_id", time: "time", id: useID,
			action: useAction, outcome: useOutcome, since: noTime,
		}
	case Violations:
		return table{
			name: "use_violations", key: "key_id", actor: "iam_id", time: "time", id: useID,
			action: "action", outcome: "outcome", since: "state_since", final: true,
		}
	case Activity:
		return table{
			name: "activity", key: "credential_id", actor: "initiator_id", time: "event_time", id: "event_id",
			action: "action", outcome: "outcome", since: noTime,
		}
	}
	return table{} // Ruled out by compileFilter.
}

// groupColumns are the columns of a group in the rows of a rowsQuery.
func groupColumns() []string { return []string{"account", "actor_key", "actor"} }

// newest makes q read the newest judgement of each violation only.
func (t table) newest(q clickhouse.Select) clickhouse.Select {
	if !t.final {
		return q
	}
	q.Final = true
	// An index on columns outside the sorting key would hide a row's newer version.
	q.Settings = map[string]any{"use_skip_indexes_if_final": 0}
	q.Where = append(q.Where, clickhouse.Eq("retracted", 0))
	return q
}

// rowsQuery returns the matching rows of all sources of r, within what limit says for
// each. Its columns are those that run reads.
func (r *Rule) rowsQuery(limit func(table) clickhouse.Select) clickhouse.Query {
	union := make(clickhouse.UnionAll, 0, len(r.sources))
	for _, source := range slices.Sorted(maps.Keys(r.sources)) {
		t := tableOf(source)
		q := limit(t)
		q.Table = t.name
		val, ok := r.distinct[source]
		if !ok {
			val.expr = "''"
		}
		q.Columns = []string{
			"toString(account_id) AS account", "toString(" + t.key + ") AS actor_key", "toString(" + t.actor + ") AS actor",
			t.time + " AS at", "position AS place", "idx AS nth", t.id + " AS id", "toString(" + t.action + ") AS act",
			"toUInt8(" + t.outcome + " = 'failure') AS failed", "toString(" + val.expr + ") AS val", t.since + " AS since",
		}
		q.ColumnArgs = val.args()
		q.Where = append(q.Where, clickhouse.Or(clickhouse.Ne(t.key, ""), clickhouse.Ne(t.actor, "")), r.sources[source].cond())
		union = append(union, q)
	}
	return union
}

// groupsQuery returns the matching rows of the groups in touched, and possibly of
// others, with low <= time <= high, that blocks up to to wrote.
func (r *Rule) groupsQuery(touched []touch, low, high time.Time, to uint64) clickhouse.Query {
	accounts, keys, actors := map[string]bool{}, map[string]bool{}, map[string]bool{}
	for _, t := range touched {
		accounts[string(t.group.Account)], keys[string(t.group.Key)], actors[string(t.group.Identity)] = true, true, true
	}
	return r.rowsQuery(func(t table) clickhouse.Select {
		where := []clickhouse.Cond{
			clickhouse.In(t.key, slices.Sorted(maps.Keys(keys))), clickhouse.In(t.actor, slices.Sorted(maps.Keys(actors))),
			clickhouse.Ge(t.time, low), clickhouse.Le(t.time, high),
		}
		if !t.final { // A violation's newest judgement counts, whatever block wrote it.
			where = append(where, clickhouse.Le("block", to))
		}
		return t.newest(clickhouse.Select{Scope: clickhouse.ScopeAccounts(slices.Sorted(maps.Keys(accounts))...), Where: where})
	})
}
