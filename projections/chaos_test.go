package projections_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"example.com/keytrail/internal/eventlog"
	"example.com/keytrail/projections"
)

// chaos is what one runner lives in: its own view of the log, where every step may take
// longer than a lease, deliveries come twice and out of order, and a clock that jumps.
type chaos struct {
	projections.Log

	pauses, disorder, jumps bool

	mu  sync.Mutex // Guards rng and ahead.
	rng *rand.Rand
	// ahead is how far the clock is from the right time.
	ahead time.Duration
}

func (c *chaos) draw(n int) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.rng.IntN(n)
}

// stall pauses the runner, sometimes far past its lease.
func (c *chaos) stall() {
	if c.pauses && c.draw(25) == 0 {
		pass(time.Duration(c.draw(20_000)) * time.Millisecond)
	}
}

func (c *chaos) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.jumps && c.rng.IntN(40) == 0 {
		c.ahead = time.Duration(c.rng.Int64N(int64(4*time.Hour))) - 2*time.Hour
	}
	return now().Add(c.ahead)
}

func (c *chaos) Append(ctx context.Context, stream string, exp eventlog.Expected, events ...eventlog.Proposed) (eventlog.Appended, error) {
	c.stall()
	defer c.stall()
	return c.Log.Append(ctx, stream, exp, events...)
}

func (c *chaos) ReadStreamBackwards(ctx context.Context, stream string, from *uint64, limit int) ([]eventlog.Raw, error) {
	defer c.stall()
	return c.Log.ReadStreamBackwards(ctx, stream, from, limit)
}

func (c *chaos) Subscribe(ctx context.Context, opt eventlog.SubscribeOptions) (projections.Subscription, error) {
	s, err := c.Log.Subscribe(ctx, opt)
	if err != nil {
		return nil, err
	}
	return &shuffled{Subscription: s, chaos: c}, nil
}

// shuffled delivers some events twice, old ones too, and some after their successor.
type shuffled struct {
	projections.Subscription

	chaos *chaos
	old   []eventlog.Delivery
	held  []eventlog.Delivery
}

func (s *shuffled) Next(ctx context.Context) (eventlog.Delivery, error) {
	s.chaos.stall()
	if len(s.held) > 0 {
		if s.chaos.draw(2) == 0 {
			pass(time.Duration(s.chaos.draw(1500)) * time.Millisecond) // Long enough for a block to end.
		}
		d := s.held[0]
		s.held = s.held[1:]
		return d, nil
	}
	if n := len(s.old); s.chaos.disorder && n > 0 && s.chaos.draw(20) == 0 {
		return s.old[s.chaos.draw(n)], nil
	}
	d, err := s.Subscription.Next(ctx)
	if err != nil || d.Event == nil {
		return d, err
	}
	s.old = append(s.old, d)
	if s.chaos.disorder && s.chaos.draw(15) == 0 {
		limited, cancel := context.WithTimeout(ctx, time.Duration(s.chaos.draw(2000))*time.Millisecond)
		defer cancel()
		if next, err := s.Subscription.Next(limited); err == nil {
			s.held = append(s.held, d)
			return next, nil
		}
	}
	return d, nil
}

// life starts a runner in its chaos.
func (w *world) life(name string, c *chaos, alone bool) (stop func() error) {
	c.Log = w.log
	c.rng = rand.New(rand.NewPCG(rapid.Uint64().Draw(w.t, "chaos seed of "+name), 4))
	r := w.runner(name, alone, func(cfg *projections.RunnerConfig) { cfg.Log, cfg.Now = c, c.now })
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	return func() error {
		cancel()
		return <-done
	}
}

// chaotic runs some runners at once through a random history.
func chaotic(t *testing.T, runners int, c *chaos, powerLoss bool) {
	t.Helper()
	rewound := 0
	rapid.Check(t, func(rt *rapid.T) {
		synctest.Test(t, func(*testing.T) {
			w := newWorld(rt)
			w.lossy = powerLoss
			h := &history{log: w.log, rng: rand.New(rand.NewPCG(rapid.Uint64().Draw(rt, "history seed"), 3))}
			w.faulty, w.sink.faulty, w.sink.slow = true, true, rapid.Bool().Draw(rt, "slow")
			alone := runners == 1 || rapid.Bool().Draw(rt, "alone")
			var stops []func() error
			for i := range runners {
				stops = append(stops, w.life(fmt.Sprintf("r%d", i), &chaos{pauses: c.pauses, disorder: c.disorder, jumps: c.jumps}, alone))
			}
			for range rapid.IntRange(1, 15).Draw(rt, "steps") {
				h.grow(rapid.IntRange(0, 10).Draw(rt, "events"))
				pass(time.Duration(rapid.IntRange(10, 9000).Draw(rt, "milliseconds")) * time.Millisecond)
				if powerLoss && rapid.IntRange(0, 3).Draw(rt, "power") == 0 {
					w.sink.losePower(func(n int) int { return rapid.IntRange(0, n-1).Draw(rt, "loss") })
				}
			}
			var errs []error
			for _, stop := range stops {
				errs = append(errs, stop())
			}
			if err := errors.Join(errs...); err != nil {
				rt.Fatalf("run: %v", err)
			}
			pass(10 * time.Minute) // What is still on its way arrives.
			h.grow(1)
			w.finish()
			w.check()
			rewound += w.rewinds
		})
	})
	if (powerLoss || c.disorder) && rewound == 0 {
		t.Error("no ledger was ever rewound: nothing was tried")
	}
}

// TestRunnersPausedPastTheirLeaseDoNoHarm stops runners in their tracks, at every step on
// the log, for longer than a lease lasts, while others take over.
func TestRunnersPausedPastTheirLeaseDoNoHarm(t *testing.T) {
	for _, n := range []int{2, 3} {
		t.Run(fmt.Sprintf("%d runners", n), func(t *testing.T) { chaotic(t, n, &chaos{pauses: true}, false) })
	}
}

// TestClocksThatJumpDoNoHarm moves the clocks of runners by hours, both ways.
func TestClocksThatJumpDoNoHarm(t *testing.T) {
	chaotic(t, 2, &chaos{jumps: true, pauses: true}, false)
}

// TestEventsOutOfOrderAreFoundAndMended delivers events twice and after their successors.
func TestEventsOutOfOrderAreFoundAndMended(t *testing.T) {
	chaotic(t, 1, &chaos{disorder: true}, false)
}

// TestRowsLostWithThePowerAreMadeAgain takes acknowledged rows away, from the end of some
// tables, now and then with the deduplication window.
func TestRowsLostWithThePowerAreMadeAgain(t *testing.T) {
	for _, n := range []int{1, 2} {
		t.Run(fmt.Sprintf("%d runners", n), func(t *testing.T) { chaotic(t, n, &chaos{pauses: n > 1}, true) })
	}
}
