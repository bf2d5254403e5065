package projections

import (
	"context"
	"fmt"

	"example.com/keytrail/internal/clickhouse"
)

// Sink is the analytics store as the runner sees it. Every method may fail with an
// unknown outcome and may be repeated.
type Sink interface {
	// Insert writes rows as one insert and returns when they are durable. Rows under
	// a token that was used before may be dropped in silence.
	Insert(ctx context.Context, rows Rows, token string) error
	// Count returns how many rows of block the table holds.
	Count(ctx context.Context, table string, block uint64) (uint64, error)
	// Delete removes the rows of block and returns when no reader sees them.
	Delete(ctx context.Context, table string, block uint64) error
	// Judge writes the violations that block j.Block brought about or took away. It
	// reads rows of blocks up to j.Block only, so a repeat writes the same.
	Judge(ctx context.Context, j Judgement) error
}

// Judgement says whose uses are to be judged after a block.
type Judgement struct {
	Block uint64
	// Uses says that the block holds uses; NewestUse is the newest of their times, in
	// milliseconds.
	Uses      bool
	NewestUse int64
	// Changed are the keys that got a state in the block.
	Changed map[KeyRef]KeyChange
}

// KeyChange says what a block did to a key.
type KeyChange struct {
	// Since is the earliest effective time of the block's states, in milliseconds.
	Since int64
	// Made says that the key was made here in the block: it has no state of an earlier
	// block.
	Made bool
	// Ends says that in some state of the block the key is disabled, deleted, or will
	// expire.
	Ends bool
}

// NewSink returns the [Sink] on store, whose schema must be [Schema].
func NewSink(store *clickhouse.Store) Sink { return &storeSink{store: store} }

type storeSink struct {
	store *clickhouse.Store
	sound soundKeys
}

// Insert implements [Sink].
func (s *storeSink) Insert(ctx context.Context, rows Rows, token string) error {
	names := make([]string, len(rows.Columns))
	for i, c := range rows.Columns {
		names[i] = c.Name
	}
	n, err := s.store.Insert(ctx, rows.Table, names, clickhouse.InsertOptions{Token: token, Fsync: true}, func(b clickhouse.Batch) error {
		for i, c := range rows.Columns {
			if err := b.Column(i).Append(c.Values); err != nil {
				return fmt.Errorf("column %s: %w", c.Name, err)
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	if n != rows.Len() {
		return fmt.Errorf("insert into %s: %d rows sent, %d acknowledged", rows.Table, rows.Len(), n)
	}
	return nil
}

// Count implements [Sink].
func (s *storeSink) Count(ctx context.Context, table string, block uint64) (uint64, error) {
	var n uint64
	err := s.store.Row(ctx, clickhouse.Select{
		Table: table, Scope: clickhouse.ScopeAll(), Columns: []string{"count()"},
		Where: []clickhouse.Cond{clickhouse.Eq("block", block)},
	}, &n)
	if err != nil {
		return 0, fmt.Errorf("count block %d in %s: %w", block, table, err)
	}
	return n, nil
}

// Delete implements [Sink].
func (s *storeSink) Delete(ctx context.Context, table string, block uint64) error {
	if !counted(table) {
		return fmt.Errorf("delete block %d from %s: rows of this table are replaced, not deleted", block, table)
	}
	if err := s.store.Exec(ctx, "DELETE FROM "+table+" WHERE block = ? SETTINGS lightweight_deletes_sync = 2", block); err != nil {
		return fmt.Errorf("delete block %d from %s: %w", block, table, err)
	}
	return nil
}
