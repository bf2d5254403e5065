package ingest

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"runtime"
	"strconv"
	"time"

	"example.com/keytrail/domain"
	"example.com/keytrail/internal/auth"
	"example.com/keytrail/internal/usagebatch"
)

// RejectedLinesMax bounds the list of refused lines in an answer; their count is
// always given whole.
const RejectedLinesMax = 1000

// classes of usage, as they stand in stream names.
const (
	usageClassClient = "client" // Slot by caller.
	usageClassImport = "import" // Slot by account.
	usageClassVerify = "verify" // One stream a writer.
)

// UsageKeys says what is known of the keys that uploads name.
type UsageKeys interface {
	// KeyByHash returns the key whose value has this SHA-256.
	KeyByHash(hash [sha256.Size]byte) (domain.KeyState, bool)
	// Key returns the key of keytrail with this id.
	Key(id domain.KeyID) (domain.KeyState, bool)
	// Fingerprint returns the keyed fingerprint of a hash, "hmac-sha256:<hex>".
	Fingerprint(hash [sha256.Size]byte) string
}

// Networks resolves addresses at intake. A database that changes later changes
// nothing that is stored.
type Networks interface {
	// Lookup returns the country (ISO 3166-1 alpha-2) and the number of the autonomous
	// system, "" and 0 where they are not known.
	Lookup(addr netip.Addr) (country string, asn uint32)
	// Build names the build of the database.
	Build() string
}

// UsageConfig is what [NewUsage] needs.
type UsageConfig struct {
	Log  UsageLog
	Keys UsageKeys
	// Known, if set, lets an upload's uses be known by their ids across batches.
	// Without it ids are not compared and only a batch as a whole can be repeated.
	Known KnownUses
	// Networks, if set, resolves addresses.
	Networks Networks
	// SpoolDir holds bodies of more than 4 MiB while they are received; "" is the
	// system's folder for temporary files. Files in it have no name.
	SpoolDir string
	// Workers bounds how many blocks of one upload are worked on at a time. Default:
	// one for each processor.
	Workers int
	// InFlightBytesMax bounds the bodies in flight. Default [UploadsInFlightBytesMax].
	InFlightBytesMax int64
	Now              func() time.Time
	Logger           *slog.Logger
}

func (c *UsageConfig) setDefaults() {
	if c.Workers == 0 {
		c.Workers = min(runtime.GOMAXPROCS(0), runtime.NumCPU())
	}
	if c.InFlightBytesMax == 0 {
		c.InFlightBytesMax = UploadsInFlightBytesMax
	}
}

// Validate reports everything that is missing in c, joined.
func (c UsageConfig) Validate() error {
	var errs []error
	if c.Log == nil {
		errs = append(errs, errors.New("usage: a log is required"))
	}
	if c.Keys == nil {
		errs = append(errs, errors.New("usage: keys are required"))
	}
	if c.Now == nil {
		errs = append(errs, errors.New("usage: a clock is required"))
	}
	if c.Logger == nil {
		errs = append(errs, errors.New("usage: a logger is required"))
	}
	if c.Workers < 0 || c.InFlightBytesMax < 0 {
		errs = append(errs, errors.New("usage: bounds must not be negative"))
	}
	return errors.Join(errs...)
}

// Usage takes in uses of keys, many at a time. It is safe for concurrent use and owns
// no goroutine beyond its calls.
type Usage struct {
	cfg    UsageConfig
	codec  *usagebatch.Codec
	slots  *slots
	budget *uploadBudget
	turns  chan struct{} // Uploads being parsed; the others wait in their spools.
}

// NewUsage returns the usage intake of one node.
func NewUsage(cfg UsageConfig) (*Usage, error) {
	cfg.setDefaults()
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	codec, err := usagebatch.New()
	if err != nil {
		return nil, fmt.Errorf("usage intake: %w", err)
	}
	u := &Usage{
		cfg: cfg, codec: codec,
		budget: &uploadBudget{max: cfg.InFlightBytesMax},
		turns:  make(chan struct{}, 2*cfg.Workers),
	}
	u.slots = u.newSlots(cfg.Known)
	return u, nil
}

func (u *Usage) newSlots(known KnownUses) *slots {
	return &slots{
		log: u.cfg.Log, codec: u.codec, known: known, now: u.cfg.Now, logger: u.cfg.Logger,
		recentMax: recentUsesMax, batchesMin: batchesMin, writers: make(map[string]*slotWriter),
	}
}

// RejectedLine is a line of an upload that was refused. Line counts from 1.
type RejectedLine struct {
	Line  uint64 `json:"line"`
	Error string `json:"error"`
}

// UsageResult is what became of an upload.
type UsageResult struct {
	// Batch is the batch's id: the caller's own, or the one derived from the body.
	Batch string
	// Accepted counts the uses of the batch that are durable, whether this call wrote
	// them or an earlier one did.
	Accepted uint64
	// Repeated counts the lines whose use was in the log already, from another batch or
	// another line.
	Repeated uint64
	// Rejected are the first [RejectedLinesMax] refused lines of RejectedCount.
	Rejected      []RejectedLine
	RejectedCount uint64
	// Position is that of the batch's last event; 0 if nothing of it is in the log.
	Position uint64
}

func (r *UsageResult) reject(lines []RejectedLine) {
	r.RejectedCount += uint64(len(lines))
	r.Rejected = append(r.Rejected, lines[:min(len(lines), RejectedLinesMax-len(r.Rejected))]...)
}

// upload is a received body on its way into the log.
type upload struct {
	order     Order
	caller    string
	batch     string
	body      *spool
	networkDB string
}

// receive spools the body of a request and names its batch.
func (u *Usage) receive(o Order, req UploadRequest) (*upload, error) {
	if req.Batch != "" && !domain.ValidID(req.Batch) {
		return nil, domain.Errorf(domain.Invalid, "must be 1 to 128 letters, digits and -_.:@").
			WithField("Keytrail-Batch-Id").WithMessageCode("invalid_batch_id")
	}
	if holdsSecret(req.Batch) {
		return nil, domain.Errorf(domain.Invalid, "holds the value of an API key").
			WithField("Keytrail-Batch-Id").WithMessageCode("invalid_batch_id")
	}
	body, err := receive(req.Body, u.cfg.SpoolDir, u.budget)
	if err != nil {
		return nil, err
	}
	up := &upload{order: o, caller: string(o.Caller.Initiator.IAMID), batch: req.Batch, body: body}
	if up.batch == "" {
		up.batch = "sha256:" + body.hash
	}
	if u.cfg.Networks != nil {
		up.networkDB = u.cfg.Networks.Build()
	}
	return up, nil
}

// Record stores the uses of one upload: one JSON object a line. When it returns nil
// every accepted use is durable. After an error, or no answer, the caller sends the
// same bytes under the same batch id again: only what is missing is written.
//
// A line that is refused is reported by its number and stops nothing. The caller must
// hold the right to ingest in the account of each use.
func (u *Usage) Record(ctx context.Context, o Order, req UploadRequest) (res UsageResult, err error) {
	up, err := u.receive(o, req)
	if err != nil {
		return UsageResult{}, err
	}
	defer func() { err = errors.Join(err, up.body.close()) }()
	select {
	case u.turns <- struct{}{}:
		defer func() { <-u.turns }()
	case <-ctx.Done():
		return UsageResult{}, fmt.Errorf("wait for a turn: %w", ctx.Err())
	}
	plain, done, err := up.body.open(req.Encoding)
	if err != nil {
		return UsageResult{}, err
	}
	defer done()
	r := &recording{
		w: u.slots.writer(usageClassClient, up.caller), result: UsageResult{Batch: up.batch},
	}
	err = eachBlock(ctx, newBlockReader(plain, UsageLineBytesMax), u.cfg.Workers,
		func(ctx context.Context, b *block) (parsed, error) { return u.parse(ctx, up, b) }, r.store)
	if err != nil {
		return UsageResult{}, err
	}
	return r.finish(), nil
}

// recording stores the chunks of one batch in their order.
type recording struct {
	w        *slotWriter
	result   UsageResult
	rejected uint64
	carry    uint64 // Repeats from line from on that no event counts yet.
	from     uint64
	state    batchState
}

func (r *recording) store(ctx context.Context, p parsed) error {
	r.result.reject(p.rejected)
	for _, c := range p.chunks {
		c.rejected, c.carry, c.carryFrom = r.rejected, r.carry, r.from
		r.rejected += uint64(len(c.rejectedAt))
		state, err := r.w.write(ctx, c)
		if err != nil {
			return err
		}
		if r.carry == 0 {
			r.from = c.first
		}
		r.carry += c.repeats
		if c.position > 0 || state.next >= c.first+c.lines {
			r.carry = 0
		}
		r.state = state
	}
	return nil
}

func (r *recording) finish() UsageResult {
	r.result.Accepted, r.result.Position = r.state.accepted, r.state.position
	r.result.Repeated = r.state.repeated + r.carry
	return r.result
}

// parsed is a block on its way into the log.
type parsed struct {
	chunks   []*chunk
	rejected []RejectedLine
}

// parse turns the lines of a block into chunks that fit one event each.
func (u *Usage) parse(ctx context.Context, up *upload, b *block) (parsed, error) {
	p := newLineParser()
	may := rights{caller: up.order.Caller}
	c := u.newChunk(up, b)
	c.ordered, c.last = true, b.last
	var rejected []RejectedLine
	for i := range b.len() {
		line := b.line(i)
		no := b.first + uint64(i)
		var use *domain.Use
		var err error
		switch {
		case b.tooLong(i):
			err = fmt.Errorf("has more than %d bytes", UsageLineBytesMax)
		case len(bytes.TrimSpace(line)) == 0:
			continue
		default:
			use, err = u.use(p, &may, line)
		}
		if err != nil {
			rejected = append(rejected, RejectedLine{Line: no + 1, Error: err.Error()})
			c.rejectedAt = append(c.rejectedAt, no)
			continue
		}
		c.add(use, no)
	}
	chunks, err := u.pack(c)
	if err != nil {
		return parsed{}, err
	}
	for _, c := range chunks {
		if err := u.slots.look(ctx, c); err != nil {
			return parsed{}, err
		}
	}
	return parsed{chunks: chunks, rejected: rejected}, nil
}

func (u *Usage) newChunk(up *upload, b *block) *chunk {
	n := b.len()
	return &chunk{
		batch: batchKey{caller: up.caller, batch: up.batch}, bodyHash: up.body.hash,
		first: b.first, lines: uint64(n), //nolint:gosec // A length.
		uses: make([]domain.Use, 0, n), lineOf: make([]uint64, 0, n), explicit: make([]bool, 0, n),
		by: up.order.Caller.Initiator, trace: up.order.CorrelationID, networkDB: up.networkDB,
	}
}

// add adds a use. One without an id gets one from the batch and the line.
func (c *chunk) add(use *domain.Use, line uint64) {
	c.explicit = append(c.explicit, use.ID != "")
	if use.ID == "" {
		use.ID = domain.DeriveID("use", c.batch.caller, c.batch.batch, strconv.FormatUint(line, 10)).String()
	}
	c.uses, c.lineOf = append(c.uses, *use), append(c.lineOf, line)
}

// pack encodes a chunk, in halves where it is too large for one event.
func (u *Usage) pack(c *chunk) ([]*chunk, error) {
	data, err := u.codec.Encode(c.uses)
	switch {
	case err == nil && len(data) <= chunkBytesMax:
		c.data = data
		return []*chunk{c}, nil
	case err != nil && !errors.Is(err, usagebatch.ErrTooLarge), len(c.uses) < 2:
		return nil, fmt.Errorf("encode uses: %w", errors.Join(err, fmt.Errorf("one use has %d bytes", len(data))))
	}
	a, b := c.split()
	first, err := u.pack(a)
	if err != nil {
		return nil, err
	}
	second, err := u.pack(b)
	return append(first, second...), err
}

// rights remembers in which accounts a caller may record uses, for one block.
type rights struct {
	caller auth.Caller
	known  map[domain.AccountID]bool
}

func (r *rights) mayIngest(account domain.AccountID) bool {
	may, ok := r.known[account]
	if !ok {
		if r.known == nil {
			r.known = make(map[domain.AccountID]bool)
		}
		may = r.caller.Can(domain.RightIngest, account)
		r.known[account] = may
	}
	return may
}

// use reads a line and finds out whose key and which network it was. The use is
// valid until p reads the next.
func (u *Usage) use(p *lineParser, may *rights, line []byte) (*domain.Use, error) {
	l, err := p.parse(line)
	if err != nil {
		return nil, err
	}
	use := &l.use
	given := use.Account
	if given == "" {
		use.Account = may.caller.Initiator.Account
	}
	switch {
	case l.hasHash:
		key, ok := u.cfg.Keys.KeyByHash(l.hash)
		if ok && (key.Account == use.Account || given == "" && may.mayIngest(key.Account)) {
			use.Account, use.KeyID, use.IAMID = key.Account, key.ID, key.IAMID
		} else {
			// Also where it is another tenant's: who asks does not learn that it exists.
			use.KeyFingerprint = u.cfg.Keys.Fingerprint(l.hash)
		}
	case use.KeyID != "":
		if key, ok := u.cfg.Keys.Key(use.KeyID); ok && key.Account == use.Account && key.IAMID != "" {
			use.IAMID = key.IAMID
		}
	}
	if !may.mayIngest(use.Account) {
		return nil, errMayNotIngest
	}
	u.locate(use)
	return use, nil
}

// errMayNotIngest is the same for an account that does not exist and for another's.
var errMayNotIngest = errors.New("account_id: no such account, or no right to record uses in it")

// locate sets country and network of the use's address.
func (u *Usage) locate(use *domain.Use) {
	if u.cfg.Networks == nil || use.Source == "" {
		return
	}
	if addr, ok := use.Address(); ok {
		use.Country, use.ASN = u.cfg.Networks.Lookup(addr)
	}
}
