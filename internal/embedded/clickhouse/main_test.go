package clickhouse_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"example.com/keytrail/internal/clickhouse/clickhousetest"
	embedded "example.com/keytrail/internal/embedded/clickhouse"
)

const (
	// helperParent makes the test binary start an engine and wait to be killed.
	helperParent = "helper-parent"
	// helperNoLandlock makes it the engine's child on a kernel without Landlock.
	helperNoLandlock = "helper-no-landlock"
)

func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == helperParent {
		fmt.Fprintln(os.Stderr, runHelperParent(os.Args[2], os.Args[3], os.Args[4]))
		os.Exit(1)
	}
	if len(os.Args) > 1 && os.Args[1] == helperNoLandlock {
		os.Exit(runWithoutLandlock(os.Args[2:]))
	}
	os.Exit(clickhousetest.Main(m, func() int {
		if err := goleak.Find(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		return 0
	}))
}

// start runs an engine of the test's own, closed when the test ends.
func start(t *testing.T, cfg embedded.Config) *embedded.Server {
	t.Helper()
	if cfg.Dir == "" {
		cfg.Dir = t.TempDir()
	}
	cfg.Library = clickhousetest.Library(t)
	cfg.Logger = clickhousetest.Logger(t)
	s, err := embedded.Start(t.Context(), cfg)
	if err != nil {
		t.Fatalf("start: %v", err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return s
}

// client speaks HTTP to an engine's socket.
func client(tb testing.TB, socket string) *http.Client {
	tb.Helper()
	transport := unixTransport(socket)
	tb.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}
}

type answer struct {
	status int
	code   string
	body   string
	err    error // The body's reading.
}

// ask sends one statement in the body with the URL's parameters.
func ask(tb testing.TB, c *http.Client, body string, params ...string) answer {
	tb.Helper()
	values := url.Values{}
	for i := 0; i+1 < len(params); i += 2 {
		values.Set(params[i], params[i+1])
	}
	req, err := http.NewRequestWithContext(tb.Context(), http.MethodPost, "http://engine/?"+values.Encode(), strings.NewReader(body))
	if err != nil {
		tb.Fatal(err)
	}
	res, err := c.Do(req)
	if err != nil {
		tb.Fatalf("post: %v", err)
	}
	text, err := io.ReadAll(res.Body)
	err = errors.Join(err, res.Body.Close())
	return answer{status: res.StatusCode, code: res.Header.Get("X-ClickHouse-Exception-Code"), body: string(text), err: err}
}

// must is ask for statements that have to work.
func must(tb testing.TB, c *http.Client, statement string, params ...string) string {
	tb.Helper()
	a := ask(tb, c, statement, params...)
	if a.status != http.StatusOK || a.err != nil {
		tb.Fatalf("%s: status %d, %s, %v", statement, a.status, a.body, a.err)
	}
	return strings.TrimSpace(a.body)
}

func unixTransport(socket string) *http.Transport {
	return &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", socket)
	}}
}
