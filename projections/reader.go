package projections

import (
	"context"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"

	"example.com/keytrail/domain"
	"example.com/keytrail/internal/eventlog"
)

// factsAhead is how many decoded events wait to join a block.
const factsAhead = 4

// reader reads the log and cuts it into blocks.
type reader struct {
	log     Log
	limits  Limits
	pace    *pace
	now     func() time.Time
	decoder *decoder
	// suspects hears of events out of order; the error itself may be lost behind another.
	suspects *suspects
	free     <-chan *block
	out      chan<- *block
}

// run gives out blocks from number on, of the events after position from, until ctx
// ends or the log refuses.
func (r *reader) run(ctx context.Context, number, from uint64) error {
	sub, err := r.log.Subscribe(ctx, eventlog.SubscribeOptions{
		Prefixes: []string{domain.EvidencePrefix}, After: from, FromStart: from == 0,
	})
	if err != nil {
		return fmt.Errorf("subscribe: %w", err)
	}
	defer sub.Close()
	facts := make(chan fact, factsAhead)
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return r.decode(ctx, sub, from, facts) })
	g.Go(func() error { return r.cut(ctx, number, from, facts) })
	return g.Wait()
}

// decode makes facts of the events after position last. The log promises them in order,
// none twice and none left out; one that is out of order is an error.
func (r *reader) decode(ctx context.Context, sub Subscription, last uint64, facts chan<- fact) error {
	for {
		d, err := sub.Next(ctx)
		if err != nil {
			return fmt.Errorf("read the log: %w", err)
		}
		if d.Event == nil {
			continue
		}
		if d.Event.Position <= last {
			err := &disorder{position: d.Event.Position, after: last}
			r.suspects.note(err)
			return err
		}
		last = d.Event.Position
		select {
		case facts <- r.decoder.fact(*d.Event):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// cut joins facts to blocks. A block that is due goes out as soon as the writer
// takes it; until then it goes on growing up to its limits.
func (r *reader) cut(ctx context.Context, number, from uint64, facts <-chan fact) error {
	c := cutter{reader: r, timer: time.NewTimer(time.Hour)}
	defer c.timer.Stop()
	if err := c.begin(ctx, number, from); err != nil {
		return err
	}
	for {
		var (
			take  <-chan fact
			offer chan<- *block
		)
		if c.waiting == nil && !c.open.full(r.limits) {
			take = facts
		}
		if c.due || c.waiting != nil || c.open.full(r.limits) {
			offer = r.out
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case f := <-take:
			c.join(&f)
		case offer <- c.open:
			c.cutAt = c.now()
			if err := c.begin(ctx, c.open.number+1, c.open.to); err != nil {
				return err
			}
		case <-c.pace.poke:
			c.schedule()
		case <-c.timer.C:
			c.ring()
		}
	}
}

// cutter is the state of [reader.cut].
type cutter struct {
	*reader

	open    *block
	began   time.Time // When the open block got its first event.
	cutAt   time.Time // When the block before went out.
	dueAt   time.Time // What the timer is set for.
	due     bool
	timer   *time.Timer
	waiting *fact // Did not fit the open block.
}

// begin opens a block. It must not read the old one, which is the writer's now.
func (c *cutter) begin(ctx context.Context, number, from uint64) error {
	select {
	case c.open = <-c.free:
	case <-ctx.Done():
		return ctx.Err()
	}
	c.open.start(number, from)
	c.due, c.dueAt = false, time.Time{}
	c.timer.Stop()
	if f := c.waiting; f != nil {
		c.waiting = nil
		c.join(f)
	}
	return nil
}

// join adds f to the open block, or keeps it for the next.
func (c *cutter) join(f *fact) {
	if !c.open.fits(f, c.limits) {
		c.waiting = f
		return
	}
	first, uses := c.open.events == 0, len(c.open.usage.time) > 0
	if first {
		c.began = c.now()
	}
	c.open.append(f)
	if first || uses != (len(c.open.usage.time) > 0) {
		c.schedule()
	}
}

// dueNow returns when the open block, which is not empty, is due.
func (c *cutter) dueNow() time.Time {
	delay := c.limits.KeysDelay
	if len(c.open.usage.time) > 0 {
		delay = c.limits.Delay
	}
	return c.pace.due(c.began, c.cutAt, delay, c.limits.DelayMax)
}

// schedule sets the timer for when the open block is due.
func (c *cutter) schedule() {
	if c.due || c.open.events == 0 {
		return
	}
	c.dueAt = c.dueNow()
	c.timer.Reset(min(c.dueAt.Sub(c.now()), max(c.limits.DelayMax, c.limits.Delay, c.limits.KeysDelay)))
}

// ring is called when the timer has run out. By now the block before may have been
// written, and have taken so long that this one may wait more.
func (c *cutter) ring() {
	if c.due || c.open.events == 0 {
		return
	}
	if later := c.dueNow(); later.After(c.dueAt) {
		c.timer.Reset(later.Sub(c.dueAt))
		c.dueAt = later
		return
	}
	c.due = true
}
