package ingest

import (
	"context"
	"errors"
	"time"

	"example.com/keytrail/domain"
	"example.com/keytrail/internal/eventlog"
)

// The saga of a key, with what makes its limit exact. Each step is durable before the next:
//
//	create: slot taken → chosen value reserved → value sealed → key created at NoStream
//	delete: key deleted → sealed value removed → slot freed
//
// A creator that dies or falls behind leaves a slot without a key. Whoever finds it first
// ends the creation on the key's own stream, so that a creator that is merely slow loses,
// and only then gives back value and slot: see [Commands.settle]. A slot whose key is
// deleted goes the same way. So there is never a key without a slot, and no slot is lost.

// keySlotTries bounds how often a command on slots is decided anew. A node gives one at a time,
// so it only ever loses to other nodes.
const keySlotTries = 64

// slotBatchMax bounds one append of slots with all its tries: as long as a request may take.
const slotBatchMax = 12 * time.Second

// keySlot names what a key needs a slot for.
type keySlot struct {
	account domain.AccountID
	iam     domain.IAMID
	kind    domain.KeyKind
	id      domain.KeyID
}

func keySlotOf(s domain.KeyState) keySlot {
	return keySlot{account: s.Account, iam: s.IAMID, kind: s.Kind, id: s.ID}
}

func (k keySlot) stream() string { return domain.KeySlotStream(k.account, k.iam, k.kind) }

// limit returns how many keys the identity may have, as this node knows.
func (s *Commands) limit(k keySlot) int {
	if k.kind == domain.KindClassic {
		return domain.ClassicKeysMax
	}
	account, _ := s.cfg.Directory.Account(k.account)
	return account.Limits().Keys(k.iam)
}

// existing returns the living keys that count where k does. They are asked for only on a
// stream that no slot was ever taken on: since then no key is made without one.
func (s *Commands) existing(k keySlot) []domain.KeyID {
	var out []domain.KeyID
	for _, key := range s.cfg.Directory.KeysOf(k.account, k.iam) {
		if key.ID != k.id && (key.Kind == domain.KindClassic) == (k.kind == domain.KindClassic) {
			out = append(out, key.ID)
		}
	}
	return out
}

// takeSlot takes the place of a key that is about to be made. Where none is left, it first
// gives back those that wait for it.
func (s *Commands) takeSlot(ctx context.Context, o Order, k keySlot, predecessor domain.KeyID, valueHash string) error {
	take := func() error {
		return s.slot(ctx, o, k, func(slots domain.KeySlots) domain.KeySlotCommand {
			cmd := domain.TakeKeySlot{
				Account: k.account, IAMID: k.iam, KeyID: k.id, Kind: k.kind, Predecessor: predecessor, ValueHash: valueHash, Limit: s.limit(k),
			}
			if !slots.Complete() {
				cmd.Existing = s.existing(k)
			}
			return cmd
		})
	}
	err := take()
	if domain.CodeOf(err) != domain.Conflict {
		return err
	}
	settled, settleErr := s.settleAll(ctx, k)
	if settleErr != nil {
		return settleErr
	}
	if settled {
		err = take()
	}
	return err
}

// freeSlot gives the place of a key back.
func (s *Commands) freeSlot(ctx context.Context, o Order, k keySlot) error {
	return s.slot(ctx, o, k, func(slots domain.KeySlots) domain.KeySlotCommand {
		cmd := domain.FreeKeySlot{Account: k.account, IAMID: k.iam, KeyID: k.id, Limit: s.limit(k)}
		if !slots.Complete() {
			cmd.Existing = s.existing(k)
		}
		return cmd
	})
}

// slot carries out a command about slots, together with those that come while another one
// of the same identity is on its way: see [slotQueues].
func (s *Commands) slot(ctx context.Context, o Order, k keySlot, command func(domain.KeySlots) domain.KeySlotCommand) error {
	return s.slotting.do(ctx, k.stream(), &slotAsk{order: o, command: command}, func(asks []*slotAsk) {
		whole, cancel := context.WithTimeout(context.WithoutCancel(ctx), slotBatchMax) // It is others' work too.
		defer cancel()
		s.slotBatch(whole, k, asks)
	})
}

// slotBatch decides asks on one stream, in order, and appends what they add at once. Each
// ask gets its own answer.
func (s *Commands) slotBatch(ctx context.Context, k keySlot, asks []*slotAsk) {
	for adopting := true; adopting; {
		_, err := transact(ctx, s, s.slots, asks[0].order, k.stream(), false, func(slots domain.KeySlots) (decision, error) {
			d := decision{account: k.account, at: slots.NextEffective(s.cfg.Now())}
			adopting = false
			for _, ask := range asks {
				var events []domain.Event
				events, ask.err = slots.Decide(ask.command(slots))
				d.told = d.told || ask.err != nil || len(events) == 0
				for _, e := range events {
					slots = slots.Evolve(domain.Recorded{Event: e})
					d.events, d.orders = append(d.events, e), append(d.orders, ask.order)
				}
				if len(events) > 0 && !slots.Complete() {
					adopting = true // The rest goes on after this append.
					break
				}
			}
			return d, nil
		})
		if err != nil {
			for _, ask := range asks {
				ask.err = err
			}
			return
		}
	}
}

// settleGrace is how long a creation may take before others end it: much longer than a
// request may.
const settleGrace = time.Minute

// settleAll gives back the slots of one identity that nobody needs, and reports whether
// there were any.
func (s *Commands) settleAll(ctx context.Context, k keySlot) (bool, error) {
	f, err := foldNow(ctx, s.cfg.Log, s.slots, k.stream())
	if err != nil {
		return false, err
	}
	some := false
	for slot := range f.state.All() {
		known, ok := s.cfg.Directory.Key(slot.KeyID)
		if ok && !known.Deleted || !ok && s.cfg.Now().Sub(slot.At) < settleGrace {
			continue
		}
		freed, err := s.settle(ctx, k, slot)
		if err != nil {
			return some, err
		}
		some = some || freed
	}
	return some, nil
}

// settle ends the creation of a key that was never made, and gives the slot of a key that
// is no more back, with all that was kept for it. A living key it leaves as it is. It is
// exact whatever others do at the same time, and harmless twice.
func (s *Commands) settle(ctx context.Context, k keySlot, slot domain.KeySlot) (freed bool, err error) {
	k.id = slot.KeyID
	if slot.Kind != "" {
		k.kind = slot.Kind
	}
	o := systemOrder("settle", string(k.id))
	cmd := domain.AbandonKey{ID: k.id, Account: k.account, IAMID: k.iam, Kind: k.kind, At: s.cfg.Now()}
	f, err := transact(ctx, s, s.keys, o, domain.KeyStream(k.id), false, func(key domain.Key) (decision, error) {
		return decideKey(key, cmd, cmd.At)
	})
	if err != nil || !f.state.State().Deleted {
		return false, err
	}
	if err := s.cfg.Store.DropValue(string(k.id)); err != nil {
		return false, err //nolint:wrapcheck // It says what it is.
	}
	if made := f.state.State().SecretHash != ""; slot.ValueHash != "" && !made {
		if err := s.releaseValue(ctx, o, k, slot.ValueHash); err != nil {
			return false, err
		}
	}
	return true, s.freeSlot(ctx, o, k)
}

// ended gives back what a deleted key had. What fails here is left to whoever settles next:
// the deletion is durable, and the log says what is still to be done.
func (s *Commands) ended(ctx context.Context, o Order, key domain.KeyState) {
	if key.ValueStored && s.cfg.Store.DropValue(string(key.ID)) != nil {
		return // The slot is what reminds of it.
	}
	_ = s.freeSlot(ctx, o, keySlotOf(key)) // See above.
}

// reserveValue makes the value with that fingerprint the key's.
func (s *Commands) reserveValue(ctx context.Context, o Order, k keySlot, fingerprint string) error {
	_, err := transact(ctx, s, s.values, o, domain.KeyValueStream(fingerprint), false, func(v domain.ReservedValue) (decision, error) {
		events, err := v.Reserve(k.account, k.id)
		return decision{account: k.account, events: events, at: v.NextEffective(s.cfg.Now())}, err //nolint:wrapcheck // The domain's words.
	})
	return err
}

func (s *Commands) releaseValue(ctx context.Context, o Order, k keySlot, fingerprint string) error {
	_, err := transact(ctx, s, s.values, o, domain.KeyValueStream(fingerprint), false, func(v domain.ReservedValue) (decision, error) {
		return decision{account: k.account, events: v.Release(k.account, k.id), at: v.NextEffective(s.cfg.Now())}, nil
	})
	return err
}

// valueTaken says early that a value is another key's, before anything is written for it.
func (s *Commands) valueTaken(ctx context.Context, k keySlot, fingerprint string) error {
	f, err := foldNow(ctx, s.cfg.Log, s.values, domain.KeyValueStream(fingerprint))
	if err != nil {
		return err
	}
	_, err = f.state.Reserve(k.account, k.id)
	return err //nolint:wrapcheck // The domain's words.
}

// doubtful reports whether an append may have been stored although it failed.
func doubtful(err error) bool {
	return domain.CodeOf(err) == domain.Internal || errors.Is(err, eventlog.ErrUnavailable) || errors.Is(err, eventlog.ErrClosed) || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)
}
