package client_test

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"example.com/keytrail/internal/client"
)

func TestNewSaysWhatToMend(t *testing.T) {
	empty := filepath.Join(t.TempDir(), "empty")
	if err := os.WriteFile(empty, []byte("\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name string
		cfg  client.Config
		want string
	}{
		{name: "no scheme", cfg: client.Config{Server: "localhost:8080", Key: "k"}, want: "--server"},
		{name: "no key", cfg: client.Config{Server: "http://localhost"}, want: "--key-file"},
		{name: "no such key file", cfg: client.Config{Server: "http://localhost", KeyFile: "nowhere"}, want: "admin.key"},
		{name: "an empty key file", cfg: client.Config{Server: "http://localhost", KeyFile: empty}, want: "does not hold one API key"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := client.New(tt.cfg)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("New = %v, want an error that says %q", err, tt.want)
			}
		})
	}
}

func answer(t *testing.T, w io.Writer, body string) {
	t.Helper()
	if _, err := io.WriteString(w, body); err != nil {
		t.Error(err)
	}
}

func TestJSONSendsTheKeyAndReadsTheServersError(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer secret" {
			t.Errorf("Authorization = %q, want the key as bearer", r.Header.Get("Authorization"))
		}
		if r.URL.Path == "/ok" {
			answer(t, w, `{"n":3}`)
			return
		}
		w.Header().Set("Retry-After", "2")
		w.WriteHeader(http.StatusServiceUnavailable)
		answer(t, w, `{"status_code":503,"errors":[{"code":"unavailable","message":"log is down"}],"trace":"t1"}`)
	}))
	t.Cleanup(srv.Close)
	c, err := client.New(client.Config{Server: srv.URL, Key: "secret"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	var out struct{ N int }
	if err := c.JSON(t.Context(), client.Request{Method: http.MethodGet, Path: "/ok"}, nil, &out); err != nil || out.N != 3 {
		t.Errorf("JSON = %v, n = %d, want 3", err, out.N)
	}
	err = c.JSON(t.Context(), client.Request{Method: http.MethodGet, Path: "/bad"}, nil, nil)
	e, ok := errors.AsType[*client.Error](err)
	if !ok || e.Status != 503 || e.Code != "unavailable" || e.RetryAfter != 2*time.Second || e.Trace != "t1" {
		t.Errorf("JSON = %#v, want the server's error with its code, trace and delay", err)
	}
	if strings.Contains(err.Error(), "secret") {
		t.Errorf("error %q holds the key", err)
	}
}
