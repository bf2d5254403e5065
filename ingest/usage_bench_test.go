package ingest_test

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"example.com/keytrail/ingest"
	"example.com/keytrail/internal/eventlog"
)

// sink is a log that keeps nothing.
type sink struct {
	memLog
	revision uint64
}

func (s *sink) Append(_ context.Context, _ string, exp eventlog.Expected, events ...eventlog.Proposed) (eventlog.Appended, error) {
	s.revision = exp.Next() + uint64(len(events)) - 1
	return eventlog.Appended{Revision: s.revision, Position: s.revision + 1}, nil
}

// go test -run '^$' -bench Intake -cpu 1 ./ingest
func BenchmarkIntake(b *testing.B) {
	text := lines("a", 100_000)
	for _, workers := range []int{1, 2} {
		b.Run(fmt.Sprintf("lines=100000/workers=%d", workers), func(b *testing.B) {
			u := newUsage(b, &sink{}, func(c *ingest.UsageConfig) { c.Workers = workers })
			b.ReportAllocs()
			b.SetBytes(int64(len(text)))
			n := 0
			for b.Loop() {
				n++
				res, err := u.Record(b.Context(), order(), ingest.UploadRequest{Batch: fmt.Sprint("b", n), Body: strings.NewReader(text)})
				if err != nil || res.Accepted != 100_000 {
					b.Fatal(res, err)
				}
			}
			b.ReportMetric(float64(b.N)*100_000/b.Elapsed().Seconds(), "uses/s")
		})
	}
}
