package projections_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"example.com/keytrail/domain"
	"example.com/keytrail/internal/eventlog"
	"example.com/keytrail/projections"
)

// realisticUses look like a day's log of an account: few actions, agents and
// regions, thousands of keys and addresses, a request id for each.
func realisticUses(rng *rand.Rand, n int, at time.Time) []domain.Use {
	uses := make([]domain.Use, n)
	for i := range uses {
		key := rng.IntN(2000)
		uses[i] = domain.Use{
			ID: domain.DeriveID("bench", fmt.Sprint(rng.Uint64())).String(), Account: "a1", IAMID: domain.IAMID(fmt.Sprintf("IBMid-%d", key/4)),
			KeyID: domain.KeyID(fmt.Sprintf("ApiKey-%08d", key)), Time: at.Add(time.Duration(i) * time.Millisecond),
			Action: fmt.Sprintf("s3:Operation%d", rng.IntN(60)), Access: domain.AccessRead, Outcome: domain.OutcomeSuccess, Status: 200,
			Source: fmt.Sprintf("198.51.%d.%d", rng.IntN(8), rng.IntN(256)), UserAgent: fmt.Sprintf("aws-sdk-go/1.%d", rng.IntN(40)),
			Region: "eu-central-1", Target: fmt.Sprintf("arn:aws:s3:::bucket-%d", rng.IntN(500)),
			RequestID: fmt.Sprintf("%016X", rng.Uint64()), LatencyMS: uint32(rng.IntN(400)), Bytes: rng.Uint64N(1 << 20),
		}
	}
	return uses
}

func batches(rng *rand.Rand, events, uses int) []eventlog.Proposed {
	out := make([]eventlog.Proposed, events)
	at := time.Date(2026, 5, 4, 10, 0, 0, 0, time.UTC)
	for i := range out {
		p, err := eventlog.Propose(domain.DeriveID("bench-batch", fmt.Sprint(rng.Uint64())), domain.UsageRecorded{Batch: batchOf(realisticUses(rng, uses, at))}, domain.Metadata{EffectiveAt: at})
		must(err)
		out[i] = p
		at = at.Add(time.Duration(uses) * time.Millisecond)
	}
	return out
}

// BenchmarkRows is decoding and making rows only.
//
//	go test -run '^$' -bench Rows -count 10 ./projections | benchstat -
func BenchmarkRows(b *testing.B) {
	const uses = 10_000
	p := batches(rand.New(rand.NewPCG(1, 1)), 1, uses)[0]
	raw := eventlog.Raw{Stream: "kt.usage-c-00", Position: 1, ID: p.ID, Type: p.Type, Data: p.Data, Meta: p.Meta, RecordedAt: recordedAt}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := projections.RowsOf(raw, 1); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.N)*uses/b.Elapsed().Seconds(), "rows/s")
}

// BenchmarkInsert is the insert of one block of 100,000 rows, fsynced.
//
//	go test -run '^$' -bench Insert -count 10 ./projections | benchstat -
func BenchmarkInsert(b *testing.B) {
	const uses = 50_000
	s := newStores(b)
	p := batches(rand.New(rand.NewPCG(1, 1)), 1, uses)[0]
	raw := eventlog.Raw{Stream: "kt.usage-c-00", Position: 1, ID: p.ID, Type: p.Type, Data: p.Data, Meta: p.Meta, RecordedAt: recordedAt}
	tables, err := projections.RowsOf(raw, 1)
	must(err)
	sink := projections.NewSink(s.store)
	b.ReportAllocs()
	n := 0
	for b.Loop() {
		n++
		if err := sink.Insert(b.Context(), tables[0], fmt.Sprint("bench", n)); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.N)*uses/b.Elapsed().Seconds(), "rows/s")
}

// BenchmarkLogToQueryable is a rebuild: everything from the log into the tables.
//
//	go test -run '^$' -bench LogToQueryable -count 10 ./projections | benchstat -
func BenchmarkLogToQueryable(b *testing.B) {
	const events, uses = 100, 10_000
	s := newStores(b)
	var last uint64
	for _, p := range batches(rand.New(rand.NewPCG(1, 1)), events, uses) {
		last = s.append("kt.usage-c-00", p)
	}
	b.ReportAllocs()
	n := 0
	for b.Loop() {
		n++
		for _, table := range []string{"usage", "usage_buckets"} {
			if err := s.store.Exec(b.Context(), "TRUNCATE TABLE "+table); err != nil {
				b.Fatal(err)
			}
		}
		gen := fmt.Sprintf("bench%d", n)
		runner, err := projections.NewRunner(projections.RunnerConfig{
			Log: projections.NewLog(s.log), Sink: projections.NewSink(s.store), Generation: gen, Holder: gen, Alone: true,
			Now: now, Metrics: newMetrics(b), Logger: discard,
		})
		must(err)
		tracker, err := projections.NewTracker(projections.TrackerConfig{Log: projections.NewLog(s.log), Generation: gen, Now: now, Logger: discard})
		must(err)
		ctx, cancel := context.WithCancel(b.Context())
		done := make(chan error, 2)
		go func() { done <- runner.Run(ctx) }()
		go func() { done <- tracker.Run(ctx) }()
		if err := tracker.Wait(ctx, last); err != nil {
			b.Fatal(err)
		}
		cancel()
		for range 2 {
			if err := <-done; err != nil {
				b.Fatal(err)
			}
		}
	}
	b.ReportMetric(float64(b.N)*events*uses/b.Elapsed().Seconds(), "rows/s")
}
