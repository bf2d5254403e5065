package clickhouse_test

import (
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	chgo "github.com/ClickHouse/clickhouse-go/v2"
	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"example.com/keytrail/internal/clickhouse"
	"example.com/keytrail/internal/clickhouse/clickhousetest"
)

var noon = time.Date(2026, 3, 1, 12, 0, 0, 250_000_000, time.UTC)

// usesTable is what the queries below run on.
const usesTable = `CREATE TABLE uses (
    account_id String, key_id String, at DateTime64(3, 'UTC'), n UInt64, address IPv6,
    tags Array(String), labels Map(String, String), note Nullable(String), version UInt64
) ENGINE = ReplacingMergeTree(version) ORDER BY (account_id, key_id, at)`

type queryCase struct {
	name     string
	query    clickhouse.Query
	wantSQL  string
	wantArgs []any
	// want is the rows on the real engine, their columns joined by spaces.
	want []string
}

func queryCases() []queryCase {
	scopeA := clickhouse.ScopeAccounts("a")
	return []queryCase{
		{
			name:     "one account",
			query:    clickhouse.Select{Table: "uses", Scope: scopeA, Columns: []string{"key_id"}, OrderBy: []string{"key_id"}},
			wantSQL:  "SELECT key_id FROM uses WHERE uses.account_id = ? ORDER BY key_id",
			wantArgs: []any{"a"},
			want:     []string{"k1", "k1", "k2"},
		},
		{
			name:     "several accounts",
			query:    clickhouse.Select{Table: "uses", Scope: clickhouse.ScopeAccounts("a", "b"), Final: true, Columns: []string{"count()"}},
			wantSQL:  "SELECT count() FROM uses FINAL WHERE uses.account_id IN ?",
			wantArgs: []any{chgo.GroupSet{Value: []any{"a", "b"}}},
			want:     []string{"3"},
		},
		{
			name:    "no account sees nothing",
			query:   clickhouse.Select{Table: "uses", Scope: clickhouse.ScopeAccounts(), Columns: []string{"count()"}},
			wantSQL: "SELECT count() FROM uses WHERE 0",
			want:    []string{"0"},
		},
		{
			name:    "the system sees all",
			query:   clickhouse.Select{Table: "uses", Scope: clickhouse.ScopeAll(), Columns: []string{"count()"}},
			wantSQL: "SELECT count() FROM uses",
			want:    []string{"4"},
		},
		{
			name:     "the scope stands before an OR and is not weakened by it",
			query:    clickhouse.Select{Table: "uses", Scope: scopeA, Columns: []string{"count()"}, Where: []clickhouse.Cond{clickhouse.Or(clickhouse.Eq("n", 1), clickhouse.Raw("1 = 1 OR account_id = ?", "b"))}},
			wantSQL:  "SELECT count() FROM uses WHERE uses.account_id = ? AND (n = ? OR (1 = 1 OR account_id = ?))",
			wantArgs: []any{"a", int64(1), "b"},
			want:     []string{"3"},
		},
		{
			name:     "a lone raw OR is bracketed",
			query:    clickhouse.Select{Table: "uses", Scope: scopeA, Columns: []string{"count()"}, Where: []clickhouse.Cond{clickhouse.Raw("n = 1 OR n > 0")}},
			wantSQL:  "SELECT count() FROM uses WHERE uses.account_id = ? AND (n = 1 OR n > 0)",
			wantArgs: []any{"a"},
			want:     []string{"3"},
		},
		{
			name: "times keep their milliseconds, ranges are half open",
			query: clickhouse.Select{Table: "uses", Scope: scopeA, Columns: []string{"count()"}, Where: []clickhouse.Cond{
				clickhouse.Range("at", noon, noon.Add(time.Millisecond)),
			}},
			wantSQL:  "SELECT count() FROM uses WHERE uses.account_id = ? AND (at >= fromUnixTimestamp64Milli(?, 'UTC') AND at < fromUnixTimestamp64Milli(?, 'UTC'))",
			wantArgs: []any{"a", noon.UnixMilli(), noon.Add(time.Millisecond).UnixMilli()},
			want:     []string{"2"},
		},
		{
			name: "addresses of both kinds, and in a list",
			query: clickhouse.Select{Table: "uses", Scope: scopeA, Columns: []string{"count()"}, Where: []clickhouse.Cond{
				clickhouse.Eq("address", netip.MustParseAddr("192.0.2.1")), clickhouse.In("address", []netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1")}),
			}},
			wantSQL:  "SELECT count() FROM uses WHERE uses.account_id = ? AND address = toIPv6(?) AND address IN (toIPv6(?), toIPv6(?))",
			wantArgs: []any{"a", "192.0.2.1", "192.0.2.1", "2001:db8::1"},
			want:     []string{"2"},
		},
		{
			name: "text, arrays, maps, nulls",
			query: clickhouse.Select{Table: "uses", Scope: scopeA, Columns: []string{"count()"}, Where: []clickhouse.Cond{
				clickhouse.Prefix("key_id", "k"), clickhouse.Contains("key_id", "1"), clickhouse.ContainsFold("key_id", "K"),
				clickhouse.Has("tags", "x"), clickhouse.MapEq("labels", "env", "prod"), clickhouse.Not(clickhouse.IsNull("note")),
			}},
			wantSQL:  "SELECT count() FROM uses WHERE uses.account_id = ? AND startsWith(key_id, ?) AND position(key_id, ?) > 0 AND positionCaseInsensitiveUTF8(key_id, ?) > 0 AND has(tags, ?) AND labels[?] = ? AND NOT (isNull(note))",
			wantArgs: []any{"a", "k", "1", "K", "x", "env", "prod"},
			want:     []string{"1"},
		},
		{
			name:     "a value is a value, whatever is in it",
			query:    clickhouse.Select{Table: "uses", Scope: clickhouse.ScopeAccounts("a' OR 1=1 --"), Columns: []string{"count()"}, Where: []clickhouse.Cond{clickhouse.Ne("key_id", `\' ? {x:String} $1 @n`)}},
			wantSQL:  "SELECT count() FROM uses WHERE uses.account_id = ? AND key_id != ?",
			wantArgs: []any{"a' OR 1=1 --", `\' ? {x:String} $1 @n`},
			want:     []string{"0"},
		},
		{
			name: "grouping with arguments in the columns",
			query: clickhouse.Select{
				Table: "uses", Scope: scopeA, Columns: []string{"key_id", "countIf(at >= ?) AS late", "sum(n)"}, ColumnArgs: []any{noon},
				GroupBy: []string{"key_id"}, Having: []clickhouse.Cond{clickhouse.Raw("sum(n) > ?", 1)}, OrderBy: []string{"key_id DESC"}, Limit: 5,
			},
			wantSQL:  "SELECT key_id, countIf(at >= fromUnixTimestamp64Milli(?, 'UTC')) AS late, sum(n) FROM uses WHERE uses.account_id = ? GROUP BY key_id HAVING (sum(n) > ?) ORDER BY key_id DESC LIMIT 5",
			wantArgs: []any{noon.UnixMilli(), "a", int64(1)},
			want:     []string{"k1 2 2", "k2 1 4"},
		},
		{
			name: "a sub-select and a join carry their own scopes",
			query: clickhouse.Select{
				From:    clickhouse.Select{Table: "uses", Scope: scopeA, Final: true, Columns: []string{"key_id", "n"}},
				Alias:   "u",
				Columns: []string{"u.key_id", "u.n", "o.total"},
				Joins: []clickhouse.Join{{
					Kind: clickhouse.InnerJoin, Alias: "o", On: []clickhouse.Cond{clickhouse.Raw("u.key_id = o.key_id")},
					Query: clickhouse.Select{Table: "uses", Scope: clickhouse.ScopeAccounts("b"), Columns: []string{"key_id", "sum(n) AS total"}, GroupBy: []string{"key_id"}},
				}},
				Where: []clickhouse.Cond{clickhouse.InQuery("u.key_id", clickhouse.Select{Table: "uses", Scope: scopeA, Columns: []string{"key_id"}, Where: []clickhouse.Cond{clickhouse.Lt("n", 3)}})},
			},
			wantSQL: "SELECT u.key_id, u.n, o.total FROM (SELECT key_id, n FROM uses FINAL WHERE uses.account_id = ?) AS u" +
				" INNER JOIN (SELECT key_id, sum(n) AS total FROM uses WHERE uses.account_id = ? GROUP BY key_id) AS o ON (u.key_id = o.key_id)" +
				" WHERE u.key_id IN (SELECT key_id FROM uses WHERE uses.account_id = ? AND n < ?)",
			wantArgs: []any{"a", "b", "a", int64(3)},
			want:     []string{"k1 1 8"},
		},
		{
			name: "the newest state before, by ASOF JOIN",
			query: clickhouse.Select{
				Table: "uses", Alias: "u", Scope: scopeA, Columns: []string{"u.key_id", "s.n"}, OrderBy: []string{"u.key_id"}, Distinct: true,
				Joins: []clickhouse.Join{{
					Kind: clickhouse.AsofLeftJoin, Alias: "s", On: []clickhouse.Cond{clickhouse.Raw("u.key_id = s.key_id"), clickhouse.Raw("u.at >= s.at")},
					Query: clickhouse.Select{Table: "uses", Scope: scopeA, Columns: []string{"key_id", "at", "n"}},
				}},
			},
			wantSQL: "SELECT DISTINCT u.key_id, s.n FROM uses AS u ASOF LEFT JOIN (SELECT key_id, at, n FROM uses WHERE uses.account_id = ?) AS s" +
				" ON (u.key_id = s.key_id) AND (u.at >= s.at) WHERE u.account_id = ? ORDER BY u.key_id",
			wantArgs: []any{"a", "a"},
			want:     []string{"k1 1", "k2 4"},
		},
		{
			name: "union, each part in its scope",
			query: clickhouse.Select{
				From: clickhouse.UnionAll{
					clickhouse.Select{Table: "uses", Scope: scopeA, Columns: []string{"key_id"}, LimitBy: []string{"key_id"}, LimitByRows: 1},
					clickhouse.Select{Table: "uses", Scope: clickhouse.ScopeAccounts("b"), Columns: []string{"key_id"}},
				},
				Columns: []string{"key_id", "count() AS c"}, GroupBy: []string{"key_id"}, OrderBy: []string{"key_id"},
			},
			wantSQL: "SELECT key_id, count() AS c FROM ((SELECT key_id FROM uses WHERE uses.account_id = ? LIMIT 1 BY key_id)" +
				" UNION ALL (SELECT key_id FROM uses WHERE uses.account_id = ?)) GROUP BY key_id ORDER BY key_id",
			wantArgs: []any{"a", "b"},
			want:     []string{"k1 2", "k2 1"},
		},
		{
			name:     "a column's new name does not stand in for the scope's column",
			query:    clickhouse.Select{Table: "uses", Scope: clickhouse.ScopeAccounts("b"), Columns: []string{"'b' AS account_id", "count()"}},
			wantSQL:  "SELECT 'b' AS account_id, count() FROM uses WHERE uses.account_id = ?",
			wantArgs: []any{"b"},
			want:     []string{"b 1"},
		},
		{
			name:    "the server's own tables",
			query:   clickhouse.Select{Table: "system.one", Scope: clickhouse.ScopeAll(), Columns: []string{"dummy + 1"}},
			wantSQL: "SELECT dummy + 1 FROM system.one",
			want:    []string{"1"},
		},
	}
}

func TestQueriesSayWhatTheyMean(t *testing.T) {
	for _, tt := range queryCases() {
		t.Run(tt.name, func(t *testing.T) {
			sql, args, err := clickhouse.SQL(tt.query)
			if err != nil {
				t.Fatal(err)
			}
			if sql != tt.wantSQL {
				t.Errorf("text\n got %s\nwant %s", sql, tt.wantSQL)
			}
			if diff := cmp.Diff(tt.wantArgs, args); diff != "" {
				t.Errorf("arguments, want -, got +:\n%s", diff)
			}
		})
	}
}

func TestQueriesGiveTheirRowsOnTheEngine(t *testing.T) {
	s := clickhousetest.Store(t)
	exec(t, s, usesTable)
	columns := []string{"account_id", "key_id", "at", "n", "address", "tags", "labels", "note", "version"}
	for i, r := range []struct {
		account, key string
		n            uint64
		address      string
		tags         []string
		labels       map[string]string
		note         *string
	}{
		{"a", "k1", 1, "192.0.2.1", []string{"x", "y"}, map[string]string{"env": "prod"}, new("hello")},
		{"a", "k1", 1, "192.0.2.1", nil, nil, nil},
		{"a", "k2", 4, "2001:db8::2", []string{"x"}, nil, nil},
		{"b", "k1", 8, "192.0.2.9", nil, nil, nil},
	} {
		// One insert a row: the first two are versions of one and meet in FINAL only.
		if _, err := s.Insert(t.Context(), "uses", columns, clickhouse.InsertOptions{}, func(b clickhouse.Batch) error {
			at := noon
			if r.n == 4 {
				at = noon.Add(time.Hour)
			}
			return b.Append(r.account, r.key, at, r.n, netip.MustParseAddr(r.address), r.tags, r.labels, r.note, uint64(i))
		}); err != nil {
			t.Fatal(err)
		}
	}
	for _, tt := range queryCases() {
		t.Run(tt.name, func(t *testing.T) {
			if diff := cmp.Diff(tt.want, texts(t, s, tt.query)); diff != "" {
				t.Errorf("rows, want -, got +:\n%s", diff)
			}
		})
	}
}

// texts runs a query and gives its rows as tuples, sorted.
func texts(t *testing.T, s *clickhouse.Store, q clickhouse.Query) []string {
	t.Helper()
	rows, err := s.Query(t.Context(), clickhouse.Select{From: q, Columns: []string{"toString(tuple(*))"}})
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for rows.Next() {
		var text string
		if err := rows.Scan(&text); err != nil {
			t.Fatal(err)
		}
		out = append(out, strings.Trim(strings.NewReplacer(",", " ", "'", "").Replace(text), "()"))
	}
	if err := errors.Join(rows.Err(), rows.Close()); err != nil {
		t.Fatal(err)
	}
	slices.Sort(out)
	return out
}

func exec(tb testing.TB, s *clickhouse.Store, sql string, args ...any) {
	tb.Helper()
	if err := s.Exec(tb.Context(), sql, args...); err != nil {
		tb.Fatalf("%s: %v", sql, err)
	}
}

func TestMalformedQueriesAreRefused(t *testing.T) {
	all := clickhouse.ScopeAll()
	where := func(c clickhouse.Cond) clickhouse.Query {
		return clickhouse.Select{Table: "t", Scope: all, Columns: []string{"a"}, Where: []clickhouse.Cond{c}}
	}
	columns := func(c ...string) clickhouse.Query {
		return clickhouse.Select{Table: "t", Scope: all, Columns: c}
	}
	inner := clickhouse.Select{Table: "t", Columns: []string{"a"}}
	tests := []struct {
		name  string
		query clickhouse.Query
	}{
		{"no query", nil},
		{"no scope", clickhouse.Select{Table: "t", Columns: []string{"a"}}},
		{"no scope in a sub-select", clickhouse.Select{From: inner, Columns: []string{"a"}}},
		{"no scope in a union", clickhouse.UnionAll{clickhouse.Select{Table: "t", Scope: all, Columns: []string{"a"}}, inner}},
		{"no scope in a condition", where(clickhouse.InQuery("a", inner))},
		{"no scope in a join", clickhouse.Select{Table: "t", Scope: all, Columns: []string{"a"}, Joins: []clickhouse.Join{{Kind: clickhouse.LeftJoin, Query: inner, On: []clickhouse.Cond{clickhouse.Raw("1")}}}}},
		{"a scope that a sub-select would not obey", clickhouse.Select{From: inner, Scope: all, Columns: []string{"a"}}},
		{"the system's tables under an account", clickhouse.Select{Table: "system.parts", Scope: clickhouse.ScopeAccounts("a"), Columns: []string{"name"}}},
		{"another database", clickhouse.Select{Table: "other.t", Scope: all, Columns: []string{"a"}}},
		{"a table with SQL in its name", clickhouse.Select{Table: "t, u", Scope: all, Columns: []string{"a"}}},
		{"a table function", clickhouse.Select{Table: "file('/etc/passwd')", Scope: all, Columns: []string{"a"}}},
		{"an alias with SQL", clickhouse.Select{Table: "t", Alias: "x JOIN y", Scope: all, Columns: []string{"a"}}},
		{"no columns", clickhouse.Select{Table: "t", Scope: all}},
		{"an empty column", columns("a", " ")},
		{"a sub-select in a column", columns("(SELECT 1)")},
		{"FROM in a column", columns("a FROM u")},
		{"a table behind IN", columns("a IN u")},
		{"a table behind IN in a function", columns("inIgnoreSet(a, u)")},
		{"a file", columns("file('x')")},
		{"a dictionary", columns("dictGet('d', 'v', a)")},
		{"a joined table's value", columns("joinGet('j', 'v', a)")},
		{"a comment", columns("a --")},
		{"a block comment", columns("a /* b")},
		{"a hash comment", columns("a # b")},
		{"a semicolon", columns("a; DROP TABLE t")},
		{"a bracket too many", columns("a)")},
		{"a bracket too few", columns("f(a")},
		{"brackets crossed", columns("f([a)]")},
		{"a quoted name", columns("`a`")},
		{"a doubly quoted name", columns(`"a"`)},
		{"an escape in a literal", columns(`'a\''`)},
		{"a doubled quote in a literal", columns(`'a''b'`)},
		{"an open literal", columns(`'a`)},
		{"a parameter", columns("{a:String}")},
		{"a placeholder without a value", columns("a = ?")},
		{"a value without a placeholder", where(clickhouse.Raw("a", 1))},
		{"settings in a group", clickhouse.Select{Table: "t", Scope: all, Columns: []string{"a"}, GroupBy: []string{"a SETTINGS x = 1"}}},
		{"format in an order", clickhouse.Select{Table: "t", Scope: all, Columns: []string{"a"}, OrderBy: []string{"a FORMAT CSV"}}},
		{"a bad setting", clickhouse.Select{Table: "t", Scope: all, Columns: []string{"a"}, Settings: map[string]any{"a b": 1}}},
		{"a bad value of a setting", clickhouse.Select{Table: "t", Scope: all, Columns: []string{"a"}, Settings: map[string]any{"a": "x' y"}}},
		{"a column with SQL", where(clickhouse.Eq("a = 1 OR b", 1))},
		{"a column of a column of a column", where(clickhouse.Eq("a.b.c", 1))},
		{"an empty condition", where(clickhouse.Cond{})},
		{"an empty condition negated", where(clickhouse.Not(clickhouse.Cond{}))},
		{"an empty condition among others", where(clickhouse.And(clickhouse.Eq("a", 1), clickhouse.Cond{}))},
		{"a value of no known type", where(clickhouse.Eq("a", struct{}{}))},
		{"nil as a value", where(clickhouse.Eq("a", nil))},
		{"an invalid address", where(clickhouse.Eq("a", netip.Addr{}))},
		{"times in an array", where(clickhouse.Has("a", []time.Time{noon}))},
		{"a negative limit", clickhouse.Select{Table: "t", Scope: all, Columns: []string{"a"}, Limit: -1}},
		{"a union of nothing", clickhouse.UnionAll{}},
		{"a join of no kind", clickhouse.Select{Table: "t", Scope: all, Columns: []string{"a"}, Joins: []clickhouse.Join{{Query: clickhouse.Select{Table: "u", Scope: all, Columns: []string{"a"}}, On: []clickhouse.Cond{clickhouse.Raw("1")}}}}},
		{"a join on nothing", clickhouse.Select{Table: "t", Scope: all, Columns: []string{"a"}, Joins: []clickhouse.Join{{Kind: clickhouse.InnerJoin, Query: clickhouse.Select{Table: "u", Scope: all, Columns: []string{"a"}}}}}},
	}
	s := clickhousetest.Store(t)
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := s.Query(t.Context(), tt.query); !errors.Is(err, clickhouse.ErrQuery) {
				t.Errorf("got %v, want ErrQuery", err)
			}
		})
	}
}

func TestOrdinaryExpressionsPass(t *testing.T) {
	for _, e := range []string{
		"count()", "u.a AS b", "toStartOfHour(at) AS hour", "quantileTDigest(0.95)(n)", "a[1]", "tuple(a, b).1",
		"multiIf(a = 'x', 1, a = 'y', 2, 3)", "arrayMap(x -> x + 1, list)", "n BETWEEN 1 AND 2", "a IN ('x', 'y')", "a IN (1)",
		"row_number() OVER (PARTITION BY a ORDER BY at DESC)", "windowFunnel(3600)(at, a = 1, a = 2)", "CAST(a AS Nullable(UInt64))",
		"CASE WHEN a = 1 THEN 'x' ELSE 'y' END", "a::UInt64", "-1.5e3", "*", "in_use", "information", "format_version",
	} {
		t.Run(e, func(t *testing.T) {
			if _, _, err := clickhouse.SQL(clickhouse.Select{Table: "t", Scope: clickhouse.ScopeAll(), Columns: []string{e}}); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestValuesOfAllKindsBind(t *testing.T) {
	s := clickhousetest.Store(t)
	type named string
	id := uuid.MustParse("8c1e7e36-7f1c-4bd4-9a4e-1a2b3c4d5e6f")
	tests := []struct {
		name string
		expr string
		args []any
	}{
		{"strings", "? = unhex('002741') AND ? = concat('x', char(92), 'y')", []any{"\x00'A", `x\y`}},
		{"named strings and bytes", "? = ?", []any{named("a"), []byte("a")}},
		{"integers", "? = -1 AND ? = 18446744073709551615", []any{int8(-1), ^uint64(0)}},
		{"floats", "? = 1.5", []any{1.5}},
		{"booleans", "? AND NOT ?", []any{true, false}},
		{"uuid", "toUUID(?) = toUUID('8c1e7e36-7f1c-4bd4-9a4e-1a2b3c4d5e6f')", []any{id}},
		{"times of other zones", "? = toDateTime64('2026-03-01 12:00:00.250', 3, 'UTC')", []any{noon.In(time.FixedZone("x", 3600))}},
		{"times before 1970", "? = toDateTime64('1969-12-31 23:59:59.999', 3, 'UTC')", []any{time.UnixMilli(-1)}},
		{"arrays", "? = ['a', 'b'] AND has(?, 3)", []any{[]string{"a", "b"}, []uint64{1, 3}}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var ok bool
			q := clickhouse.Select{Table: "system.one", Scope: clickhouse.ScopeAll(), Columns: []string{"toBool(" + tt.expr + ")"}, ColumnArgs: tt.args}
			if err := s.Row(t.Context(), q, &ok); err != nil || !ok {
				t.Errorf("%v, %v", ok, err)
			}
		})
	}
}

// FuzzValuesNeverChangeTheStatement holds that a value only ever adds one literal.
func FuzzValuesNeverChangeTheStatement(f *testing.F) {
	for _, seed := range []string{"", "'", `\`, "?", "' OR 1=1 --", "{a:String}", "$1", "@a", "\x00", "`", "/*", "é\xff"} {
		f.Add(seed, seed)
	}
	f.Fuzz(func(t *testing.T, account, value string) {
		build := func(account, value string) (string, []any) {
			sql, args, err := clickhouse.SQL(clickhouse.Select{
				Table: "t", Scope: clickhouse.ScopeAccounts(account), Columns: []string{"if(a = ?, 1, 2)"}, ColumnArgs: []any{value},
				Where: []clickhouse.Cond{
					clickhouse.Eq("a", value), clickhouse.In("b", []string{value, account}), clickhouse.Prefix("c", value), clickhouse.Contains("d", value),
					clickhouse.MapEq("m", value, account), clickhouse.Raw("e = ? OR f = ?", value, account), clickhouse.Has("g", value),
				},
			})
			if err != nil {
				t.Fatal(err)
			}
			return sql, args
		}
		plain, _ := build("x", "y")
		sql, args := build(account, value)
		if sql != plain {
			t.Fatalf("the statement depends on its values:\n%s\n%s", sql, plain)
		}
		if args[0] != value || args[1] != account {
			t.Fatalf("the values were changed: %q", args)
		}
	})
}
