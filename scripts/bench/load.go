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
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"example.com/keytrail/internal/client"
)

// recordsPerBatch is the size of one request of usage.
const recordsPerBatch = 20_000

// commands measures durable updates of keys: one client, then 32, each on keys of its own.
func (b *bench) commands(ctx context.Context) error {
	var me struct {
		IAMID string `json:"iam_id"`
	}
	req := client.Request{Method: http.MethodGet, Path: "/v1/apikeys/details", Header: http.Header{"Iam-Apikey": {b.http.Key()}}}
	if err := b.http.JSON(ctx, req, nil, &me); err != nil {
		return err
	}
	keys := make([]string, 32)
	for i := range keys {
		var k struct{ ID string }
		in := map[string]string{"name": "bench-" + strconv.Itoa(i), "iam_id": me.IAMID}
		if err := b.http.JSON(ctx, client.Request{Method: http.MethodPost, Path: "/v1/apikeys"}, in, &k); err != nil {
			return err
		}
		keys[i] = k.ID
	}
	for _, clients := range []int{1, 32} {
		took, err := b.updates(ctx, keys[:clients])
		if err != nil {
			return err
		}
		b.say(fmt.Sprintf("key updates, durable, clients=%d", clients), "%.0f/s, p50 %s, p99 %s",
			float64(len(took))/b.seconds.Seconds(), quantile(took, 0.5), quantile(took, 0.99))
	}
	return nil
}

// updates renames each key, one client a key, again and again until the time is up.
func (b *bench) updates(ctx context.Context, keys []string) ([]time.Duration, error) {
	var mu sync.Mutex // Guards all.
	var all []time.Duration
	end := time.Now().Add(b.seconds)
	g, ctx := errgroup.WithContext(ctx)
	for _, key := range keys {
		g.Go(func() error {
			var took []time.Duration
			for n := 0; time.Now().Before(end); n++ {
				t0 := time.Now()
				in := map[string]string{"name": "bench " + strconv.FormatInt(t0.UnixNano(), 36)}
				req := client.Request{Method: http.MethodPut, Path: "/v1/apikeys/" + key, Header: http.Header{"If-Match": {"*"}}}
				if err := b.http.JSON(ctx, req, in, nil); err != nil {
					return err
				}
				took = append(took, time.Since(t0))
			}
			mu.Lock()
			all = append(all, took...)
			mu.Unlock()
			return nil
		})
	}
	return all, g.Wait()
}

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
	b.say("usage, acknowledged (fsynced)", "%.0f/s (%.0f bytes a record)", n/acked.Seconds(), float64(bytesSent.Load())/n)
	b.say("usage, until queryable", "%.0f/s", n/queryable.Seconds())
	own, children, err := residentBytes(b.srv.PID())
	if err != nil {
		return err
	}
	b.say("memory after it, process / engine", "%.0f MB / %.0f MB", mb(own), mb(children))
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
