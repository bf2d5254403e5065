package ingest

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"strings"
	"sync"
	"time"

	"example.com/keytrail/domain"
	"example.com/keytrail/internal/auth"
	"example.com/keytrail/internal/eventlog"
)

const (
	// reconcileTick is how often is looked for what is left to do.
	reconcileTick = time.Second
	// leaveTime is how long the node that deleted a key has for what follows from it, before
	// others do it.
	leaveTime = 5 * time.Second
)

// ReconcilerConfig is what [NewReconciler] needs; every field is required.
type ReconcilerConfig struct {
	Commands  *Commands
	Directory *auth.Directory
	Follow    auth.Follow
	Now       func() time.Time
	Logger    *slog.Logger
	// Grace is how long a creation may take before it is ended: [DefaultGrace].
	Grace time.Duration
}

// DefaultGrace is much longer than a request may take.
const DefaultGrace = settleGrace

// Reconciler finishes what others began and did not come to the end of, and what follows by
// itself: it gives back the slots of creations that broke off and of keys that are deleted,
// undoes rotations that broke off, ends rotated keys at their time, and deletes the keys of
// identities that are gone. It follows the log and remembers only what is left to do. Any
// number may run: what they do is exact, and done once. See slots.go and rotate.go for the
// order of each saga. It is safe for concurrent use.
type Reconciler struct {
	cfg ReconcilerConfig

	mu      sync.Mutex // Guards all below.
	open    map[domain.KeyID]openSlot
	ends    map[domain.KeyID]keyEnd
	orphans map[orphanOwner]orphan
	// alone are service IDs with which a key was to be made, and since when it is not there.
	alone map[domain.IAMID]aloneID
	after uint64 // Position of the newest event that was noted.
	ready bool
	moved chan struct{} // Closed and replaced when ready changes.
}

// openSlot is a slot of which it is not known that a living key has it for good.
type openSlot struct {
	slot        keySlot
	predecessor domain.KeyID // Where it is a rotation's: until the old key says who follows.
	since       time.Time    // When this process saw it.
	wait        time.Duration
}

// keyEnd is when a rotated key ends, and the event that says so.
type keyEnd struct {
	at    time.Time
	cause string
}

// orphanOwner is an identity that is gone from an account.
type orphanOwner struct {
	account domain.AccountID
	iam     domain.IAMID
}

type aloneID struct {
	id      string
	account domain.AccountID
	since   time.Time
}

type orphan struct {
	cause string // The event by which it went.
	since time.Time
}

// NewReconciler returns a reconciler; Run runs it.
func NewReconciler(cfg ReconcilerConfig) *Reconciler {
	return &Reconciler{
		cfg: cfg, open: map[domain.KeyID]openSlot{}, ends: map[domain.KeyID]keyEnd{}, orphans: map[orphanOwner]orphan{},
		alone: map[domain.IAMID]aloneID{},
		moved: make(chan struct{}),
	}
}

// Run follows the log and finishes what is left, until ctx ends (nil) or the log cannot be
// followed.
func (r *Reconciler) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	followed := make(chan error, 1)
	go func() { followed <- r.Follow(ctx) }()
	tick := time.NewTicker(reconcileTick)
	defer tick.Stop()
	for {
		select {
		case err := <-followed:
			return err
		case <-tick.C:
			if r.isReady() {
				r.pass(ctx)
			}
		}
	}
}

// pass is Reconcile for Run: what fails is tried again at the next tick.
func (r *Reconciler) pass(ctx context.Context) {
	if err := r.Reconcile(ctx); err != nil && ctx.Err() == nil {
		r.cfg.Logger.LogAttrs(ctx, slog.LevelWarn, "what is left of a creation or deletion waits for the next try", slog.String("error", err.Error()))
	}
}

// Follow notes what the log says until ctx ends (nil) or the subscription fails for good.
// It may be called again after it returned, not at the same time.
func (r *Reconciler) Follow(ctx context.Context) error {
	types := []string{ // What note knows; a key's many changes are not among them.
		domain.TypeKeyCreated, domain.TypeKeySlotTaken, domain.TypeKeySlotFreed, domain.TypeKeySlotsAdopted, domain.TypeKeyDeleted,
		domain.TypeKeyAbandoned, domain.TypeKeyRotated, domain.TypeServiceIDCreated, domain.TypeServiceIDDeleted, domain.TypeMemberRemoved,
	}
	r.mu.Lock()
	after := r.after
	r.mu.Unlock()
	sub, err := r.cfg.Follow(ctx, eventlog.SubscribeOptions{Types: types, After: after, FromStart: after == 0})
	if err != nil {
		return fmt.Errorf("follow the log: %w", err)
	}
	defer sub.Close()
	for {
		d, err := sub.Next(ctx)
		switch {
		case ctx.Err() != nil:
			return nil // The caller ended it.
		case err != nil:
			return fmt.Errorf("follow the log: %w", err)
		}
		if d.Event != nil {
			r.note(*d.Event)
		}
		if d.CaughtUp {
			r.setReady()
		}
	}
}

// WaitReady returns when all that was in the log has been noted, or ctx has ended.
func (r *Reconciler) WaitReady(ctx context.Context) error {
	for {
		r.mu.Lock()
		ready, moved := r.ready, r.moved
		r.mu.Unlock()
		if ready {
			return nil
		}
		select {
		case <-moved:
		case <-ctx.Done():
			return fmt.Errorf("wait for the reconciler: %w", ctx.Err())
		}
	}
}

func (r *Reconciler) isReady() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.ready
}

func (r *Reconciler) setReady() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.ready {
		r.ready = true
		close(r.moved)
		r.moved = make(chan struct{})
	}
}

// note takes in one event. Most are known by their name alone and not decoded. One that
// cannot be read leaves nothing to do that anybody could tell.
func (r *Reconciler) note(raw eventlog.Raw) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.after = raw.Position
	if !domain.IsEvidence(raw.Stream) {
		return // Another's, on a shared log.
	}
	switch raw.Type {
	case domain.TypeKeyCreated:
		id := domain.KeyID(strings.TrimPrefix(raw.Stream, domain.KeyStreams))
		delete(r.alone, r.open[id].slot.iam)
		if r.open[id].predecessor == "" {
			delete(r.open, id)
		}
		return
	case domain.TypeKeySlotTaken, domain.TypeKeySlotFreed, domain.TypeKeySlotsAdopted, domain.TypeKeyDeleted, domain.TypeKeyAbandoned,
		domain.TypeKeyRotated, domain.TypeServiceIDCreated, domain.TypeServiceIDDeleted, domain.TypeMemberRemoved:
	default:
		return
	}
	rec, err := eventlog.Decode(raw)
	if err != nil {
		return
	}
	switch e := rec.Event.(type) { //nolint:gochecksumtype // Some of several families; the types were chosen above.
	case domain.ReservationEvent:
		r.noteSlotLocked(e)
	case domain.KeyRotated:
		delete(r.open, e.After.Successor)
		if e.After.EndsAt != nil {
			r.ends[e.After.ID] = keyEnd{at: *e.After.EndsAt, cause: rec.ID.String()}
		}
	case domain.KeyEvent:
		s := e.State()
		delete(r.ends, s.ID)
		r.open[s.ID] = openSlot{slot: keySlotOf(s), since: r.cfg.Now(), wait: min(leaveTime, r.cfg.Grace)}
	case domain.ServiceIDCreated:
		if e.Credential {
			r.alone[e.IAMID] = aloneID{id: e.ID, account: e.Account, since: r.cfg.Now()}
		}
	case domain.ServiceIDDeleted:
		delete(r.alone, e.IAMID)
		r.orphans[orphanOwner{e.Account, e.IAMID}] = orphan{cause: rec.ID.String(), since: r.cfg.Now()}
	case domain.MemberRemoved:
		r.orphans[orphanOwner{e.Account, e.IAMID}] = orphan{cause: rec.ID.String(), since: r.cfg.Now()}
	}
}

// noteSlotLocked takes in one event about slots.
func (r *Reconciler) noteSlotLocked(e domain.ReservationEvent) {
	switch e := e.(type) {
	case domain.KeySlotTaken:
		slot := keySlot{account: e.Account, iam: e.IAMID, kind: e.Kind, id: e.KeyID}
		r.open[e.KeyID] = openSlot{slot: slot, predecessor: e.Predecessor, since: r.cfg.Now(), wait: r.cfg.Grace}
	case domain.KeySlotsAdopted:
		for _, id := range e.KeyIDs {
			slot := keySlot{account: e.Account, iam: e.IAMID, kind: domain.KindUser, id: id}
			r.open[id] = openSlot{slot: slot, since: r.cfg.Now(), wait: min(leaveTime, r.cfg.Grace)}
		}
	case domain.KeySlotFreed:
		delete(r.open, e.KeyID)
	case domain.KeyLimitNeared, domain.KeyLimitReached, domain.KeyValueReserved, domain.KeyValueReleased:
	}
}

// due returns what has waited long enough.
func (r *Reconciler) due() []openSlot {
	r.mu.Lock()
	defer r.mu.Unlock()
	var out []openSlot
	now := r.cfg.Now()
	for _, o := range r.open {
		if now.Sub(o.since) >= o.wait {
			out = append(out, o)
		}
	}
	return out
}

// Reconcile finishes what has waited long enough. What fails stays for the next time; it
// returns why, after the rest.
func (r *Reconciler) Reconcile(ctx context.Context) error {
	errs := []error{r.endOrphans(ctx), r.endRotated(ctx)}
	for _, o := range r.due() {
		if err := r.settle(ctx, o); err != nil {
			errs = append(errs, fmt.Errorf("settle %s: %w", o.slot.id, err))
			continue
		}
		r.mu.Lock()
		delete(r.open, o.slot.id)
		r.mu.Unlock()
	}
	return errors.Join(append(errs, r.endAlone(ctx))...)
}

// endAlone deletes the service IDs with which a key was to be made that never was: whoever
// asked for the two was told of neither.
func (r *Reconciler) endAlone(ctx context.Context) error {
	r.mu.Lock()
	alone := maps.Clone(r.alone)
	r.mu.Unlock()
	var errs []error
	for iam, a := range alone {
		if r.cfg.Now().Sub(a.since) < r.cfg.Grace {
			continue
		}
		if err := r.cfg.Commands.endAlone(ctx, iam, a); err != nil {
			errs = append(errs, fmt.Errorf("delete %s: %w", a.id, err))
			continue
		}
		r.mu.Lock()
		delete(r.alone, iam)
		r.mu.Unlock()
	}
	return errors.Join(errs...)
}

// endAlone deletes a service ID that has no key and is to have none.
func (s *Commands) endAlone(ctx context.Context, iam domain.IAMID, a aloneID) error {
	k := keySlot{account: a.account, iam: iam, kind: domain.KindServiceCredential}
	f, err := foldNow(ctx, s.cfg.Log, s.slots, k.stream())
	if err != nil {
		return err
	}
	if f.state.Used() > 0 {
		return nil // The key is there, or its creation was not given up.
	}
	return s.endServiceID(ctx, "undo", a.id)
}

func (r *Reconciler) settle(ctx context.Context, o openSlot) error {
	if o.predecessor != "" {
		if err := r.cfg.Commands.undoRotation(ctx, o.predecessor, o.slot); err != nil {
			return err
		}
	}
	if key, ok := r.cfg.Directory.Key(o.slot.id); ok && !key.Deleted {
		return nil
	}
	return r.cfg.Commands.settleOpen(ctx, o)
}

// endRotated deletes the rotated keys whose time has come. They are refused since then.
func (r *Reconciler) endRotated(ctx context.Context) error {
	r.mu.Lock()
	due := map[domain.KeyID]keyEnd{}
	for id, end := range r.ends {
		if !r.cfg.Now().Before(end.at) {
			due[id] = end
		}
	}
	r.mu.Unlock()
	var errs []error
	for id, end := range due {
		if err := r.cfg.Commands.endKey(ctx, "end", id, end.cause); err != nil {
			errs = append(errs, fmt.Errorf("end %s: %w", id, err))
			continue
		}
		r.mu.Lock()
		delete(r.ends, id)
		r.mu.Unlock()
	}
	return errors.Join(errs...)
}

// endOrphans deletes the keys of identities that are gone. They are refused since then. An
// identity is looked at for a while: a node that did not know yet may have made another key.
func (r *Reconciler) endOrphans(ctx context.Context) error {
	r.mu.Lock()
	gone := maps.Clone(r.orphans)
	r.mu.Unlock()
	var errs []error
	for owner, o := range gone {
		failed := false
		for _, key := range r.cfg.Directory.KeysOf(owner.account, owner.iam) {
			if !r.cfg.Directory.IdentityEnded(key) {
				continue
			}
			if err := r.cfg.Commands.endKey(ctx, "follow", key.ID, o.cause); err != nil {
				errs, failed = append(errs, fmt.Errorf("delete %s: %w", key.ID, err)), true
			}
		}
		if !failed && r.cfg.Now().Sub(o.since) >= r.cfg.Grace {
			r.mu.Lock()
			delete(r.orphans, owner)
			r.mu.Unlock()
		}
	}
	return errors.Join(errs...)
}

// settleOpen is settle, where the slot is still there.
func (s *Commands) settleOpen(ctx context.Context, o openSlot) error {
	f, err := foldNow(ctx, s.cfg.Log, s.slots, o.slot.stream())
	if err != nil {
		return err
	}
	slot, ok := f.state.Slot(o.slot.id)
	if !ok {
		return nil
	}
	if slot.Kind == "" {
		slot.Kind = o.slot.kind
	}
	_, err = s.settle(ctx, o.slot, slot)
	return err
}
