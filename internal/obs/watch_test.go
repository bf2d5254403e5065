package obs_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"example.com/keytrail/internal/obs"
)

// lines is a log that a test reads while it is written.
type lines struct {
	mu sync.Mutex // Guards b.
	b  bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

// take returns what was logged since the last call, without times.
func (l *lines) take() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	text := strings.TrimSpace(l.b.String())
	l.b.Reset()
	if text == "" {
		return nil
	}
	return strings.Split(text, "\n")
}

func (l *lines) logger() *slog.Logger {
	return slog.New(slog.NewTextHandler(l, &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey {
			return slog.Attr{}
		}
		return a
	}}))
}

// value returns the one value of a metric with a label value, NaN-free.
func value(t *testing.T, reg *prometheus.Registry, name, label string) float64 {
	t.Helper()
	all, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range all {
		for _, m := range f.GetMetric() {
			for _, l := range m.GetLabel() {
				if f.GetName() == name && l.GetValue() == label {
					return m.GetGauge().GetValue() + m.GetCounter().GetValue()
				}
			}
		}
	}
	t.Fatalf("no %s of %s", name, label)
	return 0
}

// store answers, refuses or hangs.
type store struct {
	mu    sync.Mutex // Guards all below.
	fault error
	hangs bool
}

func (s *store) set(fault error, hangs bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fault, s.hangs = fault, hangs
}

func (s *store) probe(ctx context.Context) error {
	s.mu.Lock()
	fault, hangs := s.fault, s.hangs
	s.mu.Unlock()
	if hangs {
		<-ctx.Done()
		return ctx.Err()
	}
	return fault
}

func TestAWatchTellsWhenAStoreGoesAndWhenItComes(t *testing.T) {
	t.Parallel()
	refused := errors.New("refused")
	for _, tt := range []struct {
		name   string
		fault  error
		hangs  bool
		within time.Duration
	}{
		{name: "refuses", fault: refused, within: 2 * time.Second},
		{name: "hangs", hangs: true, within: 17 * time.Second},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				var (
					log     lines
					s       store
					changes []bool
					reg     = prometheus.NewRegistry()
				)
				w, err := obs.NewWatch(obs.WatchConfig{Name: "log", Probe: s.probe, Changed: func(up bool) { changes = append(changes, up) }, Registry: reg, Logger: log.logger()})
				if err != nil {
					t.Fatal(err)
				}
				ctx, cancel := context.WithCancel(t.Context())
				done := make(chan error, 1)
				go func() { done <- w.Run(ctx) }()
				time.Sleep(time.Minute)
				if err := w.Err(); err != nil || value(t, reg, "keytrail_store_up", "log") != 1 || len(log.take()) != 0 {
					t.Fatalf("while all is well: %v", err)
				}
				s.set(tt.fault, tt.hangs)
				time.Sleep(tt.within)
				if w.Err() == nil || value(t, reg, "keytrail_store_up", "log") != 0 {
					t.Fatalf("%v after it went it counts as up", tt.within)
				}
				time.Sleep(time.Hour)
				if said := log.take(); len(said) != 1 || !strings.Contains(said[0], `level=ERROR msg="store does not answer" store=log`) {
					t.Errorf("an hour of it was told as %q", said)
				}
				s.set(nil, false)
				time.Sleep(10 * time.Second)
				if said := log.take(); w.Err() != nil || len(said) != 1 || !strings.Contains(said[0], "answers again") || value(t, reg, "keytrail_store_up", "log") != 1 {
					t.Errorf("back: %v, told as %q", w.Err(), said)
				}
				cancel()
				if err := <-done; err != nil || len(changes) != 2 || changes[0] || !changes[1] {
					t.Errorf("ended with %v, changes %v", err, changes)
				}
			})
		})
	}
}

// TestOneSlowAnswerIsNoOutage: what is cut off then would have been answered.
func TestOneSlowAnswerIsNoOutage(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var (
			log lines
			s   store
		)
		w, err := obs.NewWatch(obs.WatchConfig{Name: "log", Probe: s.probe, Registry: prometheus.NewRegistry(), Logger: log.logger()})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- w.Run(ctx) }()
		for range 20 {
			s.set(nil, true)
			time.Sleep(4 * time.Second)
			s.set(nil, false)
			time.Sleep(6 * time.Second)
		}
		cancel()
		if err := <-done; err != nil || w.Err() != nil || len(log.take()) != 0 {
			t.Errorf("slow answers were taken for an outage: %v", w.Err())
		}
	})
}

func TestAnOutageIsToldByItsBeginningItsCountAndItsEnd(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var log lines
		reg := prometheus.NewRegistry()
		o, err := obs.NewOutages(reg, log.logger())
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- o.Run(ctx) }()
		for i := range 250 { // 25 s.
			o.Count(ctx, "log_unavailable", errors.New("away"))
			if i == 0 {
				o.Count(ctx, "other", errors.New("away, too"))
			}
			time.Sleep(100 * time.Millisecond)
		}
		time.Sleep(time.Minute)
		said := log.take()
		var mine []string
		for _, line := range said {
			if strings.Contains(line, "cause=log_unavailable") {
				mine = append(mine, line)
			}
		}
		want := []string{"requests are answered 503", "still answered 503\" cause=log_unavailable requests=1", "still answered 503", "still answered 503", "no longer answered 503\" cause=log_unavailable requests=250"}
		if len(mine) != len(want) || len(said) != len(want)+3 {
			t.Fatalf("told as\n%s", strings.Join(said, "\n"))
		}
		for i, w := range want {
			if !strings.Contains(mine[i], w) {
				t.Errorf("line %d is %q, want it to say %q", i, mine[i], w)
			}
		}
		if n := value(t, reg, "keytrail_unavailable_total", "log_unavailable"); n != 250 {
			t.Errorf("counted %v", n)
		}
		o.Count(ctx, "log_unavailable", errors.New("again"))
		if said := log.take(); len(said) != 1 || !strings.Contains(said[0], "level=ERROR") {
			t.Errorf("a new outage was told as %q", said)
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}
