package projections

import "time"

const (
	// rateSpan is the time that a rate is of.
	rateSpan = 10 * time.Second
	// rateEvery is how far apart its samples are at least.
	rateEvery = 500 * time.Millisecond
)

// rate is how fast a count grows.
type rate struct{ samples []rateSample }

type rateSample struct {
	at    time.Time
	count uint64
}

// add takes in the count at a time, which must not be before the last.
func (r *rate) add(at time.Time, count uint64) {
	if n := len(r.samples); n > 1 && at.Sub(r.samples[n-2].at) < rateEvery {
		r.samples[n-1] = rateSample{at, count}
	} else {
		r.samples = append(r.samples, rateSample{at, count})
	}
	for len(r.samples) > 2 && at.Sub(r.samples[1].at) > rateSpan {
		r.samples = r.samples[1:]
	}
}

// perSecond returns the rate over the last seconds.
func (r *rate) perSecond(now time.Time) float64 {
	if len(r.samples) < 2 {
		return 0
	}
	first, last := r.samples[0], r.samples[len(r.samples)-1]
	if now.Sub(last.at) > rateSpan || last.count < first.count {
		return 0 // Nothing moves, or it was begun anew.
	}
	return float64(last.count-first.count) / max(now.Sub(first.at).Seconds(), rateEvery.Seconds())
}
