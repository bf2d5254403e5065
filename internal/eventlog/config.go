package eventlog

import (
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/EventStore/EventStore-Client-Go/v4/esdb"
)

const (
	defaultAppendTimeout = 10 * time.Second
	defaultReadTimeout   = 30 * time.Second
	defaultAppendBytes   = 1 << 20
)

// Config says where the event log is and how long to wait for it.
type Config struct {
	// Connection is an EventStoreDB connection string, esdb:// or esdb+discover://.
	Connection string
	// Socket is the unix socket of the embedded store. It wins over Connection.
	Socket string
	// AppendTimeout bounds one Append with all its retries. Default 10 s.
	AppendTimeout time.Duration
	// ReadTimeout bounds one read call with all its retries. Default 30 s.
	ReadTimeout time.Duration
	// MaxAppendBytes is the server's limit on the events of one append, as it counts
	// them: data, metadata and twice the type. Default 1 MiB, EventStoreDB's own.
	MaxAppendBytes int
	// Logger receives the log's and the client's messages. Required.
	Logger *slog.Logger
}

func (c *Config) setDefaults() {
	if c.AppendTimeout == 0 {
		c.AppendTimeout = defaultAppendTimeout
	}
	if c.ReadTimeout == 0 {
		c.ReadTimeout = defaultReadTimeout
	}
	if c.MaxAppendBytes == 0 {
		c.MaxAppendBytes = defaultAppendBytes
	}
}

// Validate reports everything that is wrong with c, joined. It never prints the
// connection string, which may hold a password.
func (c Config) Validate() error {
	var errs []error
	if c.Socket == "" {
		if c.Connection == "" {
			errs = append(errs, errors.New("event log: a connection string or a socket is required"))
		} else if _, err := c.client(); err != nil {
			errs = append(errs, err)
		}
	}
	if c.AppendTimeout < 0 {
		errs = append(errs, fmt.Errorf("event log: append timeout %s is negative", c.AppendTimeout))
	}
	if c.ReadTimeout < 0 {
		errs = append(errs, fmt.Errorf("event log: read timeout %s is negative", c.ReadTimeout))
	}
	if c.MaxAppendBytes < 0 {
		errs = append(errs, fmt.Errorf("event log: append limit of %d bytes is negative", c.MaxAppendBytes))
	}
	if c.Logger == nil {
		errs = append(errs, errors.New("event log: a logger is required"))
	}
	return errors.Join(errs...)
}

// client returns the client's configuration for one connection.
func (c Config) client() (*esdb.Configuration, error) {
	connection := c.Connection
	if c.Socket != "" {
		connection = "esdb://socket.invalid:2113?tls=false"
	}
	conf, err := esdb.ParseConnectionString(connection)
	if err != nil {
		return nil, fmt.Errorf("event log: connection string: %w", redactURL(err))
	}
	if err := conf.Validate(); err != nil {
		return nil, fmt.Errorf("event log: connection string: %w", err)
	}
	if c.Socket != "" {
		conf.Address = "unix://" + c.Socket
	}
	// The client is made to give up at once: this package recreates it, with its
	// own patience, and a client that gave up hangs whoever still uses it.
	conf.MaxDiscoverAttempts = 1
	conf.DiscoveryInterval = 1
	conf.Logger = esdb.NoopLogging()
	return conf, nil
}
