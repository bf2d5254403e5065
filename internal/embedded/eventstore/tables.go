package eventstore

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
)

// rowsAtOnce is how many rows one statement inserts.
const rowsAtOnce = 32

// journalState says which records of the journal count.
type journalState struct {
	// salt is that of the run in use. Without its lower half none is: the tables hold all.
	salt uint64
	// folded is the newest record that the tables hold.
	folded uint64
	// file was in use when this was written.
	file string
}

// inUse reports whether the journal may hold what the tables do not.
func (s journalState) inUse() bool { return uint32(s.salt) != 0 } //nolint:gosec // The lower half.

// tables is the side of the file that writes. One goroutine at a time may use it.
type tables struct {
	conn   *sql.Conn
	stmts  map[string]*sql.Stmt // By query.
	faults atomic.Pointer[faults]
}

func newTables(ctx context.Context, db *sql.DB) (*tables, error) {
	conn, err := db.Conn(ctx)
	if err != nil {
		return nil, fmt.Errorf("connect to the log's tables: %w", err)
	}
	return &tables{conn: conn, stmts: make(map[string]*sql.Stmt)}, nil
}

// readState reads which journal is in use.
func (t *tables) readState(ctx context.Context) (journalState, error) {
	return readState(ctx, t.conn)
}

type queryer interface {
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
}

func readState(ctx context.Context, q queryer) (journalState, error) {
	var s journalState
	err := q.QueryRowContext(ctx, `SELECT salt, folded, file FROM journal`).Scan(&s.salt, &s.folded, &s.file)
	if errors.Is(err, sql.ErrNoRows) {
		return journalState{}, fmt.Errorf("%w: the state of the journal is missing", errCorrupt)
	}
	if err != nil {
		return journalState{}, fmt.Errorf("read state of the journal: %w", err)
	}
	return s, nil
}

// fold writes commits, oldest first, and the state of the journal behind them in one
// transaction. After an error the outcome is in the file.
func (t *tables) fold(ctx context.Context, batch []*commit, state journalState) error {
	if err := t.transact(ctx, func(tx *sql.Tx) error { return t.insert(ctx, tx, batch, state) }); err != nil {
		return fmt.Errorf("fold: %w", err)
	}
	if f := t.faults.Load(); f != nil && f.afterFold != nil {
		return f.afterFold()
	}
	return nil
}

// transact commits what fn does. After an error of the commit the outcome is in the
// file.
func (t *tables) transact(ctx context.Context, fn func(*sql.Tx) error) error {
	tx, err := t.conn.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	if err := fn(tx); err != nil {
		if undo := tx.Rollback(); undo != nil && !errors.Is(undo, sql.ErrTxDone) {
			err = errors.Join(err, undo)
		}
		return err
	}
	if err := tx.Commit(); err != nil {
		// SQLite may leave the transaction open after a failed commit; database/sql
		// does not, so close it by hand. There is none to close if it was rolled back.
		_, _ = t.conn.ExecContext(ctx, `ROLLBACK`)
		return fmt.Errorf("commit: %w", err)
	}
	return nil
}

func (t *tables) insert(ctx context.Context, tx *sql.Tx, batch []*commit, state journalState) error {
	blocks, runs := merge(batch)
	for _, c := range batch {
		if err := t.insertStreams(ctx, tx, c); err != nil {
			return err
		}
	}
	for _, b := range blocks {
		if err := t.exec(ctx, tx, `INSERT INTO blocks (first_pos, last_pos, events, crc32c, body) VALUES (?, ?, ?, ?, ?)`,
			clampInt(b.first), clampInt(b.last), b.n, int64(b.checksum()), b.body); err != nil {
			return fmt.Errorf("insert block: %w", err)
		}
	}
	if err := t.insertRuns(ctx, tx, runs); err != nil {
		return fmt.Errorf("insert runs: %w", err)
	}
	if err := t.exec(ctx, tx, `UPDATE journal SET salt = ?, folded = ?, file = ?`, clampInt(state.salt), clampInt(state.folded), state.file); err != nil {
		return fmt.Errorf("update state of the journal: %w", err)
	}
	if f := t.faults.Load(); f != nil && f.beforeFold != nil {
		return f.beforeFold(ctx, t.conn)
	}
	return nil
}

// insertStreams inserts the streams that are new in c, and what it changed of others.
func (t *tables) insertStreams(ctx context.Context, tx *sql.Tx, c *commit) error {
	for _, s := range c.streams {
		if err := t.exec(ctx, tx, `INSERT INTO streams (sid, name) VALUES (?, ?)`, s.sid, s.name); err != nil {
			return fmt.Errorf("insert stream: %w", err)
		}
	}
	for sid, l := range c.limits {
		if err := t.exec(ctx, tx, `UPDATE streams SET max_count = ?, max_age_s = ?, trim_below = ? WHERE sid = ?`, l.maxCount, l.maxAgeS, l.trimBelow, sid); err != nil {
			return fmt.Errorf("update limits: %w", err)
		}
	}
	for sid, rev := range c.begins {
		if err := t.exec(ctx, tx, `UPDATE streams SET cut_below = ? WHERE sid = ?`, clampInt(rev), sid); err != nil {
			return fmt.Errorf("update beginning of stream: %w", err)
		}
	}
	return nil
}

// insertRuns inserts in the order of the table, many rows a statement.
func (t *tables) insertRuns(ctx context.Context, tx *sql.Tx, runs []run) error {
	const insert, row = `INSERT INTO runs (sid, first_rev, events, created, block) VALUES `, `(?, ?, ?, ?, ?)`
	slices.SortFunc(runs, func(a, b run) int { return cmp.Or(cmp.Compare(a.sid, b.sid), cmp.Compare(a.first, b.first)) })
	args := make([]any, 0, 5*rowsAtOnce)
	for some := range slices.Chunk(runs, rowsAtOnce) {
		args = args[:0]
		for _, x := range some {
			args = append(args, x.sid, clampInt(x.first), x.events, x.created, clampInt(x.block))
		}
		if err := t.exec(ctx, tx, insert+strings.Repeat(row+`, `, len(some)-1)+row, args...); err != nil {
			return err
		}
	}
	return nil
}

// exec runs a query that is prepared once.
func (t *tables) exec(ctx context.Context, tx *sql.Tx, query string, args ...any) error {
	stmt, ok := t.stmts[query]
	if !ok {
		var err error
		if stmt, err = t.conn.PrepareContext(ctx, query); err != nil {
			return err
		}
		t.stmts[query] = stmt
	}
	_, err := tx.StmtContext(ctx, stmt).ExecContext(ctx, args...) //nolint:sqlclosecheck // It ends with the transaction.
	return err
}

// close lets go of the connection.
func (t *tables) close() error {
	errs := make([]error, 0, len(t.stmts)+1)
	for _, stmt := range t.stmts {
		errs = append(errs, stmt.Close())
	}
	if err := errors.Join(append(errs, t.conn.Close())...); err != nil {
		return fmt.Errorf("close the log's tables: %w", err)
	}
	return nil
}

// storedBlockBytes is where a block in the tables ends: reading one event of it must
// stay cheap.
const storedBlockBytes = 24 << 10

// merge makes the blocks and runs of consecutive commits as the tables hold them:
// small blocks, one a commit, become full ones, and what a stream has in one of them
// becomes one run.
func merge(batch []*commit) (blocks []*block, runs []run) {
	var last *block
	open := make(map[int64]int) // By stream: its run in the last block.
	for _, c := range batch {
		next := 0
		for _, b := range c.blocks {
			if last == nil || len(last.body)+len(b.body) > storedBlockBytes {
				last = &block{first: b.first, body: make([]byte, 0, max(storedBlockBytes, len(b.body)))}
				blocks = append(blocks, last)
				clear(open)
			}
			last.body = append(last.body, b.body...)
			last.n += b.n
			last.last = b.last
			for ; next < len(c.runs) && c.runs[next].in == b; next++ {
				x := c.runs[next]
				if i, ok := open[x.sid]; ok && runs[i].end() == x.first {
					runs[i].events += x.events
					runs[i].created = x.created
					continue
				}
				x.block = last.first
				open[x.sid] = len(runs)
				runs = append(runs, x)
			}
		}
	}
	return blocks, runs
}
