package eventlog

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strconv"
)

// SetTruncateBefore hides every event of stream before revision for good: the server's
// scavenging may free them. It never moves back: where the stream is cut there or
// further already, it writes nothing. The caller MUST have stored elsewhere what it
// cuts; this cannot be undone once scavenging has run.
//
// After [ErrUnavailable] the caller repeats it. A concurrent change of the stream's
// metadata is retried here.
func (l *Log) SetTruncateBefore(ctx context.Context, stream string, revision uint64) error {
	if revision == 0 || revision >= math.MaxInt64 {
		return fmt.Errorf("cut %s: before revision %d", stream, revision)
	}
	for {
		err := l.truncateOnce(ctx, stream, revision)
		if _, wrong := errors.AsType[*WrongRevision](err); !wrong {
			return err
		}
	}
}

func (l *Log) truncateOnce(ctx context.Context, stream string, revision uint64) error {
	metadata := "$$" + stream
	last, ok, err := l.Last(ctx, metadata)
	if err != nil {
		return err
	}
	fields, exp := map[string]json.RawMessage{}, NoStream()
	if ok {
		if err := json.Unmarshal(last.Data, &fields); err != nil {
			return fmt.Errorf("cut %s: stored metadata: %w", stream, err)
		}
		exp = Exactly(last.Revision)
	}
	if at, err := truncateBefore(fields); err != nil || at >= revision {
		if err != nil {
			err = fmt.Errorf("cut %s: stored metadata: %w", stream, err)
		}
		return err
	}
	fields["$tb"] = json.RawMessage(strconv.FormatUint(revision, 10))
	data, err := json.Marshal(fields)
	if err != nil {
		return fmt.Errorf("cut %s: %w", stream, err)
	}
	p := Proposed{ID: cutID(stream, exp, revision), Type: "$metadata", JSON: true, Data: data}
	if _, err := l.Append(ctx, metadata, exp, p); err != nil {
		return fmt.Errorf("cut %s: %w", stream, err)
	}
	return nil
}

// TruncateBefore returns the revision before which stream is cut, 0 if it is not.
func (l *Log) TruncateBefore(ctx context.Context, stream string) (uint64, error) {
	last, ok, err := l.Last(ctx, "$$"+stream)
	if err != nil || !ok {
		return 0, err
	}
	fields := map[string]json.RawMessage{}
	if err := json.Unmarshal(last.Data, &fields); err != nil {
		return 0, fmt.Errorf("read metadata of %s: %w", stream, err)
	}
	return truncateBefore(fields)
}

func truncateBefore(fields map[string]json.RawMessage) (uint64, error) {
	raw, ok := fields["$tb"]
	if !ok || string(raw) == "null" {
		return 0, nil
	}
	at, err := strconv.ParseUint(string(raw), 10, 64)
	if err != nil {
		return 0, fmt.Errorf("$tb: %w", err)
	}
	return at, nil
}
