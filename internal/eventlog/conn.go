package eventlog

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/EventStore/EventStore-Client-Go/v4/esdb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// The client has faults that this file keeps from everybody else. Once a call
// fails with Unavailable, the client's next call rediscovers the server while all
// others hang past their deadlines; when that does not succeed at once, the client
// is closed for good and whoever waits in it waits for ever; closing it under a
// waiting caller panics. So a client is used only while it never saw Unavailable:
// then it is retired, a new one takes its place, and it is closed when its last
// caller has left.

// connection is one client and its users.
type connection struct {
	client *esdb.Client

	// gate is held shared from the decision to use the client until the client has
	// handed out its transport, and exclusively to retire it: so no caller enters
	// a client that has begun to rediscover.
	gate    sync.RWMutex
	retired bool // Guarded by gate.

	mu    sync.Mutex // Guards all below.
	users int
	gone  bool // Closed, or to be closed by the last user.
}

// retire keeps new callers out. It is called by the client's logger, before the
// client tells itself to rediscover.
func (c *connection) retire() {
	c.gate.Lock()
	c.retired = true
	c.gate.Unlock()
}

// enter takes the connection for one call, or returns false if it is retired. The
// returned context must be the one that is given to the client.
func (c *connection) enter(ctx context.Context) (context.Context, func(), bool) {
	if !c.gate.TryRLock() { // It is being retired.
		return nil, nil, false
	}
	if c.retired {
		c.gate.RUnlock()
		return nil, nil, false
	}
	c.mu.Lock()
	c.users++
	c.mu.Unlock()
	g := &gateContext{Context: ctx, open: sync.OnceFunc(c.gate.RUnlock)}
	return g, g.open, true
}

// leave ends one use.
func (c *connection) leave() {
	c.mu.Lock()
	c.users--
	last := c.gone && c.users == 0
	c.mu.Unlock()
	if last {
		c.shut()
	}
}

// discard closes the client once nobody uses it.
func (c *connection) discard() {
	c.mu.Lock()
	now := !c.gone && c.users == 0
	c.gone = true
	c.mu.Unlock()
	if now {
		c.shut()
	}
}

func (c *connection) shut() { _ = c.client.Close() } // It always returns nil.

// gateContext opens the gate when its deadline is asked for: the client does that
// right after it took its transport, and before it sends.
type gateContext struct {
	context.Context //nolint:containedctx // It is a context.

	open func()
}

// Deadline implements [context.Context].
func (g *gateContext) Deadline() (time.Time, bool) {
	g.open()
	return g.Context.Deadline()
}

// pool holds the connection in use and makes a new one when it is retired.
type pool struct {
	cfg    Config
	closed chan struct{}
	idle   chan func() // Taken from by workers that have nothing to do.

	mu      sync.Mutex // Guards all below.
	current *connection
	dialing chan struct{} // Closed when the attempt in progress has ended; nil if none is.
	dialErr error         // Of the last attempt.
	ended   bool
	calls   sync.WaitGroup // Every call in the client, and every attempt. Added to under mu.
}

func newPool(cfg Config) *pool {
	return &pool{cfg: cfg, closed: make(chan struct{}), idle: make(chan func())}
}

// answer is what a call in the client came to.
type answer[T any] struct {
	value T
	err   error
}

// call runs fn with a client that works. The context that fn is given must be
// passed to the client. call returns when ctx ends even if the client does not;
// fn must not write to what its caller reads.
func call[T any](ctx context.Context, p *pool, fn func(context.Context, *esdb.Client) (T, error)) (T, error) {
	c, inner, open, err := p.take(ctx)
	if err != nil {
		var none T
		return none, err
	}
	done := make(chan answer[T], 1)
	p.spawn(func() {
		defer p.calls.Done()
		defer c.leave()
		defer open()
		v, err := fn(inner, c.client)
		if e := (*esdb.Error)(nil); errors.As(err, &e) && e.IsErrorCode(esdb.ErrorCodeConnectionClosed) {
			open()
			c.retire() // It gave up while it looked for a leader.
		}
		done <- answer[T]{v, err}
	})
	select {
	case a := <-done:
		return a.value, a.err
	case <-ctx.Done():
	}
	// A call in flight ends by itself with ctx; only one that hangs in the client is
	// left behind.
	t := time.NewTimer(hangPatience)
	defer t.Stop()
	select {
	case a := <-done:
		return a.value, a.err
	case <-t.C:
		var none T
		return none, ctx.Err()
	}
}

// spawn runs job in a goroutine that has done such a job before, if one is idle:
// growing a new stack for every call costs a tenth of it.
func (p *pool) spawn(job func()) {
	select {
	case p.idle <- job:
	default:
		go func() {
			for {
				job()
				select {
				case job = <-p.idle:
				case <-p.closed:
					return
				}
			}
		}()
	}
}

// hangPatience is how long a call whose context ended may take to notice.
const hangPatience = 100 * time.Millisecond

// take returns an entered connection, waiting for one that works.
func (p *pool) take(ctx context.Context) (*connection, context.Context, func(), error) {
	for {
		p.mu.Lock()
		if p.ended {
			p.mu.Unlock()
			return nil, nil, nil, fmt.Errorf("%w: %w", errNotSent, ErrClosed)
		}
		if c := p.current; c != nil {
			if inner, open, ok := c.enter(ctx); ok {
				p.calls.Add(1)
				p.mu.Unlock()
				return c, inner, open, nil
			}
			p.current = nil
			c.discard()
		}
		if p.dialing == nil {
			p.dialing = make(chan struct{})
			p.calls.Add(1)
			go p.dial(p.dialing)
		}
		dialing := p.dialing
		p.mu.Unlock()
		select {
		case <-dialing:
		case <-ctx.Done():
			return nil, nil, nil, fmt.Errorf("%w: %w", errNotSent, ctx.Err())
		}
		p.mu.Lock()
		err := p.dialErr
		p.mu.Unlock()
		if err != nil {
			return nil, nil, nil, fmt.Errorf("%w: %w", errNotSent, err)
		}
	}
}

// dial makes one attempt to connect. The client gives up by itself after at most
// its gossip timeout.
func (p *pool) dial(done chan struct{}) {
	defer p.calls.Done()
	c, err := p.connect()
	p.mu.Lock()
	defer p.mu.Unlock()
	defer close(done)
	p.dialing, p.dialErr = nil, err
	if err == nil {
		p.current = c
		if p.ended {
			p.current = nil
			c.discard()
		}
	}
}

func (p *pool) connect() (*connection, error) {
	conf, err := p.cfg.client()
	if err != nil {
		return nil, err
	}
	c := &connection{}
	conf.Logger = p.logger(c)
	if c.client, err = esdb.NewClient(conf); err != nil {
		return nil, fmt.Errorf("event log: %w", err)
	}
	if _, err := c.client.GetServerVersion(); err != nil {
		c.shut()
		return nil, err
	}
	return c, nil
}

// logger passes the client's messages on at debug level, without their arguments'
// formatting when nobody looks, and retires the connection on Unavailable.
func (p *pool) logger(c *connection) esdb.LoggingFunc {
	return func(level esdb.LogLevel, format string, args ...any) {
		if level == esdb.LogError && len(args) > 0 {
			if err, ok := args[0].(error); ok && status.Code(err) == codes.Unavailable {
				c.retire()
			}
		}
		ctx := context.Background()
		if p.cfg.Logger.Enabled(ctx, slog.LevelDebug) {
			p.cfg.Logger.DebugContext(ctx, "event log client", slog.String("message", fmt.Sprintf(format, args...)))
		}
	}
}

// close ends the pool: callers get [ErrClosed], calls in flight are waited for, at
// most for limit.
func (p *pool) close(limit time.Duration) error {
	p.mu.Lock()
	if p.ended {
		p.mu.Unlock()
		return nil
	}
	p.ended = true
	close(p.closed)
	c := p.current
	p.current = nil
	p.mu.Unlock()
	if c != nil {
		c.discard()
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		p.calls.Wait()
	}()
	select {
	case <-done:
		return nil
	case <-time.After(limit):
		return errors.New("close event log: a call hangs in the client")
	}
}
