package ingest

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"sync"
	"time"

	"example.com/keytrail/domain"
	"example.com/keytrail/internal/eventlog"
	"example.com/keytrail/internal/usagebatch"
)

// Bounds of one event of a recorder: uses, and the bytes of their texts.
const (
	recordGroupMax      = 4096
	recordGroupBytesMax = 640 << 10
	// recordTries bounds how often an append is made anew because another process wrote.
	recordTries = 8
	// recordDoubtsMax bounds the appends without answer that are remembered.
	recordDoubtsMax = 1024
)

// UsageRecorderConfig is what [NewUsageRecorder] needs; every field is required.
type UsageRecorderConfig struct {
	Log UsageLog
	// Writer names this node's stream. No two nodes should share it; where an old process
	// of the node hangs and goes on later, each records its own all the same.
	Writer string
	// Nonce is unique to this process.
	Nonce  string
	Now    func() time.Time
	Logger *slog.Logger
}

// UsageRecorder records the uses that this node sees itself: sign-ins and
// verifications. Uses that arrive while an append is on its way go together in the
// next one. It is safe for concurrent use and owns no goroutine.
type UsageRecorder struct {
	cfg    UsageRecorderConfig
	stream string
	codec  *usagebatch.Codec

	mu      sync.Mutex // Guards waiting.
	waiting []*seenUse

	turn   chan struct{} // Held by whoever reads or changes what follows.
	synced bool
	shared bool // Another process was seen to write the stream, and that was told.
	last   eventlog.Expected
	lastAt time.Time
	// doubtful are events of ours whose append had no answer: they may stand in the
	// stream.
	doubtful map[domain.EventID]struct{}
}

type seenUse struct {
	use      domain.Use
	done     chan struct{}
	position uint64
	err      error
}

var _ UseRecorder = (*UsageRecorder)(nil)

// NewUsageRecorder returns the recorder of the one writer that cfg names.
func NewUsageRecorder(cfg UsageRecorderConfig) (*UsageRecorder, error) {
	if cfg.Log == nil || cfg.Now == nil || cfg.Logger == nil || !domain.ValidID(cfg.Writer) || cfg.Nonce == "" {
		return nil, errors.New("usage recorder: log, clock, logger, a nonce and a valid writer id are required")
	}
	codec, err := usagebatch.New()
	if err != nil {
		return nil, fmt.Errorf("usage recorder: %w", err)
	}
	return &UsageRecorder{
		cfg: cfg, stream: domain.UsageWriterStream(usageClassVerify, cfg.Writer), codec: codec,
		turn: make(chan struct{}, 1), doubtful: make(map[domain.EventID]struct{}),
	}, nil
}

// RecordUse records u and returns its position when it is durable. A use without an id
// gets one. After an error it is not known whether u is recorded; recording it again
// would be a second use.
func (r *UsageRecorder) RecordUse(ctx context.Context, u domain.Use) (uint64, error) {
	u.Time = u.Time.UTC().Truncate(time.Millisecond)
	for _, text := range []*string{&u.UserAgent, &u.Target, &u.Source, &u.ErrorCode, &u.RequestID} {
		*text = recordable(*text)
	}
	s := &seenUse{use: u, done: make(chan struct{})}
	r.mu.Lock()
	r.waiting = append(r.waiting, s)
	r.mu.Unlock()
	select {
	case r.turn <- struct{}{}:
	case <-s.done:
		return s.position, s.err
	case <-ctx.Done():
		// Whoever has the turn may record it all the same: it did happen.
		return 0, fmt.Errorf("wait to record a use: %w", ctx.Err())
	}
	defer func() { <-r.turn }()
	ctx = context.WithoutCancel(ctx)
	for {
		select {
		case <-s.done:
			return s.position, s.err
		default:
			r.commit(ctx)
		}
	}
}

// commit records all waiting uses and wakes those who wait for them.
func (r *UsageRecorder) commit(ctx context.Context) {
	r.mu.Lock()
	n, size := 0, 0
	for n < min(len(r.waiting), recordGroupMax) {
		if size += textBytes(&r.waiting[n].use); n > 0 && size > recordGroupBytesMax {
			break
		}
		n++
	}
	group := r.waiting[:n:n]
	r.waiting = r.waiting[n:]
	if len(r.waiting) == 0 {
		r.waiting = nil
	}
	r.mu.Unlock()
	position, err := r.record(ctx, group)
	for _, s := range group {
		s.position, s.err = position, err
		close(s.done)
	}
}

// textBytes returns the bytes of u's texts, roughly.
func textBytes(u *domain.Use) int {
	n := len(u.ID) + len(u.IAMID) + len(u.KeyID) + len(u.KeyFingerprint) + len(u.Action) + len(u.Source) + len(u.UserAgent) + len(u.Target) + len(u.RequestID)
	for k, v := range u.Labels {
		n += len(k) + len(v)
	}
	return n
}

// recordable returns s as it may be kept: a stranger may have put anything there, a key too.
func recordable(s string) string {
	s = markLong(s)
	if !strings.Contains(s, domain.KeyValuePrefix) {
		return s
	}
	return string(domain.RedactKeyValues([]byte(s)))
}

// markLong cuts a text that a stranger made too long, and says so in it.
func markLong(s string) string {
	if len(s) <= useLongBytesMax {
		return s
	}
	return strings.ToValidUTF8(s[:useLongBytesMax-64], "") + "… [cut, " + strconv.Itoa(len(s)) + " bytes in all]"
}

func (r *UsageRecorder) record(ctx context.Context, group []*seenUse) (uint64, error) {
	for range recordTries {
		if err := r.sync(ctx); err != nil {
			return 0, err
		}
		event, effective, err := r.event(group)
		if err != nil {
			return 0, err
		}
		at, err := r.cfg.Log.Append(ctx, r.stream, r.last, event)
		if _, wrong := errors.AsType[*eventlog.WrongRevision](err); wrong {
			if err := r.explain(ctx); err != nil {
				return 0, err
			}
			continue
		}
		if err != nil {
			r.synced = false
			if len(r.doubtful) >= recordDoubtsMax {
				clear(r.doubtful) // They only explain what is found; a long outage must not fill the memory.
			}
			r.doubtful[event.ID] = struct{}{}
			return 0, logError("record uses", err)
		}
		r.last, r.lastAt = eventlog.Exactly(at.Revision), effective
		return at.Position, nil
	}
	return 0, domain.Errorf(domain.Unavailable, "others write the same stream; try again").WithMessageCode("log_contended")
}

// explain follows the stream past the expected revision. What stands there is an append of
// ours that had no answer, or another process's: then this one's go behind it.
func (r *UsageRecorder) explain(ctx context.Context) error {
	page, err := r.cfg.Log.ReadStream(ctx, r.stream, r.last.Next(), readPage)
	if err != nil {
		return logError("read own uses", err)
	}
	for _, raw := range page {
		if _, ours := r.doubtful[raw.ID]; !ours && !r.shared {
			r.shared = true
			r.cfg.Logger.LogAttrs(ctx, slog.LevelError, "another process writes uses under this node's name: end it, or give each node its own data folder",
				slog.String("stream", r.stream), slog.Uint64("revision", raw.Revision))
		}
		if err := r.took(raw); err != nil {
			return err
		}
		delete(r.doubtful, raw.ID)
	}
	if len(page) == 0 {
		r.synced = false
	}
	return nil
}

// sync finds the end of the stream, at the start and after an append without answer.
func (r *UsageRecorder) sync(ctx context.Context) error {
	if r.synced {
		return nil
	}
	if _, started := r.last.Revision(); started || len(r.doubtful) > 0 {
		// Known up to last: what follows must be ours.
		r.synced = true
		return r.explainAll(ctx)
	}
	raw, ok, err := r.cfg.Log.Last(ctx, r.stream)
	if err != nil {
		return logError("read own uses", err)
	}
	if ok {
		if err := r.took(raw); err != nil {
			return err
		}
	}
	r.synced = true
	return nil
}

func (r *UsageRecorder) explainAll(ctx context.Context) error {
	err := r.explain(ctx)
	r.synced = err == nil
	return err
}

func (r *UsageRecorder) took(raw eventlog.Raw) error {
	m, err := domain.DecodeMetadata(raw.Meta)
	if err != nil {
		return fmt.Errorf("read %s@%d: %w", raw.Stream, raw.Revision, err)
	}
	r.last, r.lastAt = eventlog.Exactly(raw.Revision), m.EffectiveAt
	return nil
}

// event returns the event of group at the stream's end. Its id holds the hash of the
// uses: an append without answer that is stored late must not be taken for another. It and
// the uses' own hold the process: two that see the same at the same moment saw two things.
func (r *UsageRecorder) event(group []*seenUse) (eventlog.Proposed, time.Time, error) {
	revision := strconv.FormatUint(r.last.Next(), 10)
	uses := make([]domain.Use, len(group))
	b := domain.UsageBatch{Batch: revision, Caller: r.cfg.Writer, Lines: uint64(len(group)), Last: true, Count: uint32(len(group))} //nolint:gosec // At most recordGroupMax.
	for i, s := range group {
		uses[i] = s.use
		if uses[i].ID == "" {
			uses[i].ID = domain.DeriveID("use", r.stream, r.cfg.Nonce, revision, strconv.Itoa(i)).String()
		}
		if at := s.use.Time; b.From.IsZero() || at.Before(b.From) {
			b.From = at
		}
		if s.use.Time.After(b.To) {
			b.To = s.use.Time
		}
	}
	data, err := r.codec.Encode(uses)
	if err != nil {
		return eventlog.Proposed{}, time.Time{}, fmt.Errorf("encode uses: %w", err)
	}
	sum := sha256.Sum256(data)
	b.Columns, b.BodyHash = data, hex.EncodeToString(sum[:])
	effective := domain.NextEffective(r.cfg.Now(), r.lastAt)
	p, err := eventlog.Propose(domain.DeriveID("usage-verify", r.cfg.Writer, r.cfg.Nonce, revision, b.BodyHash),
		domain.UsageRecorded{Batch: b}, domain.Metadata{
			EffectiveAt: effective, Initiator: domain.Initiator{IAMID: domain.SystemIAMID, Type: domain.ActorSystem},
		})
	if err != nil {
		return eventlog.Proposed{}, time.Time{}, fmt.Errorf("propose uses: %w", err)
	}
	return p, effective, nil
}
