package query_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"example.com/keytrail/domain"
	"example.com/keytrail/internal/clickhouse"
	"example.com/keytrail/query"
)

// traffic makes blocks of uses and their rollups as the projections do, and remembers
// every use.
type traffic struct {
	f    *fixture
	r    *rand.Rand
	from time.Time
	// mu guards the rest.
	mu       sync.Mutex
	block    uint64
	position uint64
	all      []use
}

const trafficHours = 30

func newTraffic(f *fixture, seed uint64) *traffic {
	return &traffic{f: f, r: rand.New(rand.NewPCG(seed, 4)), from: now.Truncate(time.Hour).Add(-trafficHours * time.Hour)}
}

// addBlock inserts a block of n uses and marks their hours dirty; it completes the
// block unless it is to stay under way.
func (tr *traffic) addBlock(n int, complete bool) {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	tr.block++
	tr.position += 10
	uses := make([]use, 0, n)
	hours := map[string][]any{}
	for i := range n {
		at := tr.from.Add(time.Duration(tr.r.Int64N(int64(trafficHours * time.Hour)))).Truncate(time.Millisecond)
		u := keyUse(pick(tr.r, accountA, accountB, accountX), pick[domain.KeyID](tr.r, "", "ApiKey-1", "ApiKey-2"), at, tr.position, uint32(i))
		u.block = tr.block
		u.IAMID, u.Action = pick[domain.IAMID](tr.r, "IBMid-1", "IBMid-2"), pick(tr.r, "s3.object.get", "s3.object.put", "")
		u.Outcome = pick(tr.r, domain.OutcomeSuccess, domain.OutcomeFailure)
		u.Source = pick(tr.r, "", "192.0.2.1", "192.0.2.2", "2001:db8::1", "AWS Internal")
		u.UserAgent, u.Country = pick(tr.r, "curl", "aws-cli", ""), pick(tr.r, "DE", "US", "")
		uses = append(uses, u)
		hour := at.Truncate(time.Hour)
		hours[string(u.Account)+hour.String()] = []any{string(u.Account), hour, tr.block, uint64(0)}
	}
	marks := make([][]any, 0, len(hours))
	for _, row := range hours {
		marks = append(marks, row)
	}
	tr.f.addUses(uses...)
	tr.f.insert("usage_buckets", []string{"account_id", "hour", "dirty", "clean"}, len(marks), func(i int) []any { return marks[i] })
	tr.all = append(tr.all, uses...)
	if complete {
		tr.f.progress.set(tr.block, tr.position)
	}
}

// roll computes the rollup of about every other hour, up to a block. merge also makes
// the store drop what the new rows replace.
func (tr *traffic) roll(version uint64, merge bool) error {
	ctx := tr.f.t.Context()
	odd := tr.r.IntN(2)
	err := tr.f.store.Exec(ctx, `INSERT INTO usage_hourly (account_id, hour, key_id, iam_id, action, version, count, failures, bytes, addresses)
SELECT account_id, toStartOfHour(toDateTime(time, 'UTC')) AS bucket, key_id, iam_id, action, ?, count(), countIf(outcome = 'failure'), sum(bytes), uniqExactState(toString(source))
FROM usage WHERE block <= ? AND toHour(time) % 2 = ? GROUP BY account_id, bucket, key_id, iam_id, action`, version, version, odd)
	if err != nil {
		return err
	}
	if merge {
		if err := tr.f.store.Exec(ctx, "OPTIMIZE TABLE usage_hourly FINAL"); err != nil {
			return err
		}
	}
	return tr.f.store.Exec(ctx, `INSERT INTO usage_buckets (account_id, hour, dirty, clean)
SELECT DISTINCT account_id, toStartOfHour(toDateTime(time, 'UTC')), 0, ? FROM usage WHERE block <= ? AND toHour(time) % 2 = ?`, version, version, odd)
}

// recount counts the remembered uses that fit.
func (tr *traffic) recount(position uint64, from, to time.Time, fits func(use) bool, group func(use) string) map[string]query.Point {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	out, seen := map[string]query.Point{}, map[string]map[string]bool{}
	for _, u := range tr.all {
		if u.Account == accountX || u.position > position || u.Time.Before(from) || !u.Time.Before(to) || !fits(u) {
			continue
		}
		g := group(u)
		p := out[g]
		p.Count++
		if u.Outcome == domain.OutcomeFailure {
			p.Failures++
		}
		if seen[g] == nil {
			seen[g] = map[string]bool{}
		}
		seen[g][u.Source] = true
		p.Addresses = uint64(len(seen[g]))
		out[g] = p
	}
	return out
}

// checkSeries compares an answer with a recount as of the position that it states.
func (tr *traffic) checkSeries(t *testing.T, params url.Values, from, to time.Time, fits func(use) bool) {
	t.Helper()
	params.Set("from", from.Format(time.RFC3339Nano))
	params.Set("to", to.Format(time.RFC3339Nano))
	var answer query.SeriesAnswer
	rec := tr.f.get("/v1/usage/series", params, &answer)
	position, err := strconv.ParseUint(rec.Header().Get("Keytrail-Position"), 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	layout := map[string]string{"minute": "2006-01-02T15:04", "hour": "2006-01-02T15", "day": "2006-01-02", "month": "2006-01"}[params.Get("step")]
	want := tr.recount(position, from, to, fits, func(u use) string { return u.Time.Format(layout) })
	got := map[string]query.Point{}
	for _, p := range answer.Series {
		key := p.Time.Format(layout)
		p.Time = time.Time{}
		if p != (query.Point{}) {
			got[key] = p
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("series %v as of %d (-recount +answer):\n%s", params, position, diff)
	}
}

func all(use) bool { return true }

func TestUsageAnswersEqualARecountOfTheUses(t *testing.T) {
	f := newFixture(t)
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	tr := newTraffic(f, seed)
	for round := range 6 {
		tr.addBlock(150, true)
		if round > 0 && round < 5 {
			version := tr.block - uint64(tr.r.IntN(2))
			if err := tr.roll(version, tr.r.IntN(2) == 0); err != nil {
				t.Fatal(err)
			}
		}
		if round == 4 {
			tr.addBlock(50, false) // Under way: dirty already, not yet to be seen.
		}
		whole := now.Truncate(time.Hour)
		for _, step := range []string{"minute", "hour", "day", "month"} {
			tr.checkSeries(t, url.Values{"step": {step}}, tr.from, whole, all)
			tr.checkSeries(t, url.Values{"step": {step}}, tr.from.Add(17*time.Minute+3*time.Millisecond), whole.Add(-29*time.Minute), all)
		}
		tr.checkSeries(t, url.Values{"step": {"hour"}, "key_id": {"ApiKey-1"}, "iam_id": {"IBMid-2"}, "action": {"s3.object.get"}}, tr.from, whole,
			func(u use) bool { return u.KeyID == "ApiKey-1" && u.IAMID == "IBMid-2" && u.Action == "s3.object.get" })
		tr.checkSeries(t, url.Values{"step": {"hour"}, "filter": {"country=DE"}}, tr.from, whole, func(u use) bool { return u.Country == "DE" })
		tr.checkSeries(t, url.Values{"step": {"hour"}, "account_id": {"acct-b"}}, tr.from, whole, func(u use) bool { return u.Account == accountB })
		tr.checkSeries(t, url.Values{"step": {"hour"}}, tr.from.Add(10*time.Minute), tr.from.Add(20*time.Minute), all)
		tr.checkTop(t)
		tr.checkHeatmap(t)
	}
}

func (tr *traffic) checkTop(t *testing.T) {
	t.Helper()
	from, to := tr.from.Add(7*time.Minute), now
	for by, group := range map[string]func(use) string{
		"key": func(u use) string { return string(u.KeyID) }, "identity": func(u use) string { return string(u.IAMID) },
		"action": func(u use) string { return u.Action }, "address": func(u use) string { return u.Source },
		"network": func(u use) string { return u.Network() }, "agent": func(u use) string { return u.UserAgent },
		"country": func(u use) string { return u.Country },
	} {
		var answer query.TopAnswer
		rec := tr.f.get("/v1/usage/top", url.Values{"by": {by}, "from": {from.Format(time.RFC3339Nano)}, "limit": {"2"}}, &answer)
		position, err := strconv.ParseUint(rec.Header().Get("Keytrail-Position"), 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		counted := tr.recount(position, from, to, all, group)
		want := make([]query.Top, 0, len(counted))
		for value, p := range counted {
			want = append(want, query.Top{Value: value, Count: p.Count, Failures: p.Failures})
		}
		slices.SortFunc(want, func(a, b query.Top) int {
			if a.Count != b.Count {
				return int(b.Count) - int(a.Count)
			}
			return strings.Compare(a.Value, b.Value)
		})
		if diff := cmp.Diff(want[:min(2, len(want))], answer.Top); diff != "" {
			t.Errorf("top by %s (-recount +answer):\n%s", by, diff)
		}
	}
}

func (tr *traffic) checkHeatmap(t *testing.T) {
	t.Helper()
	var answer query.HeatmapAnswer
	tr.f.get("/v1/usage/heatmap", url.Values{"from": {"-2d"}}, &answer)
	if len(answer.Heatmap) != 168 {
		t.Fatalf("%d cells, want every hour of the week", len(answer.Heatmap))
	}
	_, position, _ := tr.f.progress.Completed()
	want := tr.recount(position, now.AddDate(0, 0, -2), now, all, func(u use) string {
		return fmt.Sprint((int(u.Time.Weekday())+6)%7+1, " ", u.Time.Hour())
	})
	for _, c := range answer.Heatmap {
		w := want[fmt.Sprint(c.Weekday, " ", c.Hour)]
		if c.Count != w.Count || c.Failures != w.Failures {
			t.Errorf("weekday %d hour %d: %d uses, %d failures, recount %d, %d", c.Weekday, c.Hour, c.Count, c.Failures, w.Count, w.Failures)
		}
	}
}

// TestUsageAnswersStayExactWhileRollupsAreReplaced asks while blocks come in and
// rollups are computed, replaced and merged away.
func TestUsageAnswersStayExactWhileRollupsAreReplaced(t *testing.T) {
	f := newFixture(t)
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	tr := newTraffic(f, seed)
	tr.addBlock(300, true)
	stop, failed := make(chan struct{}), make(chan error, 1)
	go func() {
		defer close(failed)
		for {
			select {
			case <-stop:
				return
			default:
			}
			tr.addBlock(20, true)
			if err := tr.roll(tr.block, true); err != nil {
				failed <- err
				return
			}
		}
	}()
	for range 25 {
		tr.checkSeries(t, url.Values{"step": {"hour"}}, tr.from, now.Truncate(time.Hour), all)
	}
	close(stop)
	if err := <-failed; err != nil {
		t.Fatal(err)
	}
	t.Logf("%d blocks came in meanwhile", tr.block)
}

// spy counts the reads of the base table.
type spy struct {
	query.Store
	base int
}

func (s *spy) Query(ctx context.Context, q clickhouse.Query) (clickhouse.Rows, error) {
	if text, _, err := clickhouse.SQL(q); err == nil && strings.Contains(text, "FROM usage ") {
		s.base++
	}
	return s.Store.Query(ctx, q)
}

func TestCleanHoursAreTakenFromTheRollup(t *testing.T) {
	f := newFixture(t)
	tr := newTraffic(f, 5)
	tr.addBlock(200, true)
	for range 20 {
		if err := tr.roll(tr.block, false); err != nil {
			t.Fatal(err)
		}
	}
	s := &spy{Store: f.store}
	engine, _ := newEngine(t, s, f.progress, f.access, nil)
	f.engine = engine
	tr.checkSeries(t, url.Values{"step": {"hour"}}, tr.from, now.Truncate(time.Hour), all)
	if s.base != 0 {
		t.Errorf("%d reads of the uses themselves, want none", s.base)
	}
	tr.addBlock(1, true)
	tr.checkSeries(t, url.Values{"step": {"hour"}}, tr.from, now.Truncate(time.Hour), all)
	if s.base == 0 {
		t.Error("a dirty hour was not taken from the uses themselves")
	}
}

func TestASeriesCanBeSplitByItsMostFrequentValues(t *testing.T) {
	f := newFixture(t)
	tr := newTraffic(f, 6)
	tr.addBlock(200, true)
	var answer query.SeriesAnswer
	f.get("/v1/usage/series", url.Values{"step": {"day"}, "from": {"-3d"}, "by": {"agent"}, "limit": {"2"}}, &answer)
	if len(answer.Groups) != 2 || len(answer.Series) != 4 {
		t.Fatalf("%d groups, %d points, want 2 and 4", len(answer.Groups), len(answer.Series))
	}
	for _, g := range answer.Groups {
		want := tr.recount(1000, now.AddDate(0, 0, -3), now, func(u use) bool { return u.UserAgent == g.Value }, func(u use) string { return u.Time.Format(time.DateOnly) })
		for _, p := range g.Series {
			if w := want[p.Time.Format(time.DateOnly)]; p.Count != w.Count || p.Addresses != w.Addresses {
				t.Errorf("%q on %s: %d uses from %d addresses, recount %d from %d", g.Value, p.Time.Format(time.DateOnly), p.Count, p.Addresses, w.Count, w.Addresses)
			}
		}
	}
}

func TestASeriesHasAPointForEveryStep(t *testing.T) {
	f := newFixture(t)
	var answer query.SeriesAnswer
	f.get("/v1/usage/series", url.Values{"step": {"month"}, "from": {"2025-11-15"}, "to": {"2026-02-01"}}, &answer)
	got := make([]string, 0, len(answer.Series))
	for _, p := range answer.Series {
		got = append(got, p.Time.Format(time.DateOnly))
	}
	if diff := cmp.Diff([]string{"2025-11-01", "2025-12-01", "2026-01-01"}, got); diff != "" {
		t.Errorf("points (-want +got):\n%s", diff)
	}
	if rec := f.get("/v1/usage/series", url.Values{"step": {"hour"}, "from": {"1970-01-01"}, "to": {"2099-01-01"}}, nil); rec.Code != http.StatusBadRequest {
		t.Errorf("a million points: %d, want 400", rec.Code)
	}
}
