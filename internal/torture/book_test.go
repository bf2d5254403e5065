package torture_test

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
)

// kind is what a write is.
type kind string

const (
	command kind = "command" // A change of a key, by its correlation id.
	refusal kind = "refusal" // A command that was refused, by its correlation id.
	login   kind = "login"   // A sign-in, by its correlation id.
	use     kind = "use"     // A record of the usage intake, by its id.
	imp     kind = "import"  // An imported record, by its id.
)

// write is what is known of one write.
type write struct {
	kind  kind
	acked bool // Acknowledged: must be there exactly once. Otherwise at most once.
}

// book remembers every write that was ever sent. It is safe for concurrent use.
type book struct {
	mu      sync.Mutex // Guards all below.
	writes  map[string]*write
	acks    map[kind]int
	answers map[int]int    // Answers by status; 0 is none.
	odd     []string       // Answers that nobody may give.
	changed chan struct{}  // Closed, and made anew, at each acknowledgement.
	texts   map[string]int // Of errors, for the log.
}

func newBook() *book {
	return &book{writes: map[string]*write{}, acks: map[kind]int{}, answers: map[int]int{}, changed: make(chan struct{}), texts: map[string]int{}}
}

// send notes writes before they are sent.
func (b *book) send(k kind, ids ...string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, id := range ids {
		if b.writes[id] == nil {
			b.writes[id] = &write{kind: k}
		}
	}
}

// ack notes that writes were acknowledged.
func (b *book) ack(k kind, ids ...string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, id := range ids {
		if w := b.writes[id]; !w.acked {
			w.acked = true
			b.acks[k]++
		}
	}
	close(b.changed)
	b.changed = make(chan struct{})
}

// answer notes how a request was answered; status 0 is no answer.
func (b *book) answer(status int, text string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.answers[status]++
	if text != "" {
		b.texts[text]++
	}
}

// strange notes an answer that is against the contract.
func (b *book) strange(format string, args ...any) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.odd = append(b.odd, fmt.Sprintf(format, args...))
}

// strangeAnswers returns and forgets what was noted as strange.
func (b *book) strangeAnswers() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	odd := b.odd
	b.odd = nil
	return odd
}

// snapshot is a copy of the book.
type snapshot struct {
	writes  map[string]write
	acks    map[kind]int
	answers map[int]int
}

func (b *book) snapshot() snapshot {
	b.mu.Lock()
	defer b.mu.Unlock()
	s := snapshot{writes: make(map[string]write, len(b.writes)), acks: maps.Clone(b.acks), answers: maps.Clone(b.answers)}
	for id, w := range b.writes {
		s.writes[id] = *w
	}
	return s
}

// awaitMore returns once every kind of kinds has more acknowledgements than since.
func (b *book) awaitMore(ctx context.Context, since map[kind]int, kinds ...kind) error {
	for {
		b.mu.Lock()
		missing := slices.DeleteFunc(slices.Clone(kinds), func(k kind) bool { return b.acks[k] > since[k] })
		changed := b.changed
		b.mu.Unlock()
		if len(missing) == 0 {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("no %v was acknowledged any more: %w", missing, ctx.Err())
		}
	}
}

// counts are the figures of a step or of all steps of one fault.
type counts struct {
	steps, acked, unknown, lost, doubled int
}

func (c *counts) add(o counts) {
	c.steps += o.steps
	c.acked += o.acked
	c.unknown += o.unknown
	c.lost += o.lost
	c.doubled += o.doubled
}
