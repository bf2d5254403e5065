package horizon

import (
	"context"
	"errors"
	"maps"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"example.com/keytrail/domain"
)

// ClassStatus is the horizon of one class.
type ClassStatus struct {
	Class string `json:"class"`
	// HorizonSeconds is 0 for never.
	HorizonSeconds int64 `json:"horizon_seconds"`
	// Archive is the folder, empty where nothing is kept.
	Archive string `json:"archive,omitempty"`
}

// Status is what a keeper knows.
type Status struct {
	Classes  []ClassStatus `json:"classes"`
	Sealed   uint64        `json:"segments_sealed"`
	Archived uint64        `json:"segments_archived"`
	Bytes    uint64        `json:"bytes_archived"`
	// Waiting says for each stream why its oldest sealed segment that is not cut stays.
	Waiting map[string]string `json:"waiting,omitempty"`
	// LastPass is when a pass ended last, nil before the first.
	LastPass *time.Time `json:"last_pass,omitempty"`
	// Error is for operators; empty if the last pass was complete.
	Error string `json:"error,omitempty"`
}

func statusOf(cfg Config) Status {
	var s Status
	for _, name := range slices.Sorted(maps.Keys(cfg.Classes)) {
		class := cfg.Classes[name]
		c := ClassStatus{Class: name, HorizonSeconds: int64(class.Horizon / time.Second)}
		if class.Archive != nil {
			c.Archive = class.Archive.Path()
		}
		s.Classes = append(s.Classes, c)
		if cfg.Metrics != nil {
			cfg.Metrics.horizon.WithLabelValues(name).Set(class.Horizon.Seconds())
		}
	}
	return s
}

// settle keeps what a pass did.
func (k *Keeper) settle(res Result, err error) {
	now := k.cfg.Now().UTC()
	sealed, archived, bytes := k.cfg.Seals.Totals()
	k.mu.Lock()
	s := &k.status
	s.Sealed, s.Archived, s.Bytes, s.Waiting, s.LastPass, s.Error = sealed, archived, bytes, res.Waiting, &now, ""
	if err != nil {
		s.Error = err.Error()
	}
	k.mu.Unlock()
	if k.cfg.Metrics != nil {
		k.cfg.Metrics.settle(sealed, archived, bytes, res, err)
	}
}

// Status returns what the last pass found. It reads nothing.
func (k *Keeper) Status() Status {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.status
}

// Report is what [Keeper.Check] found.
type Report struct {
	// Segments counts all; Archived those whose file was read, Unkept those that have none.
	Segments uint64 `json:"segments"`
	Archived uint64 `json:"archived"`
	Unkept   uint64 `json:"unkept"`
	// Differences say what is wrong, each with its file or segment.
	Differences []string `json:"differences,omitempty"`
}

// OK reports whether every archive is what was sealed.
func (r Report) OK() bool { return len(r.Differences) == 0 }

// Check reads every archive to its end and compares it with its seal. progress, if not
// nil, is called after each file. An error means that the check did not end.
func (k *Keeper) Check(ctx context.Context, progress func(done, of int)) (Report, error) {
	if err := k.cfg.Seals.Refresh(ctx); err != nil {
		return Report{}, err
	}
	var r Report
	all := k.cfg.Seals.All()
	for i, seal := range all {
		if err := ctx.Err(); err != nil {
			return r, err
		}
		r.Segments++
		if err := k.checkOne(seal, &r); err != nil {
			r.Differences = append(r.Differences, err.Error())
		}
		if progress != nil {
			progress(i+1, len(all))
		}
	}
	return r, nil
}

func (k *Keeper) checkOne(seal domain.UsageSegmentSealed, r *Report) error {
	if seal.Archive == nil {
		r.Unkept++
		return nil
	}
	r.Archived++
	name, _ := domain.UsageClassOf(seal.Stream)
	dir := k.cfg.Classes[name].Archive
	if dir == nil {
		return errors.New("archive " + seal.Archive.Name + ": class " + name + " names no archive folder here")
	}
	return dir.Check(seal)
}

// Metrics are a keeper's.
type Metrics struct {
	horizon          *prometheus.GaugeVec
	segments         *prometheus.GaugeVec
	bytes            prometheus.Gauge
	failing, waiting prometheus.Gauge
	cut, errors      prometheus.Counter
}

// NewMetrics registers the metrics of one keeper.
func NewMetrics(reg prometheus.Registerer) (*Metrics, error) {
	m := &Metrics{
		horizon:  prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "keytrail_horizon_seconds", Help: "Age from which usage of a class may be cut; 0 is never."}, []string{"class"}),
		segments: prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "keytrail_horizon_segments", Help: "Sealed segments of usage streams, and those of them that are archived."}, []string{"state"}),
		bytes:    prometheus.NewGauge(prometheus.GaugeOpts{Name: "keytrail_horizon_archived_bytes", Help: "Bytes of all archive files."}),
		failing:  prometheus.NewGauge(prometheus.GaugeOpts{Name: "keytrail_horizon_failing", Help: "1 if the last pass was not complete."}),
		waiting:  prometheus.NewGauge(prometheus.GaugeOpts{Name: "keytrail_horizon_streams_waiting", Help: "Streams with sealed segments that may not be cut yet."}),
		cut:      prometheus.NewCounter(prometheus.CounterOpts{Name: "keytrail_horizon_segments_cut_total", Help: "Segments cut by this process."}),
		errors:   prometheus.NewCounter(prometheus.CounterOpts{Name: "keytrail_horizon_errors_total", Help: "Passes that were not complete."}),
	}
	for _, c := range []prometheus.Collector{m.horizon, m.segments, m.bytes, m.failing, m.waiting, m.cut, m.errors} {
		if err := reg.Register(c); err != nil {
			return nil, err
		}
	}
	return m, nil
}

func (m *Metrics) settle(sealed, archived, bytes uint64, res Result, err error) {
	m.segments.WithLabelValues("sealed").Set(float64(sealed))
	m.segments.WithLabelValues("archived").Set(float64(archived))
	m.bytes.Set(float64(bytes))
	m.waiting.Set(float64(len(res.Waiting)))
	m.cut.Add(float64(res.Cut))
	m.failing.Set(0)
	if err != nil {
		m.failing.Set(1)
		m.errors.Inc()
	}
}
