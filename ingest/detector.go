package ingest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"example.com/keytrail/domain"
	"example.com/keytrail/internal/eventlog"
)

// FindingEvaluator computes findings from the tables.
type FindingEvaluator interface {
	// EvaluateBlocks returns what the rules find in every stretch that blocks from to
	// to, both included, added records to. Each finding is whole, whatever part of it
	// was found before. All blocks up to the last are complete.
	EvaluateBlocks(ctx context.Context, from, to uint64) ([]domain.Finding, error)
}

// CompletedBlocks tells how far the tables are.
type CompletedBlocks interface {
	// WaitBlock waits for a block after the given one and returns the newest completed
	// block and its position. Blocks between the two are completed, too.
	WaitBlock(ctx context.Context, after uint64) (block, position uint64, err error)
}

// DetectorFeed is a subscription; see [eventlog.Subscription].
type DetectorFeed interface {
	Next(ctx context.Context) (eventlog.Delivery, error)
	Close()
}

// DetectorLog is what the detector needs of the event log. [NewDetectorLog] makes one
// from the real log. The methods' contracts are those of [eventlog.Log].
type DetectorLog interface {
	Append(ctx context.Context, stream string, exp eventlog.Expected, events ...eventlog.Proposed) (eventlog.Appended, error)
	Last(ctx context.Context, stream string) (eventlog.Raw, bool, error)
	Head(ctx context.Context, prefixes []string) (uint64, error)
	SetMaxCount(ctx context.Context, stream string, n uint64) error
	Subscribe(ctx context.Context, opt eventlog.SubscribeOptions) (DetectorFeed, error)
}

// NewDetectorLog returns l as a [DetectorLog].
func NewDetectorLog(l *eventlog.Log) DetectorLog { return detectorLog{l} }

type detectorLog struct{ *eventlog.Log }

// Subscribe implements [DetectorLog].
func (l detectorLog) Subscribe(ctx context.Context, opt eventlog.SubscribeOptions) (DetectorFeed, error) {
	s, err := l.Log.Subscribe(ctx, opt)
	if err != nil {
		return nil, err //nolint:wrapcheck // This is the log itself.
	}
	return s, nil
}

// DetectorConfig is what [NewDetector] needs; every field but RetryAfter is required.
type DetectorConfig struct {
	Log       DetectorLog
	Blocks    CompletedBlocks
	Evaluator FindingEvaluator
	// Generation is that of the tables. A new generation is evaluated from its first
	// block on, and compared with the findings that are there.
	Generation string
	// First, if set, returns the block after which a generation is evaluated that no
	// detector has looked at yet.
	First func(ctx context.Context) (uint64, error)
	Now   func() time.Time
	// RetryAfter is the pause after a failure; 0 means a second.
	RetryAfter time.Duration
	Logger     *slog.Logger
}

// Detector turns what the rules find into events. It follows the completed blocks and
// writes, for each finding, that it was opened or extended: an ordinary command of the
// system with a deterministic id and an exact expected revision, so that a repeat after
// a crash changes nothing and several detectors at once do no harm. Before it opens a
// finding, or extends what one is about, it claims that in the stream ktx.case-<id> of the
// rule and the dedupe key, at the exact revision: so two detectors never open two findings
// for the same thing, whatever blocks they look at.
//
// Its progress is kept in the stream ktx.detector-<generation>, after the findings.
type Detector struct {
	cfg       DetectorConfig
	evaluated atomic.Uint64
}

const (
	// detectorBlocksMax bounds the blocks that are evaluated at once.
	detectorBlocksMax = 64
	// detectorShare: while blocks keep coming, an evaluation begins this many times what
	// the last one took after that began, or detectorRestMax after it; what has come
	// meanwhile is evaluated together. Every evaluation asks the same questions, however
	// many blocks it is about, of the store that the blocks are written to.
	detectorShare   = 8
	detectorRestMax = 2 * time.Second
	// detectorProgressEvery is after how many blocks without findings the progress is
	// written; as many are evaluated again after a restart, at most.
	detectorProgressEvery = 16
	// detectorProgressKept is how many progress events the log keeps.
	detectorProgressKept = 4
	// detectorTries bounds the repeats of one command that lost to another writer.
	detectorTries = 8

	typeDetectorEvaluated = "detector.evaluated.v1"
)

// detectorProgress is the body of a progress event.
type detectorProgress struct {
	Block uint64 `json:"block"` // All blocks up to it are evaluated, their findings durable.
}

// NewDetector returns a detector that does nothing until [Detector.Run].
func NewDetector(cfg DetectorConfig) (*Detector, error) {
	if cfg.Log == nil || cfg.Blocks == nil || cfg.Evaluator == nil || cfg.Now == nil || cfg.Logger == nil || !domain.ValidID(cfg.Generation) {
		return nil, errors.New("detector: a log, blocks, an evaluator, a generation, a clock and a logger are required")
	}
	if cfg.RetryAfter == 0 {
		cfg.RetryAfter = time.Second
	}
	return &Detector{cfg: cfg}, nil
}

// Evaluated returns the newest block that this detector knows to be evaluated, with
// its findings in the log.
func (d *Detector) Evaluated() uint64 { return d.evaluated.Load() }

// Run follows the blocks until ctx ends, which is no error. It outlives failures: it
// pauses, reads anew what stands in the log, and goes on from there.
func (d *Detector) Run(ctx context.Context) error {
	for {
		err := d.follow(ctx)
		if ctx.Err() != nil {
			return nil //nolint:nilerr // That ctx ends is no error.
		}
		d.cfg.Logger.WarnContext(ctx, "detector is interrupted, trying again", slog.Any("error", err))
		pause := time.NewTimer(d.cfg.RetryAfter)
		select {
		case <-ctx.Done():
			pause.Stop()
			return nil
		case <-pause.C:
		}
	}
}

// detectorRun is one attempt: what it knows is read from the log when it begins.
type detectorRun struct {
	*Detector
	book *findingBook
	feed DetectorFeed
	// done is the newest evaluated block, written the one that the progress stream
	// holds at its revision progress.
	done, written uint64
	progress      eventlog.Expected
}

// follow loads what is known and evaluates block after block. It ends with an error.
func (d *Detector) follow(ctx context.Context) error {
	feed, err := d.cfg.Log.Subscribe(ctx, eventlog.SubscribeOptions{Prefixes: []string{domain.FindingStreams}, FromStart: true})
	if err != nil {
		return fmt.Errorf("follow findings: %w", err)
	}
	defer feed.Close()
	run := &detectorRun{Detector: d, book: newFindingBook(), feed: feed}
	if err := run.loadFindings(ctx); err != nil {
		return err
	}
	if err := run.loadProgress(ctx); err != nil {
		return err
	}
	for {
		to, _, err := d.cfg.Blocks.WaitBlock(ctx, run.done)
		if err != nil {
			return fmt.Errorf("wait for a block: %w", err)
		}
		began := d.cfg.Now()
		if err := run.evaluate(ctx, min(to, run.done+detectorBlocksMax)); err != nil {
			return err
		}
		if run.done < to {
			continue // It is behind: the more at once, the better.
		}
		if err := d.rest(ctx, d.cfg.Now().Sub(began)); err != nil {
			return err
		}
	}
}

// rest waits after an evaluation that took so long.
func (d *Detector) rest(ctx context.Context, took time.Duration) error {
	t := time.NewTimer(min((detectorShare-1)*took, detectorRestMax))
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("rest: %w", ctx.Err())
	}
}

// evaluate evaluates the blocks up to to and records what was found.
func (r *detectorRun) evaluate(ctx context.Context, to uint64) error {
	found, err := r.cfg.Evaluator.EvaluateBlocks(ctx, r.done+1, to)
	if err != nil {
		return fmt.Errorf("evaluate blocks %d to %d: %w", r.done+1, to, err)
	}
	if len(found) > 0 {
		if err := r.catchUp(ctx); err != nil {
			return err
		}
	}
	for _, f := range found {
		if err := r.record(ctx, f, to); err != nil {
			return fmt.Errorf("record finding %s of rule %s: %w", f.ID, f.Rule, err)
		}
	}
	r.done = to
	if len(found) > 0 || r.done-r.written >= detectorProgressEvery {
		if err := r.saveProgress(ctx); err != nil {
			return err
		}
	}
	r.showProgress()
	return nil
}

// showProgress never goes back: after a restart some blocks are evaluated again.
func (r *detectorRun) showProgress() { r.evaluated.Store(max(r.evaluated.Load(), r.done)) }

// loadFindings reads every finding that the log holds.
func (r *detectorRun) loadFindings(ctx context.Context) error {
	for {
		d, err := r.feed.Next(ctx)
		if err != nil {
			return fmt.Errorf("read findings: %w", err)
		}
		if d.Event != nil {
			r.learn(ctx, *d.Event)
		}
		if d.CaughtUp {
			return nil
		}
	}
}

// catchUp takes in what other writers added since.
func (r *detectorRun) catchUp(ctx context.Context) error {
	head, err := r.cfg.Log.Head(ctx, []string{domain.FindingStreams})
	if err != nil {
		return fmt.Errorf("read findings: %w", err)
	}
	for r.book.position < head {
		d, err := r.feed.Next(ctx)
		if err != nil {
			return fmt.Errorf("read findings: %w", err)
		}
		if d.Event != nil {
			r.learn(ctx, *d.Event)
		}
	}
	return nil
}

// learn takes in one event of a finding. One that cannot be read closes its finding
// for this detector: it is neither extended nor opened again.
func (r *detectorRun) learn(ctx context.Context, raw eventlog.Raw) {
	if err := r.book.apply(raw); err != nil {
		r.cfg.Logger.ErrorContext(ctx, "a finding cannot be read and is left as it is",
			slog.String("stream", raw.Stream), slog.Uint64("revision", raw.Revision), slog.Any("error", err))
	}
	r.book.position = max(r.book.position, raw.Position)
}

// record writes what candidate adds to the findings that are there, if anything.
func (r *detectorRun) record(ctx context.Context, candidate domain.Finding, block uint64) error {
	if known := r.book.match(candidate); known != nil && (known.closed || known.seen == contentID(candidate)) {
		return nil
	}
	id, err := r.claim(ctx, candidate)
	if err != nil {
		return err
	}
	for range detectorTries {
		err := r.write(ctx, id, candidate, block)
		if !errors.As(err, new(*eventlog.WrongRevision)) {
			return err
		}
		// Another detector was faster: look at what it wrote.
	}
	return errors.New("other writers were faster each time")
}

// write opens the finding id with candidate, or extends it by what candidate adds.
func (r *detectorRun) write(ctx context.Context, id domain.EventID, candidate domain.Finding, block uint64) error {
	if k := r.book.byID[id]; k != nil && k.closed {
		return nil
	}
	stream := domain.FindingStream(id)
	now, ok, err := r.read(ctx, stream)
	if err != nil {
		return err
	}
	if !ok {
		candidate.ID = id
		return r.append(ctx, stream, eventlog.NoStream(), domain.FindingOpened{After: candidate}, block)
	}
	known := r.book.byID[id]
	merged, changed := now.Extend(candidate)
	if !changed {
		known.seen = contentID(candidate)
		return nil
	}
	return r.append(ctx, stream, eventlog.Exactly(known.revision), domain.FindingExtended{After: merged}, block)
}

// read returns the finding that stream holds now, if there is one, and takes it into the
// book.
func (r *detectorRun) read(ctx context.Context, stream string) (f domain.Finding, ok bool, err error) {
	raw, ok, err := r.cfg.Log.Last(ctx, stream)
	if err != nil {
		return f, false, fmt.Errorf("read %s: %w", stream, err)
	}
	if !ok {
		return f, false, nil
	}
	if err := r.book.apply(raw); err != nil {
		return f, false, err
	}
	f, err = findingOf(raw)
	return f, err == nil, err
}

// append writes event as the system's and takes it into the book.
func (r *detectorRun) append(ctx context.Context, stream string, exp eventlog.Expected, event domain.Event, block uint64) error {
	f, _ := findingIn(event)
	id := domain.DeriveID("finding-event", f.ID.String(), contentID(f).String())
	meta := domain.Metadata{
		EffectiveAt:   r.book.after(f.ID, r.cfg.Now()),
		Initiator:     domain.Initiator{IAMID: domain.SystemIAMID, Name: "keytrail", Type: domain.ActorSystem},
		CorrelationID: domain.DeriveID("detector-block", r.cfg.Generation, fmt.Sprint(block)).String(),
	}
	p, err := eventlog.Propose(id, event, meta)
	if err != nil {
		return err //nolint:wrapcheck // It names the event.
	}
	at, err := r.cfg.Log.Append(ctx, stream, exp, p)
	if err != nil {
		return err //nolint:wrapcheck // record names the finding.
	}
	r.book.take(f, at.Revision, meta.EffectiveAt)
	return nil
}

func (r *detectorRun) progressStream() string { return detectorProgressStream(r.cfg.Generation) }

func detectorProgressStream(generation string) string {
	return domain.MachineryPrefix + "detector-" + generation
}

// DetectorProgress returns the newest block that the detectors of a generation have written
// down as evaluated, wherever they run; it may be some blocks behind what they have done.
func DetectorProgress(ctx context.Context, log CommandLog, generation string) (uint64, error) {
	raw, ok, err := log.Last(ctx, detectorProgressStream(generation))
	if err != nil {
		return 0, logError("read the detector's progress", err)
	}
	var p detectorProgress
	if !ok {
		return 0, nil
	}
	if err := json.Unmarshal(raw.Data, &p); err != nil {
		return 0, fmt.Errorf("read the detector's progress at revision %d: %w", raw.Revision, err)
	}
	return p.Block, nil
}

// loadProgress reads how far this or another detector of the generation came.
func (r *detectorRun) loadProgress(ctx context.Context) error {
	raw, ok, err := r.cfg.Log.Last(ctx, r.progressStream())
	if err != nil {
		return fmt.Errorf("read the detector's progress: %w", err)
	}
	if !ok {
		if err := r.cfg.Log.SetMaxCount(ctx, r.progressStream(), detectorProgressKept); err != nil {
			return fmt.Errorf("bound the detector's progress: %w", err)
		}
		if r.cfg.First == nil {
			return nil
		}
		first, err := r.cfg.First(ctx)
		r.done = max(r.done, first)
		return err
	}
	var p detectorProgress
	if err := json.Unmarshal(raw.Data, &p); err != nil {
		return fmt.Errorf("read the detector's progress at revision %d: %w", raw.Revision, err)
	}
	r.progress, r.written, r.done = eventlog.Exactly(raw.Revision), p.Block, max(r.done, p.Block)
	r.showProgress()
	return nil
}

// saveProgress writes that all blocks up to done are evaluated. If another detector
// wrote since, its word is taken in first: what it evaluated, it recorded.
func (r *detectorRun) saveProgress(ctx context.Context) error {
	for range detectorTries {
		if r.written >= r.done {
			return nil
		}
		data, err := json.Marshal(detectorProgress{Block: r.done})
		if err != nil {
			return fmt.Errorf("encode the detector's progress: %w", err)
		}
		p := eventlog.Proposed{
			ID:   domain.DeriveID("detector-evaluated", r.cfg.Generation, fmt.Sprint(r.done)),
			Type: typeDetectorEvaluated, JSON: true, Data: data, Meta: []byte("{}"),
		}
		at, err := r.cfg.Log.Append(ctx, r.progressStream(), r.progress, p)
		if err == nil {
			r.progress, r.written = eventlog.Exactly(at.Revision), r.done
			return nil
		}
		if !errors.As(err, new(*eventlog.WrongRevision)) {
			return fmt.Errorf("write the detector's progress: %w", err)
		}
		if err := r.loadProgress(ctx); err != nil {
			return err
		}
	}
	return errors.New("write the detector's progress: other writers were faster each time")
}
