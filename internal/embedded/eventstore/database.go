package eventstore

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	_ "modernc.org/sqlite" // The driver named "sqlite".
)

// databaseFile is the name of the tables' file in the data folder.
const databaseFile = "events.db"

// schemaVersion is the version of the tables below. A file with a newer one is refused.
const schemaVersion = 4

// schema is the log.
//
// blocks is the log itself in order of position: one row holds the frames of up
// to 20 KiB of whole appends, since a row an event would cost more than the wire.
// runs finds the events of a stream: one row for consecutive revisions in one block,
// with the time of the last of them. streams gives names a number, so that runs stays
// small, and carries the limits that the stream's metadata set and the revision below
// which its events may have been scavenged. journal is one row: which records of the
// journal count. Nothing but scavenging removes an event.
const schema = `
CREATE TABLE streams (
	sid        INTEGER PRIMARY KEY,
	name       TEXT NOT NULL UNIQUE,
	max_count  INTEGER,
	max_age_s  INTEGER,
	trim_below INTEGER,
	cut_below  INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE TABLE blocks (
	first_pos INTEGER PRIMARY KEY,
	last_pos  INTEGER NOT NULL,
	events    INTEGER NOT NULL,
	crc32c    INTEGER NOT NULL,
	body      BLOB NOT NULL
) STRICT;
CREATE TABLE runs (
	sid       INTEGER NOT NULL,
	first_rev INTEGER NOT NULL,
	events    INTEGER NOT NULL,
	created   INTEGER NOT NULL,
	block     INTEGER NOT NULL,
	PRIMARY KEY (sid, first_rev)
) STRICT, WITHOUT ROWID;
` + tombstones + journalSchema

// tombstones finds the streams that are gone for good, whose events can go.
const tombstones = `CREATE INDEX tombstones ON runs (sid) WHERE first_rev = 9223372036854775807;`

const journalSchema = `
CREATE TABLE journal (
	salt   INTEGER NOT NULL,
	folded INTEGER NOT NULL,
	file   TEXT NOT NULL
) STRICT;
INSERT INTO journal (salt, folded, file) VALUES (0, 0, '');
`

// upgrades returns what makes the tables of each version out of those of the one before.
func upgrades() []string {
	return []string{
		1: `ALTER TABLE runs DROP COLUMN at;` + journalSchema,
		2: `ALTER TABLE streams ADD COLUMN cut_below INTEGER NOT NULL DEFAULT 0;`,
		3: tombstones,
	}
}

// database is the SQLite file: one connection that writes, a pool that reads.
type database struct {
	write *sql.DB
	read  *sql.DB
	small bool // All of it is to be checked.
}

// openDatabase opens or makes the file in dir and checks that it is whole enough
// to be used.
func openDatabase(ctx context.Context, dir string) (_ *database, err error) {
	path := filepath.Join(dir, databaseFile)
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600) // SQLite would make it readable for all.
	if err != nil {
		return nil, fmt.Errorf("open event log: %w", err)
	}
	if err := f.Close(); err != nil {
		return nil, fmt.Errorf("open event log: %w", err)
	}
	write, err := openPool(path, 1, "journal_mode(WAL)", "synchronous(FULL)", "busy_timeout(10000)",
		"wal_autocheckpoint(4000)", "journal_size_limit(67108864)", "cache_size(-65536)", "temp_store(MEMORY)")
	if err != nil {
		return nil, err
	}
	d := &database{write: write}
	defer func() {
		if err != nil {
			err = errors.Join(err, d.close())
		}
	}()
	if err := d.prepare(ctx); err != nil {
		return nil, fmt.Errorf("open event log %s: %w", path, err)
	}
	if err := syncFolder(dir); err != nil {
		return nil, err
	}
	d.read, err = openPool(path, max(4, runtime.NumCPU()), "query_only(1)", "busy_timeout(10000)", "cache_size(-16384)")
	if err != nil {
		return nil, err
	}
	return d, nil
}

func openPool(path string, connections int, pragmas ...string) (*sql.DB, error) {
	dsn := url.URL{Scheme: "file", Opaque: (&url.URL{Path: path}).EscapedPath(), RawQuery: url.Values{"_pragma": pragmas}.Encode()}
	db, err := sql.Open("sqlite", dsn.String())
	if err != nil {
		return nil, fmt.Errorf("open event log: %w", err)
	}
	db.SetMaxOpenConns(connections)
	db.SetMaxIdleConns(connections)
	return db, nil
}

// prepare makes the tables in a new file, and refuses a newer or damaged one.
func (d *database) prepare(ctx context.Context) error {
	var version int
	if err := d.write.QueryRowContext(ctx, `PRAGMA user_version`).Scan(&version); err != nil {
		return fmt.Errorf("%w: %w", errCorrupt, err)
	}
	switch {
	case version > schemaVersion:
		return fmt.Errorf("the file has schema version %d, this program knows %d: use the newer program", version, schemaVersion)
	case version == 0:
		return d.change(ctx, schema)
	}
	if err := d.check(ctx); err != nil || version == schemaVersion {
		return err
	}
	return d.change(ctx, strings.Join(upgrades()[version:], "\n"))
}

// checkBytesMax is the size up to which the whole file is checked at open, row by row
// against the events themselves: that takes less than a second. Of a bigger file the
// schema and the newest block are checked then, and the rest as it is read: every block
// against its checksum, every stream for revisions that are missing. Verify checks all.
const checkBytesMax = 64 << 20

func (d *database) check(ctx context.Context) error {
	var sizeBytes int64
	const size = `SELECT page_count * page_size FROM pragma_page_count, pragma_page_size`
	if err := d.write.QueryRowContext(ctx, size).Scan(&sizeBytes); err != nil {
		return fmt.Errorf("%w: %w", errCorrupt, err)
	}
	d.small = sizeBytes <= checkBytesMax
	check := `PRAGMA integrity_check(1)`
	if !d.small {
		check = `PRAGMA quick_check('sqlite_schema')`
	}
	var verdict string
	if err := d.write.QueryRowContext(ctx, check).Scan(&verdict); err != nil {
		return fmt.Errorf("%w: %w", errCorrupt, err)
	}
	if verdict != "ok" {
		return fmt.Errorf("%w: %s: restore the data folder from a copy", errCorrupt, verdict)
	}
	return nil
}

// change makes the tables of this version, in one transaction.
func (d *database) change(ctx context.Context, statements string) error {
	tx, err := d.write.BeginTx(ctx, nil)
	if err != nil {
		return fmt.Errorf("make tables: %w", err)
	}
	if _, err := tx.ExecContext(ctx, statements+fmt.Sprintf("PRAGMA user_version = %d;", schemaVersion)); err != nil {
		return errors.Join(fmt.Errorf("make tables: %w", err), tx.Rollback())
	}
	if err := tx.Commit(); err != nil {
		return fmt.Errorf("make tables: %w", err)
	}
	return nil
}

// close folds the WAL into the file and closes it. The readers are closed first,
// since they would keep the WAL.
func (d *database) close() error {
	var errs []error
	if d.read != nil {
		errs = append(errs, d.read.Close())
	}
	if _, err := d.write.Exec(`PRAGMA wal_checkpoint(TRUNCATE)`); err != nil { //nolint:noctx // Closing is not given up half-way.
		errs = append(errs, fmt.Errorf("fold the log's WAL away: %w", err))
	}
	return errors.Join(append(errs, d.write.Close())...)
}
