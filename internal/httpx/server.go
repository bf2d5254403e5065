package httpx

import (
	"fmt"
	"log/slog"
	"net/http"
	"runtime/debug"
	"time"

	"github.com/gin-gonic/gin"

	"example.com/keytrail/domain"
)

// The bounds of every server. Bodies that take longer (bulk usage, exports) lift
// their own deadline with [http.ResponseController].
const (
	readHeaderTimeout = 10 * time.Second
	readTimeout       = 60 * time.Second
	writeTimeout      = 60 * time.Second
	idleTimeout       = 120 * time.Second
	headerBytesMax    = 64 << 10
)

// NewEngine returns a gin engine with request ids, panic recovery and our error shape
// for paths and methods that do not exist. It trusts no proxy header: the caller's
// address is the connection's.
func NewEngine(log *slog.Logger) *gin.Engine {
	gin.SetMode(gin.ReleaseMode)
	e := gin.New()
	e.HandleMethodNotAllowed = true
	e.ContextWithFallback = true
	e.Use(begin(log), recovery())
	if err := e.SetTrustedProxies(nil); err != nil {
		panic(err) // It parses the list, which is empty.
	}
	e.NoRoute(func(c *gin.Context) {
		Fail(c, domain.Errorf(domain.NotFound, "no such path").WithMessageCode("no_such_path"))
	})
	e.NoMethod(func(c *gin.Context) {
		c.AbortWithStatusJSON(http.StatusMethodNotAllowed, ErrorBody{
			Context: Context(c), StatusCode: http.StatusMethodNotAllowed, Trace: Trace(c),
			Errors: []ErrorDetail{{Code: "method_not_allowed", Message: "the path does not take this method", MessageCode: "method_not_allowed"}},
		})
	})
	return e
}

// recovery answers 500 where a handler panics, and logs the stack once. A panic that
// means 'break off' ([http.ErrAbortHandler]) goes on up.
func recovery() gin.HandlerFunc {
	return func(c *gin.Context) {
		defer func() {
			v := recover()
			if v == nil {
				return
			}
			if v == http.ErrAbortHandler { //nolint:errorlint // The server compares it so.
				panic(v)
			}
			Fail(c, fmt.Errorf("panic: %v\n%s", v, debug.Stack()))
		}()
		c.Next()
	}
}

// NewServer returns a server of h with every timeout set. The caller listens, serves
// and shuts it down.
func NewServer(h http.Handler, log *slog.Logger) *http.Server {
	return &http.Server{
		Handler: h, ReadHeaderTimeout: readHeaderTimeout, ReadTimeout: readTimeout, WriteTimeout: writeTimeout,
		IdleTimeout: idleTimeout, MaxHeaderBytes: headerBytesMax, ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelWarn),
	}
}
