package projections

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"

	"example.com/keytrail/domain"
	"example.com/keytrail/internal/clickhouse"
)

// Comparison says how two generations differ in what they hold of the log up to
// Position.
type Comparison struct {
	// With names the live generation at the time.
	With     string            `json:"with"`
	Position uint64            `json:"position"`
	Tables   []TableComparison `json:"tables"`
	// Differences counts them all; First are the first [DifferencesMax].
	Differences uint64            `json:"differences"`
	First       []TableDifference `json:"first,omitempty"`
	// CarriedEvents and CarriedRows say what of the new tables was carried over from other
	// tables, since the log no longer had the events: there the comparison proves nothing
	// but that it was carried over whole.
	CarriedEvents uint64 `json:"carried_events,omitempty"`
	CarriedRows   uint64 `json:"carried_rows,omitempty"`
}

// TableComparison is the comparison of one table.
type TableComparison struct {
	Table string `json:"table"`
	// Rows and RowsLive count the rows of the new table and of the live one.
	Rows     uint64 `json:"rows"`
	RowsLive uint64 `json:"rows_live"`
	// Differences counts accounts, keys, findings, violations or hours that differ;
	// Changed those that were left out because they changed after the position.
	Differences uint64 `json:"differences"`
	Changed     uint64 `json:"changed"`
}

// TableDifference is one difference.
type TableDifference struct {
	Table   string           `json:"table"`
	Account domain.AccountID `json:"account"`
	// Row names the row within the account; empty where a whole account is summed.
	Row string `json:"row,omitempty"`
	// What says what differs: the columns, or that one of the two has no such row.
	What string `json:"what"`
}

// compared is how one table is compared: a query that gives, in order and with a
// checksum for each column, rows that must be equal.
type compared struct {
	table   string
	columns []string // What the sums are of.
	query   func(side) clickhouse.Select
}

// side is one of the two generations.
type side struct {
	store *clickhouse.Store
	// position is what both are compared up to, block the generation's last block that
	// ends there or before.
	position, block uint64
}

// comparedRow is what the query of a [compared] gives.
type comparedRow struct {
	account, name string
	place         [3]uint64
	rows          uint64
	newest        uint64 // Beyond the position: the row changed since and is left out.
	sums          []uint64
}

func (r *comparedRow) compare(o *comparedRow) int {
	if c := strings.Compare(r.account, o.account); c != 0 {
		return c
	}
	if c := strings.Compare(r.name, o.name); c != 0 {
		return c
	}
	return slices.Compare(r.place[:], o.place[:])
}

// text names the row within its account.
func (r *comparedRow) text() string {
	if r.place == [3]uint64{} {
		return r.name
	}
	return strings.TrimSpace(fmt.Sprintf("%s %d/%d/%d", r.name, r.place[0], r.place[1], r.place[2]))
}

// sumsOf are the checksums of columns: each value with its row's place, so that values
// cannot change rows unseen.
func sumsOf(place string, columns []string) string {
	sums := make([]string, len(columns))
	for i, c := range columns {
		sums[i] = "sum(cityHash64(" + place + ", " + textOf(c) + "))"
	}
	return "[" + strings.Join(sums, ", ") + "]"
}

// textOf is a column's value as text that is the same for equal values: the labels of a
// use have no order.
func textOf(column string) string {
	if column == "labels" {
		return "toString(mapSort(labels))"
	}
	return "ifNull(toString(" + column + "), 'null')"
}

// hashesOf are the hashes of columns of one row.
func hashesOf(columns []string) string {
	hashes := make([]string, len(columns))
	for i, c := range columns {
		hashes[i] = "cityHash64(" + textOf(c) + ")"
	}
	return "[" + strings.Join(hashes, ", ") + "]"
}

// namesOf returns the names of columns but those left out.
func namesOf(columns []Column, without ...string) []string {
	var out []string
	for _, c := range columns {
		if !slices.Contains(without, c.Name) {
			out = append(out, c.Name)
		}
	}
	return out
}

// settingsOfComparison keep a comparison from taking the memory and the processors that
// readers need.
func settingsOfComparison() map[string]any {
	return map[string]any{
		"max_bytes_before_external_sort": sortMemory, "max_bytes_before_external_group_by": sortMemory, "max_threads": 1,
	}
}

// comparedAll lists how every table is compared. Numbers of blocks are left out: two
// generations cut the log at different places.
func comparedAll() []compared {
	var (
		usage    usageRows
		activity activityRows
		states   keyStateRows
		keys     apiKeyRows
		findings findingRows
	)
	return []compared{
		comparedLog(usage.rows(), "position, idx"), comparedLog(activity.rows(), "position, idx"), comparedLog(states.rows(), "position"),
		comparedNewest(keys.rows()), comparedNewest(findings.rows()), comparedViolations(), comparedHours(),
	}
}

// comparedLog compares a table that grows with the log, account by account.
func comparedLog(rows Rows, place string) compared {
	columns := namesOf(rows.Columns, "block")
	return compared{table: rows.Table, columns: columns, query: func(s side) clickhouse.Select {
		return clickhouse.Select{
			Table: rows.Table, Where: []clickhouse.Cond{clickhouse.Le("position", s.position)}, GroupBy: []string{"account_id"},
			Columns: []string{
				"toString(account_id) AS a", "'' AS n", "toUInt64(0) AS p1", "toUInt64(0) AS p2", "toUInt64(0) AS p3",
				"count() AS c", "toUInt64(0) AS newest", sumsOf(place, columns) + " AS sums",
			},
			OrderBy: []string{"a"},
		}
	}}
}

// comparedNewest compares a table of newest states, row by row.
func comparedNewest(rows Rows) compared {
	columns := namesOf(rows.Columns, "block", "account_id", "id")
	return compared{table: rows.Table, columns: columns, query: func(side) clickhouse.Select {
		return clickhouse.Select{
			Table: rows.Table, Final: true,
			Columns: []string{
				"toString(account_id) AS a", "id AS n", "toUInt64(0) AS p1", "toUInt64(0) AS p2", "toUInt64(0) AS p3",
				"toUInt64(1) AS c", "position AS newest", hashesOf(columns) + " AS sums",
			},
			OrderBy: []string{"a", "n"},
		}
	}}
}

// comparedViolations compares the violations of uses up to the position.
func comparedViolations() compared {
	columns := namesOf(violationRow(), "block", "account_id", "key_id", "time", "position", "idx")
	return compared{table: tableViolations, columns: columns, query: func(s side) clickhouse.Select {
		return clickhouse.Select{
			Table: tableViolations, Final: true,
			Where: []clickhouse.Cond{clickhouse.Raw("retracted = 0"), clickhouse.Le("position", s.position)},
			Columns: []string{
				"toString(account_id) AS a", "key_id AS n", "toUInt64(toUnixTimestamp64Milli(time)) AS p1", "position AS p2", "toUInt64(idx) AS p3",
				"toUInt64(1) AS c", "toUInt64(0) AS newest", hashesOf(columns) + " AS sums",
			},
			OrderBy: []string{"a", "n", "p1", "p2", "p3"},
		}
	}}
}

// comparedHours compares the rollups of hours that readers take from there in both
// generations.
func comparedHours() compared {
	columns := []string{"count", "failures", "bytes", "addresses"}
	sums := make([]string, 0, len(columns))
	for _, c := range columns {
		expr := c
		if c == "addresses" {
			expr = "finalizeAggregation(addresses)"
		}
		sums = append(sums, "cityHash64(key_id, iam_id, action, "+expr+") AS h_"+c)
	}
	return compared{table: tableUsageHourly, columns: columns, query: func(s side) clickhouse.Select {
		marks := clickhouse.Select{
			Table: tableUsageBuckets, Scope: clickhouse.ScopeAll(),
			Columns: []string{
				"account_id", "hour", "dirty", "clean", "toUInt64(0) AS version", "toUInt64(0) AS n",
				"toUInt64(0) AS h_count", "toUInt64(0) AS h_failures", "toUInt64(0) AS h_bytes", "toUInt64(0) AS h_addresses",
			},
		}
		rollups := clickhouse.Select{
			Table: tableUsageHourly, Final: true, Scope: clickhouse.ScopeAll(),
			Columns: append([]string{"account_id", "hour", "toUInt64(0) AS dirty", "toUInt64(0) AS clean", "version", "toUInt64(1) AS n"}, sums...),
		}
		settled := "max(dirty) <= max(clean) AND max(dirty) <= ? AND minIf(version, n = 1) = max(clean) AND max(version) = max(clean)"
		return clickhouse.Select{
			From: clickhouse.UnionAll{marks, rollups}, GroupBy: []string{"account_id", "hour"},
			Columns: []string{
				"toString(account_id) AS a", "'' AS name", "toUInt64(toUnixTimestamp(hour)) AS p1", "toUInt64(0) AS p2", "toUInt64(0) AS p3",
				"sum(n) AS c", "if(" + settled + ", toUInt64(0), toUInt64(?)) AS newest",
				"[sum(h_count), sum(h_failures), sum(h_bytes), sum(h_addresses)] AS sums",
			},
			ColumnArgs: []any{s.block, beyondAny}, OrderBy: []string{"a", "p1"},
		}
	}}
}

// comparedCursor reads the rows of one side.
type comparedCursor struct {
	rows  clickhouse.Rows
	row   comparedRow
	valid bool
	count uint64 // Rows of the table so far.
}

func openCompared(ctx context.Context, c compared, s side) (*comparedCursor, error) {
	q := c.query(s)
	if q.From == nil {
		q.Scope = clickhouse.ScopeAll()
	}
	q.Settings = settingsOfComparison()
	rows, err := s.store.Query(ctx, q)
	if err != nil {
		return nil, fmt.Errorf("compare %s: %w", c.table, err)
	}
	cur := &comparedCursor{rows: rows}
	return cur, cur.next()
}

func (c *comparedCursor) next() error {
	if c.valid = c.rows.Next(); !c.valid {
		return c.rows.Err()
	}
	r := comparedRow{}
	if err := c.rows.Scan(&r.account, &r.name, &r.place[0], &r.place[1], &r.place[2], &r.rows, &r.newest, &r.sums); err != nil {
		return fmt.Errorf("compare: %w", err)
	}
	c.row = r
	c.count += r.rows
	return nil
}

// comparer is the state of one comparison.
type comparer struct {
	newer, live side
	result      Comparison
	// violated are the keys whose violations differ, each with its first difference: it
	// counts unless the key changed after the position.
	violated map[KeyRef]TableDifference
}

// violatedMax bounds the keys that are looked at once more; beyond it each counts.
const violatedMax = 10_000

// compareTables compares the tables of two generations up to position, which both hold.
func compareTables(ctx context.Context, newer, live side, with string) (Comparison, error) {
	c := &comparer{newer: newer, live: live, result: Comparison{With: with, Position: newer.position}, violated: map[KeyRef]TableDifference{}}
	for _, table := range comparedAll() {
		if err := c.table(ctx, table); err != nil {
			return Comparison{}, err
		}
	}
	return c.result, c.judgeViolated(ctx)
}

func (c *comparer) table(ctx context.Context, t compared) (err error) {
	a, err := openCompared(ctx, t, c.newer)
	if a != nil {
		defer func() { err = errors.Join(err, a.rows.Close()) }()
	}
	if err != nil {
		return err
	}
	b, err := openCompared(ctx, t, c.live)
	if b != nil {
		defer func() { err = errors.Join(err, b.rows.Close()) }()
	}
	if err != nil {
		return err
	}
	out := TableComparison{Table: t.table}
	for a.valid || b.valid {
		if err := c.step(t, a, b, &out); err != nil {
			return err
		}
	}
	out.Rows, out.RowsLive = a.count, b.count
	c.result.Tables = append(c.result.Tables, out)
	c.result.Differences += out.Differences
	return nil
}

// step compares the rows that come first on either side and moves behind them.
func (c *comparer) step(t compared, a, b *comparedCursor, out *TableComparison) error {
	var order int
	switch {
	case !b.valid:
		order = -1
	case !a.valid:
		order = 1
	default:
		order = a.row.compare(&b.row)
	}
	var newest uint64
	var what string
	row := &a.row
	switch {
	case order < 0:
		newest, what = a.row.newest, "only in the new tables"
	case order > 0:
		row, newest, what = &b.row, b.row.newest, "only in the live tables"
	default:
		newest, what = max(a.row.newest, b.row.newest), differing(t.columns, &a.row, &b.row)
	}
	switch {
	case newest > c.newer.position:
		out.Changed++
	case what != "":
		c.differ(t.table, row, what, out)
	}
	if order <= 0 {
		if err := a.next(); err != nil {
			return err
		}
	}
	if order >= 0 {
		return b.next()
	}
	return nil
}

// differing says how two rows that should be equal are not; "" if they are.
func differing(columns []string, a, b *comparedRow) string {
	var names []string
	for i, c := range columns {
		if a.sums[i] != b.sums[i] {
			names = append(names, c)
		}
	}
	switch {
	case a.rows != b.rows:
		return fmt.Sprintf("%d rows in the new tables, %d in the live ones", a.rows, b.rows)
	case len(names) > 0:
		return "differs in " + strings.Join(names, ", ")
	}
	return ""
}

func (c *comparer) differ(table string, row *comparedRow, what string, out *TableComparison) {
	d := TableDifference{Table: table, Account: domain.AccountID(row.account), Row: row.text(), What: what}
	if table == tableViolations && len(c.violated) < violatedMax {
		key := KeyRef{Account: d.Account, Key: domain.KeyID(row.name)}
		if _, known := c.violated[key]; !known {
			c.violated[key] = d
		}
		return
	}
	out.Differences++
	c.list(d)
}

func (c *comparer) list(d TableDifference) {
	if len(c.result.First) < DifferencesMax {
		c.result.First = append(c.result.First, d)
	}
}

// judgeViolated counts the keys whose violations differ and whose history did not change
// after the position: one that did is judged anew, in one generation before the other.
func (c *comparer) judgeViolated(ctx context.Context) error {
	at := slices.IndexFunc(c.result.Tables, func(t TableComparison) bool { return t.Table == tableViolations })
	out := &c.result.Tables[at]
	keys := make([]KeyRef, 0, len(c.violated))
	for key := range c.violated {
		keys = append(keys, key)
	}
	slices.SortFunc(keys, KeyRef.compare)
	for chunk := range slices.Chunk(keys, judgedKeysMax) {
		changed := map[KeyRef]bool{}
		for _, s := range []side{c.newer, c.live} {
			if err := changedSince(ctx, s, chunk, changed); err != nil {
				return err
			}
		}
		for _, key := range chunk {
			if changed[key] {
				out.Changed++
				continue
			}
			out.Differences++
			c.result.Differences++
			c.list(c.violated[key])
		}
	}
	return nil
}

// changedSince adds to changed those of keys that got a state after the position.
func changedSince(ctx context.Context, s side, keys []KeyRef, changed map[KeyRef]bool) error {
	in := keysIn(keys)
	rows, err := s.store.Query(ctx, clickhouse.Select{
		Table: tableKeyStates, Scope: clickhouse.ScopeAll(), Columns: []string{"toString(account_id)", "key_id"}, Distinct: true,
		Where: []clickhouse.Cond{clickhouse.Raw(in.text, in.args...), clickhouse.Gt("position", s.position)},
	})
	if err != nil {
		return fmt.Errorf("read changed keys: %w", err)
	}
	for rows.Next() {
		var account, key string
		if err := rows.Scan(&account, &key); err != nil {
			return errors.Join(fmt.Errorf("read changed keys: %w", err), rows.Close())
		}
		changed[KeyRef{Account: domain.AccountID(account), Key: domain.KeyID(key)}] = true
	}
	return errors.Join(rows.Err(), rows.Close())
}

// beyondAny marks an hour that is not settled; see comparedHours.
const beyondAny = uint64(math.MaxUint64)
