package obs

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

const (
	watchEvery    = time.Second
	watchTimeout  = 5 * time.Second
	watchPatience = 10 * time.Second
)

// WatchConfig says what a [Watch] looks at. Name, Probe, Registry and Logger are required.
type WatchConfig struct {
	// Name is what is watched, in the log and as the label of the metric.
	Name string
	// Probe asks once. It must return soon after its context ends.
	Probe func(ctx context.Context) error
	// Changed, if set, is called when what is watched goes down and when it comes back.
	Changed func(up bool)
	// Every is the pause between two probes, Timeout bounds one, and Patience is how long
	// none may succeed until what is watched counts as down. 0 means 1 s, 5 s and 10 s; a
	// probe that fails at once counts at once.
	Every, Timeout, Patience time.Duration
	Registry                 *prometheus.Registry
	Logger                   *slog.Logger
}

// Watch asks again and again whether something answers, and tells the log when that
// changes. It is safe for concurrent use.
type Watch struct {
	cfg WatchConfig
	up  prometheus.Gauge

	mu    sync.Mutex // Guards all below.
	fault error      // nil while it is up, and before the first probe.
	since time.Time  // When it went down.
}

// NewWatch returns a watch that takes for granted that all is well until [Watch.Run].
func NewWatch(cfg WatchConfig) (*Watch, error) {
	if cfg.Name == "" || cfg.Probe == nil || cfg.Registry == nil || cfg.Logger == nil {
		return nil, errors.New("watch: a name, a probe, a registry and a logger are required")
	}
	for _, d := range []struct {
		value *time.Duration
		or    time.Duration
	}{{&cfg.Every, watchEvery}, {&cfg.Timeout, watchTimeout}, {&cfg.Patience, watchPatience}} {
		if *d.value == 0 {
			*d.value = d.or
		}
	}
	w := &Watch{cfg: cfg, up: prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "keytrail_store_up", Help: "Whether a store answers.", ConstLabels: prometheus.Labels{"store": cfg.Name},
	})}
	w.up.Set(1)
	if err := cfg.Registry.Register(w.up); err != nil {
		return nil, err
	}
	return w, nil
}

// Err returns nil while it is up, else the newest fault.
func (w *Watch) Err() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.fault
}

// Run watches until ctx ends, which is no error.
func (w *Watch) Run(ctx context.Context) error {
	tick := time.NewTicker(w.cfg.Every)
	defer tick.Stop()
	last := time.Now() // Of the newest success.
	for {
		began := time.Now()
		err := w.probe(ctx)
		switch now := time.Now(); {
		case ctx.Err() != nil:
			return nil
		case err == nil:
			last = now
			w.came(ctx, now)
		case now.Sub(began) < w.cfg.Timeout || now.Sub(last) >= w.cfg.Patience:
			w.went(ctx, now, err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

func (w *Watch) probe(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, w.cfg.Timeout)
	defer cancel()
	return w.cfg.Probe(ctx)
}

// came notes that it answers.
func (w *Watch) came(ctx context.Context, now time.Time) {
	w.mu.Lock()
	down := w.fault != nil
	since := w.since
	w.fault = nil
	w.mu.Unlock()
	if !down {
		return
	}
	w.up.Set(1)
	w.cfg.Logger.InfoContext(ctx, "store answers again", slog.String("store", w.cfg.Name), slog.Duration("after", now.Sub(since)))
	w.tell(true)
}

// went notes that it does not answer.
func (w *Watch) went(ctx context.Context, now time.Time, err error) {
	w.mu.Lock()
	was := w.fault
	w.fault = err
	if was == nil {
		w.since = now
	}
	w.mu.Unlock()
	if was != nil {
		return
	}
	w.up.Set(0)
	w.cfg.Logger.ErrorContext(ctx, "store does not answer", slog.String("store", w.cfg.Name), slog.Any("error", err))
	w.tell(false)
}

func (w *Watch) tell(up bool) {
	if w.cfg.Changed != nil {
		w.cfg.Changed(up)
	}
}
