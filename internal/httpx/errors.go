package httpx

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"

	"github.com/gin-gonic/gin"

	"example.com/keytrail/domain"
)

// retryAfterSeconds is what a caller is asked to wait after a 503.
const retryAfterSeconds = "1"

// statusClientGone is answered, to nobody, where the caller hung up.
const statusClientGone = 499

// ErrorDetail is one entry of an error answer.
type ErrorDetail struct {
	Code        string `json:"code"`
	Message     string `json:"message"`
	MessageCode string `json:"message_code,omitempty"`
	Details     string `json:"details,omitempty"`
}

// ErrorBody is the body of every answer that is no success.
type ErrorBody struct {
	Context    RequestContext `json:"context"`
	StatusCode int            `json:"status_code"`
	Errors     []ErrorDetail  `json:"errors"`
	Trace      string         `json:"trace"`
}

// Status returns the HTTP status of code. It is the only place that knows.
func Status(code domain.Code) int {
	switch code {
	case domain.Invalid:
		return http.StatusBadRequest
	case domain.Unauthenticated:
		return http.StatusUnauthorized
	case domain.Forbidden:
		return http.StatusForbidden
	case domain.NotFound:
		return http.StatusNotFound
	case domain.Conflict:
		return http.StatusConflict
	case domain.PreconditionFailed:
		return http.StatusPreconditionFailed
	case domain.TooLarge:
		return http.StatusRequestEntityTooLarge
	case domain.Unavailable:
		return http.StatusServiceUnavailable
	case domain.Internal:
		return http.StatusInternalServerError
	}
	return http.StatusInternalServerError
}

// Outages are told of every request that is answered 503. obs.Outages are.
type Outages interface {
	// Count takes in one request: a word for the cause, and what an operator should know.
	Count(ctx context.Context, cause string, err error)
}

const outagesKey = "keytrail.outages"

// TellOutages makes o the one that is told of the requests behind it; without it each is
// logged.
func TellOutages(o Outages) gin.HandlerFunc { return func(c *gin.Context) { c.Set(outagesKey, o) } }

// Fail answers err and ends the chain. The caller reads what the [domain.Error]s in
// err's tree say, one entry each; everything else stays here: it is logged once, with
// the trace id that the answer carries, or counted where it says that something is away.
func Fail(c *gin.Context, err error) {
	if domain.CodeOf(err) == domain.Internal && errors.Is(err, context.DeadlineExceeded) {
		err = fmt.Errorf("%w: %w", domain.Errorf(domain.Unavailable, "this took too long; try again").WithMessageCode("too_slow"), err)
	}
	status := Status(domain.CodeOf(err))
	details := detailsOf(err)
	switch {
	case errors.Is(err, context.Canceled) && c.Request.Context().Err() != nil:
		status = statusClientGone
	case status == http.StatusServiceUnavailable && outages(c) != nil:
		outages(c).Count(c.Request.Context(), details[0].MessageCode, err)
	case status >= http.StatusInternalServerError:
		logger(c).LogAttrs(c.Request.Context(), slog.LevelError, "request failed",
			slog.Int("status", status), slog.String("trace", Trace(c)), slog.String("method", c.Request.Method),
			slog.String("route", c.FullPath()), slog.String("error", err.Error()))
	}
	switch status {
	case http.StatusServiceUnavailable:
		c.Header("Retry-After", retryAfterSeconds)
	case http.StatusUnauthorized:
		c.Header("WWW-Authenticate", `Bearer realm="keytrail"`)
	}
	c.Abort()
	if c.Writer.Written() {
		return // The answer has begun; breaking it off is all that can be done.
	}
	c.JSON(status, ErrorBody{Context: Context(c), StatusCode: status, Errors: details, Trace: Trace(c)})
}

func outages(c *gin.Context) Outages {
	v, _ := c.Get(outagesKey)
	o, _ := v.(Outages)
	return o
}

// detailsOf lists the domain errors of err's tree in order. Internal ones are worded
// here, never by their text.
func detailsOf(err error) []ErrorDetail {
	var out []ErrorDetail
	walk(err, func(e *domain.Error) {
		if e.Code == domain.Internal {
			return
		}
		d := ErrorDetail{Code: string(e.Code), Message: e.Error(), MessageCode: e.MessageCode, Details: e.Field}
		if d.MessageCode == "" {
			d.MessageCode = string(e.Code)
		}
		out = append(out, d)
	})
	if len(out) == 0 {
		out = []ErrorDetail{{
			Code: string(domain.Internal), Message: "internal error; name the trace to the operator", MessageCode: "internal",
		}}
	}
	return out
}

func walk(err error, visit func(*domain.Error)) {
	//nolint:errorlint // This is the walk over the tree that errors.As would do for one.
	switch e := err.(type) {
	case nil:
	case *domain.Error:
		visit(e)
	case interface{ Unwrap() error }:
		walk(e.Unwrap(), visit)
	case interface{ Unwrap() []error }:
		for _, inner := range e.Unwrap() {
			walk(inner, visit)
		}
	}
}
