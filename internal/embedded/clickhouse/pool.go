package clickhouse

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"time"
)

const (
	// homeDatabase is where statements run that name no database.
	homeDatabase = "main"
	// lostDatabase is the engine's own: it forgets its tables when the process
	// ends, so nobody may work there.
	lostDatabase = "default"
)

// killEvery is how often a query that must stop is told so: the first time may
// come before the engine lists it.
const killEvery = 100 * time.Millisecond

// pool lends the engine's sessions, one to a request, and keeps one aside to ping
// and to stop queries with.
type pool struct {
	lib  *library
	free chan *session

	// mu guards control and lastID.
	mu      sync.Mutex
	control *conn
	lastID  uint64
}

// session is one connection and the state that requests leave on it.
type session struct {
	pool     *pool
	conn     *conn // Nil after it was given up; the next borrower opens another.
	database string
}

func newPool(lib *library, size int) (*pool, error) {
	control, err := lib.open()
	if err != nil {
		return nil, err
	}
	p := &pool{lib: lib, free: make(chan *session, size), control: control}
	if err := control.exec("CREATE DATABASE IF NOT EXISTS " + homeDatabase); err != nil {
		return nil, fmt.Errorf("make the home database: %w", err)
	}
	for range size {
		s := &session{pool: p}
		if err := s.ensure(); err != nil {
			return nil, err
		}
		p.free <- s
	}
	return p, nil
}

// borrow waits for a session until ctx ends.
func (p *pool) borrow(ctx context.Context) (*session, error) {
	select {
	case s := <-p.free:
		if err := s.ensure(); err != nil {
			p.free <- s
			return nil, err
		}
		return s, nil
	case <-ctx.Done():
		return nil, exceptionf(codeTooManyQueries, "TOO_MANY_SIMULTANEOUS_QUERIES", "gave up waiting for a free session")
	}
}

// give takes a session back.
func (p *pool) give(s *session) { p.free <- s }

// ping asks the engine for an answer.
func (p *pool) ping() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.control.exec("SELECT 1")
}

// nextID names a query so that it can be found.
func (p *pool) nextID() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.lastID++
	return "embedded-" + strconv.FormatUint(p.lastID, 10)
}

// killWhenDone stops the query id once ctx ends. The returned function ends the
// watch and waits for it; it must be called.
func (p *pool) killWhenDone(ctx context.Context, id string) (release func()) {
	finished := make(chan struct{})
	var watch sync.WaitGroup
	watch.Go(func() {
		select {
		case <-finished:
			return
		case <-ctx.Done():
		}
		tick := time.NewTicker(killEvery)
		defer tick.Stop()
		for {
			p.kill(id)
			select {
			case <-finished:
				return
			case <-tick.C:
			}
		}
	})
	return func() {
		close(finished)
		watch.Wait()
	}
}

func (p *pool) kill(id string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	// A failure shows as the query going on, and is tried again.
	_ = p.control.exec("KILL QUERY WHERE Settings['log_comment'] = " + quote(id) + " ASYNC")
}

// ensure opens the session's connection if it has none.
func (s *session) ensure() error {
	if s.conn != nil {
		return nil
	}
	c, err := s.pool.lib.open()
	if err != nil {
		return fmt.Errorf("open session: %w", err)
	}
	// Waiting in a queue for other inserts would undo "acknowledged is stored".
	if err := c.exec("SET async_insert = 0"); err != nil {
		c.close()
		return fmt.Errorf("prepare session: %w", err)
	}
	s.conn, s.database = c, lostDatabase
	return nil
}

// with runs f with the request's database and settings in force, and takes them
// back afterwards. A session that cannot be cleaned is given up.
func (s *session) with(database string, settings map[string]string, f func(*conn) error) error {
	switch database {
	case "":
		database = homeDatabase
	case lostDatabase:
		return exceptionf(codeUnknownDatabase, "UNKNOWN_DATABASE", "the embedded engine keeps no database %s: name another", lostDatabase)
	}
	if database != s.database {
		if err := s.conn.exec("USE " + quoteName(database)); err != nil {
			return err
		}
		s.database = database
	}
	if len(settings) == 0 {
		return f(s.conn)
	}
	err := s.conn.exec(setStatement(settings))
	if err == nil {
		err = f(s.conn)
	}
	if reset := s.reset(settings); reset != nil {
		s.conn.close()
		s.conn = nil
	}
	return err
}

func (s *session) reset(settings map[string]string) error {
	if err := s.conn.exec(resetStatement(settings)); err != nil {
		return s.unknownOnly(err, settings)
	}
	if _, changed := settings["async_insert"]; changed {
		return s.conn.exec("SET async_insert = 0")
	}
	return nil
}

// unknownOnly forgives a reset that fails because the request named a setting
// that does not exist, if nothing else was set.
func (s *session) unknownOnly(err error, settings map[string]string) error {
	var e *exception
	if errors.As(err, &e) && e.code == codeUnknownSetting && len(settings) == 1 {
		return nil
	}
	return err
}
