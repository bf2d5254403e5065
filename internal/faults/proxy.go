package faults

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"
)

// proxyChunk is what a proxy reads at once: small, so that a cut can fall anywhere.
const proxyChunk = 16 << 10

// Link is what a proxy does to its connections. The zero value passes everything on.
type Link struct {
	// Refuse cuts new connections at once.
	Refuse bool
	// Deaf swallows what clients send, Mute what servers answer: the connection stays up
	// and nothing comes.
	Deaf, Mute bool
	// Delay holds every chunk back.
	Delay time.Duration
	// CutRequest and CutAnswer cut a connection once so many bytes of requests or answers
	// have passed since the link was set; 0 means never.
	CutRequest, CutAnswer int64
}

// Proxy stands between clients and a server and spoils the connection. It is safe for
// concurrent use.
type Proxy struct {
	l    net.Listener
	done chan struct{}
	wg   sync.WaitGroup

	mu       sync.Mutex // Guards all below.
	network  string
	target   string
	link     Link
	conns    map[*pair]struct{}
	requests int64 // Bytes that passed since link was set.
	answers  int64
}

// pair is one connection of a client and its connection to the server.
type pair struct{ client, server net.Conn }

func (c *pair) cut() { _ = errors.Join(c.client.Close(), c.server.Close()) } // Cut is cut.

// NewProxy listens on a free port of the loopback address. Until Target is called it
// refuses everybody.
func NewProxy(ctx context.Context) (*Proxy, error) {
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("proxy: %w", err)
	}
	p := &Proxy{l: l, done: make(chan struct{}), conns: map[*pair]struct{}{}}
	p.wg.Go(p.accept)
	return p, nil
}

// Address is where clients connect: host and port.
func (p *Proxy) Address() string { return p.l.Addr().String() }

// Target says where new connections go: "tcp" and host:port, or "unix" and a path.
func (p *Proxy) Target(network, address string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.network, p.target = network, address
}

// Set changes what happens to all connections from now on.
func (p *Proxy) Set(l Link) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.link, p.requests, p.answers = l, 0, 0
}

// Cut ends all connections that there are.
func (p *Proxy) Cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.conns {
		c.cut()
	}
}

// Close ends the proxy and waits until nothing of it is left.
func (p *Proxy) Close() error {
	close(p.done)
	err := p.l.Close()
	p.Cut()
	p.wg.Wait()
	if err != nil {
		return fmt.Errorf("close proxy: %w", err)
	}
	return nil
}

func (p *Proxy) accept() {
	for {
		client, err := p.l.Accept()
		if err != nil {
			return // Closed.
		}
		p.wg.Go(func() { p.serve(client) })
	}
}

// serve joins client with the server until one of them is cut.
func (p *Proxy) serve(client net.Conn) {
	p.mu.Lock()
	refuse, network, target := p.link.Refuse, p.network, p.target
	p.mu.Unlock()
	var server net.Conn
	err := errors.New("refused")
	if !refuse && target != "" {
		server, err = (&net.Dialer{Timeout: time.Second}).DialContext(context.Background(), network, target)
	}
	if err != nil {
		_ = client.Close() // Nobody is there.
		return
	}
	c := &pair{client, server}
	p.mu.Lock()
	p.conns[c] = struct{}{}
	p.mu.Unlock()
	var both sync.WaitGroup
	both.Go(func() { p.pump(c, server, client, true) })
	both.Go(func() { p.pump(c, client, server, false) })
	select { // Close may have cut all others before this one was noted.
	case <-p.done:
		c.cut()
	default:
	}
	both.Wait()
	p.mu.Lock()
	delete(p.conns, c)
	p.mu.Unlock()
}

// pump copies from src to dst until c is cut.
func (p *Proxy) pump(c *pair, dst, src net.Conn, request bool) {
	defer c.cut()
	buf := make([]byte, proxyChunk)
	for {
		n, err := src.Read(buf)
		if n > 0 {
			pass, delay, cut := p.judge(n, request)
			if !p.wait(delay) {
				return
			}
			if _, err := dst.Write(buf[:pass]); err != nil || cut {
				return
			}
		}
		if err != nil {
			return
		}
	}
}

// judge says how many of n bytes pass, how late, and whether the connection is cut after
// them.
func (p *Proxy) judge(n int, request bool) (pass int, delay time.Duration, cut bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	seen, limit, swallow := &p.answers, p.link.CutAnswer, p.link.Mute
	if request {
		seen, limit, swallow = &p.requests, p.link.CutRequest, p.link.Deaf
	}
	if swallow {
		return 0, 0, false
	}
	pass = n
	if limit > 0 && *seen+int64(n) >= limit {
		pass, cut = int(max(limit-*seen, 0)), true
		*seen = 0 // The next connection may pass as much.
		return pass, p.link.Delay, cut
	}
	*seen += int64(n)
	return pass, p.link.Delay, false
}

// wait returns false if the proxy is closed meanwhile.
func (p *Proxy) wait(d time.Duration) bool {
	if d <= 0 {
		return true
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-p.done:
		return false
	}
}
