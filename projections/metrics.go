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
	// By generation.
	position, lag, rate, held, attempt, aside, pending *prometheus.GaugeVec

	done atomic.Uint64
}

// NewMetrics registers the projections' metrics with reg.
func NewMetrics(reg prometheus.Registerer) (*Metrics, error) {
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Name: "keytrail_projection_" + name, Help: help})
	}
	byGeneration := func(name, help string) *prometheus.GaugeVec {
		return prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "keytrail_projection_" + name, Help: help}, []string{"generation"})
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
		position: byGeneration("position", "Log position that the tables are complete up to."),
		lag:      byGeneration("lag_seconds", "How long the oldest event that is not in the tables has been known."),
		rate:     byGeneration("events_per_second", "Events that the tables took in, over the last seconds."),
		held:     byGeneration("held", "1 on the node whose runner writes the tables, else 0."),
		attempt:  byGeneration("attempt", "How often the block that is being written was begun anew; 0 if nothing is under way or wrong."),
		aside:    byGeneration("poisoned", "Events that are set aside because they could not be read."),
		pending:  byGeneration("rollups_pending", "Hours of an account whose rollup is to be computed; readers take them from the uses."),
	}
	for _, c := range []prometheus.Collector{
		m.blocks, m.events, m.rows, m.poisoned, m.redos, m.deletions, m.rewinds, m.inserts, m.rolled, m.position, m.lag,
		m.rate, m.held, m.attempt, m.aside, m.pending,
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

// follow shows how tables are.
func (m *Metrics) follow(s TrackerStatus) {
	set := func(g *prometheus.GaugeVec, v float64) { g.WithLabelValues(s.Generation).Set(v) }
	set(m.position, float64(s.Position))
	set(m.lag, s.Lag.Seconds())
	set(m.rate, s.EventsPerSecond)
	set(m.attempt, float64(s.Attempt))
	set(m.aside, float64(s.Poisoned))
	held := 0.0
	if s.Runner.writes() {
		held = 1
	}
	set(m.held, held)
}

// rollups shows how many hours a roller has before it.
func (m *Metrics) rollups(generation string, hours int) {
	m.pending.WithLabelValues(generation).Set(float64(hours))
}

// forget drops the figures of tables that are no more.
func (m *Metrics) forget(generation string) {
	for _, g := range []*prometheus.GaugeVec{m.position, m.lag, m.rate, m.held, m.attempt, m.aside, m.pending} {
		g.DeleteLabelValues(generation)
	}
}
