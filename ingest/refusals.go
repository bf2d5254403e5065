package ingest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strconv"
	"time"

	"example.com/keytrail/domain"
	"example.com/keytrail/internal/eventlog"
	"example.com/keytrail/internal/httpx"
)

const (
	// Of equal refusals of one identity within foldWindow the first foldAfter are recorded
	// one by one, of those of strangers at one address the first strangerAfter within
	// strangerWindow; the rest as an event with a count whenever a foldWindow ends.
	foldWindow     = 10 * time.Second
	foldAfter      = 5
	strangerWindow = time.Minute
	strangerAfter  = 20
	// foldsMax bounds the memory that a flood of different refusals can take: beyond
	// it, refusals fold without regard to target and address.
	foldsMax = 10_000

	refusalTick      = time.Second
	refusalQueue     = 256
	refusalBytesMax  = 512 << 10 // Of one append; a server takes 1 MiB.
	refusalFlushTime = 10 * time.Second
)

// Refusals records refused commands in this writer's own stream: many in one append,
// each before its caller is answered. Only what a flood folds is answered before it is
// stored: a crash loses at most the count of the last ten seconds, never the first
// few of a kind. Safe for concurrent use.
type Refusals struct {
	log    CommandLog
	logger *slog.Logger
	now    func() time.Time
	stream string
	nonce  string // Unique to this process, so that its event ids are.
	queue  chan refusal
	ended  chan struct{}
}

// refusal waits for the writer. done has room for one answer.
type refusal struct {
	who         domain.Initiator
	correlation string
	event       domain.CommandRefused
	done        chan error
}

// foldKey is what makes two refusals equal. The address counts for strangers only.
type foldKey struct {
	who     domain.IAMID
	key     domain.KeyID
	address string
	action  string
	target  string
	code    domain.Code
	account domain.AccountID
}

// fold is what became of equal refusals in one window.
type fold struct {
	since time.Time
	seen  int
	rest  refusal // Count is 0 while nothing was folded, or all that was is written.
}

// window is how long refusals of k fold together, and after how many they do.
func (k foldKey) window() (time.Duration, int) {
	if k.who == "" {
		return strangerWindow, strangerAfter
	}
	return foldWindow, foldAfter
}

// NewRefusals returns the recorder of writer. nonce must differ from process to
// process. Nothing is recorded until Run runs.
func NewRefusals(log CommandLog, writer, nonce string, now func() time.Time, logger *slog.Logger) *Refusals {
	return &Refusals{
		log: log, logger: logger, now: now, stream: domain.RefusedStream(writer), nonce: nonce,
		queue: make(chan refusal, refusalQueue), ended: make(chan struct{}),
	}
}

// Record returns when the refusal is durable, or counted in a fold. With an error it
// may not be, and the caller must not be told that it was refused: answer
// [domain.Unavailable].
func (r *Refusals) Record(ctx context.Context, who domain.Initiator, correlation string, e domain.CommandRefused) error {
	in := refusal{who: who, correlation: correlation, event: e, done: make(chan error, 1)}
	now := r.now().UTC().Truncate(time.Millisecond)
	in.event.Count, in.event.First, in.event.Last = 1, now, now
	select {
	case r.queue <- in:
	case <-r.ended:
		return errRefusalsEnded()
	case <-ctx.Done():
		return fmt.Errorf("record refusal: %w", ctx.Err())
	}
	select {
	case err := <-in.done:
		return err
	case <-r.ended:
		select {
		case err := <-in.done: // Answered by the last flush.
			return err
		default:
			return errRefusalsEnded()
		}
	case <-ctx.Done():
		return fmt.Errorf("record refusal: %w", ctx.Err())
	}
}

func errRefusalsEnded() error {
	return domain.Errorf(domain.Unavailable, "the server is stopping").WithMessageCode("stopping")
}

// Run writes until ctx ends, then once more what is waiting and what is folded. It may
// be called once.
func (r *Refusals) Run(ctx context.Context) error {
	w := &refusalWriter{Refusals: r, own: ownStream{log: r.log, name: r.stream}, folds: map[foldKey]*fold{}}
	defer close(r.ended)
	tick := time.NewTicker(refusalTick)
	defer tick.Stop()
	for {
		select {
		case in := <-r.queue:
			w.take(ctx, w.drain(in))
		case <-tick.C:
			if err := w.flush(ctx, false); err != nil {
				w.complain(ctx, err) // The folds stay; the next tick tries again.
			}
		case <-ctx.Done():
			last, cancel := context.WithTimeout(context.WithoutCancel(ctx), refusalFlushTime)
			defer cancel()
			w.take(last, w.drain())
			return w.flush(last, true)
		}
	}
}

// refusalWriter is the state of Run's goroutine; nobody else touches it.
type refusalWriter struct {
	*Refusals
	own   ownStream
	folds map[foldKey]*fold
	seq   uint64
}

// drain returns first and all that waits behind it.
func (w *refusalWriter) drain(first ...refusal) []refusal {
	batch := first
	for len(batch) < refusalQueue {
		select {
		case in := <-w.queue:
			batch = append(batch, in)
		default:
			return batch
		}
	}
	return batch
}

// take folds what repeats too often and writes the rest.
func (w *refusalWriter) take(ctx context.Context, batch []refusal) {
	var write []refusal
	for _, in := range batch {
		if w.folded(ctx, in) {
			in.done <- nil
			continue
		}
		write = append(write, in)
	}
	for len(write) > 0 {
		n := cutBytes(write)
		err := w.write(ctx, write[:n])
		for _, in := range write[:n] {
			in.done <- err
		}
		write = write[n:]
	}
}

// cutBytes returns how many of batch, at least one, go into one append.
func cutBytes(batch []refusal) int {
	total := 0
	for i, in := range batch {
		total += len(in.event.Request) + len(in.event.Reason) + 2<<10
		if total > refusalBytesMax && i > 0 {
			return i
		}
	}
	return len(batch)
}

// folded counts in where it is one of too many, and reports whether it did.
func (w *refusalWriter) folded(ctx context.Context, in refusal) bool {
	k := keyOf(in)
	f, ok := w.folds[k]
	if !ok && len(w.folds) >= foldsMax {
		k.target, k.address = "", ""
		f, ok = w.folds[k]
	}
	window, after := k.window()
	if ok && in.event.First.Sub(f.since) >= window {
		if err := w.end(ctx, k, f); err != nil {
			w.complain(ctx, err) // The fold stays and goes on counting.
		}
		_, ok = w.folds[k]
	}
	if !ok {
		w.folds[k] = &fold{since: in.event.First, seen: 1}
		return false
	}
	if f.seen++; f.seen <= after {
		return false
	}
	if f.rest.event.Count == 0 {
		f.rest = refusal{who: in.who, correlation: in.correlation, event: in.event}
		return true
	}
	f.rest.event.Count++
	f.rest.event.Last = in.event.Last
	return true
}

func keyOf(in refusal) foldKey {
	k := foldKey{
		who: in.who.IAMID, key: in.who.CredentialID, action: in.event.Action, target: in.event.Target,
		code: in.event.Code, account: in.event.Account,
	}
	if k.who == "" {
		k.address = in.who.Address
	}
	return k
}

// end writes what f has folded and forgets f. Where the log fails, f stays.
func (w *refusalWriter) end(ctx context.Context, k foldKey, f *fold) error {
	if err := w.writeRest(ctx, f); err != nil {
		return err
	}
	delete(w.folds, k)
	return nil
}

// writeRest writes what f has folded so far.
func (w *refusalWriter) writeRest(ctx context.Context, f *fold) error {
	if f.rest.event.Count == 0 {
		return nil
	}
	if err := w.write(ctx, []refusal{f.rest}); err != nil {
		return err
	}
	f.rest = refusal{}
	return nil
}

// flush ends every fold whose window has ended, or all of them, and writes of the others
// what has waited long enough.
func (w *refusalWriter) flush(ctx context.Context, all bool) error {
	var errs []error
	for _, k := range slices.Collect(maps.Keys(w.folds)) {
		f := w.folds[k]
		window, _ := k.window()
		switch {
		case all || w.now().Sub(f.since) >= window:
			errs = append(errs, w.end(ctx, k, f))
		case w.now().Sub(f.rest.event.First) >= foldWindow:
			errs = append(errs, w.writeRest(ctx, f))
		}
	}
	return errors.Join(errs...)
}

func (w *refusalWriter) complain(ctx context.Context, err error) {
	w.logger.LogAttrs(ctx, slog.LevelError, "folded refusals are not stored yet", slog.String("error", err.Error()))
}

// write appends batch and returns when it is durable.
func (w *refusalWriter) write(ctx context.Context, batch []refusal) error {
	ids := make([]domain.EventID, len(batch))
	for i := range ids {
		w.seq++
		ids[i] = domain.DeriveID("refused", w.stream, w.nonce, strconv.FormatUint(w.seq, 10))
	}
	return w.own.append(ctx, func(last time.Time) ([]eventlog.Proposed, time.Time, error) { return propose(batch, ids, last) })
}

// propose makes the events of batch, which follow the effective time last.
func propose(batch []refusal, ids []domain.EventID, last time.Time) ([]eventlog.Proposed, time.Time, error) {
	out := make([]eventlog.Proposed, len(batch))
	for i, in := range batch {
		last = domain.NextEffective(in.event.Last, last)
		p, err := eventlog.Propose(ids[i], in.event, domain.Metadata{
			Schema: domain.MetadataSchema, EffectiveAt: last, Initiator: in.who, CorrelationID: in.correlation,
		})
		if err != nil {
			return nil, last, fmt.Errorf("propose refusal: %w", err)
		}
		out[i] = p
	}
	return out, last, nil
}

// refuse records that a command was refused, where it is one to record, and returns
// what to answer: err, or that the record could not be made.
func (s *Commands) refuse(ctx context.Context, o Order, e domain.CommandRefused, err error) error {
	return recordRefusal(ctx, s.cfg.Refusals, o.Caller.Initiator, o.CorrelationID, e, err)
}

func recordRefusal(ctx context.Context, r *Refusals, who domain.Initiator, correlation string, e domain.CommandRefused, err error) error {
	refused, ok := errors.AsType[*domain.Error](err)
	if !ok {
		return err
	}
	switch refused.Code {
	case domain.Forbidden, domain.Unauthenticated, domain.NotFound, domain.Conflict, domain.PreconditionFailed:
	case domain.Invalid, domain.TooLarge, domain.Unavailable, domain.Internal:
		return err // No valid command, or not refused.
	}
	e.Code, e.Reason = refused.Code, refused.Error()
	e.Locked = refused.MessageCode == domain.MessageCodeLocked
	if e.Status == 0 {
		e.Status = httpx.Status(refused.Code)
	}
	if e.Account == "" {
		e.Account = who.Account
	}
	if recordErr := r.Record(ctx, who, correlation, e); recordErr != nil {
		return fmt.Errorf("record a refusal: %w", recordErr)
	}
	return err
}

// keyRefusal describes a refused act on a key. request must hold no secret.
func keyRefusal(verb domain.Verb, s domain.KeyState, request any) domain.CommandRefused {
	e := domain.CommandRefused{
		Action: domain.KeyAction(s.Kind, verb), Account: s.Account,
		TargetName: s.Name, TargetKind: string(s.Kind), Request: requestOf(request),
	}
	if domain.ValidID(string(s.ID)) {
		e.Target = string(s.ID)
	}
	return e
}

// requestOf returns v as JSON, or nothing for nil.
func requestOf(v any) json.RawMessage {
	if v == nil {
		return nil
	}
	b, err := json.Marshal(v)
	if err != nil {
		panic(err) // Our own request types always marshal.
	}
	return b
}

// refuseRead is refuse for reads: only that a right was missing is recorded.
func (s *Commands) refuseRead(ctx context.Context, o Order, e domain.CommandRefused, err error) error {
	if domain.CodeOf(err) != domain.Forbidden {
		return err
	}
	return s.refuse(ctx, o, e, err)
}

// messageCodeOf returns the stable identifier of a refusal.
func messageCodeOf(err error) string {
	e, ok := errors.AsType[*domain.Error](err)
	switch {
	case !ok:
		return string(domain.Internal)
	case e.MessageCode == "":
		return string(e.Code)
	}
	return e.MessageCode
}
