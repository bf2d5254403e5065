package projections

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"strings"

	"example.com/keytrail/internal/clickhouse"
)

// sortMemory is what a sort of a whole table takes before it goes to disk, in bytes.
const sortMemory = 256 << 20

// cursor reads the rows of a query one by one, with one row looked at ahead.
type cursor struct {
	table string
	names []string
	at    map[string]int
	rows  clickhouse.Rows
	row   []any // Pointers to the values of the current row.
	valid bool
}

// expressionOf is how a column is read, so that it scans into the type its values
// have in [Rows]: times as numbers.
func expressionOf(c Column) string {
	switch c.Values.(type) {
	case []int64, []*int64:
		if c.Name == "hour" {
			return "toInt64(toUnixTimestamp(hour))"
		}
		return "toUnixTimestamp64Milli(" + c.Name + ")"
	}
	return c.Name
}

// pointerFor returns a pointer to what one value of column values scans into.
func pointerFor(values any) any {
	switch values.(type) {
	case []any, []string:
		return new(string)
	case []int64:
		return new(int64)
	case []*int64:
		return new(*int64)
	case []uint8:
		return new(uint8)
	case []uint16:
		return new(uint16)
	case []uint32:
		return new(uint32)
	case []uint64:
		return new(uint64)
	case []bool:
		return new(bool)
	case []netip.Addr:
		return new(netip.Addr)
	case []map[string]string:
		return new(map[string]string)
	}
	panic(fmt.Sprintf("projections: column of %T", values))
}

// openCursor runs q with the columns of like, and moves to the first row.
func openCursor(ctx context.Context, store *clickhouse.Store, q clickhouse.Select, like []Column) (*cursor, error) {
	c := &cursor{table: q.Table, at: map[string]int{}}
	q.Scope = clickhouse.ScopeAll()
	for i, col := range like {
		c.names = append(c.names, col.Name)
		c.at[col.Name] = i
		c.row = append(c.row, pointerFor(col.Values))
		if len(q.Columns) == i {
			q.Columns = append(q.Columns, expressionOf(col))
		}
	}
	q.Settings = map[string]any{"max_bytes_before_external_sort": sortMemory, "max_bytes_before_external_group_by": sortMemory}
	rows, err := store.Query(ctx, q)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", q.Table, err)
	}
	c.rows = rows
	return c, c.next()
}

func (c *cursor) next() error {
	if c.valid = c.rows.Next(); !c.valid {
		if err := c.rows.Err(); err != nil {
			return fmt.Errorf("read %s: %w", c.table, err)
		}
		return nil
	}
	for i, p := range c.row {
		if _, ok := p.(*map[string]string); ok {
			c.row[i] = new(map[string]string) // A scan adds to what is there.
		}
	}
	if err := c.rows.Scan(c.row...); err != nil {
		return fmt.Errorf("read %s: %w", c.table, err)
	}
	return nil
}

func (c *cursor) close() error {
	if c == nil || c.rows == nil {
		return nil
	}
	return c.rows.Close()
}

func closeAll(cursors ...*cursor) error {
	errs := make([]error, len(cursors))
	for i, c := range cursors {
		errs[i] = c.close()
	}
	return errors.Join(errs...)
}

// value returns the current row's value of a column.
func value[T any](c *cursor, name string) T {
	p, ok := c.row[c.at[name]].(*T)
	if !ok {
		panic(fmt.Sprintf("projections: column %s of %s is %T", name, c.table, c.row[c.at[name]]))
	}
	return *p
}

// differs names the columns in which the current row is not row i of rows, with both
// values; "" if it is.
func (c *cursor) differs(rows Rows, i int) string {
	var out []string
	for n, col := range rows.Columns {
		if !sameCell(col.Values, i, c.row[n]) {
			out = append(out, fmt.Sprintf("%s is %s, the log gives %s", col.Name, shown(c.row[n]), shownCell(col.Values, i)))
		}
	}
	return strings.Join(out, "; ")
}

// sameCell reports whether value i of a column is what was scanned.
func sameCell(values any, i int, scanned any) bool {
	switch p := scanned.(type) {
	case *string:
		switch v := values.(type) {
		case []any:
			return v[i] == any(*p)
		case []string:
			return v[i] == *p
		}
	case *int64:
		v, ok := values.([]int64)
		return ok && v[i] == *p
	case **int64:
		v, ok := values.([]*int64)
		return ok && (v[i] == nil) == (*p == nil) && (*p == nil || *v[i] == **p)
	case *uint8:
		v, ok := values.([]uint8)
		return ok && v[i] == *p
	case *uint16:
		v, ok := values.([]uint16)
		return ok && v[i] == *p
	case *uint32:
		v, ok := values.([]uint32)
		return ok && v[i] == *p
	case *uint64:
		v, ok := values.([]uint64)
		return ok && v[i] == *p
	case *bool:
		v, ok := values.([]bool)
		return ok && v[i] == *p
	case *netip.Addr:
		v, ok := values.([]netip.Addr)
		return ok && v[i].Unmap() == p.Unmap()
	case *map[string]string:
		v, ok := values.([]map[string]string)
		return ok && maps.Equal(v[i], *p)
	}
	return false
}

// shownBytesMax bounds a value in a report.
const shownBytesMax = 80

func shownCell(values any, i int) string {
	v := columnValue(values, i)
	if p, ok := v.(*int64); ok {
		return shown(&p)
	}
	return clipped(fmt.Sprintf("%#v", v))
}

func shown(scanned any) string {
	switch p := scanned.(type) {
	case *string:
		return clipped(fmt.Sprintf("%q", *p))
	case **int64:
		if *p == nil {
			return "null"
		}
		return fmt.Sprint(**p)
	case *int64:
		return fmt.Sprint(*p)
	case *uint8:
		return fmt.Sprint(*p)
	case *uint16:
		return fmt.Sprint(*p)
	case *uint32:
		return fmt.Sprint(*p)
	case *uint64:
		return fmt.Sprint(*p)
	case *bool:
		return fmt.Sprint(*p)
	case *netip.Addr:
		return p.String()
	case *map[string]string:
		return clipped(fmt.Sprint(*p))
	}
	return "?"
}

func clipped(s string) string {
	if len(s) > shownBytesMax {
		return s[:shownBytesMax] + "…"
	}
	return s
}
