package ingest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"

	"example.com/keytrail/domain"
	"example.com/keytrail/internal/cloudtrail"
)

// ImportLineBytesMax bounds one line of an import: one record.
const ImportLineBytesMax = cloudtrail.RecordBytesMax

// ImportAccounts makes the accounts that imported records speak of known.
type ImportAccounts interface {
	// EnsureAccount creates account, known from the logs of source, if there is none,
	// and makes the caller its owner. It returns the position of the creation, 0 where
	// nothing was created. An account in which the caller may not ingest is refused.
	EnsureAccount(ctx context.Context, o Order, account domain.AccountID, source string) (position uint64, err error)
}

// Importer takes in the audit logs of other systems. Every record is one use, however
// often and in whatever batch it is sent: what the log holds is known by account and
// record id. It is safe for concurrent use.
type Importer struct {
	usage    *Usage
	slots    *slots
	accounts ImportAccounts
	facts    *keyFacts
}

// NewImporter returns the importer of one node; it shares usage's bounds. The config
// of usage must have Known.
func NewImporter(usage *Usage, accounts ImportAccounts) (*Importer, error) {
	if usage.cfg.Known == nil {
		return nil, errors.New("import: a way to look for known uses is required")
	}
	if accounts == nil {
		return nil, errors.New("import: accounts are required")
	}
	return &Importer{
		usage: usage, slots: usage.newSlots(usage.cfg.Known), accounts: accounts, facts: newKeyFacts(usage.cfg.Log),
	}, nil
}

// ImportResult is what became of an import.
type ImportResult struct {
	// UsageResult counts in Accepted all records that are in the log now and in
	// Repeated those that were there before, or came twice.
	UsageResult
	// Uses counts the uses that this call recorded, Facts the facts about keys.
	Uses, Facts uint64
}

// importing is one import on its way.
type importing struct {
	*Importer
	up     *upload
	parser cloudtrail.Parser
	result ImportResult

	mu       sync.Mutex // Guards accounts.
	accounts map[domain.AccountID]*ensured
}

// ensured is the one attempt to make an account known.
type ensured struct {
	once     sync.Once
	position uint64
	err      error
}

// CloudTrail imports records of AWS CloudTrail, one a line. When it returns nil all
// that is counted is durable: uses, the facts about keys that they state, accounts.
// After an error, or no answer, the same records may be sent again, in any batch:
// what is there stays as it is, and facts that are missing are written.
func (i *Importer) CloudTrail(ctx context.Context, o Order, req UploadRequest) (res ImportResult, err error) {
	if err := domain.AuthorizeAccount(o.Caller.Initiator, o.Caller.Standing(o.Caller.Initiator.Account), domain.RightIngest); err != nil {
		return ImportResult{}, err //nolint:wrapcheck // The domain's words are the answer.
	}
	up, err := i.usage.receive(o, req)
	if err != nil {
		return ImportResult{}, err
	}
	defer func() { err = errors.Join(err, up.body.close()) }()
	select {
	case i.usage.turns <- struct{}{}:
		defer func() { <-i.usage.turns }()
	case <-ctx.Done():
		return ImportResult{}, fmt.Errorf("wait for a turn: %w", ctx.Err())
	}
	plain, done, err := up.body.open(req.Encoding)
	if err != nil {
		return ImportResult{}, err
	}
	defer done()
	run := &importing{
		Importer: i, up: up, accounts: make(map[domain.AccountID]*ensured),
		parser: cloudtrail.Parser{Default: o.Caller.Initiator.Account, Redact: withoutSecrets},
	}
	run.result.Batch = up.batch
	err = eachBlock(ctx, newBlockReader(plain, ImportLineBytesMax), i.usage.cfg.Workers, run.parse, run.store)
	if err != nil {
		return ImportResult{}, err
	}
	run.result.Accepted = run.result.Uses + run.result.Repeated
	return run.result, nil
}

// observations are a block of records on their way into the log.
type observations struct {
	parsed
	facts []domain.ObserveKey
	at    uint64 // Position of the newest account that was created for them.
}

// parse reads the records of a block and sorts their uses by slot.
func (r *importing) parse(ctx context.Context, b *block) (observations, error) {
	var out observations
	bySlot := make(map[*slotWriter]*chunk)
	var order []*chunk
	facts := newFactSet()
	for n := range b.len() {
		no := b.first + uint64(n)
		line := bytes.TrimSpace(b.line(n))
		if len(line) == 0 && !b.tooLong(n) {
			continue
		}
		o, position, err := r.observe(ctx, line, b.tooLong(n))
		if refusal, ok := errors.AsType[*lineError](err); ok {
			out.rejected = append(out.rejected, RejectedLine{Line: no + 1, Error: refusal.Error()})
			continue
		}
		if err != nil {
			return out, err
		}
		out.at = max(out.at, position)
		w := r.slots.writer(usageClassImport, string(o.Use.Account))
		c := bySlot[w]
		if c == nil {
			c = r.usage.newChunk(r.up, b)
			c.to = w
			bySlot[w] = c
			order = append(order, c)
		}
		c.add(&o.Use, no)
		facts.add(o)
	}
	for _, c := range order {
		chunks, err := r.usage.pack(c)
		if err != nil {
			return out, err
		}
		out.chunks = append(out.chunks, chunks...)
	}
	for _, c := range out.chunks {
		if err := r.slots.look(ctx, c); err != nil {
			return out, err
		}
	}
	out.facts = facts.list()
	return out, nil
}

// lineError refuses one line.
type lineError struct{ text string }

// Error implements error.
func (e *lineError) Error() string { return e.text }

// observe reads one record and makes its account known. A [*lineError] refuses the
// record; any other error is ours.
func (r *importing) observe(ctx context.Context, line []byte, tooLong bool) (cloudtrail.Observed, uint64, error) {
	if tooLong {
		return cloudtrail.Observed{}, 0, &lineError{text: fmt.Sprintf("has more than %d bytes", ImportLineBytesMax)}
	}
	o, err := r.parser.Parse(line)
	if err != nil {
		return cloudtrail.Observed{}, 0, &lineError{text: err.Error()}
	}
	position, err := r.ensure(ctx, o.Use.Account)
	if code := domain.CodeOf(err); code == domain.Forbidden || code == domain.NotFound || code == domain.Invalid {
		return cloudtrail.Observed{}, 0, &lineError{text: "recipientAccountId: no right to record uses in this account"}
	}
	if err != nil {
		return cloudtrail.Observed{}, 0, err
	}
	r.usage.locate(&o.Use)
	return o, position, nil
}

// ensure makes account known, once an import.
func (r *importing) ensure(ctx context.Context, account domain.AccountID) (uint64, error) {
	r.mu.Lock()
	e := r.accounts[account]
	if e == nil {
		e = &ensured{}
		r.accounts[account] = e
	}
	r.mu.Unlock()
	e.once.Do(func() {
		if !r.up.order.Caller.Can(domain.RightIngest, account) {
			e.position, e.err = r.Importer.accounts.EnsureAccount(ctx, r.up.order, account, cloudtrail.Source)
		}
	})
	return e.position, e.err
}

// store writes the uses of a block, then its facts: a crash in between is mended by
// the same records sent again, since facts are derived from repeats as well.
func (r *importing) store(ctx context.Context, o observations) error {
	r.result.reject(o.rejected)
	r.result.Position = max(r.result.Position, o.at)
	for _, c := range o.chunks {
		if _, err := c.to.write(ctx, c); err != nil {
			return err
		}
		r.result.Uses += c.stored
		r.result.Repeated += c.repeats
		r.result.Position = max(r.result.Position, c.position, c.state.position)
	}
	n, position, err := r.facts.record(ctx, r.up.order, o.facts)
	if err != nil {
		return err
	}
	r.result.Facts += n
	r.result.Position = max(r.result.Position, position)
	return nil
}
