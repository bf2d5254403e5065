package eventlog

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/google/uuid"

	"example.com/keytrail/domain"
)

const (
	checkpointStreams = domain.MachineryPrefix + "checkpoint-"
	checkpointType    = "checkpoint.v1"
	// checkpointsKept is how many checkpoints of a consumer the log keeps.
	checkpointsKept = 8
)

// CheckpointStream returns the stream that holds how far consumer has come in
// topic. A consumer's name has no slash, so no two pairs share one.
func CheckpointStream(consumer, topic string) string {
	return checkpointStreams + consumer + "/" + topic
}

// storedCheckpoint is the data of a checkpoint event: everything of the topic up
// to Position has been handled.
type storedCheckpoint struct {
	Position uint64 `json:"position"`
}

// checkpointer stores the progress of one subscription, the newest only, in its
// own goroutine.
type checkpointer struct {
	log      *Log
	stream   string
	interval time.Duration
	wake     chan struct{} // Has one element when want is news.

	mu   sync.Mutex // Guards want.
	want uint64

	// Both belong to the goroutine, once it runs.
	expect Expected
	stored uint64
}

// loadCheckpoint returns a checkpointer that continues what is stored.
func loadCheckpoint(ctx context.Context, l *Log, stream string, interval time.Duration) (*checkpointer, error) {
	c := &checkpointer{log: l, stream: stream, interval: interval, wake: make(chan struct{}, 1)}
	if err := c.load(ctx); err != nil {
		return nil, err
	}
	if _, ok := c.expect.Revision(); !ok {
		if err := l.SetMaxCount(ctx, stream, checkpointsKept); err != nil && !errors.As(err, new(*WrongRevision)) {
			return nil, err // A twin that sets the same limit is no harm.
		}
	}
	return c, nil
}

func (c *checkpointer) load(ctx context.Context) error {
	last, ok, err := c.log.Last(ctx, c.stream)
	if err != nil {
		return fmt.Errorf("load checkpoint: %w", err)
	}
	if !ok {
		c.expect, c.stored = NoStream(), 0
		return nil
	}
	var s storedCheckpoint
	if err := json.Unmarshal(last.Data, &s); err != nil {
		return fmt.Errorf("load checkpoint %s@%d: %w", c.stream, last.Revision, err)
	}
	c.expect, c.stored = Exactly(last.Revision), s.Position
	return nil
}

// reached notes that everything up to pos is handled.
func (c *checkpointer) reached(pos uint64) {
	c.mu.Lock()
	c.want = pos
	c.mu.Unlock()
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// run stores progress until ctx ends, and then what is left. A checkpoint that
// cannot be stored costs a repetition after a restart, nothing else.
func (c *checkpointer) run(ctx context.Context) {
	for {
		select {
		case <-c.wake:
			c.storeOrLog(ctx)
			if pause(ctx, c.log.pool.closed, c.interval) == nil {
				continue
			}
		case <-ctx.Done():
		}
		last, cancel := context.WithTimeout(context.WithoutCancel(ctx), c.log.cfg.AppendTimeout)
		defer cancel()
		c.storeOrLog(last)
		return
	}
}

func (c *checkpointer) storeOrLog(ctx context.Context) {
	if err := c.store(ctx); err != nil && ctx.Err() == nil && !errors.Is(err, ErrClosed) {
		c.log.cfg.Logger.WarnContext(ctx, "checkpoint not stored", slog.String("stream", c.stream), slog.Any("error", err))
		c.reachedAgain()
	}
}

func (c *checkpointer) reachedAgain() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// store appends the newest progress. Where a twin of this consumer has stored
// more, that stands: each twin has handled everything up to its own mark.
func (c *checkpointer) store(ctx context.Context) error {
	c.mu.Lock()
	want := c.want
	c.mu.Unlock()
	for want > c.stored {
		data, err := json.Marshal(storedCheckpoint{Position: want})
		if err != nil {
			return fmt.Errorf("encode checkpoint: %w", err)
		}
		id := uuid.NewSHA1(uuid.NameSpaceURL, fmt.Appendf(nil, "keytrail:checkpoint:%d:%s:%s:%d", len(c.stream), c.stream, c.expect, want))
		at, err := c.log.Append(ctx, c.stream, c.expect, Proposed{ID: domain.EventID(id), Type: checkpointType, JSON: true, Data: data})
		if errors.As(err, new(*WrongRevision)) {
			if err := c.load(ctx); err != nil {
				return err
			}
			continue
		}
		if err != nil {
			return err
		}
		c.expect, c.stored = Exactly(at.Revision), want
	}
	return nil
}
