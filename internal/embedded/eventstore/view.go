package eventstore

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// viewAttempts bounds how often a view is taken of a folder whose journal moves on
// meanwhile.
const viewAttempts = 50

// view is one state of the log in a folder that may be in use by another process:
// a transaction on the tables, and the records of the journal that they lack.
type view struct {
	db      *sql.DB
	conn    *sql.Conn
	records []record
}

// openView takes a view of the log in dir.
func openView(ctx context.Context, dir string) (_ *view, err error) {
	path := filepath.Join(dir, databaseFile)
	if _, err := os.Stat(path); err != nil {
		return nil, fmt.Errorf("open event log: %w", err)
	}
	v := &view{}
	if v.db, err = openPool(path, 1, "query_only(1)", "busy_timeout(10000)"); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, v.close())
		}
	}()
	if v.conn, err = v.db.Conn(ctx); err != nil {
		return nil, fmt.Errorf("open event log: %w", err)
	}
	var version int
	if err := v.conn.QueryRowContext(ctx, `PRAGMA user_version`).Scan(&version); err != nil {
		return nil, fmt.Errorf("open event log: %w: %w", errCorrupt, err)
	}
	if version != schemaVersion {
		return nil, fmt.Errorf("open event log: the file has schema version %d, this program reads %d: serve the folder once with this program, or use the newer one", version, schemaVersion)
	}
	for attempt := 1; ; attempt++ {
		err := v.take(ctx, dir)
		if err == nil {
			return v, nil
		}
		// Records that were folded between the two looks are missing from the journal.
		if attempt == viewAttempts || !errors.Is(err, errCorrupt) || !inUse(dir) {
			return nil, err
		}
		if _, err := v.conn.ExecContext(ctx, `ROLLBACK`); err != nil {
			return nil, fmt.Errorf("open event log: %w", err)
		}
	}
}

// take begins the transaction and reads the journal behind it.
func (v *view) take(ctx context.Context, dir string) error {
	if _, err := v.conn.ExecContext(ctx, `BEGIN`); err != nil {
		return fmt.Errorf("open event log: %w", err)
	}
	state, err := readState(ctx, v.conn) // From here on the transaction sees one state.
	if err != nil {
		return err
	}
	v.records, err = recordsOf(osFiles{}, dir, state)
	return err
}

func (v *view) close() error {
	var errs []error
	if v.conn != nil {
		errs = append(errs, v.conn.Close())
	}
	return errors.Join(append(errs, v.db.Close())...)
}
