package eventlog_test

import (
	"net"
	"sync"
	"testing"
)

// proxy stands between client and server and can lose answers, refuse and cut
// connections.
type proxy struct {
	target string
	l      net.Listener
	wg     sync.WaitGroup

	mu    sync.Mutex // Guards all below.
	conns map[net.Conn]struct{}
	mute  bool // Answers are swallowed.
	down  bool // New connections are cut at once.
	heard chan struct{}
}

func startProxy(t *testing.T, target string) *proxy {
	t.Helper()
	var lc net.ListenConfig
	l, err := lc.Listen(t.Context(), "unix", socketPath(t))
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{target: target, l: l, conns: map[net.Conn]struct{}{}, heard: make(chan struct{}, 1)}
	p.wg.Go(p.accept)
	t.Cleanup(func() {
		_ = l.Close() // It is only the listener of a test.
		p.cut()
		p.wg.Wait()
	})
	return p
}

func (p *proxy) accept() {
	for {
		c, err := p.l.Accept()
		if err != nil {
			return
		}
		p.mu.Lock()
		down := p.down
		p.mu.Unlock()
		s, err := net.Dial("unix", p.target)
		if down || err != nil {
			_ = c.Close()
			if err == nil {
				_ = s.Close()
			}
			continue
		}
		p.mu.Lock()
		p.conns[c], p.conns[s] = struct{}{}, struct{}{}
		p.mu.Unlock()
		p.wg.Go(func() { p.pump(s, c, false) })
		p.wg.Go(func() { p.pump(c, s, true) })
	}
}

// pump copies from src to dst until one of them is cut.
func (p *proxy) pump(dst, src net.Conn, answers bool) {
	buf := make([]byte, 64<<10)
	for {
		n, err := src.Read(buf)
		if err != nil {
			_ = dst.Close()
			_ = src.Close()
			return
		}
		p.mu.Lock()
		mute := p.mute && answers
		p.mu.Unlock()
		if mute {
			select {
			case p.heard <- struct{}{}:
			default:
			}
			continue
		}
		if _, err := dst.Write(buf[:n]); err != nil {
			_ = src.Close()
			return
		}
	}
}

// cut closes all connections.
func (p *proxy) cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.conns {
		_ = c.Close()
	}
	clear(p.conns)
}

// set changes what the proxy does.
func (p *proxy) set(mute, down bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.mute, p.down = mute, down
}
