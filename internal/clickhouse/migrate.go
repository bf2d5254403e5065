package clickhouse

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// MigrationsTable records what ran. It is read grouped, since two processes that
// start together may both record a file.
const MigrationsTable = "schema_migrations"

const createMigrations = `CREATE TABLE IF NOT EXISTS ` + MigrationsTable + ` (
    version UInt32,
    name String,
    checksum String,
    applied_at DateTime64(3, 'UTC') DEFAULT now64(3)
) ENGINE = MergeTree ORDER BY version`

var migrationName = regexp.MustCompile(`^([0-9]{3})_[a-z0-9_]+\.sql$`)

type migration struct {
	version    uint32
	name       string
	checksum   string
	statements []string
}

type appliedMigration struct {
	name, checksum string
}

// Migrate brings the schema up to the files NNN_name.sql at fsys's root, each run
// once and in order of its number. In a file a line that ends with `;` ends a
// statement; a line that starts with `--` is a comment.
//
// A database that knows a version which fsys lacks was used by a newer program
// and is refused with [ErrSchema], as is a file that changed after it ran. A file
// is recorded after its last statement: one that was interrupted runs again from
// its start, so each statement must be repeatable (IF NOT EXISTS).
func (s *Store) Migrate(ctx context.Context, fsys fs.FS) error {
	files, err := readMigrations(fsys)
	if err != nil {
		return fmt.Errorf("clickhouse: migrate: %w", err)
	}
	if err := s.Exec(ctx, createMigrations); err != nil {
		return fmt.Errorf("migrate: %w", err)
	}
	applied, err := s.appliedMigrations(ctx)
	if err != nil {
		return fmt.Errorf("migrate: %w", err)
	}
	if err := checkApplied(files, applied); err != nil {
		return err
	}
	for _, m := range files {
		if _, done := applied[m.version]; done {
			continue
		}
		if err := s.apply(ctx, m); err != nil {
			return fmt.Errorf("migrate: %w", err)
		}
	}
	return nil
}

func (s *Store) apply(ctx context.Context, m migration) error {
	for i, statement := range m.statements {
		if err := s.Exec(ctx, statement); err != nil {
			return fmt.Errorf("%s, statement %d: %w", m.name, i+1, err)
		}
	}
	_, err := s.Insert(ctx, MigrationsTable, []string{"version", "name", "checksum"}, InsertOptions{Fsync: true}, func(b Batch) error {
		return b.Append(m.version, m.name, m.checksum)
	})
	if err != nil {
		return fmt.Errorf("record %s: %w", m.name, err)
	}
	return nil
}

func (s *Store) appliedMigrations(ctx context.Context) (map[uint32]appliedMigration, error) {
	rows, err := s.Query(ctx, Select{
		Table:   MigrationsTable,
		Scope:   ScopeAll(),
		Columns: []string{"version", "any(name)", "if(uniqExact(checksum) = 1, any(checksum), 'several')"},
		GroupBy: []string{"version"},
	})
	if err != nil {
		return nil, err
	}
	out := map[uint32]appliedMigration{}
	for rows.Next() {
		var (
			version uint32
			a       appliedMigration
		)
		if err := rows.Scan(&version, &a.name, &a.checksum); err != nil {
			return nil, errors.Join(err, rows.Close())
		}
		out[version] = a
	}
	return out, errors.Join(rows.Err(), rows.Close())
}

func checkApplied(files []migration, applied map[uint32]appliedMigration) error {
	known := map[uint32]bool{}
	var errs []error
	for _, m := range files {
		known[m.version] = true
		if a, done := applied[m.version]; done && a.checksum != m.checksum {
			errs = append(errs, fmt.Errorf("%w: %s was changed after it ran as %s", ErrSchema, m.name, a.name))
		}
	}
	for version, a := range applied {
		if !known[version] {
			errs = append(errs, fmt.Errorf("%w: the database was used by a newer program: it knows migration %s", ErrSchema, a.name))
		}
	}
	return errors.Join(errs...)
}

func readMigrations(fsys fs.FS) ([]migration, error) {
	entries, err := fs.ReadDir(fsys, ".")
	if err != nil {
		return nil, fmt.Errorf("list migrations: %w", err)
	}
	var files []migration
	for _, e := range entries {
		if e.IsDir() || !strings.HasSuffix(e.Name(), ".sql") {
			continue
		}
		m, err := readMigration(fsys, e.Name())
		if err != nil {
			return nil, err
		}
		if n := len(files); n > 0 && files[n-1].version == m.version {
			return nil, fmt.Errorf("%w: %s and %s have one number", ErrSchema, files[n-1].name, m.name)
		}
		files = append(files, m)
	}
	slices.SortFunc(files, func(a, b migration) int { return int(a.version) - int(b.version) })
	return files, nil
}

func readMigration(fsys fs.FS, name string) (migration, error) {
	parts := migrationName.FindStringSubmatch(name)
	if parts == nil {
		return migration{}, fmt.Errorf("%w: migration %q is not named NNN_name.sql", ErrSchema, name)
	}
	version, err := strconv.ParseUint(parts[1], 10, 32)
	if err != nil {
		return migration{}, fmt.Errorf("migration %s: %w", name, err)
	}
	text, err := fs.ReadFile(fsys, name)
	if err != nil {
		return migration{}, fmt.Errorf("read migration: %w", err)
	}
	statements, err := splitStatements(string(text))
	if err != nil {
		return migration{}, fmt.Errorf("%w: migration %s: %w", ErrSchema, name, err)
	}
	sum := sha256.Sum256(text)
	return migration{version: uint32(version), name: name, checksum: hex.EncodeToString(sum[:]), statements: statements}, nil
}

// splitStatements cuts a file after each line that ends with a semicolon and
// leaves comment lines out.
func splitStatements(text string) ([]string, error) {
	var (
		statements []string
		current    []string
	)
	for line := range strings.Lines(text) {
		line = strings.TrimRight(line, " \t\r\n")
		if trimmed := strings.TrimSpace(line); trimmed == "" || strings.HasPrefix(trimmed, "--") {
			continue
		}
		body, ends := strings.CutSuffix(line, ";")
		if body != "" {
			current = append(current, body)
		}
		if ends && len(current) > 0 {
			statements = append(statements, strings.Join(current, "\n"))
			current = nil
		}
	}
	if len(current) > 0 {
		return nil, fmt.Errorf("the last statement, %q, has no semicolon", current[0])
	}
	return statements, nil
}
