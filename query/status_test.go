package query_test

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/gin-gonic/gin"
	"github.com/google/go-cmp/cmp"

	"example.com/keytrail/domain"
	"example.com/keytrail/internal/apidoc"
	"example.com/keytrail/internal/clickhouse"
	"example.com/keytrail/query"
)

// noStore answers nothing: for tests that read no table.
type noStore struct{ err error }

func (s noStore) Query(context.Context, clickhouse.Query) (clickhouse.Rows, error) { return nil, s.err }

func bare(t *testing.T, change func(*query.Config)) *gin.Engine {
	t.Helper()
	engine, _ := newEngine(t, noStore{errors.New("no table")}, &progress{moved: make(chan struct{})}, &access{}, change)
	return engine
}

func TestEveryRouteIsDescribedAndEveryDescriptionServed(t *testing.T) {
	other := apidoc.Table{{
		Method: http.MethodPost, Path: "/v1/apikeys/:id/lock", Summary: "Lock.", Group: "keys", Answers: []apidoc.Answer{{Status: http.StatusNoContent}},
		Request: struct {
			ID string `path:"id"`
		}{}, Handler: func(*gin.Context) {},
	}}
	engine := bare(t, func(c *query.Config) {
		c.Others = []apidoc.Table{other}
		c.Metrics = http.NotFoundHandler()
	})
	other.Register(engine)
	rec := ask(t, engine, "/openapi.json", nil)
	var doc struct {
		Openapi string
		Paths   map[string]map[string]any
	}
	if err := json.Unmarshal(rec.Body.Bytes(), &doc); err != nil || !strings.HasPrefix(doc.Openapi, "3.1") {
		t.Fatalf("document %q: %v", doc.Openapi, err)
	}
	var described []string
	served := make([]string, 0, len(engine.Routes()))
	for path, operations := range doc.Paths {
		for method := range operations {
			described = append(described, strings.ToUpper(method)+" "+path)
		}
	}
	for _, r := range engine.Routes() {
		served = append(served, r.Method+" "+regexp.MustCompile(`:([a-z]+)`).ReplaceAllString(r.Path, "{$1}"))
	}
	slices.Sort(described)
	slices.Sort(served)
	if diff := cmp.Diff(served, described); diff != "" {
		t.Errorf("routes (-served +described):\n%s", diff)
	}
	if len(served) < 14 {
		t.Errorf("only %d routes", len(served))
	}
}

func TestReadinessSaysWhichCheckFails(t *testing.T) {
	broken := errors.New("secret detail")
	var failing error
	engine := bare(t, func(c *query.Config) {
		c.Checks = []query.Check{
			{Name: "log", Run: func(context.Context) error { return nil }},
			{Name: "tables", Run: func(context.Context) error { return failing }},
		}
	})
	if rec := ask(t, engine, "/readyz", nil); rec.Code != http.StatusOK {
		t.Errorf("ready: %d %s", rec.Code, rec.Body)
	}
	failing = broken
	rec := ask(t, engine, "/readyz", nil)
	want := `{"status":"unavailable","checks":[{"name":"log","ok":true},{"name":"tables","ok":false}]}`
	if rec.Code != http.StatusServiceUnavailable || rec.Body.String() != want {
		t.Errorf("not ready: %d %s, want 503 %s", rec.Code, rec.Body, want)
	}
	if rec := ask(t, engine, "/healthz", nil); rec.Code != http.StatusOK {
		t.Errorf("alive: %d", rec.Code)
	}
}

// TestWithoutTheTablesTheProgramIsReadyForTheRest: a balancer must not take away the nodes
// that record commands because none of them can answer queries.
func TestWithoutTheTablesTheProgramIsReadyForTheRest(t *testing.T) {
	var log, tables error
	engine := bare(t, func(c *query.Config) {
		c.Checks = []query.Check{
			{Name: "log", Run: func(context.Context) error { return log }},
			{Name: "tables", Degrades: true, Run: func(context.Context) error { return tables }},
		}
	})
	away := errors.New("away")
	for _, tt := range []struct {
		name        string
		log, tables error
		code        int
		status      string
	}{
		{name: "all is well", code: 200, status: "ok"},
		{name: "no tables", tables: away, code: 200, status: "degraded"},
		{name: "no log", log: away, code: 503, status: "unavailable"},
		{name: "neither", log: away, tables: away, code: 503, status: "unavailable"},
	} {
		log, tables = tt.log, tt.tables
		rec := ask(t, engine, "/readyz", nil)
		if rec.Code != tt.code || !strings.Contains(rec.Body.String(), `"status":"`+tt.status+`"`) {
			t.Errorf("%s: %d %s", tt.name, rec.Code, rec.Body)
		}
	}
}

func TestTheStoresFaultsAreWordedAndNotShown(t *testing.T) {
	tests := []struct {
		name   string
		err    error
		status int
		code   string
	}{
		{name: "the engine is away", err: clickhouse.ErrUnavailable, status: http.StatusServiceUnavailable, code: "tables_unavailable"},
		{name: "too slow", err: &clickhouse.Error{Code: clickhouse.CodeTimeoutExceeded, Message: "SELECT secret"}, status: http.StatusServiceUnavailable, code: "question_too_large"},
		{name: "too much memory", err: &clickhouse.Error{Code: clickhouse.CodeMemoryLimit, Message: "SELECT secret"}, status: http.StatusServiceUnavailable, code: "question_too_large"},
		{name: "our own fault", err: &clickhouse.Error{Code: clickhouse.CodeSyntax, Message: "SELECT secret"}, status: http.StatusInternalServerError, code: "internal"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			engine, h := newEngine(t, noStore{tt.err}, &progress{moved: make(chan struct{})}, &access{}, nil)
			for _, path := range []string{"/v1/events", "/v1/events/x", "/v1/events/export", "/v1/usage/series", "/v1/findings", "/v1/apikeys/k/timeline"} {
				rec := ask(t, engine, path, nil)
				if code, _ := refusal(t, rec); rec.Code != tt.status || code != tt.code || strings.Contains(rec.Body.String(), "secret") {
					t.Errorf("%s: %d %s, want %d %s", path, rec.Code, rec.Body, tt.status, tt.code)
				}
			}
			if _, err := h.Keys().ListKeys(t.Context(), domain.KeysQuery{PageSize: 1, Order: "asc"}); tt.code != "internal" && domain.CodeOf(err) != domain.Unavailable {
				t.Errorf("keys: %v, want it worded", err)
			}
		})
	}
}

func TestAConfigurationIsCheckedAsAWhole(t *testing.T) {
	_, err := query.New(query.Config{ExportsMax: -1})
	for _, part := range []string{"tables", "projections", "access recorder", "clock", "logger", "cursor key", "exports max"} {
		if err == nil || !strings.Contains(err.Error(), part) {
			t.Errorf("error %v does not name the %s", err, part)
		}
	}
}

func TestAnswersSayThatTheyAreIncomplete(t *testing.T) {
	f := newFixture(t)
	f.progress.set(1, 1)
	engine, _ := newEngine(t, f.store, f.progress, f.access, func(c *query.Config) {
		incomplete := tables(f.store, f.progress)
		incomplete.live.Poisoned = 3
		c.Tables = incomplete
	})
	if got := ask(t, engine, "/v1/events", nil).Header().Get("Keytrail-Incomplete"); got != "3" {
		t.Errorf("Keytrail-Incomplete = %q, want 3", got)
	}
	_, body, err := download(t, engine, "")
	if err != nil {
		t.Fatal(err)
	}
	if _, trailer := cutTrailer(t, body, ""); trailer.Poisoned != 3 {
		t.Errorf("trailer %+v, want 3 poisoned events in it", trailer)
	}
	if got := f.get("/v1/events", nil, nil).Header().Get("Keytrail-Incomplete"); got != "" {
		t.Errorf("Keytrail-Incomplete = %q without poison", got)
	}
}
