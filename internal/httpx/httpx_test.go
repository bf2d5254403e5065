package httpx_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/gin-gonic/gin"

	"example.com/keytrail/domain"
	"example.com/keytrail/internal/httpx"
)

// serve answers one request by h on our engine, and returns what was logged.
func serve(t *testing.T, req *http.Request, h gin.HandlerFunc) (*httptest.ResponseRecorder, string) {
	t.Helper()
	var logged bytes.Buffer
	engine := httpx.NewEngine(slog.New(slog.NewTextHandler(&logged, nil)))
	engine.POST("/x", httpx.LimitBody(100), h)
	rec := httptest.NewRecorder()
	engine.ServeHTTP(rec, req)
	return rec, logged.String()
}

func post(t *testing.T, body string, headers ...string) *http.Request {
	t.Helper()
	req := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/x", strings.NewReader(body))
	for i := 0; i+1 < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	return req
}

func bodyOf(t *testing.T, rec *httptest.ResponseRecorder) httpx.ErrorBody {
	t.Helper()
	var b httpx.ErrorBody
	if err := json.Unmarshal(rec.Body.Bytes(), &b); err != nil {
		t.Fatalf("%v: %s", err, rec.Body)
	}
	return b
}

// TestEveryCodeHasItsStatus, and only what is for the caller is in the answer.
func TestEveryCodeHasItsStatus(t *testing.T) {
	t.Parallel()
	const inner = "dial unix /var/lib/secret.sock"
	for code, status := range map[domain.Code]int{
		domain.Invalid: 400, domain.Unauthenticated: 401, domain.Forbidden: 403, domain.NotFound: 404, domain.Conflict: 409,
		domain.PreconditionFailed: 412, domain.TooLarge: 413, domain.Unavailable: 503, domain.Internal: 500, "new": 500,
	} {
		err := fmt.Errorf("%w: %w", domain.Errorf(code, "for the caller").WithField("name").WithMessageCode("mc"), errors.New(inner))
		rec, logged := serve(t, post(t, "{}"), func(c *gin.Context) { httpx.Fail(c, err) })
		b := bodyOf(t, rec)
		if rec.Code != status || b.StatusCode != status || b.Trace == "" || b.Context.TransactionID != b.Trace || len(b.Errors) != 1 {
			t.Errorf("%s: %d, %s", code, rec.Code, rec.Body)
		}
		if strings.Contains(rec.Body.String(), inner) {
			t.Errorf("%s: internal detail in the answer: %s", code, rec.Body)
		}
		if want := status >= 500; strings.Contains(logged, inner) != want || (want && strings.Count(logged, b.Trace) != 1) {
			t.Errorf("%s: logged %q", code, logged)
		}
		if code != domain.Internal && code != "new" && (b.Errors[0].MessageCode != "mc" || b.Errors[0].Details != "name" || b.Errors[0].Code != string(code)) {
			t.Errorf("%s: %+v", code, b.Errors[0])
		}
		if (rec.Header().Get("Retry-After") != "") != (status == 503) || (rec.Header().Get("WWW-Authenticate") != "") != (status == 401) {
			t.Errorf("%s: headers %v", code, rec.Header())
		}
	}
}

func TestSeveralFieldErrorsAreAllAnswered(t *testing.T) {
	t.Parallel()
	err := errors.Join(domain.Errorf(domain.Invalid, "a").WithField("x"), domain.Errorf(domain.Invalid, "b").WithField("y"))
	rec, _ := serve(t, post(t, "{}"), func(c *gin.Context) { httpx.Fail(c, err) })
	if b := bodyOf(t, rec); rec.Code != 400 || len(b.Errors) != 2 || b.Errors[1].Details != "y" {
		t.Errorf("%s", rec.Body)
	}
}

func TestAPanicIs500WithoutItsText(t *testing.T) {
	t.Parallel()
	rec, logged := serve(t, post(t, "{}"), func(*gin.Context) { panic("inner secret") })
	if rec.Code != 500 || strings.Contains(rec.Body.String(), "secret") || !strings.Contains(logged, "inner secret") {
		t.Errorf("%d %s, logged %q", rec.Code, rec.Body, logged)
	}
}

func TestTraceIsTheCallersIfItIsValid(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ name, header, value, want string }{
		{"Transaction-Id", "Transaction-Id", "tx-1", "tx-1"},
		{"X-Correlation-Id", "X-Correlation-Id", "c:1", "c:1"},
		{"not an id", "Transaction-Id", "a b", ""},
		{"a line break", "Transaction-Id", "a\nb", ""},
		{"too long", "Transaction-Id", strings.Repeat("a", 65), ""},
		{"none", "X-Other", "x", ""},
	} {
		var trace, id string
		rec, _ := serve(t, post(t, "{}", tt.header, tt.value), func(c *gin.Context) { trace, id = httpx.Trace(c), httpx.RequestID(c); c.Status(204) })
		if tt.want == "" {
			tt.want = id
		}
		if trace != tt.want || len(id) != 32 || rec.Header().Get("Transaction-Id") != trace {
			t.Errorf("%s: trace %q, id %q", tt.name, trace, id)
		}
	}
}

func TestBindJSONIsStrict(t *testing.T) {
	t.Parallel()
	type inner struct {
		N int `json:"n"`
	}
	type body struct {
		Name string `json:"name"`
		In   inner  `json:"in"`
	}
	for _, tt := range []struct {
		name, in, code, field string
		status                int
	}{
		{name: "good", in: `{"name":"a","in":{"n":1}}`, status: 204},
		{name: "a wrong type within", in: `{"in":{"n":"x"}}`, status: 400, code: "wrong_type", field: "in.n"},
		{name: "an unknown field within", in: `{"in":{"m":1}}`, status: 400, code: "unknown_field", field: "m"},
		{name: "a field twice within", in: `{"in":{"n":1,"n":2}}`, status: 400, code: "duplicate_field", field: "n"},
		{name: "an unknown field among many", in: `{"a1":1,"a2":1,"a3":1,"a4":1,"a5":1,"a6":1,"a7":1,"a8":1,"a9":1,"b1":1}`, status: 400, code: "unknown_field", field: "a1"},
		{name: "the first of many fields twice", in: `{"a1":1,"a2":1,"a3":1,"a4":1,"a5":1,"a6":1,"a7":1,"a8":1,"a9":1,"b1":1,"A1":2}`, status: 400, code: "duplicate_field", field: "A1"},
		{name: "the last of many fields twice", in: `{"a1":1,"a2":1,"a3":1,"a4":1,"a5":1,"a6":1,"a7":1,"a8":1,"a9":1,"b1":1,"b1":2}`, status: 400, code: "duplicate_field", field: "b1"},
		{name: "an object that does not end", in: `{"name":"a"`, status: 400, code: "invalid_json"},
		{name: "a list that does not end", in: `[1,`, status: 400, code: "invalid_json"},
		{name: "a name that is none", in: `{1:2}`, status: 400, code: "invalid_json"},
		{name: "rubbish after it", in: `{} x`, status: 400, code: "invalid_json"},
		{name: "a list", in: `[]`, status: 400, code: "wrong_type"},
		{name: "too deep", in: strings.Repeat("[", 40) + strings.Repeat("]", 40), status: 400, code: "too_deep"},
		{name: "too large", in: `{"name":"` + strings.Repeat("x", 100) + `"}`, status: 413, code: "body_too_large"},
		{name: "blank", in: "  ", status: 400, code: "empty_body"},
	} {
		rec, _ := serve(t, post(t, tt.in), func(c *gin.Context) {
			var b body
			if err := httpx.BindJSON(c, &b); err != nil {
				httpx.Fail(c, err)
				return
			}
			c.Status(204)
		})
		if rec.Code != tt.status {
			t.Errorf("%s: %d %s", tt.name, rec.Code, rec.Body)
			continue
		}
		if tt.status != 204 {
			if e := bodyOf(t, rec).Errors[0]; e.MessageCode != tt.code || e.Details != tt.field {
				t.Errorf("%s: %+v, want %s %s", tt.name, e, tt.code, tt.field)
			}
		}
	}
}

// FuzzDecodeJSON: no bytes crash it, and what it takes encoding/json takes too.
func FuzzDecodeJSON(f *testing.F) {
	for _, s := range []string{`{"name":"a"}`, `{`, `[[[]]]`, `{"a":1,"A":2}`, `nul`, `"\ud800"`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		var dst struct {
			Name string `json:"name"`
		}
		if err := httpx.DecodeJSON(data, &dst); err == nil && !json.Valid(data) {
			t.Errorf("took %q", data)
		} else if err != nil && domain.CodeOf(err) != domain.Invalid {
			t.Errorf("%q: %v", data, err)
		}
	})
}

func TestPositionHeaders(t *testing.T) {
	t.Parallel()
	rec, _ := serve(t, post(t, "{}", "Keytrail-Wait-Position", "18446744073709551615"), func(c *gin.Context) {
		p, ok, err := httpx.WaitPosition(c)
		if err != nil || !ok {
			t.Errorf("%d %t %v", p, ok, err)
		}
		httpx.Position(c, p)
		httpx.Lag(c, -time.Second)
		c.Status(204)
	})
	if rec.Header().Get("Keytrail-Position") != "18446744073709551615" || rec.Header().Get("Keytrail-Lag") != "0.000s" {
		t.Errorf("%v", rec.Header())
	}
	rec, _ = serve(t, post(t, "{}", "Keytrail-Wait-Position", "-1"), func(c *gin.Context) {
		_, _, err := httpx.WaitPosition(c)
		httpx.Fail(c, err)
	})
	if rec.Code != 400 {
		t.Errorf("a position that is none: %d", rec.Code)
	}
}

// TestNewServerSetsEveryTimeout: a zero one means for ever.
func TestNewServerSetsEveryTimeout(t *testing.T) {
	t.Parallel()
	s := httpx.NewServer(http.NotFoundHandler(), slog.New(slog.DiscardHandler))
	if s.ReadHeaderTimeout == 0 || s.ReadTimeout == 0 || s.WriteTimeout == 0 || s.IdleTimeout == 0 || s.MaxHeaderBytes == 0 || s.ErrorLog == nil {
		t.Errorf("%+v", s)
	}
}

// counted keeps what it was told.
type counted struct{ causes []string }

func (c *counted) Count(_ context.Context, cause string, _ error) { c.causes = append(c.causes, cause) }

// TestWhatIsAwayIsCountedAndNotLogged: in an outage the log must not grow with the requests.
func TestWhatIsAwayIsCountedAndNotLogged(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name   string
		err    error
		status int
		code   string
		logged bool
	}{
		{name: "away", err: domain.Errorf(domain.Unavailable, "away").WithMessageCode("log_unavailable"), status: 503, code: "log_unavailable"},
		{name: "too slow", err: fmt.Errorf("read: %w", context.DeadlineExceeded), status: 503, code: "too_slow"},
		{name: "our fault", err: errors.New("x"), status: 500, logged: true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			var (
				log  bytes.Buffer
				told counted
			)
			engine := httpx.NewEngine(slog.New(slog.NewTextHandler(&log, nil)))
			engine.Use(httpx.TellOutages(&told))
			engine.GET("/", func(c *gin.Context) { httpx.Fail(c, tt.err) })
			rec := httptest.NewRecorder()
			engine.ServeHTTP(rec, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/", nil))
			if rec.Code != tt.status || (rec.Header().Get("Retry-After") != "") != (tt.status == 503) {
				t.Errorf("answered %d, Retry-After %q", rec.Code, rec.Header().Get("Retry-After"))
			}
			if (log.Len() > 0) != tt.logged {
				t.Errorf("logged %q", &log)
			}
			if got := strings.Join(told.causes, ","); got != tt.code {
				t.Errorf("told of %q, want %q", got, tt.code)
			}
		})
	}
}

func TestARequestEndsAtItsDeadline(t *testing.T) {
	t.Parallel()
	engine := httpx.NewEngine(slog.New(slog.DiscardHandler))
	engine.GET("/", httpx.Deadline(time.Millisecond), func(c *gin.Context) {
		<-c.Request.Context().Done()
		httpx.Fail(c, c.Request.Context().Err())
	})
	rec := httptest.NewRecorder()
	engine.ServeHTTP(rec, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/", nil))
	if rec.Code != http.StatusServiceUnavailable {
		t.Errorf("answered %d", rec.Code)
	}
}
