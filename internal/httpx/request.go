package httpx

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"log/slog"
	"net/http"
	"strconv"
	"time"

	"github.com/gin-gonic/gin"

	"example.com/keytrail/domain"
)

const (
	requestKey    = "keytrail.request"
	traceBytesMax = 64
)

// requestInfo is what the first middleware knows of a request.
type requestInfo struct {
	trace string // The caller's correlation id, or ours.
	id    string // Ours, never the caller's.
	start time.Time
	log   *slog.Logger
}

// RequestContext is the "context" of IBM's answers: what helps to find the request in
// the operator's logs.
type RequestContext struct {
	TransactionID string `json:"transaction_id"`
	Operation     string `json:"operation,omitempty"`
	UserAgent     string `json:"user_agent,omitempty"`
	URL           string `json:"url,omitempty"`
	InstanceID    string `json:"instance_id,omitempty"`
	StartTime     string `json:"start_time,omitempty"`
	EndTime       string `json:"end_time,omitempty"`
	ElapsedTime   string `json:"elapsed_time,omitempty"`
}

// begin gives the request its ids. A caller may name its own correlation id in
// Transaction-Id or X-Correlation-Id; what is no id of at most 64 bytes is replaced.
func begin(log *slog.Logger) gin.HandlerFunc {
	return func(c *gin.Context) {
		info := &requestInfo{id: newID(), start: time.Now(), log: log}
		info.trace = info.id
		for _, name := range []string{"Transaction-Id", "X-Correlation-Id"} {
			if v := c.GetHeader(name); domain.ValidID(v) && len(v) <= traceBytesMax {
				info.trace = v
				break
			}
		}
		c.Set(requestKey, info)
		c.Header("Transaction-Id", info.trace)
		c.Next()
	}
}

func newID() string {
	var b [16]byte
	rand.Read(b[:]) // Never returns an error; it ends the process.
	return hex.EncodeToString(b[:])
}

func info(c *gin.Context) *requestInfo {
	if v, ok := c.Get(requestKey); ok {
		if i, ok := v.(*requestInfo); ok {
			return i
		}
	}
	i := &requestInfo{id: newID(), start: time.Now(), log: slog.New(slog.DiscardHandler)}
	i.trace = i.id
	c.Set(requestKey, i)
	return i
}

func logger(c *gin.Context) *slog.Logger { return info(c).log }

// Trace returns the correlation id of the request: the caller's own where it sent a
// valid one. Two requests may share it.
func Trace(c *gin.Context) string { return info(c).trace }

// RequestID returns the id that this server gave the request. No two requests share
// it, so event ids may be derived from it.
func RequestID(c *gin.Context) string { return info(c).id }

// Context returns the context of an answer to c, as of now.
func Context(c *gin.Context) RequestContext {
	i, now := info(c), time.Now()
	const layout = "2006-01-02T15:04:05.000Z"
	return RequestContext{
		TransactionID: i.trace, Operation: c.Request.Method + " " + c.FullPath(), UserAgent: c.Request.UserAgent(),
		URL: c.Request.Host, InstanceID: i.id, StartTime: i.start.UTC().Format(layout), EndTime: now.UTC().Format(layout),
		ElapsedTime: strconv.FormatInt(now.Sub(i.start).Milliseconds(), 10),
	}
}

// Position says in the answer's header up to which log position it holds, or at which
// one the command was recorded. It must come before the body.
func Position(c *gin.Context, position uint64) {
	c.Header("Keytrail-Position", strconv.FormatUint(position, 10))
}

// Lag says in the answer's header how far behind the log the answer may be.
func Lag(c *gin.Context, lag time.Duration) {
	c.Header("Keytrail-Lag", strconv.FormatFloat(max(lag, 0).Seconds(), 'f', 3, 64)+"s")
}

// WaitPosition returns the position that the caller wants the answer to cover, from
// the header Keytrail-Wait-Position, and whether it named one.
func WaitPosition(c *gin.Context) (uint64, bool, error) {
	v := c.GetHeader("Keytrail-Wait-Position")
	if v == "" {
		return 0, false, nil
	}
	p, err := strconv.ParseUint(v, 10, 64)
	if err != nil {
		return 0, false, domain.Errorf(domain.Invalid, "is not a log position").
			WithField("Keytrail-Wait-Position").WithMessageCode("invalid_position")
	}
	return p, true, nil
}

// LimitBody bounds the body of a request; [BindJSON] answers 413 beyond it.
func LimitBody(bytesMax int64) gin.HandlerFunc {
	return func(c *gin.Context) {
		c.Request.Body = http.MaxBytesReader(c.Writer, c.Request.Body, bytesMax)
		c.Next()
	}
}

// Deadline bounds the work for a request: beyond it the handler's context ends, and the
// answer is 503.
func Deadline(limit time.Duration) gin.HandlerFunc {
	return func(c *gin.Context) {
		ctx, cancel := context.WithTimeout(c.Request.Context(), limit)
		defer cancel()
		c.Request = c.Request.WithContext(ctx)
		c.Next()
	}
}
