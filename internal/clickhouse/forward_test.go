package clickhouse_test

import (
	"context"
	"net"
	"net/http"
	"net/http/httputil"
	"testing"
)

// forwarder passes HTTP requests on to a unix socket.
func forwarder(t *testing.T, socket string) http.Handler {
	t.Helper()
	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", socket)
	}}
	t.Cleanup(transport.CloseIdleConnections)
	return &httputil.ReverseProxy{
		Transport: transport,
		Rewrite: func(r *httputil.ProxyRequest) {
			r.Out.URL.Scheme, r.Out.URL.Host = "http", "engine"
		},
	}
}
