package projections

import (
	"context"
	"errors"
	"fmt"
	"time"

	"example.com/keytrail/internal/clickhouse"
)

// Sink is the analytics store as the runner sees it. Every method may fail with an
// unknown outcome and may be repeated.
type Sink interface {
	// Insert writes rows as one insert and returns when they are durable. Rows under
	// a token that was used before may be dropped in silence.
	Insert(ctx context.Context, rows Rows, token string) error
	// Count returns how many rows of block the table holds, once nothing that was told to
	// it before is still removing rows.
	Count(ctx context.Context, table string, block uint64) (uint64, error)
	// Delete removes the rows of block that are there when it is called and returns when
	// no reader sees them. It never removes a row that is inserted later, however late
	// it is carried out. Rows may be left: count them.
	Delete(ctx context.Context, table string, block uint64) error
	// Totals returns how many rows of blocks up to the given one each counted table holds,
	// as Count does, whatever is inserted meanwhile for later ones.
	Totals(ctx context.Context, block uint64) (map[string]uint64, error)
	// Newest returns the highest number of a block of which any table holds rows.
	Newest(ctx context.Context) (uint64, error)
	// Rewind removes what blocks after w.Kept wrote to the counted tables, and the
	// violations after w.KeptTo, and returns when no reader sees them. Rows may be left:
	// count them.
	Rewind(ctx context.Context, w Rewinding) error
	// Judge writes the violations that block j.Block brought about or took away. It
	// reads rows of blocks up to j.Block only, so a repeat writes the same.
	Judge(ctx context.Context, j Judgement) error
}

// Rewinding says up to where tables are to be as they were.
type Rewinding struct {
	// Kept is the last block that stays, KeptTo where it ends in the log.
	Kept, KeptTo uint64
	// Mark is the number of the rewinding itself: hours that later blocks touched are
	// taken from the base table until they are rolled up under a higher one.
	Mark uint64
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
	if err := s.settle(ctx); err != nil {
		return 0, err
	}
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

// Delete implements [Sink]. It names the parts that hold the rows now, which no later
// insert can be in: a deletion that comes late, after somebody else has made the block
// again, finds none of them. A merge in between makes it find none either.
func (s *storeSink) Delete(ctx context.Context, table string, block uint64) error {
	if !counted(table) {
		return fmt.Errorf("delete block %d from %s: rows of this table are replaced, not deleted", block, table)
	}
	if err := s.delete(ctx, table, "block = ?", block); err != nil {
		return fmt.Errorf("delete block %d from %s: %w", block, table, err)
	}
	return nil
}

// delete removes the rows under a condition that are in the parts of now.
func (s *storeSink) delete(ctx context.Context, table, where string, args ...any) error {
	rows, err := s.store.Query(ctx, clickhouse.Select{
		Table: table, Scope: clickhouse.ScopeAll(), Columns: []string{"toString(_part)"}, Distinct: true, Where: []clickhouse.Cond{clickhouse.Raw(where, args...)},
	})
	if err != nil {
		return err
	}
	marks := ""
	for rows.Next() {
		var part string
		if err := rows.Scan(&part); err != nil {
			return errors.Join(err, rows.Close())
		}
		marks, args = marks+", ?", append(args, part)
	}
	if err := errors.Join(rows.Err(), rows.Close()); err != nil || marks == "" {
		return err
	}
	return s.store.Exec(ctx, "DELETE FROM "+table+" WHERE "+where+" AND _part IN ("+marks[2:]+") SETTINGS lightweight_deletes_sync = 2", args...)
}

// settleEvery is how often settle looks.
const settleEvery = 20 * time.Millisecond

// settle returns when no deletion is under way: one that somebody gave up waiting for is
// carried out part by part, and a count in its midst may be right by chance.
func (s *storeSink) settle(ctx context.Context) error {
	for {
		var n uint64
		err := s.store.Row(ctx, clickhouse.Select{
			Table: "system.mutations", Scope: clickhouse.ScopeAll(), Columns: []string{"count()"},
			Where: []clickhouse.Cond{clickhouse.Eq("database", s.store.Database()), clickhouse.Raw("is_done = 0")},
		}, &n)
		if err != nil {
			return fmt.Errorf("look for deletions under way: %w", err)
		}
		if n == 0 {
			return nil
		}
		if err := pause(ctx, settleEvery); err != nil {
			return fmt.Errorf("wait for deletions under way: %w", err)
		}
	}
}

// Totals implements [Sink].
func (s *storeSink) Totals(ctx context.Context, block uint64) (map[string]uint64, error) {
	if err := s.settle(ctx); err != nil {
		return nil, err
	}
	out := map[string]uint64{}
	for _, table := range countedTables() {
		n, err := s.total(ctx, table, block)
		if err != nil {
			return nil, fmt.Errorf("count %s: %w", table, err)
		}
		out[table] = n
	}
	return out, nil
}

// total returns how many rows of blocks up to the given one a table holds.
func (s *storeSink) total(ctx context.Context, table string, block uint64) (uint64, error) {
	count := func(where ...clickhouse.Cond) (n uint64, err error) {
		err = s.store.Row(ctx, clickhouse.Select{Table: table, Scope: clickhouse.ScopeAll(), Columns: []string{"count()"}, Where: where}, &n)
		return n, err
	}
	// The rows after the block are few and found by an index; all are a sum of parts. They
	// are two queries: what comes between them must not count.
	after := clickhouse.Gt("block", block)
	later, err := count(after)
	for err == nil {
		var all, still uint64
		if all, err = count(); err != nil {
			break
		}
		if still, err = count(after); err == nil && still == later {
			return all - min(later, all), nil
		}
		later = still
	}
	return 0, err
}

// Newest implements [Sink].
func (s *storeSink) Newest(ctx context.Context) (uint64, error) { return newestBlock(ctx, s.store) }

// Rewind implements [Sink].
func (s *storeSink) Rewind(ctx context.Context, w Rewinding) error {
	err := s.store.Exec(ctx, `INSERT INTO usage_buckets (account_id, hour, dirty, clean)
SELECT account_id, hour, toUInt64(?), toUInt64(0) FROM usage_buckets GROUP BY account_id, hour HAVING max(dirty) > ? OR max(clean) > ?`, w.Mark, w.Kept, w.Kept)
	if err != nil {
		return fmt.Errorf("mark the hours of blocks after %d: %w", w.Kept, err)
	}
	for _, table := range countedTables() {
		if err := s.delete(ctx, table, "block > ?", w.Kept); err != nil {
			return fmt.Errorf("delete blocks after %d from %s: %w", w.Kept, table, err)
		}
	}
	if err := s.delete(ctx, tableViolations, "position > ?", w.KeptTo); err != nil {
		return fmt.Errorf("delete violations after %d: %w", w.KeptTo, err)
	}
	return nil
}
