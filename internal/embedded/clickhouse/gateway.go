package clickhouse

import (
	"crypto/sha256"
	"crypto/subtle"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httputil"
	"strconv"
)

const codeAuthenticationFailed = 516

// NewGateway returns a handler that asks for a user and a password, as ClickHouse does
// (Basic, or the headers X-ClickHouse-User and X-ClickHouse-Key), and passes what is let
// in on to the engine at socket. What breaks off on one side breaks off on the other: an
// insert of which the end is missing is none, an answer of which the end is missing is no
// answer. While the engine is started again it answers 503.
func NewGateway(socket, user, password string, logger *slog.Logger) http.Handler {
	want := credentialSum(user, password)
	proxy := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.Out.URL.Scheme, r.Out.URL.Host = "http", "engine"
			r.Out.URL.RawQuery = r.In.URL.RawQuery // As it came: statements are in it.
			for _, name := range []string{"Authorization", "X-ClickHouse-User", "X-ClickHouse-Key"} {
				r.Out.Header.Del(name)
			}
		},
		Transport:     socketTransport(socket),
		FlushInterval: -1,
		ErrorLog:      slog.NewLogLogger(logger.Handler(), slog.LevelDebug),
		ErrorHandler: func(w http.ResponseWriter, r *http.Request, err error) {
			logger.DebugContext(r.Context(), "engine_unreachable", slog.Any("error", err))
			answer(w, http.StatusServiceUnavailable, 0, "the engine does not answer")
		},
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		name, secret, ok := r.BasicAuth()
		if !ok {
			name, secret = r.Header.Get("X-ClickHouse-User"), r.Header.Get("X-ClickHouse-Key")
		}
		got := credentialSum(name, secret)
		if subtle.ConstantTimeCompare(got[:], want[:]) != 1 {
			w.Header().Set("WWW-Authenticate", `Basic realm="ClickHouse"`)
			answer(w, http.StatusUnauthorized, codeAuthenticationFailed, "Authentication failed: password is incorrect, or there is no such user. (AUTHENTICATION_FAILED)")
			return
		}
		proxy.ServeHTTP(w, r)
	})
}

// credentialSum has one length whatever the credential is.
func credentialSum(user, password string) [sha256.Size]byte {
	return sha256.Sum256(fmt.Appendf(nil, "%d:%s%s", len(user), user, password))
}

func answer(w http.ResponseWriter, status, code int, text string) {
	if code != 0 {
		w.Header().Set("X-ClickHouse-Exception-Code", strconv.Itoa(code))
		text = fmt.Sprintf("Code: %d. DB::Exception: %s", code, text)
	}
	http.Error(w, text, status)
}
