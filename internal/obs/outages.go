package obs

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// outageEvery is how often an outage that goes on is told, and after how long without a
// refused request it is over.
const outageEvery = 10 * time.Second

// Outages count the requests that could not be answered because something is away, by
// cause. They tell the log when that begins, every ten seconds how many there were, and
// when it is over: not each request. It is safe for concurrent use.
type Outages struct {
	logger *slog.Logger
	total  *prometheus.CounterVec

	mu      sync.Mutex // Guards byCause.
	byCause map[string]*outage
}

// outage is one cause that was met lately.
type outage struct {
	began  time.Time
	total  uint64
	recent uint64 // Since it was told last.
	err    error  // The newest.
}

// NewOutages returns outages that are counted in reg. Until [Outages.Run] only their
// beginnings are told.
func NewOutages(reg *prometheus.Registry, logger *slog.Logger) (*Outages, error) {
	o := &Outages{logger: logger, byCause: map[string]*outage{}, total: prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "keytrail_unavailable_total", Help: "Requests answered 503, by cause.",
	}, []string{"cause"})}
	if err := reg.Register(o.total); err != nil {
		return nil, fmt.Errorf("register outages: %w", err)
	}
	return o, nil
}

// Count takes in one request. cause must be one of few words; err is for the operator.
func (o *Outages) Count(ctx context.Context, cause string, err error) {
	o.total.WithLabelValues(cause).Inc()
	o.mu.Lock()
	one := o.byCause[cause]
	begins := one == nil
	if begins {
		one = &outage{began: time.Now()}
		o.byCause[cause] = one
	}
	one.total++
	one.recent++
	one.err = err
	o.mu.Unlock()
	if begins {
		o.logger.ErrorContext(ctx, "requests are answered 503", slog.String("cause", cause), slog.Any("error", err))
	}
}

// Run tells how outages go on until ctx ends, which is no error.
func (o *Outages) Run(ctx context.Context) error {
	tick := time.NewTicker(outageEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case now := <-tick.C:
			o.tell(ctx, now)
		}
	}
}

// tell logs every outage once, and forgets those that are over.
func (o *Outages) tell(ctx context.Context, now time.Time) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for cause, one := range o.byCause {
		since := now.Sub(one.began).Round(time.Millisecond)
		if one.recent == 0 {
			delete(o.byCause, cause)
			o.logger.LogAttrs(ctx, slog.LevelInfo, "requests are no longer answered 503",
				slog.String("cause", cause), slog.Uint64("requests", one.total), slog.Duration("since", since))
			continue
		}
		one.recent = 0
		o.logger.LogAttrs(ctx, slog.LevelWarn, "requests are still answered 503",
			slog.String("cause", cause), slog.Uint64("requests", one.total), slog.Duration("since", since), slog.Any("error", one.err))
	}
}
