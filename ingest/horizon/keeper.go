package horizon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"example.com/keytrail/domain"
	"example.com/keytrail/internal/archive"
	"example.com/keytrail/internal/eventlog"
	"example.com/keytrail/internal/usagebatch"
)

const (
	// Shortest is the least horizon that a class may have: intake remembers batch ids for seven days by what
	// stands in the log.
	Shortest = 8 * 24 * time.Hour
	// defaultEvery is how often a keeper looks.
	defaultEvery = 10 * time.Minute
	// triesMax bounds how often a step is decided anew because another keeper, or a hold,
	// was faster.
	triesMax = 16
)

// Log is what a keeper needs of the event log; [eventlog.Log] is one.
type Log interface {
	archive.StreamReader
	Append(ctx context.Context, stream string, exp eventlog.Expected, events ...eventlog.Proposed) (eventlog.Appended, error)
	SetTruncateBefore(ctx context.Context, stream string, revision uint64) error
	TruncateBefore(ctx context.Context, stream string) (uint64, error)
}

// Guard keeps what somebody still needs from being cut.
type Guard struct {
	// Name says who, for status and errors.
	Name string
	// Below returns the position from which on nothing may be cut. An error means that
	// nothing is cut in this pass.
	Below func(ctx context.Context) (uint64, error)
}

// Class says what becomes of one class of usage.
type Class struct {
	// Horizon is the age from which on a range may be cut; 0 for never.
	Horizon time.Duration
	// Archive keeps the bytes; nil where they are given up.
	Archive *archive.Dir
}

// Config configures a [Keeper].
type Config struct {
	Log   Log
	Seals *archive.Seals
	// Classes are the classes that may be cut. A class that is not here never is.
	Classes map[string]Class
	// Streams lists the usage streams to look after. What it leaves out is not cut.
	Streams func(ctx context.Context) ([]string, error)
	Guards  []Guard
	// Home is the operator's account, where auditors see what was sealed and cut.
	Home func() domain.AccountID
	// Every is how often [Keeper.Run] makes a pass. Default 10 minutes.
	Every time.Duration
	Now   func() time.Time
	// Metrics may be nil.
	Metrics *Metrics
	Logger  *slog.Logger
}

// Validate reports everything that is wrong with c, joined.
func (c Config) Validate() error {
	var errs []error
	if c.Log == nil || c.Seals == nil || c.Streams == nil || c.Home == nil || c.Now == nil || c.Logger == nil {
		errs = append(errs, errors.New("horizon: a log, seals, streams, a home account, a clock and a logger are required"))
	}
	for name, class := range c.Classes {
		if class.Horizon != 0 && class.Horizon < Shortest {
			errs = append(errs, fmt.Errorf("horizon of class %q: %s is less than %s, for which intake goes by the log", name, class.Horizon, Shortest))
		}
	}
	if c.Every < 0 {
		errs = append(errs, errors.New("horizon: the interval must not be negative"))
	}
	return errors.Join(errs...)
}

// Keeper looks after the horizon. Any number may run, in any number of processes.
type Keeper struct {
	cfg   Config
	codec *usagebatch.Codec

	pass sync.Mutex // Held by the one pass that runs; guards what follows.
	// below is the least position of all guards in the pass before; known says that there
	// was one.
	below uint64
	known bool

	mu     sync.Mutex // Guards status.
	status Status
}

// New returns a keeper that does nothing until [Keeper.Run] or [Keeper.Pass].
func New(cfg Config) (*Keeper, error) {
	if cfg.Every == 0 {
		cfg.Every = defaultEvery
	}
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	codec, err := usagebatch.New()
	if err != nil {
		return nil, fmt.Errorf("horizon: %w", err)
	}
	return &Keeper{cfg: cfg, codec: codec, status: statusOf(cfg)}, nil
}

// Run makes passes until ctx ends, which is no error. A pass that fails is logged, shown,
// and made again.
func (k *Keeper) Run(ctx context.Context) error {
	if k.idle() {
		<-ctx.Done()
		return nil
	}
	tick := time.NewTicker(k.cfg.Every)
	defer tick.Stop()
	for {
		if _, err := k.Pass(ctx); err != nil && ctx.Err() == nil {
			k.cfg.Logger.WarnContext(ctx, "horizon: pass is not complete, trying again later", slog.Any("error", err))
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

func (k *Keeper) idle() bool {
	for _, c := range k.cfg.Classes {
		if c.Horizon > 0 {
			return false
		}
	}
	return true
}

// Result is what one pass did.
type Result struct {
	Sealed uint64 `json:"sealed"` // Segments.
	Cut    uint64 `json:"cut"`    // Segments.
	// Waiting says for each stream that has sealed segments in the log why they are still
	// there.
	Waiting map[string]string `json:"waiting,omitempty"`
}

// Pass seals and cuts whatever is old enough. What one stream suffers does not keep the
// others from their turn; all errors are joined. What it did before an error is durable,
// and the next pass goes on from there.
func (k *Keeper) Pass(ctx context.Context) (Result, error) {
	k.pass.Lock()
	defer k.pass.Unlock()
	res := Result{Waiting: map[string]string{}}
	err := k.all(ctx, &res)
	k.settle(res, err)
	return res, err
}

func (k *Keeper) all(ctx context.Context, res *Result) error {
	if err := k.cfg.Seals.Refresh(ctx); err != nil {
		return fmt.Errorf("horizon: %w", err)
	}
	streams, err := k.cfg.Streams(ctx)
	if err != nil {
		return fmt.Errorf("horizon: list usage streams: %w", err)
	}
	var errs []error
	for _, stream := range streams {
		class, ok := k.classOf(stream)
		if !ok {
			continue
		}
		n, err := k.sealAll(ctx, stream, class)
		if res.Sealed += n; err != nil {
			errs = append(errs, fmt.Errorf("horizon: seal %s: %w", stream, err))
		}
	}
	below, guard, err := k.guarded(ctx)
	if err != nil {
		return errors.Join(append(errs, err)...)
	}
	for _, stream := range streams {
		class, ok := k.classOf(stream)
		if !ok {
			continue
		}
		n, why, err := k.cut(ctx, stream, class, below, guard)
		res.Cut += n
		if why != "" {
			res.Waiting[stream] = why
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("horizon: cut %s: %w", stream, err))
		}
	}
	return errors.Join(errs...)
}

func (k *Keeper) classOf(stream string) (Class, bool) {
	name, ok := domain.UsageClassOf(stream)
	class := k.cfg.Classes[name]
	return class, ok && class.Horizon > 0
}

// guarded returns the position from which on nothing may be cut, and whose it is. What
// somebody needed in the pass before still counts: a request that went by an older answer
// may be under way.
func (k *Keeper) guarded(ctx context.Context) (uint64, string, error) {
	least, name := ^uint64(0), ""
	for _, g := range k.cfg.Guards {
		at, err := g.Below(ctx)
		if err != nil {
			k.known = false
			return 0, "", fmt.Errorf("horizon: nothing is cut, ask %s: %w", g.Name, err)
		}
		if at < least {
			least, name = at, g.Name
		}
	}
	before, known := k.below, k.known
	k.below, k.known = least, true
	switch {
	case !known:
		return 0, "a first look at what is needed; the next pass may cut", nil
	case before < least:
		return before, "what was needed a pass ago", nil
	}
	return least, name, nil
}

// initiator is who seals and cuts.
func (k *Keeper) initiator() domain.Initiator {
	return domain.Initiator{IAMID: domain.SystemIAMID, Name: "keytrail", Type: domain.ActorSystem, Account: k.cfg.Home()}
}
