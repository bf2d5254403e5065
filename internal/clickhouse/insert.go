package clickhouse

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	chgo "github.com/ClickHouse/clickhouse-go/v2"
	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"
)

// RowsMax is the largest number of rows that [Store.Insert] takes at once: up to
// it, the rows are one block, and become one part in each partition they touch.
const RowsMax = 1_000_000

// InsertOptions says how a block is to be kept.
type InsertOptions struct {
	// Token is the insert_deduplication_token: an insert that the table's
	// deduplication window remembers under the same token changes nothing, be
	// its rows the same or not. Empty: none.
	Token string
	// Fsync makes the server flush the block's parts to the disk before it
	// acknowledges. It is a property of the table in ClickHouse; the first
	// insert that asks for it turns it on there.
	Fsync bool
}

// Batch takes the rows of one insert. It is not safe for concurrent use, and
// what is appended is copied.
type Batch interface {
	// Append adds one row, its values in the order of the columns.
	Append(values ...any) error
	// Column gives columnar access: Column(i).Append(slice) adds a slice of
	// values to column i. All columns must get the same number of rows.
	Column(i int) Column
	// Rows is the number of rows so far.
	Rows() int
}

// Column is one column of a [Batch].
type Column = driver.BatchColumn

var _ Batch = driver.Batch(nil)

// tableInfo is what Insert remembers of a table.
type tableInfo struct {
	types  map[string]string
	fsyncs bool
}

// Insert sends what fill appends as one INSERT of one block and returns the
// number of rows that the server acknowledged. With a nil error they are durable
// as far as opt asked. With [ErrUnavailable] the outcome is unknown: repeat it
// with the same token, or count. If fill fails nothing is sent. No rows is no
// insert and no error.
func (s *Store) Insert(ctx context.Context, table string, columns []string, opt InsertOptions, fill func(Batch) error) (int, error) {
	if err := checkInsert(table, columns); err != nil {
		return 0, err
	}
	info, err := s.table(ctx, table, opt.Fsync)
	if err != nil {
		return 0, fmt.Errorf("insert into %s: %w", table, err)
	}
	types := make([]chgo.ColumnNameAndType, len(columns))
	for i, c := range columns {
		typ, ok := info.types[c]
		if !ok {
			return 0, fmt.Errorf("%w: insert into %s: no column %s", ErrSchema, table, c)
		}
		types[i] = chgo.ColumnNameAndType{Name: c, Type: typ}
	}
	rows, err := s.send(ctx, table, columns, types, opt, fill)
	if err != nil {
		s.forgetTables() // The schema may have changed under us.
		return 0, fmt.Errorf("insert into %s: %w", table, err)
	}
	return rows, nil
}

// insertSettings keep the rows one block: no splitting, no squashing with others,
// no queue on the server.
func insertSettings(opt InsertOptions) chgo.Settings {
	settings := chgo.Settings{
		"async_insert":               0,
		"max_insert_block_size":      RowsMax,
		"min_insert_block_size_rows": RowsMax,
		"max_insert_threads":         1,
		"wait_end_of_query":          1,
	}
	if opt.Token != "" {
		settings["insert_deduplication_token"] = opt.Token
		settings["insert_deduplicate"] = 1
	}
	return settings
}

func (s *Store) send(ctx context.Context, table string, columns []string, types []chgo.ColumnNameAndType, opt InsertOptions, fill func(Batch) error) (rows int, err error) {
	select {
	case s.turns <- struct{}{}:
		defer func() { <-s.turns }()
	case <-ctx.Done():
		return 0, classify(ctx, ctx.Err())
	}
	ctx = chgo.Context(ctx, chgo.WithSettings(insertSettings(opt)), chgo.WithColumnNamesAndTypes(types))
	batch, err := s.inserts.PrepareBatch(ctx, "INSERT INTO `"+table+"` (`"+strings.Join(columns, "`, `")+"`)")
	if err != nil {
		return 0, classify(ctx, err)
	}
	defer func() { err = errors.Join(err, batch.Close()) }()
	if err := fill(batch); err != nil {
		return 0, fmt.Errorf("fill: %w", err)
	}
	rows = batch.Rows()
	if err := checkBlock(batch, rows); err != nil || rows == 0 {
		return 0, err
	}
	if err := batch.Send(); err != nil {
		return 0, classify(ctx, err)
	}
	return rows, nil
}

// checkBlock refuses a block whose columns are not equally long, which the wire
// format could not say, and one that the server would cut in two.
func checkBlock(batch driver.Batch, rows int) error {
	if rows > RowsMax {
		return fmt.Errorf("%d rows are more than the %d of one block", rows, RowsMax)
	}
	for _, c := range batch.Columns() {
		if c.Rows() != rows {
			return fmt.Errorf("column %s has %d rows, the first has %d", c.Name(), c.Rows(), rows)
		}
	}
	return nil
}

func checkInsert(table string, columns []string) error {
	if !identifier.MatchString(table) {
		return fmt.Errorf("%w: table %q", ErrQuery, table)
	}
	if len(columns) == 0 {
		return fmt.Errorf("%w: insert into %s without columns", ErrQuery, table)
	}
	seen := slices.Compact(slices.Sorted(slices.Values(columns)))
	if len(seen) != len(columns) {
		return fmt.Errorf("%w: insert into %s names a column twice", ErrQuery, table)
	}
	for _, c := range columns {
		if !identifier.MatchString(c) {
			return fmt.Errorf("%w: column %q", ErrQuery, c)
		}
	}
	return nil
}

// table returns what is known of a table, asking the server the first time and
// turning fsync on if it must be.
func (s *Store) table(ctx context.Context, name string, fsync bool) (*tableInfo, error) {
	s.mu.Lock()
	info := s.tables[name]
	s.mu.Unlock()
	if info != nil && (info.fsyncs || !fsync) {
		return info, nil
	}
	info, err := s.describe(ctx, name)
	if err != nil {
		return nil, err
	}
	if fsync && !info.fsyncs {
		alter := "ALTER TABLE `" + name + "` MODIFY SETTING fsync_after_insert = 1, fsync_part_directory = 1"
		if err := classify(ctx, s.conn.Exec(ctx, alter)); err != nil {
			return nil, fmt.Errorf("turn fsync on: %w", err)
		}
		info.fsyncs = true
	}
	s.mu.Lock()
	s.tables[name] = info
	s.mu.Unlock()
	return info, nil
}

func (s *Store) describe(ctx context.Context, name string) (*tableInfo, error) {
	var engine string
	row := s.conn.QueryRow(ctx, "SELECT engine_full FROM system.tables WHERE database = ? AND name = ?", s.database, name)
	if err := noRows(classify(ctx, row.Scan(&engine))); err != nil {
		if errors.Is(err, ErrNoRows) {
			return nil, fmt.Errorf("%w: no table %s", ErrSchema, name)
		}
		return nil, err
	}
	info := &tableInfo{
		types:  map[string]string{},
		fsyncs: strings.Contains(engine, "fsync_after_insert = 1") && strings.Contains(engine, "fsync_part_directory = 1"),
	}
	rows, err := s.conn.Query(ctx, "SELECT name, type FROM system.columns WHERE database = ? AND table = ? AND default_kind NOT IN ('MATERIALIZED', 'ALIAS')", s.database, name)
	if err != nil {
		return nil, classify(ctx, err)
	}
	for rows.Next() {
		var column, typ string
		if err := rows.Scan(&column, &typ); err != nil {
			return nil, errors.Join(classify(ctx, err), rows.Close())
		}
		info.types[column] = typ
	}
	if err := rows.Close(); err != nil {
		return nil, classify(ctx, err)
	}
	return info, classify(ctx, rows.Err())
}

// forgetTables makes the next insert ask again what its table looks like.
func (s *Store) forgetTables() {
	s.mu.Lock()
	defer s.mu.Unlock()
	maps.DeleteFunc(s.tables, func(string, *tableInfo) bool { return true })
}
