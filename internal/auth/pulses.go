package auth

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"example.com/keytrail/domain"
	"example.com/keytrail/internal/eventlog"
)

const (
	// FreshnessBound is how old a directory may be that answers.
	FreshnessBound = time.Second
	// pulseStreams begins the names of the streams of pulses.
	pulseStreams = domain.MachineryPrefix + "pulse-"
	// pulsesKept is how many pulses of a node the log keeps.
	pulsesKept = 4
	// pulsesUnderWayMax bounds the pulses that are remembered until they come back.
	pulsesUnderWayMax = 16
	// pulseTries bounds how often one pulse is appended anew because another process wrote
	// under this node's name.
	pulseTries = 4

	typePulse = "pulse.sent.v1"
)

// PulseLog is what pulses need of the event log; [eventlog.Log] is one.
type PulseLog interface {
	Append(ctx context.Context, stream string, exp eventlog.Expected, events ...eventlog.Proposed) (eventlog.Appended, error)
	Last(ctx context.Context, stream string) (eventlog.Raw, bool, error)
	SetMaxCount(ctx context.Context, stream string, n uint64) error
}

// PulsesConfig is what [NewPulses] needs; every field but Bound is required.
type PulsesConfig struct {
	Log PulseLog
	// Node names the stream of pulses, Nonce this process: they must differ from node to
	// node and from process to process.
	Node, Nonce string
	// Bound is how old the directory may be; 0 means [FreshnessBound].
	Bound time.Duration
	// Clock tells the time since some moment. It never goes back and never stands still,
	// whatever becomes of the wall clock: [SinceBoot].
	Clock  func() time.Duration
	Logger *slog.Logger
}

// Pulses know how fresh a directory is. While somebody asks, a pulse is appended to
// ktx.pulse-<node> every quarter of the bound; when it comes back through the directory's
// own subscription, the directory holds everything that was acknowledged, by whatever node,
// before the pulse was sent. So its age is that of the newest pulse that came back, counted
// from its sending on this machine's own clock: no clock is compared with another.
//
// It is safe for concurrent use.
type Pulses struct {
	cfg    PulsesConfig
	stream string

	asOf   atomic.Int64 // On the clock: the directory holds what was acknowledged before. -1: nothing is known.
	needed atomic.Int64 // On the clock: when somebody asked last. -1: nobody did.
	wake   chan struct{}

	mu       sync.Mutex // Guards all below.
	underWay map[uint64]time.Duration
	moved    chan struct{} // Closed and replaced when a pulse comes back.
	failing  bool          // The newest pulse could not be appended.

	counts PulseCounts // Guarded by mu.
}

// PulseCounts count pulses since the start.
type PulseCounts struct{ Sent, Failed, Returned uint64 }

// pulse is the body of a pulse.
type pulse struct {
	Process string `json:"process"`
	Number  uint64 `json:"number"`
}

// NewPulses returns the pulses of dir, which must not run yet. Nothing is fresh until
// [Pulses.Run] runs and dir follows the log.
func NewPulses(cfg PulsesConfig, dir *Directory) (*Pulses, error) {
	if cfg.Log == nil || cfg.Clock == nil || cfg.Logger == nil || cfg.Nonce == "" || !domain.ValidID(cfg.Node) || cfg.Bound < 0 {
		return nil, errors.New("pulses: a log, a clock, a logger, a node and a process are required, and a bound that is not negative")
	}
	if cfg.Bound == 0 {
		cfg.Bound = FreshnessBound
	}
	p := &Pulses{
		cfg: cfg, stream: pulseStreams + cfg.Node, wake: make(chan struct{}, 1),
		underWay: make(map[uint64]time.Duration), moved: make(chan struct{}),
	}
	p.asOf.Store(-1)
	p.needed.Store(-1)
	dir.pulses = p
	return p, nil
}

// Fresh returns nil if the directory was complete at some moment not longer ago than the
// bound, else [domain.Unavailable].
func (p *Pulses) Fresh() error {
	if age, known := p.Age(); known && age <= p.cfg.Bound {
		return nil
	}
	return domain.Errorf(domain.Unavailable, "it is not known whether keys have changed: the event log does not answer; try again").
		WithMessageCode("directory_stale")
}

// Age returns how long ago the directory was complete for sure; false before it ever was.
func (p *Pulses) Age() (time.Duration, bool) {
	asOf := p.asOf.Load()
	if asOf < 0 {
		return 0, false
	}
	return p.cfg.Clock() - time.Duration(asOf), true
}

// Counts returns what became of the pulses.
func (p *Pulses) Counts() PulseCounts {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.counts
}

// WaitFresh says that the directory is needed and returns nil once it is fresh, at once as
// a rule. Where it cannot become so within the bound, or the log is known not to answer,
// it returns [domain.Unavailable].
func (p *Pulses) WaitFresh(ctx context.Context) error {
	now := p.cfg.Clock()
	if last := p.needed.Swap(int64(now)); last < 0 || now-time.Duration(last) > p.cfg.Bound/2 {
		select { // Run may be idle.
		case p.wake <- struct{}{}:
		default:
		}
	}
	err := p.Fresh()
	if err == nil {
		return nil
	}
	timer := time.NewTimer(p.patience())
	defer timer.Stop()
	for {
		p.mu.Lock()
		moved := p.moved
		p.mu.Unlock()
		if err = p.Fresh(); err == nil {
			return nil
		}
		select {
		case <-moved:
		case <-timer.C:
			return err
		case <-ctx.Done():
			return fmt.Errorf("wait for a fresh directory: %w", errors.Join(err, ctx.Err()))
		}
	}
}

// patience is how long a caller waits: in an outage callers must not pile up.
func (p *Pulses) patience() time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.failing {
		return p.cfg.Bound / 10
	}
	return p.cfg.Bound
}

// Run sends pulses while they are needed until ctx ends, which is no error. It waits out a
// log that does not answer.
func (p *Pulses) Run(ctx context.Context) error {
	s := sender{Pulses: p}
	for every, last := p.cfg.Bound/4, -p.cfg.Bound; ; {
		var due <-chan time.Time // Never, while nobody asks.
		if p.inUse() {
			due = time.After(last + every - p.cfg.Clock())
		}
		select {
		case <-ctx.Done():
			return nil
		case <-p.wake:
			continue
		case <-due:
		}
		last = p.cfg.Clock()
		s.send(ctx)
	}
}

// inUse reports whether somebody asked lately.
func (p *Pulses) inUse() bool {
	at := p.needed.Load()
	return at >= 0 && p.cfg.Clock()-time.Duration(at) <= p.cfg.Bound
}

// sender is the state of Run's goroutine; nobody else touches it.
type sender struct {
	*Pulses
	number  uint64
	bounded bool // The stream keeps few events.
	known   bool // end is where the stream ends.
	end     eventlog.Expected
	failed  int // In a row.
}

// send appends one pulse and tells the log when the pulses begin and cease to fail.
func (s *sender) send(ctx context.Context) {
	limited, cancel := context.WithTimeout(ctx, s.cfg.Bound)
	defer cancel()
	err := s.append(limited)
	if ctx.Err() != nil {
		return
	}
	s.mu.Lock()
	s.failing = err != nil
	s.counts.Sent++
	if err != nil {
		s.counts.Failed++
	}
	s.mu.Unlock()
	switch {
	case err != nil:
		s.known = false // It may be stored all the same.
		if s.failed++; s.failed == 1 {
			s.cfg.Logger.LogAttrs(ctx, slog.LevelWarn, "the event log does not take pulses: requests are answered 503 when the directory is too old",
				slog.Duration("bound", s.cfg.Bound), slog.String("error", err.Error()))
		}
	case s.failed > 0:
		s.cfg.Logger.LogAttrs(ctx, slog.LevelInfo, "the event log takes pulses again", slog.Int("failed", s.failed))
		s.failed = 0
	}
}

func (s *sender) append(ctx context.Context) error {
	if !s.bounded {
		if err := s.cfg.Log.SetMaxCount(ctx, s.stream, pulsesKept); err != nil {
			return fmt.Errorf("bound the pulses: %w", err)
		}
		s.bounded = true
	}
	s.number++
	data, err := json.Marshal(pulse{Process: s.cfg.Nonce, Number: s.number})
	if err != nil {
		return fmt.Errorf("encode pulse: %w", err)
	}
	e := eventlog.Proposed{
		ID:   domain.DeriveID("pulse", s.stream, s.cfg.Nonce, strconv.FormatUint(s.number, 10)),
		Type: typePulse, JSON: true, Data: data, Meta: []byte("{}"),
	}
	for range pulseTries {
		if err := s.locate(ctx); err != nil {
			return err
		}
		s.sending()
		at, err := s.cfg.Log.Append(ctx, s.stream, s.end, e)
		if err == nil {
			s.end = eventlog.Exactly(at.Revision)
			return nil
		}
		s.known = false
		if _, wrong := errors.AsType[*eventlog.WrongRevision](err); !wrong {
			return fmt.Errorf("append pulse: %w", err)
		}
	}
	return errors.New("append pulse: another process writes under this node's name: give each node its own data folder")
}

// locate finds the end of the stream.
func (s *sender) locate(ctx context.Context) error {
	if s.known {
		return nil
	}
	raw, ok, err := s.cfg.Log.Last(ctx, s.stream)
	if err != nil {
		return fmt.Errorf("find the last pulse: %w", err)
	}
	s.end, s.known = eventlog.NoStream(), true
	if ok {
		s.end = eventlog.Exactly(raw.Revision)
	}
	return nil
}

// sending notes when the pulse is sent: before the log is asked, never after. A pulse that
// is sent again keeps its first time.
func (s *sender) sending() {
	now := s.cfg.Clock()
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, again := s.underWay[s.number]; !again {
		s.underWay[s.number] = now
	}
	delete(s.underWay, s.number-pulsesUnderWayMax)
}

// returned takes in a pulse that the directory's subscription delivered: all that stands
// before it in the log is in the directory.
func (p *Pulses) returned(raw eventlog.Raw) {
	var body pulse
	if raw.Stream != p.stream || raw.Type != typePulse || json.Unmarshal(raw.Data, &body) != nil || body.Process != p.cfg.Nonce {
		return // Of an earlier process, or of a node whose name begins as ours does.
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	sent, ours := p.underWay[body.Number]
	if !ours {
		return
	}
	delete(p.underWay, body.Number)
	p.counts.Returned++
	if int64(sent) > p.asOf.Load() {
		p.asOf.Store(int64(sent))
		close(p.moved)
		p.moved = make(chan struct{})
	}
}
