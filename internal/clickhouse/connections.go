package clickhouse

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"sync"

	chgo "github.com/ClickHouse/clickhouse-go/v2"
)

// Connections are all connections of some stores, so that they can be cut at once: a server
// that hangs, or a way to it that swallows everything, leaves a statement waiting for as
// long as the longest may take. It is safe for concurrent use.
type Connections struct {
	mu   sync.Mutex // Guards open.
	open map[*tracked]struct{}
}

// Cut closes every connection and returns how many there were. The statements on them fail
// with [ErrUnavailable]: whether they were carried out is not known.
func (c *Connections) Cut() int {
	c.mu.Lock()
	all := make([]*tracked, 0, len(c.open))
	for t := range c.open {
		all = append(all, t)
	}
	c.mu.Unlock()
	for _, t := range all {
		_ = t.Close() // What matters is that nobody waits on it any more.
	}
	return len(all)
}

// dialer is how the driver makes connections.
type dialer func(ctx context.Context, address string) (net.Conn, error)

// through returns dial with its connections kept in c.
func (c *Connections) through(dial dialer) dialer {
	return func(ctx context.Context, address string) (net.Conn, error) {
		conn, err := dial(ctx, address)
		if err != nil {
			return nil, err
		}
		t := &tracked{Conn: conn, in: c}
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.open == nil {
			c.open = make(map[*tracked]struct{})
		}
		c.open[t] = struct{}{}
		return t, nil
	}
}

// tracked is a connection that leaves the list when it is closed.
type tracked struct {
	net.Conn
	in *Connections
}

// Close implements [net.Conn].
func (t *tracked) Close() error {
	t.in.mu.Lock()
	delete(t.in.open, t)
	t.in.mu.Unlock()
	return t.Conn.Close()
}

// dialServer returns what the driver would do by itself: for its own protocol TLS is part
// of the connection, for HTTP it is the transport's business.
func dialServer(opts *chgo.Options) dialer {
	config, own := opts.TLS, opts.Protocol == chgo.Native
	return func(ctx context.Context, address string) (net.Conn, error) {
		d := net.Dialer{Timeout: opts.DialTimeout}
		if config == nil || !own {
			return d.DialContext(ctx, "tcp", address)
		}
		conn, err := (&tls.Dialer{NetDialer: &d, Config: config}).DialContext(ctx, "tcp", address)
		if err != nil {
			return nil, errors.Join(errors.New("TLS"), err)
		}
		return conn, nil
	}
}
