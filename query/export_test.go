package query_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/csv"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"example.com/keytrail/domain"
	"example.com/keytrail/internal/clickhouse"
	"example.com/keytrail/query"
)

// download fetches an export over a real connection.
func download(t *testing.T, h http.Handler, query string) (http.Header, []byte, error) {
	t.Helper()
	server := httptest.NewServer(h)
	defer server.Close()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, server.URL+"/v1/events/export?"+query, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := server.Client().Do(req)
	if err != nil {
		return nil, nil, err
	}
	body, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		t.Fatalf("%s: %s", resp.Status, body)
	}
	return resp.Trailer, body, errors.Join(err, resp.Body.Close())
}

// cutTrailer splits an export into what the hash is of, and its trailer.
func cutTrailer(t *testing.T, body []byte, prefix string) ([]byte, query.Trailer) {
	t.Helper()
	at := bytes.LastIndexByte(body[:len(body)-1], '\n') + 1
	line, ok := bytes.CutPrefix(body[at:], []byte(prefix))
	var end struct{ Trailer query.Trailer }
	if err := json.Unmarshal(line, &end); !ok || err != nil {
		t.Fatalf("last line %q is no trailer (%v)", body[at:], err)
	}
	return body[:at], end.Trailer
}

func TestAnExportHoldsEveryRecordAndProvesIt(t *testing.T) {
	f := newFixture(t)
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	model := f.fill(rand.New(rand.NewPCG(seed, 3)), 300)
	f.progress.set(1, 5000)
	f.addEvents(keyEvent(accountA, "ApiKey-1", now, 6000)) // Beyond the position.
	var want []string
	for _, p := range model {
		if p.account != accountX {
			want = append(want, p.id)
		}
	}
	for _, format := range []string{"ndjson", "csv"} {
		t.Run(format, func(t *testing.T) {
			trailers, body, err := download(t, f.engine, "format="+format)
			if err != nil {
				t.Fatal(err)
			}
			prefix := ""
			if format == "csv" {
				prefix = "# "
			}
			data, trailer := cutTrailer(t, body, prefix)
			var got []string
			if format == "csv" {
				rows, err := csv.NewReader(bytes.NewReader(data)).ReadAll()
				if err != nil {
					t.Fatal(err)
				}
				for _, row := range rows[1:] {
					got = append(got, row[1])
				}
			} else {
				for line := range bytes.Lines(data) {
					var e shown
					if err := json.Unmarshal(line, &e); err != nil {
						t.Fatal(err)
					}
					got = append(got, e.ID)
				}
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("records (-want +got):\n%s", diff)
			}
			sum := sha256.Sum256(data)
			if trailer.SHA256 != hex.EncodeToString(sum[:]) || trailer.Count != uint64(len(want)) || trailer.PinnedPosition != "5000" {
				t.Errorf("trailer %+v is not of these %d records", trailer, len(want))
			}
			if trailers.Get("Keytrail-Sha256") != trailer.SHA256 || trailers.Get("Keytrail-Count") == "" {
				t.Errorf("HTTP trailers %v, want the trailer's values", trailers)
			}
		})
	}
	recorded := f.access.recorded()
	if len(recorded) != 8 { // Two exports, two accounts, begin and end.
		t.Fatalf("%d recordings, want 8: %+v", len(recorded), recorded)
	}
	for i, e := range recorded {
		if end := i%4 >= 2; e.Complete != end || e.Action != "activity.export" || end && e.Count != uint64(len(want)) {
			t.Errorf("recording %d is %+v", i, e)
		}
	}
}

func TestAnExportThatFailsBreaksTheConnectionAndHasNoTrailer(t *testing.T) {
	f := newFixture(t)
	f.fill(rand.New(rand.NewPCG(7, 7)), 200)
	f.progress.set(1, 5000)
	engine, _ := newEngine(t, brokenStore{Store: f.store, after: 40}, f.progress, f.access, nil)
	_, body, err := download(t, engine, "")
	if err == nil {
		t.Errorf("the answer ends as if it were whole: %d bytes", len(body))
	}
	if bytes.Contains(body, []byte(`{"trailer"`)) {
		t.Error("a broken export has a trailer")
	}
	recorded := f.access.recorded()
	if n := len(recorded); n != 4 || recorded[n-1].Complete || recorded[n-1].Count == 0 {
		t.Errorf("recordings %+v, want the end recorded as incomplete with its count", recorded)
	}
}

func TestAnExportThatCannotBeRecordedIsNotGiven(t *testing.T) {
	f := newFixture(t)
	f.addEvents(keyEvent(accountA, "ApiKey-1", now, 1))
	f.progress.set(1, 10)
	f.access.fail = errors.New("the log is down")
	rec := f.get("/v1/events/export", nil, nil)
	if rec.Code != http.StatusServiceUnavailable || strings.Contains(rec.Body.String(), "ApiKey-1") {
		t.Errorf("%d %s, want 503 and no record", rec.Code, rec.Body)
	}
}

// failAtEnd records beginnings only.
type failAtEnd struct{ *access }

func (a failAtEnd) RecordAccess(ctx context.Context, who domain.Initiator, id string, accounts []domain.AccountID, e domain.AuditAccessed) error {
	if e.Complete {
		return errors.New("the log went down")
	}
	return a.access.RecordAccess(ctx, who, id, accounts, e)
}

func TestAnExportWhoseEndCannotBeRecordedHasNoTrailer(t *testing.T) {
	f := newFixture(t)
	f.addEvents(keyEvent(accountA, "ApiKey-1", now, 1))
	f.progress.set(1, 10)
	engine, _ := newEngine(t, f.store, f.progress, failAtEnd{f.access}, nil)
	if _, body, err := download(t, engine, ""); err == nil || bytes.Contains(body, []byte(`{"trailer"`)) {
		t.Errorf("error %v, body %q, want a broken connection without a trailer", err, body)
	}
}

func TestAReaderWhoHangsUpIsRecordedAsIncomplete(t *testing.T) {
	f := newFixture(t)
	f.fill(rand.New(rand.NewPCG(8, 8)), 50)
	f.progress.set(1, 5000)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	engine, _ := newEngine(t, hangUp{Store: f.store, cancel: cancel}, f.progress, f.access, nil)
	func() {
		defer func() {
			if err, ok := recover().(error); !ok || !errors.Is(err, http.ErrAbortHandler) {
				t.Errorf("the handler ended with %v, want it to break the connection", err)
			}
		}()
		engine.ServeHTTP(httptest.NewRecorder(), httptest.NewRequestWithContext(ctx, http.MethodGet, "/v1/events/export", nil))
	}()
	recorded := f.access.recorded()
	if n := len(recorded); n != 4 || recorded[3].Complete {
		t.Errorf("recordings %+v, want an incomplete end", recorded)
	}
}

// hangUp ends the request once records flow.
type hangUp struct {
	query.Store
	cancel context.CancelFunc
}

func (s hangUp) Query(ctx context.Context, q clickhouse.Query) (clickhouse.Rows, error) {
	rows, err := s.Store.Query(ctx, q)
	return &hangUpRows{Rows: rows, left: 5, ctx: ctx, cancel: s.cancel}, err
}

type hangUpRows struct {
	clickhouse.Rows
	left   int
	ctx    context.Context //nolint:containedctx // A test's stand-in for the driver's.
	cancel context.CancelFunc
}

func (r *hangUpRows) Next() bool {
	r.left--
	if r.left <= 0 {
		r.cancel()
		return false
	}
	return r.Rows.Next()
}

func (r *hangUpRows) Err() error { return r.ctx.Err() }

func TestOnlySoManyExportsRunAtOnce(t *testing.T) {
	f := newFixture(t)
	f.addEvents(keyEvent(accountA, "ApiKey-1", now, 1))
	f.progress.set(1, 10)
	inside, leave := make(chan struct{}), make(chan struct{})
	engine, _ := newEngine(t, f.store, f.progress, blocking{f.access, inside, leave}, func(c *query.Config) { c.ExportsMax = 1 })
	done := make(chan struct{})
	go func() {
		defer close(done)
		engine.ServeHTTP(httptest.NewRecorder(), httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/v1/events/export", nil))
	}()
	<-inside
	rec := ask(t, engine, "/v1/events/export", url.Values{})
	close(leave)
	<-done
	if code, _ := refusal(t, rec); rec.Code != http.StatusServiceUnavailable || code != "exports_busy" || rec.Header().Get("Retry-After") == "" {
		t.Errorf("second export: %d %s, want 503 to try again", rec.Code, rec.Body)
	}
}

// blocking holds an export at its beginning.
type blocking struct {
	*access
	inside, leave chan struct{}
}

func (b blocking) RecordAccess(ctx context.Context, who domain.Initiator, id string, accounts []domain.AccountID, e domain.AuditAccessed) error {
	if !e.Complete {
		close(b.inside)
		<-b.leave
	}
	return b.access.RecordAccess(ctx, who, id, accounts, e)
}

func TestACSVCellIsNeverAFormula(t *testing.T) {
	f := newFixture(t)
	cells := []string{"=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "\n=1", " =1", "\"=1", "'=1", "＝1", "\u00a0=cmd|' /C calc'!A0", "plain", "a=1", ""}
	events := make([]event, 0, len(cells))
	for i, cell := range cells {
		e := keyEvent(accountA, "ApiKey-1", now.Add(time.Duration(i)*time.Second), uint64(i+1))
		e.TargetName = cell
		events = append(events, e)
	}
	f.addEvents(events...)
	f.progress.set(1, 1000)
	_, body, err := download(t, f.engine, "format=csv")
	if err != nil {
		t.Fatal(err)
	}
	data, _ := cutTrailer(t, body, "# ")
	rows, err := csv.NewReader(bytes.NewReader(data)).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	for i, row := range rows[1:] {
		want := "'" + strings.ReplaceAll(cells[i], "\r\n", "\n")
		if i >= 12 {
			want = cells[i]
		}
		if row[16] != want {
			t.Errorf("cell %q is exported as %q, want %q", cells[i], row[16], want)
		}
	}
}

// countingWriter counts and forgets.
type countingWriter struct {
	header http.Header
	bytes  int
}

func (w *countingWriter) Header() http.Header         { return w.header }
func (w *countingWriter) Write(p []byte) (int, error) { w.bytes += len(p); return len(p), nil }
func (w *countingWriter) WriteHeader(int)             {}

// BenchmarkExport: go test -run=^$ -bench=Export ./query | benchstat -
func BenchmarkExport(b *testing.B) {
	const records = 100_000
	f := newFixture(b)
	if err := f.store.Exec(b.Context(), `INSERT INTO usage (account_id, key_id, time, position, idx, block, use_id, iam_id, action, outcome, status, source)
SELECT 'acct-a', concat('ApiKey-', toString(number % 100)), fromUnixTimestamp64Milli(1700000000000 + number * 37 % 100000000, 'UTC'), number, 0, 1,
toString(number), 'IBMid-1', 's3.object.get', 'success', 200, '192.0.2.7' FROM numbers(100000)`); err != nil {
		b.Fatal(err)
	}
	f.progress.set(1, records)
	b.Run("format=ndjson/records=100000", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			w := &countingWriter{header: http.Header{}}
			f.engine.ServeHTTP(w, httptest.NewRequestWithContext(b.Context(), http.MethodGet, "/v1/events/export", nil))
			b.SetBytes(int64(w.bytes))
		}
	})
}
