package main

import (
	"context"
	"log/slog"
	"math"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"example.com/keytrail/internal/obs"
)

const (
	// commandMax bounds a request about keys and accounts, a sign-in too.
	commandMax = 12 * time.Second
	// logProbeMax and logPatience say when the event log counts as away: a probe tries again
	// by itself until it ends.
	logProbeMax = 2 * time.Second
	logPatience = 4 * time.Second
	// readyStream is read to see whether the log answers. It holds nothing.
	readyStream = "ktx.ready"
)

// buildHealth makes what watches the two stores, and counts what cannot be answered.
func (a *app) buildHealth() error {
	log := a.log.With(slog.String("component", "health"))
	var err error
	if a.outages, err = obs.NewOutages(a.metrics, log); err != nil {
		return err
	}
	a.logUp, err = obs.NewWatch(obs.WatchConfig{
		Name: "event log", Registry: a.metrics, Logger: log, Timeout: logProbeMax, Patience: logPatience,
		Probe: func(ctx context.Context) error {
			_, _, err := a.stores.log.Last(ctx, readyStream)
			return err
		},
	})
	if err != nil {
		return err
	}
	a.tablesUp, err = obs.NewWatch(obs.WatchConfig{
		Name: "ClickHouse", Registry: a.metrics, Logger: log, Probe: a.stores.server.Ping,
		// What waits on it waits in vain: when it hangs, for an answer; when it is back, on a
		// connection from before. What was cut off is tried again by who needs it.
		Changed: func(bool) { a.stores.conns.Cut() },
	})
	if err != nil || a.stores.engine == nil {
		return err
	}
	return a.metrics.Register(prometheus.NewCounterFunc(prometheus.CounterOpts{
		Name: "keytrail_engine_restarts_total", Help: "Children of the embedded ClickHouse engine that died, or were killed because they hung.",
	}, func() float64 { return float64(a.stores.engine.Status().Restarts) }))
}

// measurePulses shows how fresh the directory of keys is.
func (a *app) measurePulses() error {
	for _, c := range []prometheus.Collector{
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "keytrail_pulse_age_seconds", Help: "How long ago the directory of keys was complete for sure. It grows while nobody asks.",
		}, func() float64 {
			age, known := a.pulses.Age()
			if !known {
				return math.Inf(1)
			}
			return age.Seconds()
		}),
		prometheus.NewCounterFunc(prometheus.CounterOpts{
			Name: "keytrail_pulses_total", Help: "Pulses sent to the event log.",
		}, func() float64 { return float64(a.pulses.Counts().Sent) }),
		prometheus.NewCounterFunc(prometheus.CounterOpts{
			Name: "keytrail_pulses_failed_total", Help: "Pulses that the event log did not take within the bound.",
		}, func() float64 { return float64(a.pulses.Counts().Failed) }),
	} {
		if err := a.metrics.Register(c); err != nil {
			return err
		}
	}
	return nil
}
