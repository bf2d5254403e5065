package projections

import (
	"fmt"
	"net/netip"
	"strings"
)

// Column is one column of [Rows]: its name and its values, a slice of one of the
// types that [columnLen] lists.
type Column struct {
	Name   string
	Values any
}

// Rows are rows of one table, column by column. They are valid until their block is
// handed back to the runner.
type Rows struct {
	Table   string
	Columns []Column
}

// Len returns the number of rows.
func (r Rows) Len() int {
	if len(r.Columns) == 0 {
		return 0
	}
	return columnLen(r.Columns[0].Values)
}

// Row returns the values of row i in the order of the columns: strings, int64
// (times, as the column's unit since 1970), unsigned integers, bool, netip.Addr,
// map[string]string, and *int64 for a time that may be missing.
func (r Rows) Row(i int) []any {
	row := make([]any, len(r.Columns))
	for c, col := range r.Columns {
		row[c] = columnValue(col.Values, i)
	}
	return row
}

func columnLen(values any) int {
	switch v := values.(type) {
	case []any:
		return len(v)
	case []string:
		return len(v)
	case []int64:
		return len(v)
	case []*int64:
		return len(v)
	case []uint8:
		return len(v)
	case []uint16:
		return len(v)
	case []uint32:
		return len(v)
	case []uint64:
		return len(v)
	case []bool:
		return len(v)
	case []netip.Addr:
		return len(v)
	case []map[string]string:
		return len(v)
	}
	panic(fmt.Sprintf("projections: column of %T", values))
}

func columnValue(values any, i int) any {
	switch v := values.(type) {
	case []any:
		return v[i]
	case []string:
		return v[i]
	case []int64:
		return v[i]
	case []*int64:
		return v[i]
	case []uint8:
		return v[i]
	case []uint16:
		return v[i]
	case []uint32:
		return v[i]
	case []uint64:
		return v[i]
	case []bool:
		return v[i]
	case []netip.Addr:
		return v[i]
	case []map[string]string:
		return v[i]
	}
	panic(fmt.Sprintf("projections: column of %T", values))
}

// dictMax bounds the distinct texts that a [dict] keeps boxed.
const dictMax = 1 << 14

// dict is a column of texts that repeat. The driver takes LowCardinality values
// boxed; a box is one allocation, so each distinct text is boxed once and the
// boxes are kept from block to block.
type dict struct {
	values []any
	boxes  map[string]any
	last   string
	box    any
}

func (d *dict) add(s string) {
	if d.box == nil || s != d.last {
		d.last, d.box = s, d.boxed(s)
	}
	d.values = append(d.values, d.box)
}

func (d *dict) boxed(s string) any {
	if b, ok := d.boxes[s]; ok {
		return b
	}
	if d.boxes == nil || len(d.boxes) >= dictMax {
		d.boxes = make(map[string]any)
	}
	s = strings.Clone(s) // It may share memory with a whole batch.
	var b any = s
	d.boxes[s] = b
	return b
}

func (d *dict) reset() { d.values = d.values[:0] }

// truncated empties a column and drops what its values point to, so that a reused
// block holds no memory of the last one.
func truncated[T any](v []T) []T {
	clear(v)
	return v[:0]
}
