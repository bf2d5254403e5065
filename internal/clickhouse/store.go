package clickhouse

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"regexp"
	"strings"
	"sync"
	"time"

	chgo "github.com/ClickHouse/clickhouse-go/v2"
	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"
)

const (
	defaultDatabase = "keytrail"
	defaultMaxConns = 8
	dialTimeout     = 10 * time.Second
	// answerTimeout is how long a statement may take until its first byte. An
	// inserter gives a block up after as long.
	answerTimeout = 10 * time.Minute
	openTimeout   = 20 * time.Second
	openPause     = 100 * time.Millisecond
	// insertsMax bounds the inserts under way at once, and insertConnLifetime how long
	// what they needed of memory is kept.
	insertsMax         = 4
	insertConnLifetime = time.Minute
)

// Config says which store to open. Either Socket or DSN must be set.
type Config struct {
	// DSN is a clickhouse://, http:// or https:// address, with credentials if
	// the server wants them. It is never logged and in no error.
	DSN string
	// Socket is the unix socket of the embedded engine's HTTP interface. It wins
	// over DSN.
	Socket string
	// Database to work in; made if it is missing. Empty: the DSN's, else
	// "keytrail".
	Database string
	// MaxConns bounds the statements under way at once; 0 means 8. A statement
	// beyond it waits up to 10 s for its turn. Inserts are not counted: four may be under
	// way beside them, and others wait as long as their callers do.
	MaxConns int
	// Connections, if set, keeps the store's connections.
	Connections *Connections
	// Logger gets what an operator should know. It must be set.
	Logger *slog.Logger
}

// Validate reports everything that is wrong with c at once.
func (c Config) Validate() error {
	var errs []error
	if c.DSN == "" && c.Socket == "" {
		errs = append(errs, errors.New("neither a DSN nor a socket is given"))
	}
	if c.Database != "" && !identifier.MatchString(c.Database) {
		errs = append(errs, fmt.Errorf("database name %q is not letters, digits and underscores", c.Database))
	}
	if c.MaxConns < 0 {
		errs = append(errs, fmt.Errorf("max conns %d is negative", c.MaxConns))
	}
	if c.Logger == nil {
		errs = append(errs, errors.New("no logger is given"))
	}
	return errors.Join(errs...)
}

// Store is an open analytics store. It is safe for concurrent use and holds no
// goroutine of its own.
type Store struct {
	conn driver.Conn
	// inserts are connections for inserts only, and turns as many tokens: the driver keeps
	// for each connection a buffer as large as the largest block that it ever sent.
	inserts  driver.Conn
	turns    chan struct{}
	opts     *chgo.Options
	database string
	logger   *slog.Logger

	// mu guards tables.
	mu sync.Mutex
	// tables remembers what an insert must know of its table.
	tables map[string]*tableInfo
}

// identifier is the form of every table, column, alias and setting name.
var identifier = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]{0,127}$`)

// New returns the store without asking the server anything: it may be down, and the
// database missing until [Store.CreateDatabase].
func New(cfg Config) (*Store, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("clickhouse: config: %w", err)
	}
	opts, err := options(cfg)
	if err != nil {
		return nil, err
	}
	conn, err := chgo.Open(opts)
	if err != nil {
		return nil, fmt.Errorf("clickhouse: open: %w", err)
	}
	inserts, err := chgo.Open(insertOptions(opts))
	if err != nil {
		return nil, errors.Join(fmt.Errorf("clickhouse: open: %w", err), conn.Close())
	}
	return &Store{
		conn: conn, inserts: inserts, turns: make(chan struct{}, insertsMax), opts: opts,
		database: opts.Auth.Database, logger: cfg.Logger, tables: map[string]*tableInfo{},
	}, nil
}

// insertOptions returns opts for the connections that inserts go over.
func insertOptions(opts *chgo.Options) *chgo.Options {
	own := *opts
	own.MaxOpenConns, own.MaxIdleConns = insertsMax, insertsMax
	own.FreeBufOnConnRelease = true // Over HTTP the driver takes no notice.
	own.ConnMaxLifetime = insertConnLifetime
	return &own
}

// Open connects, makes the database if it is missing, and returns the store. It
// waits up to 20 s for a server that refuses connections (the embedded engine
// may be starting); any other fault is returned at once.
func Open(ctx context.Context, cfg Config) (*Store, error) {
	s, err := New(cfg)
	if err != nil {
		return nil, err
	}
	limited, cancel := context.WithTimeout(ctx, openTimeout)
	defer cancel()
	err = retryUnavailable(limited, func() error { return s.CreateDatabase(limited) })
	if err == nil {
		err = s.Ping(ctx)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open database %s: %w", s.database, err), s.Close())
	}
	return s, nil
}

// CreateDatabase makes the store's database if it is missing. With [ErrUnavailable] it may
// be tried again.
func (s *Store) CreateDatabase(ctx context.Context) error {
	// Without a database, since the server refuses a session in one that is missing.
	bare := *s.opts
	bare.Auth.Database = ""
	conn, err := chgo.Open(&bare)
	if err != nil {
		return fmt.Errorf("clickhouse: open: %w", err)
	}
	err = classify(ctx, conn.Exec(ctx, "CREATE DATABASE IF NOT EXISTS `"+s.database+"`"))
	if closeErr := conn.Close(); closeErr != nil {
		err = errors.Join(err, fmt.Errorf("clickhouse: close: %w", closeErr))
	}
	return err
}

// Close releases the connections. Statements under way may fail.
func (s *Store) Close() error {
	if err := errors.Join(s.conn.Close(), s.inserts.Close()); err != nil {
		return fmt.Errorf("clickhouse: close: %w", err)
	}
	return nil
}

// Database returns the name of the database that unqualified tables are in.
func (s *Store) Database() string { return s.database }

// Ping returns nil when the store answers a query.
func (s *Store) Ping(ctx context.Context) error { return classify(ctx, s.conn.Ping(ctx)) }

// Exec runs one statement that returns no rows: schema changes and mutations
// written by this program. It returns when the server has carried it out. Every
// `?` in sql takes one of args; a time is bound as a UTC literal with
// milliseconds.
func (s *Store) Exec(ctx context.Context, sql string, args ...any) error {
	bound := make([]any, len(args))
	for i, a := range args {
		if t, ok := a.(time.Time); ok {
			a = t.UTC().Format("2006-01-02 15:04:05.000")
		}
		bound[i] = a
	}
	if !strings.HasPrefix(sql, "INSERT ") && !strings.HasPrefix(sql, "DELETE ") {
		s.forgetTables() // It may have changed one.
	}
	// Answer only when all is done, so that a failure is in the status.
	ctx = chgo.Context(ctx, chgo.WithSettings(chgo.Settings{"wait_end_of_query": 1}))
	return classify(ctx, s.conn.Exec(ctx, sql, bound...))
}

// options makes the driver's options. The driver gets no logger: it would log
// statements with the values in them.
func options(cfg Config) (*chgo.Options, error) {
	opts := &chgo.Options{Protocol: chgo.HTTP, Addr: []string{"embedded"}}
	if cfg.Socket == "" {
		parsed, err := chgo.ParseDSN(cfg.DSN)
		if err != nil {
			// The parser's error repeats the address, password and all.
			return nil, errors.New("clickhouse: the DSN is not a valid clickhouse://, http:// or https:// address")
		}
		opts = parsed
		opts.DialTimeout = dialTimeout
		opts.DialContext = dialServer(opts)
	} else {
		opts.DialContext = func(ctx context.Context, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "unix", cfg.Socket)
		}
		opts.TransportFunc = func(t *http.Transport) (http.RoundTripper, error) {
			t.Proxy = nil // The socket is next door, whatever the environment says.
			return t, nil
		}
	}
	if cfg.Connections != nil {
		opts.DialContext = cfg.Connections.through(opts.DialContext)
	}
	if cfg.Database != "" {
		opts.Auth.Database = cfg.Database
	}
	if opts.Auth.Database == "" {
		opts.Auth.Database = defaultDatabase
	}
	if !identifier.MatchString(opts.Auth.Database) {
		return nil, errors.New("clickhouse: the DSN's database name is not letters, digits and underscores")
	}
	opts.MaxOpenConns = cfg.MaxConns
	if opts.MaxOpenConns == 0 {
		opts.MaxOpenConns = defaultMaxConns
	}
	opts.MaxIdleConns = opts.MaxOpenConns
	opts.DialTimeout = dialTimeout
	opts.ReadTimeout = answerTimeout
	return opts, nil
}

// retryUnavailable calls f until it no longer says ErrUnavailable or ctx ends.
func retryUnavailable(ctx context.Context, f func() error) error {
	pause := time.NewTicker(openPause)
	defer pause.Stop()
	for {
		err := f()
		if !errors.Is(err, ErrUnavailable) || ctx.Err() != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-pause.C:
		}
	}
}
