package clickhouse

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"

	chgo "github.com/ClickHouse/clickhouse-go/v2"
)

// accountColumn is the column of every tenant table that a [Scope] is about.
const accountColumn = "account_id"

// Query is a read: a [Select] or a [UnionAll]. No other package can make one.
type Query interface {
	// toSQL gives the text and its arguments, or what is wrong with the value.
	toSQL() (string, []any, error)
	// collect adds the query's settings and those of the queries in it.
	collect(settings chgo.Settings) error
}

// Scope says whose rows a query may see. The zero Scope is an error where a table
// is named: forgetting it cannot mean "all".
type Scope struct {
	accounts []string
	all      bool
	set      bool
}

// ScopeAccounts sees the rows of the given accounts only; of none, no row.
func ScopeAccounts(ids ...string) Scope {
	return Scope{accounts: slices.Clone(ids), set: true}
}

// ScopeAll sees every row. It is for the system itself (projections, verify,
// tables without accounts), never for a caller's read.
func ScopeAll() Scope { return Scope{all: true, set: true} }

// cond is the scope's condition on a table under its name in the query. The column
// is qualified, since a bare name could mean an expression of the select list.
func (s Scope) cond(table string) (Cond, error) {
	switch {
	case !s.set:
		return Cond{}, fmt.Errorf("%w: table without a scope", ErrQuery)
	case s.all:
		return And(), nil
	}
	column := table + "." + accountColumn
	if len(s.accounts) == 1 {
		return Eq(column, s.accounts[0]), nil
	}
	return In(column, s.accounts), nil
}

// Select is one SELECT over a table of the store's database, or over another
// query. Columns, GroupBy, OrderBy and LimitBy are expressions in this program's
// own constant SQL; values in Columns are `?` with ColumnArgs in order.
type Select struct {
	// Table is read under Scope. A name "system.x" reads the server's own table
	// and needs [ScopeAll].
	Table string
	Scope Scope
	// From is read instead of Table; it carries its own scopes, and Scope must
	// then stay unset.
	From Query
	// Alias names what is read, for joins and columns.
	Alias string
	// Final merges the versions of a replacing table's row before reading.
	Final bool
	// Joins are added in order.
	Joins []Join

	Columns    []string
	ColumnArgs []any
	Distinct   bool
	Where      []Cond
	GroupBy    []string
	Having     []Cond
	OrderBy    []string
	// LimitBy keeps the first LimitByRows rows of each value of these
	// expressions.
	LimitBy     []string
	LimitByRows int
	// Limit bounds the rows; 0 is no bound.
	Limit int
	// Settings go to the server with the query: numbers, strings or booleans.
	Settings map[string]any
}

// JoinKind says which rows a [Join] keeps.
type JoinKind int

// The kinds of join. The Asof kinds take the nearest row by the one inequality
// in On.
const (
	InnerJoin JoinKind = iota + 1
	LeftJoin
	SemiJoin
	AntiJoin
	AsofJoin
	AsofLeftJoin
)

func (k JoinKind) text() (string, error) {
	switch k {
	case InnerJoin:
		return "INNER JOIN", nil
	case LeftJoin:
		return "LEFT JOIN", nil
	case SemiJoin:
		return "LEFT SEMI JOIN", nil
	case AntiJoin:
		return "LEFT ANTI JOIN", nil
	case AsofJoin:
		return "ASOF JOIN", nil
	case AsofLeftJoin:
		return "ASOF LEFT JOIN", nil
	}
	return "", fmt.Errorf("%w: join kind %d", ErrQuery, k)
}

// Join adds the rows of another query, which carries its own scope.
type Join struct {
	Kind  JoinKind
	Query Query
	Alias string
	On    []Cond
}

// UnionAll is the rows of all queries one after another; their columns must fit
// by place.
type UnionAll []Query

var (
	_ Query = Select{}
	_ Query = UnionAll{}
)

var (
	systemTable  = regexp.MustCompile(`^system\.[a-z_]+$`)
	settingValue = regexp.MustCompile(`^[A-Za-z0-9_.,:/ -]{0,256}$`)
)

// SQL returns q's text, with a `?` for each value, and the values. It is for
// tests and for showing; [Store.Query] runs q itself.
func SQL(q Query) (string, []any, error) { return toSQL(q) }

func toSQL(q Query) (string, []any, error) {
	if q == nil {
		return "", nil, fmt.Errorf("%w: no query", ErrQuery)
	}
	return q.toSQL()
}

func render(q Query) (string, []any, chgo.Settings, error) {
	text, args, err := toSQL(q)
	if err != nil {
		return "", nil, nil, err
	}
	settings := chgo.Settings{}
	if err := q.collect(settings); err != nil {
		return "", nil, nil, err
	}
	return text, args, settings, nil
}

// statement collects a SELECT's text, arguments and faults.
type statement struct {
	text strings.Builder
	args []any
	errs []error
}

func (st *statement) add(parts ...string) {
	for _, p := range parts {
		st.text.WriteString(p)
	}
}

// exprs adds a list of constant expressions under a keyword, if there are any.
func (st *statement) exprs(keyword string, list []string) {
	if len(list) == 0 {
		return
	}
	for _, e := range list {
		if err := checkExpr(e, 0); err != nil {
			st.errs = append(st.errs, err)
		}
	}
	st.add(keyword, strings.Join(list, ", "))
}

// conds adds conditions under a keyword, leaving out one that always holds.
func (st *statement) conds(keyword string, list []Cond) {
	all := make([]Cond, 0, len(list))
	for _, c := range list {
		if c.text != "1" || c.err != nil {
			all = append(all, c)
		}
	}
	if len(all) == 0 {
		return
	}
	c := join(all, " AND ", "1")
	if c.err != nil {
		st.errs = append(st.errs, c.err)
	}
	text := c.text
	if len(all) > 1 {
		text = text[1 : len(text)-1] // The outer brackets say nothing here.
	}
	st.add(keyword, text)
	st.args = append(st.args, c.args...)
}

func (st *statement) nested(q Query) {
	text, args, err := toSQL(q)
	if err != nil {
		st.errs = append(st.errs, err)
	}
	st.add("(", text, ")")
	st.args = append(st.args, args...)
}

func (st *statement) fail(format string, args ...any) {
	st.errs = append(st.errs, fmt.Errorf("%w: "+format, append([]any{ErrQuery}, args...)...))
}

// toSQL implements [Query].
func (s Select) toSQL() (string, []any, error) {
	st := &statement{}
	s.columns(st)
	scope := s.from(st)
	for _, j := range s.Joins {
		j.add(st)
	}
	st.conds(" WHERE ", append(scope, s.Where...))
	st.exprs(" GROUP BY ", s.GroupBy)
	st.conds(" HAVING ", s.Having)
	st.exprs(" ORDER BY ", s.OrderBy)
	s.limits(st)
	if len(st.errs) > 0 {
		return "", nil, errors.Join(st.errs...)
	}
	return st.text.String(), st.args, nil
}

func (s Select) columns(st *statement) {
	if len(s.Columns) == 0 {
		st.fail("select from %q without columns", s.Table)
		return
	}
	text, args, err := bindExpr(strings.Join(s.Columns, ", "), s.ColumnArgs)
	if err != nil {
		st.errs = append(st.errs, err)
	}
	for _, c := range s.Columns {
		if strings.TrimSpace(c) == "" {
			st.fail("empty column")
		}
	}
	st.add("SELECT ")
	if s.Distinct {
		st.add("DISTINCT ")
	}
	st.add(text)
	st.args = append(st.args, args...)
}

// from adds the source and returns the scope's condition on it.
func (s Select) from(st *statement) []Cond {
	st.add(" FROM ")
	var scope []Cond
	switch {
	case s.From != nil:
		if s.Table != "" || s.Scope.set || s.Final {
			st.fail("a select from a query has no table, scope or final of its own")
		}
		st.nested(s.From)
	case systemTable.MatchString(s.Table):
		if !s.Scope.all {
			st.fail("table %s is the system's", s.Table)
		}
		st.add(s.Table)
	case identifier.MatchString(s.Table):
		c, err := s.Scope.cond(cmp.Or(s.Alias, s.Table))
		if err != nil {
			st.errs = append(st.errs, fmt.Errorf("%s: %w", s.Table, err))
		}
		scope = append(scope, c)
		st.add(s.Table)
	default:
		st.fail("table %q", s.Table)
	}
	st.alias(s.Alias)
	if s.Final {
		st.add(" FINAL")
	}
	return scope
}

func (st *statement) alias(alias string) {
	if alias == "" {
		return
	}
	if !identifier.MatchString(alias) {
		st.fail("alias %q", alias)
	}
	st.add(" AS ", alias)
}

func (j Join) add(st *statement) {
	kind, err := j.Kind.text()
	if err != nil {
		st.errs = append(st.errs, err)
	}
	if len(j.On) == 0 {
		st.fail("join without a condition")
	}
	st.add(" ", kind, " ")
	st.nested(j.Query)
	st.alias(j.Alias)
	st.conds(" ON ", j.On)
}

func (s Select) limits(st *statement) {
	if s.Limit < 0 || s.LimitByRows < 0 || (s.LimitByRows > 0) != (len(s.LimitBy) > 0) {
		st.fail("limits %d, %d by %d expressions", s.Limit, s.LimitByRows, len(s.LimitBy))
	}
	if len(s.LimitBy) > 0 {
		st.exprs(" LIMIT "+strconv.Itoa(s.LimitByRows)+" BY ", s.LimitBy)
	}
	if s.Limit > 0 {
		st.add(" LIMIT ", strconv.Itoa(s.Limit))
	}
}

// collect implements [Query].
func (s Select) collect(settings chgo.Settings) error {
	for name, v := range maps.All(s.Settings) {
		if !identifier.MatchString(name) {
			return fmt.Errorf("%w: setting %q", ErrQuery, name)
		}
		if text := fmt.Sprint(v); !settingValue.MatchString(text) {
			return fmt.Errorf("%w: setting %s has the value %q", ErrQuery, name, text)
		}
		if old, ok := settings[name]; ok && old != v {
			return fmt.Errorf("%w: setting %s is given twice", ErrQuery, name)
		}
		settings[name] = v
	}
	if s.From != nil {
		if err := s.From.collect(settings); err != nil {
			return err
		}
	}
	for _, j := range s.Joins {
		if err := j.Query.collect(settings); err != nil {
			return err
		}
	}
	return nil
}

// toSQL implements [Query].
func (u UnionAll) toSQL() (string, []any, error) {
	st := &statement{}
	if len(u) == 0 {
		st.fail("union of nothing")
	}
	for i, q := range u {
		if i > 0 {
			st.add(" UNION ALL ")
		}
		st.nested(q)
	}
	if len(st.errs) > 0 {
		return "", nil, errors.Join(st.errs...)
	}
	return st.text.String(), st.args, nil
}

// collect implements [Query].
func (u UnionAll) collect(settings chgo.Settings) error {
	for _, q := range u {
		if err := q.collect(settings); err != nil {
			return err
		}
	}
	return nil
}
