package eventlog_test

import (
	"encoding/binary"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"example.com/keytrail/domain"
	"example.com/keytrail/internal/embedded/eventstore"
	"example.com/keytrail/internal/eventlog"
)

// The figures of these benchmarks: go test -run '^$' -bench . -count 6 ./internal/eventlog | benchstat -

var benchData = []byte(`{"pad":"` + strings.Repeat("x", 290) + `"}`)

func benchID(n uint64) (id domain.EventID) {
	binary.BigEndian.PutUint64(id[:8], n)
	id[6], id[8] = 0x50, 0x80
	binary.BigEndian.PutUint32(id[12:], uint32(n))
	return id
}

func benchEvents(from uint64, n int) []eventlog.Proposed {
	out := make([]eventlog.Proposed, n)
	for i := range out {
		out[i] = eventlog.Proposed{ID: benchID(from + uint64(i)), Type: "bench.v1", JSON: true, Data: benchData}
	}
	return out
}

func BenchmarkAppend(b *testing.B) {
	for _, clients := range []int{1, 32} {
		for _, events := range []int{1, 100} {
			b.Run(fmt.Sprintf("clients=%d/events=%d", clients, events), func(b *testing.B) {
				l := openLog(b, startServer(b, eventstore.Config{}))
				var next, ids atomic.Uint64
				b.ReportAllocs()
				b.ResetTimer()
				var wg sync.WaitGroup
				for range clients {
					wg.Go(func() {
						stream := fmt.Sprintf("kt.bench-%d", next.Add(1))
						exp := eventlog.NoStream()
						for next.Add(1) <= uint64(b.N+clients) {
							got, err := l.Append(b.Context(), stream, exp, benchEvents(ids.Add(uint64(events)), events)...)
							if err != nil {
								b.Error(err)
								return
							}
							exp = eventlog.Exactly(got.Revision)
						}
					})
				}
				wg.Wait()
				b.ReportMetric(float64(b.N*events)/b.Elapsed().Seconds(), "events/s")
			})
		}
	}
}

func BenchmarkCatchUp(b *testing.B) {
	l := openLog(b, startServer(b, eventstore.Config{}))
	const events = 200_000
	for i := range events / 500 {
		if _, err := l.Append(b.Context(), fmt.Sprintf("kt.bench-%d", i), eventlog.NoStream(), benchEvents(uint64(i*500), 500)...); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportAllocs()
	for b.Loop() {
		s, err := l.Subscribe(b.Context(), eventlog.SubscribeOptions{Prefixes: []string{"kt."}, FromStart: true})
		if err != nil {
			b.Fatal(err)
		}
		n := 0
		for {
			d, err := s.Next(b.Context())
			if err != nil {
				b.Fatal(err)
			}
			if d.Event != nil {
				n++
			}
			if d.CaughtUp {
				break
			}
		}
		s.Close()
		if n != events {
			b.Fatalf("got %d events, want %d", n, events)
		}
	}
	b.ReportMetric(float64(b.N*events)/b.Elapsed().Seconds(), "events/s")
}

func BenchmarkLiveLatency(b *testing.B) {
	l := openLog(b, startServer(b, eventstore.Config{}))
	s, err := l.Subscribe(b.Context(), eventlog.SubscribeOptions{Prefixes: []string{"kt."}, FromStart: true})
	if err != nil {
		b.Fatal(err)
	}
	exp := eventlog.NoStream()
	for b.Loop() {
		got, err := l.Append(b.Context(), "kt.bench", exp, benchEvents(exp.Next()+1, 1)...)
		if err != nil {
			b.Fatal(err)
		}
		exp = eventlog.Exactly(got.Revision)
		for {
			d, err := s.Next(b.Context())
			if err != nil {
				b.Fatal(err)
			}
			if d.Event != nil && d.Event.Revision == got.Revision {
				break
			}
		}
	}
}
