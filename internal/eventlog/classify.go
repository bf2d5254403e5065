package eventlog

import (
	"context"
	"errors"
	"fmt"

	"github.com/EventStore/EventStore-Client-Go/v4/esdb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// verdict is what an error of the client means for the call.
type verdict int

const (
	refused     verdict = iota // It will not work by being repeated.
	conflict                   // Wrong expected revision.
	missing                    // No such stream.
	deleted                    // Tombstoned.
	tooLarge                   // Over the server's limit.
	unavailable                // Nothing was done; it may work later.
	doubtful                   // It may have been done.
)

// errNotSent says that a call failed before the client was asked.
var errNotSent = errors.New("no connection")

// classify tells errors apart by type and code, never by text. In doubt it says
// doubtful: that is always safe.
func classify(err error) verdict {
	v := classifyClient(err)
	if v == doubtful && errors.Is(err, errNotSent) {
		return unavailable
	}
	return v
}

func classifyClient(err error) verdict {
	var e *esdb.Error
	if !errors.As(err, &e) {
		if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
			return doubtful
		}
		return byStatus(status.Code(err))
	}
	switch e.Code() {
	case esdb.ErrorCodeWrongExpectedVersion:
		return conflict
	case esdb.ErrorCodeResourceNotFound:
		return missing
	case esdb.ErrorCodeStreamDeleted:
		return deleted
	case esdb.ErrorCodeNotLeader, esdb.ErrorCodeConnectionClosed, esdb.ErrorAborted:
		return unavailable
	case esdb.ErrorCodeUnsupportedFeature, esdb.ErrorCodeUnauthenticated, esdb.ErrorCodeAccessDenied,
		esdb.ErrorCodeResourceAlreadyExists, esdb.ErrorCodeParsing:
		return refused
	case esdb.ErrorUnavailable, esdb.ErrorCodeDeadlineExceeded, esdb.ErrorCodeInternalClient, esdb.ErrorCodeInternalServer:
		return doubtful
	case esdb.ErrorCodeUnknown:
		return byStatus(status.Code(err))
	}
	return doubtful
}

func byStatus(code codes.Code) verdict {
	switch code {
	case codes.InvalidArgument, codes.ResourceExhausted:
		return tooLarge
	case codes.Unimplemented, codes.Unauthenticated, codes.PermissionDenied, codes.OutOfRange:
		return refused
	case codes.Aborted:
		return unavailable
	case codes.NotFound:
		return missing
	case codes.OK, codes.Canceled, codes.Unknown, codes.DeadlineExceeded, codes.AlreadyExists,
		codes.FailedPrecondition, codes.Internal, codes.Unavailable, codes.DataLoss:
		return doubtful
	}
	return doubtful
}

// failRead says why a read failed.
func failRead(what string, err error) error {
	switch classify(err) {
	case deleted:
		return fmt.Errorf("%s: %w", what, ErrStreamDeleted)
	case unavailable, doubtful:
		return fmt.Errorf("%s: %w: %w", what, ErrUnavailable, err)
	case refused, conflict, missing, tooLarge:
	}
	return fmt.Errorf("%s: %w", what, err)
}
