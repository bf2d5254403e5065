package query

import (
	"context"
	"errors"
	"fmt"
	"time"

	"example.com/keytrail/domain"
	"example.com/keytrail/internal/clickhouse"
	"example.com/keytrail/internal/filter"
)

// selection says which activity records are wanted, over both tables, and in which
// order.
type selection struct {
	tables   Generation
	accounts []domain.AccountID
	// pin is the log position of the question: nothing beyond it is seen.
	pin uint64
	// from and to bound the event time, from <= t < to; zero is open.
	from, to time.Time
	filter   filter.Filter
	// now is what relative times in the filter count from.
	now time.Time
	// key keeps the records about one key; empty is any.
	key string
	// after is the last record of the page before; nil is the beginning.
	after      *place
	descending bool
	// limit bounds the records; 0 is no bound.
	limit    int
	settings map[string]any
}

// query returns the selection over one of the two tables.
func (s selection) query(table string) (clickhouse.Select, error) {
	columns, timeColumn, fields := activityColumns(), "event_time", filter.Activity
	if table == tableUsage {
		columns, timeColumn, fields = usageColumns(), "time", filter.Usage
	}
	matches, err := s.filter.Cond(fields(s.now))
	if err != nil {
		return clickhouse.Select{}, filterError(err)
	}
	where := []clickhouse.Cond{clickhouse.Le("position", s.pin), between(timeColumn, s.from, s.to), matches}
	if s.key != "" {
		where = append(where, clickhouse.Eq("key_id", s.key))
	}
	direction := ""
	if s.descending {
		direction = " DESC"
	}
	if s.after != nil {
		where = append(where, beyond(timeColumn, *s.after, s.descending))
	}
	return clickhouse.Select{
		Table: table, Scope: scopeOf(s.accounts), Columns: columns, Where: where,
		OrderBy: []string{timeColumn + direction, "position" + direction, "idx" + direction},
		Limit:   s.limit, Settings: s.settings,
	}, nil
}

// between holds for times from <= t < to; a zero bound is open.
func between(column string, from, to time.Time) clickhouse.Cond {
	var low, high any
	if !from.IsZero() {
		low = from
	}
	if !to.IsZero() {
		high = to
	}
	return clickhouse.Range(column, low, high)
}

// beyond holds for the records that come after p in the order of the list. The bare
// bound on the time is implied; it is what the tables' keys and indexes serve.
func beyond(timeColumn string, p place, descending bool) clickhouse.Cond {
	if descending {
		return clickhouse.And(clickhouse.Le(timeColumn, p.time),
			clickhouse.Raw("("+timeColumn+", position, idx) < (?, ?, ?)", p.time, p.position, p.index))
	}
	return clickhouse.And(clickhouse.Ge(timeColumn, p.time),
		clickhouse.Raw("("+timeColumn+", position, idx) > (?, ?, ?)", p.time, p.position, p.index))
}

func filterError(err error) error {
	return domain.Errorf(domain.Invalid, "%s", err.Error()).WithField("filter").WithMessageCode("invalid_filter")
}

// parseFilter reads a filter and tries it on both tables, so that a wrong one is
// refused before anything is read.
func parseFilter(text string, now time.Time) (filter.Filter, error) {
	f, err := filter.Parse(text)
	if err != nil {
		return f, filterError(err)
	}
	for _, fields := range []filter.FieldMap{filter.Activity(now), filter.Usage(now)} {
		if _, err := f.Cond(fields); err != nil {
			return f, filterError(err)
		}
	}
	return f, nil
}

// source is one table's part of a selection, one record ahead.
type source struct {
	rows clickhouse.Rows
	scan func(clickhouse.Rows) (record, error)
	head record
	done bool
}

func (s *source) advance() error {
	if s.rows.Next() {
		var err error
		s.head, err = s.scan(s.rows)
		return err
	}
	s.done = true
	if err := s.rows.Err(); err != nil {
		return fmt.Errorf("read records: %w", err)
	}
	return nil
}

// merged gives the records of a selection one by one in its order. It holds one
// record of each table, whatever their number. Close it.
type merged struct {
	sources    []*source
	descending bool
}

// open runs a selection.
func (h *Handler) open(ctx context.Context, s selection) (*merged, error) {
	m := &merged{descending: s.descending}
	for _, part := range []struct {
		table string
		scan  func(clickhouse.Rows) (record, error)
	}{{tableActivity, scanActivity}, {tableUsage, scanUse}} {
		q, err := s.query(part.table)
		if err != nil {
			return nil, errors.Join(err, m.Close())
		}
		rows, err := s.tables.Store.Query(ctx, q)
		if err != nil {
			return nil, errors.Join(fmt.Errorf("search %s: %w", part.table, err), m.Close())
		}
		src := &source{rows: rows, scan: part.scan}
		m.sources = append(m.sources, src)
		if err := src.advance(); err != nil {
			return nil, errors.Join(err, m.Close())
		}
	}
	return m, nil
}

// Next returns the next record, and false behind the last one.
func (m *merged) Next() (record, bool, error) {
	var best *source
	for _, s := range m.sources {
		if s.done {
			continue
		}
		if best == nil || (s.head.compare(best.head.place) < 0) != m.descending {
			best = s
		}
	}
	if best == nil {
		return record{}, false, nil
	}
	r := best.head
	return r, true, best.advance()
}

// Close ends the reads.
func (m *merged) Close() error {
	errs := make([]error, 0, len(m.sources))
	for _, s := range m.sources {
		errs = append(errs, s.rows.Close())
	}
	return errors.Join(errs...)
}

// page reads the records of s up to its limit, and whether more follow.
func (h *Handler) page(ctx context.Context, s selection) (records []record, more bool, err error) {
	limit := s.limit
	s.limit++
	m, err := h.open(ctx, s)
	if err != nil {
		return nil, false, err
	}
	defer func() { err = errors.Join(err, m.Close()) }()
	for len(records) < limit {
		r, ok, err := m.Next()
		if err != nil {
			return nil, false, err
		}
		if !ok {
			return records, false, nil
		}
		records = append(records, r)
	}
	_, more, err = m.Next()
	return records, more, err
}
