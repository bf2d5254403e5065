package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"example.com/keytrail/internal/client"
)

// recordsPerBatch is the size of one request of usage.
const recordsPerBatch = 20_000

// usage sends the records and measures until acknowledged, and until queryable.
func (b *bench) usage(ctx context.Context) error {
	now := time.Now().UTC()
	batches := make(chan []byte, b.clients)
	g, gctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		defer close(batches)
		rng := rand.New(rand.NewPCG(1, 2)) //nolint:gosec // Made-up records.
		for first := 0; first < b.uses; first += recordsPerBatch {
			select {
			case batches <- records(rng, first, min(recordsPerBatch, b.uses-first), now):
			case <-gctx.Done():
				return gctx.Err()
			}
		}
		return nil
	})
	var bytesSent atomic.Int64
	t0 := time.Now()
	for range b.clients {
		g.Go(func() error {
			for body := range batches {
				bytesSent.Add(int64(len(body)))
				if err := b.post(gctx, body); err != nil {
					return err
				}
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	acked := time.Since(t0)
	last, err := b.position(ctx)
	if err != nil {
		return err
	}
	if err := b.waitFor(ctx, last); err != nil {
		return err
	}
	queryable := time.Since(t0)
	n := float64(b.uses)
	b.found.add(figure{name: "usage, acknowledged (fsynced)", unit: "uses/s"}, n/acked.Seconds())
	b.found.add(figure{name: "usage, until queryable", unit: "uses/s"}, n/queryable.Seconds())
	b.found.add(figure{name: "usage, size of a record", unit: "bytes"}, float64(bytesSent.Load())/n)
	own, children, err := residentBytes(b.srv.PID())
	if err != nil {
		return err
	}
	b.found.add(figure{name: "memory of the process after usage", unit: "MB"}, mb(own))
	b.found.add(figure{name: "memory of the engine after usage", unit: "MB"}, mb(children))
	return b.counted(ctx, now)
}

// counted makes sure that the figure above is about records that are all there.
func (b *bench) counted(ctx context.Context, now time.Time) error {
	q := url.Values{"from": {now.Add(-8 * 24 * time.Hour).Format(time.RFC3339)}, "to": {now.Add(time.Hour).Format(time.RFC3339)}, "step": {"day"}, "action": {"storage.object.read"}}
	var out struct {
		Series []struct{ Count int }
	}
	if err := b.http.JSON(ctx, client.Request{Method: http.MethodGet, Path: "/v1/usage/series", Query: q}, nil, &out); err != nil {
		return err
	}
	sum := 0
	for _, p := range out.Series {
		sum += p.Count
	}
	if sum != b.uses {
		return fmt.Errorf("sent %d records, the tables count %d", b.uses, sum)
	}
	return nil
}

func (b *bench) post(ctx context.Context, body []byte) error {
	var out struct {
		Accepted int
		Rejected []struct{ Error string }
	}
	req := client.Request{Method: http.MethodPost, Path: "/v1/usage", Body: bytes.NewReader(body), Length: int64(len(body)), Header: http.Header{"Content-Type": {"application/x-ndjson"}}}
	if err := b.http.JSON(ctx, req, nil, &out); err != nil {
		return err
	}
	if len(out.Rejected) > 0 {
		return fmt.Errorf("the server rejected a record: %s", out.Rejected[0].Error)
	}
	return nil
}

// records makes n records of about 310 bytes: 10,000 keys, 1,000 identities, a week.
func records(rng *rand.Rand, first, n int, now time.Time) []byte {
	var b bytes.Buffer
	b.Grow(n * 330)
	for i := range n {
		key := rng.IntN(10_000)
		at := now.Add(-time.Duration(rng.Int64N(int64(7 * 24 * time.Hour)))).Format("2006-01-02T15:04:05.000Z")
		outcome, status := "success", 200
		if rng.IntN(50) == 0 {
			outcome, status = "failure", 403
		}
		fmt.Fprintf(&b, `{"id":"bench-%d","time":"%s","key_id":"AKIABENCH%010d","action":"storage.object.read","outcome":"%s","status":%d,"source_ip":"10.%d.%d.%d","user_agent":"bench-agent/1.%d (linux; amd64)","region":"eu-de-%d","target":"bucket-%d/object-%d","request_id":"%016x","latency_ms":%d,"bytes":%d}`+"\n",
			first+i, at, key, outcome, status, key%8, key%250, rng.IntN(4), key%20, key%3, key%500, rng.IntN(100_000), rng.Uint64(), rng.IntN(300), rng.IntN(1<<20))
	}
	return b.Bytes()
}

// position returns how far the log goes.
func (b *bench) position(ctx context.Context) (uint64, error) {
	var out struct {
		Projections []struct{ Name, Head string }
	}
	if err := b.http.JSON(ctx, client.Request{Method: http.MethodGet, Path: "/v1/projections"}, nil, &out); err != nil {
		return 0, err
	}
	for _, p := range out.Projections {
		if p.Name == "tables" {
			return strconv.ParseUint(p.Head, 10, 64)
		}
	}
	return 0, errors.New("the server names no projection called tables")
}

// waitFor returns when the tables hold everything up to position.
func (b *bench) waitFor(ctx context.Context, position uint64) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Minute)
	defer cancel()
	h := http.Header{"Keytrail-Wait-Position": {strconv.FormatUint(position, 10)}}
	for {
		err := b.get(ctx, "/v1/usage/top?by=key&limit=1&from=now&to=now", h)
		if err == nil || !strings.Contains(err.Error(), "503") {
			return err
		}
	}
}

func split(pathQuery string) (string, url.Values) {
	path, query, _ := strings.Cut(pathQuery, "?")
	v, err := url.ParseQuery(query)
	if err != nil {
		panic(err) // A constant of this program.
	}
	return path, v
}
