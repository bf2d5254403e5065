package clickhouse

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"

	chgo "github.com/ClickHouse/clickhouse-go/v2"
)

var (
	// ErrUnavailable says that the store gave no answer, or said that it cannot
	// work now: refused connection, engine restarting, time-out, overload. For a
	// write the outcome is unknown; the caller repeats it with the same token.
	ErrUnavailable = errors.New("clickhouse: unavailable")
	// ErrNoRows is what [Store.Row] returns when the query gave no row.
	ErrNoRows = errors.New("clickhouse: no rows")
	// ErrSchema says that the database's schema and this program do not fit
	// together: an unknown newer version, or a migration edited after it ran.
	ErrSchema = errors.New("clickhouse: schema does not fit this program")
	// ErrQuery says that a query value was built wrongly: a table without scope,
	// a name or expression outside the allowed form. It is our fault, never the
	// caller's data.
	ErrQuery = errors.New("clickhouse: malformed query")
)

// Error codes of the server that callers act on.
const (
	CodeUnknownTable      = 60
	CodeTableExists       = 57
	CodeUnknownDatabase   = 81
	CodeSyntax            = 62
	CodeUnknownSetting    = 115
	CodeTimeoutExceeded   = 159
	CodeMemoryLimit       = 241
	CodeQueryWasCancelled = 394
)

// Error is an exception that the server answered with. Message may hold data and
// SQL: it is for the operator's log, never for an API answer.
type Error struct {
	Code    int
	Name    string
	Message string
}

// Error implements error.
func (e *Error) Error() string {
	return fmt.Sprintf("clickhouse: code %d (%s): %s", e.Code, e.Name, e.Message)
}

// Is reports ErrUnavailable for the codes by which a server says that it cannot
// work now and may later.
func (e *Error) Is(target error) bool {
	return target == ErrUnavailable && temporary(e.Code)
}

// temporary lists overload (202, 252, 439), broken network to storage or peers
// (209, 210, 279, 999), replicas that cannot take writes yet (242, 285, 319), and damaged
// parts, which a replica fetches again and the embedded engine starts anew for (226, 246).
func temporary(code int) bool {
	switch code {
	case 202, 209, 210, 226, 242, 246, 252, 279, 285, 319, 439, 999:
		return true
	}
	return false
}

// classify turns what the driver returned into this package's errors, by type
// and code. ctx is the caller's: its own cancellation is reported as such.
func classify(ctx context.Context, err error) error {
	if err == nil {
		return nil
	}
	if exception, ok := errors.AsType[*chgo.Exception](err); ok {
		return &Error{Code: int(exception.Code), Name: exception.CodeName, Message: exception.Message}
	}
	if cause := ctx.Err(); cause != nil {
		if errors.Is(cause, context.DeadlineExceeded) {
			return fmt.Errorf("%w: %w", ErrUnavailable, cause)
		}
		return fmt.Errorf("clickhouse: %w", cause)
	}
	if unreachable(err) {
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	return fmt.Errorf("clickhouse: %w", err)
}

// unreachable reports whether err is about the way to the server and not about
// the statement.
func unreachable(err error) bool {
	var (
		netErr  net.Error
		opErr   *net.OpError
		httpErr *chgo.HTTPError
	)
	if errors.As(err, &httpErr) {
		return httpErr.StatusCode >= http.StatusInternalServerError || httpErr.StatusCode == http.StatusTooManyRequests
	}
	return errors.As(err, &opErr) || errors.As(err, &netErr) ||
		errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) ||
		errors.Is(err, context.DeadlineExceeded) ||
		errors.Is(err, chgo.ErrAcquireConnTimeout)
}
