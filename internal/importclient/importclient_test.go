package importclient_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"go.uber.org/goleak"

	"example.com/keytrail/internal/client"
	"example.com/keytrail/internal/importclient"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// server keeps records by their eventID, as keytrail does, and fails as it is told.
type server struct {
	t       *testing.T
	mu      sync.Mutex
	records map[string]int
	batches map[string]int // How often each batch id was sent.
	calls   int
	// fail is asked before (stored false) and after a batch was stored.
	fail func(call int, stored bool) int // HTTP status, -1 = hang up, 0 = fine.
}

func (s *server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls++
	if s.failed(w, false) {
		return
	}
	z, err := zstd.NewReader(r.Body)
	if err != nil {
		s.t.Error(err)
		return
	}
	defer z.Close()
	var a struct {
		Accepted uint64           `json:"accepted"`
		Uses     uint64           `json:"uses"`
		Repeated uint64           `json:"repeated"`
		Count    uint64           `json:"rejected_count"`
		Rejected []map[string]any `json:"rejected"`
		Position string           `json:"position"`
	}
	line := 0
	in := bufio.NewScanner(z)
	in.Buffer(nil, 1<<21)
	for in.Scan() {
		line++
		var rec struct{ EventID, EventName string }
		if err := json.Unmarshal(in.Bytes(), &rec); err != nil || rec.EventName == "" {
			a.Count++
			a.Rejected = append(a.Rejected, map[string]any{"line": line, "error": "eventName is missing"})
			continue
		}
		a.Accepted++
		if s.records[rec.EventID] > 0 {
			a.Repeated++
			continue
		}
		s.records[rec.EventID]++
		a.Uses++
	}
	s.batches[r.Header.Get("Keytrail-Batch-Id")]++
	a.Position = fmt.Sprint(len(s.records))
	if s.failed(w, true) {
		return
	}
	if err := json.NewEncoder(w).Encode(a); err != nil {
		s.t.Error(err)
	}
}

func (s *server) failed(w http.ResponseWriter, stored bool) bool {
	if s.fail == nil {
		return false
	}
	switch status := s.fail(s.calls, stored); status {
	case 0:
		return false
	case -1:
		panic(http.ErrAbortHandler)
	default:
		w.Header().Set("Retry-After", "1")
		w.WriteHeader(status)
		return true
	}
}

func newServer(t *testing.T) (*server, *client.Client) {
	t.Helper()
	s := &server{t: t, records: map[string]int{}, batches: map[string]int{}}
	srv := httptest.NewServer(s)
	c, err := client.New(client.Config{Server: srv.URL, Key: "k"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close(); srv.Close() })
	return s, c
}

func rec(i int) string {
	return fmt.Sprintf(`{"eventID":"e%d","eventName":"ListUsers","eventTime":"2026-01-01T00:00:00Z","recipientAccountId":"11112222333%d","userIdentity":{"accessKeyId":"AKIA%d"}}`, i, i%2, i%5)
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	data := []byte(text)
	if strings.HasSuffix(path, ".gz") {
		var b bytes.Buffer
		z := gzip.NewWriter(&b)
		if _, err := z.Write(data); err != nil {
			t.Fatal(err)
		}
		if err := z.Close(); err != nil {
			t.Fatal(err)
		}
		data = b.Bytes()
	}
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

func load(t *testing.T, opt importclient.Options) (importclient.Report, error) {
	t.Helper()
	opt.Wait = func(ctx context.Context, _ time.Duration) error { return ctx.Err() }
	opt.Notice = func(s string) { t.Log(s) }
	r, err := importclient.CloudTrail(t.Context(), opt)
	r.Elapsed = 0
	return r, err
}

func TestFoldersFilesPatternsAndInputAreImportedWithWhatIsBadNamed(t *testing.T) {
	s, c := newServer(t)
	dir := t.TempDir()
	write(t, filepath.Join(dir, "a", "one.json.gz"), `{"Records":[`+rec(1)+","+rec(2)+`]}`)
	write(t, filepath.Join(dir, "a", "b", "two.ndjson"), rec(3)+"\n{bad}\n"+rec(2)+"\n{\"eventID\":\"x\"}\n")
	write(t, filepath.Join(dir, "a", "notes.txt"), "not a log")
	write(t, filepath.Join(dir, "c1.log"), "["+rec(4)+"]")
	var last, total int64
	got, err := load(t, importclient.Options{
		Client: c, Paths: []string{filepath.Join(dir, "a"), filepath.Join(dir, "c*.log"), filepath.Join(dir, "c1.log"), "-"}, Stdin: strings.NewReader(rec(5)),
		Progress: func(d, all int64) { last, total = d, all },
	})
	if err != nil {
		t.Fatal(err)
	}
	two := filepath.Join(dir, "a", "b", "two.ndjson")
	want := importclient.Report{
		Files: 4, Records: 8, Uses: 5, Repeated: 1, Malformed: 2, Keys: 5, Accounts: 2, Position: "5",
		Examples: []importclient.Malformed{{File: two, Record: 2, Reason: "not valid JSON after byte 1"}, {File: two, Record: 4, Reason: "eventName is missing"}},
	}
	if diff := cmp.Diff(want, got); diff != "" || len(s.records) != 5 || last != total {
		t.Errorf("%s\n%d records, progress %d of %d", diff, len(s.records), last, total)
	}
}

func TestWhatNamesNothingIsAnError(t *testing.T) {
	_, c := newServer(t)
	empty := t.TempDir()
	for _, path := range []string{filepath.Join(empty, "none.json"), filepath.Join(empty, "*.json"), empty} {
		if _, err := load(t, importclient.Options{Client: c, Paths: []string{path}}); err == nil {
			t.Errorf("%s: no error", path)
		}
	}
}

func TestABusyOrRestartingServerGetsTheSameBatchAgain(t *testing.T) {
	for name, status := range map[string]int{"busy": 503, "proxy without server": 502, "hangs up": -1} {
		for _, stored := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/stored=%v", name, stored), func(t *testing.T) {
				s, c := newServer(t)
				s.fail = func(call int, after bool) int {
					if after == stored && call%3 != 0 {
						return status
					}
					return 0
				}
				var text strings.Builder
				for i := range 2500 {
					text.WriteString(rec(i) + "\n")
				}
				got, err := load(t, importclient.Options{Client: c, Paths: []string{"-"}, Stdin: strings.NewReader(text.String()), BatchBytes: 50_000})
				if err != nil || got.Uses+got.Repeated != 2500 || len(s.records) != 2500 || got.Retries == 0 {
					t.Errorf("%d in the server, got %+v, %v", len(s.records), got, err)
				}
				if stored && len(s.batches) > 9 {
					t.Errorf("retries came under new names: %d batches", len(s.batches))
				}
			})
		}
	}
}

func TestARefusalEndsTheImportAtOnceAndPatienceEnds(t *testing.T) {
	for _, status := range []int{401, 403, 413, 503} {
		s, c := newServer(t)
		s.fail = func(int, bool) int { return status }
		_, err := load(t, importclient.Options{Client: c, Paths: []string{"-"}, Stdin: strings.NewReader(rec(1)), Patience: 20 * time.Second})
		e, ok := errors.AsType[*client.Error](err)
		if !ok || e.Status != status || (s.calls > 1) != (status == 503) {
			t.Errorf("%d: %v after %d calls", status, err, s.calls)
		}
	}
}

func TestAnImportThatBrokeOffResumesWithTheFilesThatAreNotDone(t *testing.T) {
	s, c := newServer(t)
	dir := t.TempDir()
	for f := range 6 {
		var text strings.Builder
		for i := range 200 {
			text.WriteString(rec(f*200+i) + "\n")
		}
		write(t, filepath.Join(dir, fmt.Sprintf("f%d.json", f)), text.String())
	}
	opt := importclient.Options{Client: c, Server: "one", Paths: []string{dir}, Resume: filepath.Join(t.TempDir(), "resume"), BatchBytes: 20_000}
	s.fail = func(call int, _ bool) int {
		if call > 5 {
			return 400
		}
		return 0
	}
	if _, err := load(t, opt); err == nil {
		t.Fatal("the import did not break")
	}
	s.fail = nil
	got, err := load(t, opt)
	if err != nil || len(s.records) != 1200 || got.Skipped == 0 || got.Skipped >= 6 {
		t.Errorf("%d records, got %+v, %v", len(s.records), got, err)
	}
	if got, err = load(t, opt); err != nil || got.Skipped != 6 || got.Records != 0 {
		t.Errorf("a third time: %+v, %v", got, err)
	}
	opt.Server = "another"
	if got, err = load(t, opt); err != nil || got.Skipped != 0 || got.Repeated != 1200 {
		t.Errorf("another server: %+v, %v", got, err)
	}
}
