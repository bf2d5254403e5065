package torture_test

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"example.com/keytrail/internal/client"
	"example.com/keytrail/projections"
)

const (
	verifyPath = "/v1/projections/verify"
	// judgeMax bounds a whole check, recovery of the tables included.
	judgeMax = 3 * time.Minute
)

// record is an activity record, as far as it is judged.
type record struct {
	ID            string `json:"id"`
	CorrelationID string `json:"correlationId"`
	Outcome       string `json:"outcome"`
	Keytrail      struct {
		Stream      string    `json:"stream"`
		Revision    uint64    `json:"revision"`
		EffectiveAt time.Time `json:"effective_at"`
	} `json:"keytrail"`
	Trailer json.RawMessage `json:"trailer"`
}

// verdict is what a check found.
type verdict struct {
	lost, doubled []string
	faults        []string // Anything else.
	// What the check cost.
	verify, export time.Duration
	records        int
}

func (v verdict) ok() bool { return len(v.lost)+len(v.doubled)+len(v.faults) == 0 }

// String lists the first of each.
func (v verdict) String() string {
	first := func(list []string) []string { return list[:min(len(list), 10)] }
	return fmt.Sprintf("%d lost %q, %d doubled %q, %d other faults:\n%s", len(v.lost), first(v.lost), len(v.doubled), first(v.doubled), len(v.faults), strings.Join(first(v.faults), "\n"))
}

// judge checks the tables against the log, then every write of the book against what an
// export holds.
func judge(ctx context.Context, c *client.Client, b *book) (verdict, error) {
	ctx, cancel := context.WithTimeout(ctx, judgeMax)
	defer cancel()
	var v verdict
	began := time.Now()
	report, err := untilAnswered(ctx, func() (projections.Report, error) {
		var report projections.Report
		err := c.JSON(ctx, client.Request{Method: http.MethodPost, Path: verifyPath}, nil, &report)
		return report, err
	})
	if err != nil {
		return v, fmt.Errorf("verify projections: %w", err)
	}
	if !report.OK() {
		text, err := json.Marshal(report)
		v.faults = append(v.faults, fmt.Sprintf("verify projections finds differences: %s (%v)", text, err))
	}
	v.verify = time.Since(began)
	known := b.snapshot() // Whatever is acknowledged by now must be in the export.
	records, err := untilAnswered(ctx, func() ([]record, error) { return export(ctx, c) })
	if err != nil {
		return v, fmt.Errorf("export: %w", err)
	}
	v.export, v.records = time.Since(began)-v.verify, len(records)
	v.faults = append(v.faults, orderFaults(records)...)
	v.count(known, b, records)
	return v, nil
}

// untilAnswered calls f until it is no longer told that the server cannot say now.
func untilAnswered[T any](ctx context.Context, f func() (T, error)) (T, error) {
	for {
		out, err := f()
		if err == nil || ctx.Err() != nil {
			return out, err
		}
		e, answered := errors.AsType[*client.Error](err)
		if answered && e.Status != http.StatusServiceUnavailable {
			return out, err
		}
		pause(retryAfter)
	}
}

// export returns every activity record, once the tables hold all that the log holds now.
func export(ctx context.Context, c *client.Client) ([]record, error) {
	var list struct {
		Projections []struct{ Name, Head string }
	}
	if err := c.JSON(ctx, client.Request{Method: http.MethodGet, Path: "/v1/projections"}, nil, &list); err != nil {
		return nil, err
	}
	h := http.Header{}
	for _, p := range list.Projections {
		if p.Name == "tables" {
			h.Set("Keytrail-Wait-Position", p.Head)
		}
	}
	resp, err := c.Do(ctx, client.Request{Method: http.MethodGet, Path: "/v1/events/export", Query: url.Values{"format": {"ndjson"}}, Header: h})
	if err != nil {
		return nil, err
	}
	defer func() { _ = resp.Body.Close() }() // Read to its end.
	var all []record
	dec := json.NewDecoder(resp.Body)
	for {
		var r record
		if err := dec.Decode(&r); err != nil {
			return nil, fmt.Errorf("export broke off after %d records: %w", len(all), errors.Join(err, io.ErrUnexpectedEOF))
		}
		if r.Trailer != nil {
			return all, nil
		}
		all = append(all, r)
	}
}

// orderFaults finds streams of our own commands whose effective times go back. Facts about
// external keys are true from when their source says, in whatever order they come.
func orderFaults(records []record) []string {
	streams := map[string][]record{}
	for _, r := range records {
		if s := r.Keytrail.Stream; isOurs(s, "kt.apikey-ApiKey-", "kt.account-") {
			streams[s] = append(streams[s], r)
		}
	}
	var found []string
	for name, list := range streams {
		slices.SortFunc(list, func(a, b record) int { return cmp.Compare(a.Keytrail.Revision, b.Keytrail.Revision) })
		for i := 1; i < len(list); i++ {
			if !list[i].Keytrail.EffectiveAt.After(list[i-1].Keytrail.EffectiveAt) {
				found = append(found, fmt.Sprintf("effective time of %s goes from %v to %v at revision %d", name, list[i-1].Keytrail.EffectiveAt, list[i].Keytrail.EffectiveAt, list[i].Keytrail.Revision))
			}
		}
	}
	return found
}

// count compares what is there with what was written. known is the book as it was before
// the records were read, b the book now: a write that was sent meanwhile may be there too.
func (v *verdict) count(known snapshot, b *book, records []record) {
	there := map[string]int{}
	for _, r := range records {
		switch id, corr := r.ID, r.CorrelationID; {
		case isOurs(id, "u-", "i-"):
			there[id]++
		case isOurs(corr, "x-"), isOurs(corr, "c-") && r.Outcome == "success", isOurs(corr, "l-"):
			there[corr]++
		}
	}
	for id, w := range known.writes {
		if w.acked && there[id] == 0 {
			v.lost = append(v.lost, fmt.Sprintf("%s %s", w.kind, id))
		}
	}
	sent := b.snapshot().writes
	for id, n := range there {
		if n > 1 {
			v.doubled = append(v.doubled, fmt.Sprintf("%s %s (%d times)", sent[id].kind, id, n))
		}
		if _, ok := sent[id]; !ok {
			v.faults = append(v.faults, fmt.Sprintf("%s is there and was never sent", id))
		}
	}
	slices.Sort(v.lost)
	slices.Sort(v.doubled)
}

func isOurs(id string, prefixes ...string) bool {
	return slices.ContainsFunc(prefixes, func(p string) bool { return strings.HasPrefix(id, p) })
}
