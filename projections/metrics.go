package projections

import (
	"fmt"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Metrics are the projections' figures. One serves any number of runners.
type Metrics struct {
	blocks    prometheus.Counter
	events    prometheus.Counter
	rows      *prometheus.CounterVec
	poisoned  prometheus.Counter
	redos     prometheus.Counter
	deletions prometheus.Counter
	rewinds   prometheus.Counter
	inserts   prometheus.Histogram
	rolled    prometheus.Counter
	position  prometheus.Gauge
	lag       prometheus.Gauge

	done atomic.Uint64
}

// NewMetrics registers the projections' metrics with reg.
func NewMetrics(reg prometheus.Registerer) (*Metrics, error) {
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Name: "keytrail_projection_" + name, Help: help})
	}
	gauge := func(name, help string) prometheus.Gauge {
		return prometheus.NewGauge(prometheus.GaugeOpts{Name: "keytrail_projection_" + name, Help: help})
	}
	m := &Metrics{
		blocks: counter("blocks_total", "Blocks completed by this process."),
		events: counter("events_total", "Events in completed blocks."),
		rows: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "keytrail_projection_rows_total", Help: "Rows in completed blocks, by table.",
		}, []string{"table"}),
		poisoned:  counter("poisoned_total", "Events set aside because they cannot be made into rows."),
		redos:     counter("redos_total", "Blocks made again after a crash, a fault or a takeover."),
		deletions: counter("deletions_total", "Times that a block's rows were deleted because their count was wrong."),
		rewinds:   counter("rewinds_total", "Times that the tables did not hold what the ledger says, and blocks were made again."),
		inserts: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "keytrail_projection_insert_seconds", Help: "Time to write one block into all tables.",
			Buckets: prometheus.ExponentialBuckets(0.01, 2, 12),
		}),
		rolled:   counter("rolled_hours_total", "Hours of an account whose rollup was computed."),
		position: gauge("position", "Log position that the tables are complete up to."),
		lag:      gauge("lag_seconds", "How long the oldest event that is not in the tables has been known."),
	}
	for _, c := range []prometheus.Collector{
		m.blocks, m.events, m.rows, m.poisoned, m.redos, m.deletions, m.rewinds, m.inserts, m.rolled, m.position, m.lag,
	} {
		if err := reg.Register(c); err != nil {
			return nil, fmt.Errorf("register projection metrics: %w", err)
		}
	}
	return m, nil
}

// block counts a completed block.
func (m *Metrics) block(b *block) {
	m.blocks.Inc()
	m.events.Add(float64(b.events))
	m.poisoned.Add(float64(len(b.poison)))
	for table, n := range b.rowsPerTable() {
		m.rows.WithLabelValues(table).Add(float64(n))
	}
	m.done.Add(1)
}

// completed returns how many blocks were counted.
func (m *Metrics) completed() uint64 { return m.done.Load() }

func (m *Metrics) inserted(took time.Duration) { m.inserts.Observe(took.Seconds()) }

// follow shows how far the tables are.
func (m *Metrics) follow(position uint64, lag time.Duration) {
	m.position.Set(float64(position))
	m.lag.Set(lag.Seconds())
}
