package eventlog_test

import (
	"math/rand/v2"
	"strconv"
	"testing"

	"github.com/google/uuid"

	"example.com/keytrail/domain"
	"example.com/keytrail/internal/embedded/eventstore"
	"example.com/keytrail/internal/eventlog"
)

// TestARememberedHeadIsTheHead: who asks after each append, now and then or for the first
// time is told the same.
func TestARememberedHeadIsTheHead(t *testing.T) {
	t.Parallel()
	srv := startServer(t, eventstore.Config{})
	writer, often, seldom := openLog(t, srv), openLog(t, srv), openLog(t, srv)
	rng := rand.New(rand.NewPCG(1, 2))
	streams := []string{"kt.a-1", "kt.a-2", "kt.b-1", "ktx.pulse-1", "other"}
	prefixes := [][]string{{"kt."}, {"kt.a-"}, {"kt.b-", "ktx."}, {"none"}}
	next := map[string]uint64{}
	head := map[int]uint64{}
	ask := func(log *eventlog.Log, who string) {
		t.Helper()
		for i, p := range prefixes {
			if got, err := log.Head(t.Context(), p); err != nil || got != head[i] {
				t.Fatalf("%s: head of %v is %d, %v; want %d", who, p, got, err, head[i])
			}
		}
	}
	for n := range 120 {
		stream := streams[rng.IntN(len(streams))]
		exp := eventlog.NoStream()
		if next[stream] > 0 {
			exp = eventlog.Exactly(next[stream] - 1)
		}
		at, err := writer.Append(t.Context(), stream, exp, eventlog.Proposed{ID: domain.EventID(uuid.New()), Type: "t", Data: []byte("x")})
		if err != nil {
			t.Fatal(err)
		}
		next[stream]++
		for i, p := range prefixes {
			for _, one := range p {
				if len(stream) >= len(one) && stream[:len(one)] == one {
					head[i] = at.Position
				}
			}
		}
		ask(often, "asked always, after "+strconv.Itoa(n))
		if rng.IntN(9) == 0 {
			ask(seldom, "asked now and then, after "+strconv.Itoa(n))
		}
	}
	ask(openLog(t, srv), "asked once")
}
