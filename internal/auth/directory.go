package auth

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"example.com/keytrail/domain"
	"example.com/keytrail/internal/eventlog"
)

// Subscription is a followed log, as [eventlog.Subscription].
type Subscription interface {
	Next(ctx context.Context) (eventlog.Delivery, error)
	Close()
}

// Follow subscribes to the log.
type Follow func(ctx context.Context, opt eventlog.SubscribeOptions) (Subscription, error)

// FollowLog returns the Follow of an event log.
func FollowLog(log *eventlog.Log) Follow {
	return func(ctx context.Context, opt eventlog.SubscribeOptions) (Subscription, error) {
		return log.Subscribe(ctx, opt)
	}
}

// Directory knows the accounts, their members, the service IDs, the keys made here and their
// sessions. It is safe for concurrent use. [Directory.Run] keeps it up with the log; a
// writer may [Directory.Apply] its own events at once, so that it sees them before they come
// back.
type Directory struct {
	follow Follow
	log    *slog.Logger
	pulses *Pulses // nil: nobody asks how fresh this is. Set before Run.

	mu            sync.RWMutex // Guards everything below.
	keys          map[domain.KeyID]keyEntry
	byFingerprint map[string]domain.KeyID
	byOwner       map[keyOwner][]domain.KeyID // Deleted ones too.
	external      map[domain.KeyID][]domain.AccountID
	accounts      map[domain.AccountID]accountEntry
	accountsOf    map[domain.IAMID][]domain.AccountID // Sorted.
	services      map[string]serviceEntry
	servicesOf    map[domain.AccountID][]string // Deleted ones too.
	sessions      sessions
	closed        map[string]bool // Streams with an event that cannot be read.
	home          domain.AccountID
	homePosition  uint64
	position      uint64 // Of the newest event that the subscription delivered.
	ready         bool
	moved         chan struct{} // Closed and replaced when position or ready change.
}

type keyEntry struct {
	state    domain.KeyState
	revision uint64
	born     uint64 // Position of the key's first event; 0 until that is seen.
}

// keyOwner is an identity in one account.
type keyOwner struct {
	account domain.AccountID
	iam     domain.IAMID
}

type accountEntry struct {
	account domain.Account
	next    uint64 // The revision that the stream's next event has.
}

type serviceEntry struct {
	service domain.ServiceID
	next    uint64 // The revision that the stream's next event has.
	gone    bool   // Deleted, whether or not the fold has come so far.
}

// NewDirectory returns an empty directory. It refuses every question until Run has
// caught up with the log.
func NewDirectory(follow Follow, log *slog.Logger) *Directory {
	return &Directory{
		follow: follow, log: log,
		keys: map[domain.KeyID]keyEntry{}, byFingerprint: map[string]domain.KeyID{}, byOwner: map[keyOwner][]domain.KeyID{},
		external: map[domain.KeyID][]domain.AccountID{}, accounts: map[domain.AccountID]accountEntry{},
		accountsOf: map[domain.IAMID][]domain.AccountID{}, services: map[string]serviceEntry{}, servicesOf: map[domain.AccountID][]string{}, sessions: newSessions(),
		closed: map[string]bool{}, moved: make(chan struct{}),
	}
}

// Run follows the log until ctx ends (nil) or the subscription fails for good. It may
// be called again after it returned, not at the same time.
func (d *Directory) Run(ctx context.Context) error {
	d.mu.RLock()
	after := d.position
	d.mu.RUnlock()
	prefixes := []string{domain.AccountStreams, domain.ServiceIDStreams, domain.KeyStreams, domain.SessionStreams}
	if d.pulses != nil {
		prefixes = append(prefixes, d.pulses.stream)
	}
	sub, err := d.follow(ctx, eventlog.SubscribeOptions{Prefixes: prefixes, After: after, FromStart: after == 0})
	if err != nil {
		return fmt.Errorf("follow the log: %w", err)
	}
	defer sub.Close()
	defer d.setReady(false)
	for {
		delivery, err := sub.Next(ctx)
		switch {
		case ctx.Err() != nil:
			return nil // The caller ended it.
		case err != nil:
			return fmt.Errorf("follow the log: %w", err)
		}
		if delivery.Event != nil {
			d.deliver(ctx, *delivery.Event)
		}
		if delivery.CaughtUp {
			d.setReady(true)
		}
	}
}

func (d *Directory) deliver(ctx context.Context, raw eventlog.Raw) {
	d.passTime(raw.RecordedAt)
	if d.pulses != nil && strings.HasPrefix(raw.Stream, pulseStreams) {
		d.pulses.returned(raw) // All before it has been applied.
		return
	}
	if d.passed(raw) {
		return
	}
	rec, err := eventlog.Decode(raw)
	d.mu.Lock()
	defer d.mu.Unlock()
	if err != nil {
		d.closed[raw.Stream] = true
		d.log.LogAttrs(ctx, slog.LevelError, "stream is closed: it holds an event that cannot be read",
			slog.String("stream", raw.Stream), slog.Uint64("revision", raw.Revision), slog.String("error", err.Error()))
	} else {
		d.applyLocked(rec)
	}
	d.position = raw.Position
	d.movedLocked()
}

// passTime takes in when an event arrived at the log.
func (d *Directory) passTime(recordedAt time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.sessions.advance(recordedAt)
}

// passed reports whether the directory has seen raw, or one after it on its stream that
// says all: as with what this node wrote itself. Then raw only moves the position, and is
// not decoded.
func (d *Directory) passed(raw eventlog.Raw) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	id, ok := strings.CutPrefix(raw.Stream, domain.KeyStreams)
	if !ok {
		return false
	}
	seen, ok := d.keys[domain.KeyID(id)]
	if !ok || raw.Revision > seen.revision {
		return false
	}
	if raw.Revision == 0 {
		seen.born = raw.Position
		d.keys[domain.KeyID(id)] = seen
	}
	d.position = raw.Position
	d.movedLocked()
	return true
}

func (d *Directory) setReady(ready bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.ready = ready
	d.movedLocked()
}

func (d *Directory) movedLocked() {
	close(d.moved)
	d.moved = make(chan struct{})
}

// Apply takes in an event that this node has appended. Events that the directory has
// seen already change nothing, in any order of arrival.
func (d *Directory) Apply(rec domain.Recorded) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.applyLocked(rec)
}

func (d *Directory) applyLocked(rec domain.Recorded) {
	switch {
	case strings.HasPrefix(rec.Stream, domain.KeyStreams):
		d.applyKeyLocked(rec)
	case strings.HasPrefix(rec.Stream, domain.AccountStreams):
		d.applyAccountLocked(rec)
	case strings.HasPrefix(rec.Stream, domain.ServiceIDStreams):
		d.applyServiceLocked(rec)
	case strings.HasPrefix(rec.Stream, domain.SessionStreams):
		d.sessions.apply(rec)
	}
}

// applyKeyLocked keeps the state of the newest revision: each event carries it whole.
func (d *Directory) applyKeyLocked(rec domain.Recorded) {
	e, ok := rec.Event.(domain.KeyEvent)
	if !ok {
		return
	}
	s := e.State()
	if s.Kind == domain.KindExternal {
		d.external[s.ID] = insert(d.external[s.ID], s.Account)
		return
	}
	old, ok := d.keys[s.ID]
	if !ok {
		owner := keyOwner{s.Account, s.IAMID}
		d.byOwner[owner] = append(d.byOwner[owner], s.ID)
	}
	if rec.Revision == 0 {
		old.born = rec.Position
	}
	if !ok || rec.Revision > old.revision {
		old.state, old.revision = s, rec.Revision
	}
	d.keys[s.ID] = old
	if rec.Revision < old.revision {
		return
	}
	if s.SecretHash != "" {
		d.byFingerprint[s.SecretHash] = s.ID
	}
}

// applyAccountLocked folds only the next revision: account events are changes, so one
// that comes early waits for the subscription to bring those before it.
func (d *Directory) applyAccountLocked(rec domain.Recorded) {
	id := domain.AccountID(strings.TrimPrefix(rec.Stream, domain.AccountStreams))
	entry := d.accounts[id]
	if rec.Revision != entry.next {
		return
	}
	entry.account, entry.next = entry.account.Evolve(rec), rec.Revision+1
	d.accounts[id] = entry
	if e, ok := rec.Event.(domain.AccountCreated); ok {
		d.belongsLocked(e.Owner, id)
	}
	if e, ok := rec.Event.(domain.MemberEvent); ok {
		d.belongsLocked(e.Member(), id)
	}
	if e, ok := rec.Event.(domain.AccountCreated); ok && e.Source == "" && (d.home == "" || rec.Position < d.homePosition) {
		d.home, d.homePosition = id, rec.Position
	}
}

// belongsLocked brings the list of iam's accounts up to date with account.
func (d *Directory) belongsLocked(iam domain.IAMID, account domain.AccountID) {
	_, member := d.accounts[account].account.Member(iam)
	if id, ok := domain.ServiceIDOf(iam); ok {
		member = member || d.services[id].service.State().Account == account
	}
	if member {
		d.accountsOf[iam] = insert(d.accountsOf[iam], account)
		return
	}
	if i, ok := slices.BinarySearch(d.accountsOf[iam], account); ok {
		d.accountsOf[iam] = slices.Concat(d.accountsOf[iam][:i], d.accountsOf[iam][i+1:]) // A copy: readers may hold the old one.
	}
}

// applyServiceLocked folds only the next revision, like applyAccountLocked; but that
// the service ID is deleted counts at once.
func (d *Directory) applyServiceLocked(rec domain.Recorded) {
	id := strings.TrimPrefix(rec.Stream, domain.ServiceIDStreams)
	entry := d.services[id]
	known := entry.next > 0
	if _, ok := rec.Event.(domain.ServiceIDDeleted); ok {
		entry.gone = true
	}
	if rec.Revision == entry.next {
		entry.service, entry.next = entry.service.Evolve(rec), rec.Revision+1
	}
	d.services[id] = entry
	if s := entry.service.State(); s.Account != "" {
		if rec.Revision == 0 && !known {
			d.servicesOf[s.Account] = append(d.servicesOf[s.Account], id)
		}
		d.accountsOf[s.IAMID] = insert(d.accountsOf[s.IAMID], s.Account)
	}
}

// insert returns the sorted list with v in it, once.
func insert(list []domain.AccountID, v domain.AccountID) []domain.AccountID {
	i, ok := slices.BinarySearch(list, v)
	if ok {
		return list
	}
	return slices.Insert(slices.Clip(list), i, v) // A copy: readers may hold the old one.
}

// Ready returns nil when the directory follows the log and has caught up with it, else
// [domain.Unavailable].
func (d *Directory) Ready() error {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return d.readyLocked()
}

func (d *Directory) readyLocked() error {
	if d.ready {
		return nil
	}
	return domain.Errorf(domain.Unavailable, "the directory of keys has not caught up with the log").
		WithMessageCode("directory_not_ready")
}

// Reached returns the position of the newest event that the log has delivered.
func (d *Directory) Reached() uint64 {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return d.position
}

// WaitFor returns when the log has delivered the event at position, or ctx has ended.
// position must be that of an event about an account, a service ID or a key.
func (d *Directory) WaitFor(ctx context.Context, position uint64) error {
	return d.wait(ctx, func() bool { return d.position >= position })
}

// WaitReady returns when the directory has caught up with the log, or ctx has ended.
func (d *Directory) WaitReady(ctx context.Context) error {
	return d.wait(ctx, func() bool { return d.ready })
}

// wait calls done under the lock whenever something moved.
func (d *Directory) wait(ctx context.Context, done func() bool) error {
	for {
		d.mu.RLock()
		ok, moved := done(), d.moved
		d.mu.RUnlock()
		if ok {
			return nil
		}
		select {
		case <-moved:
		case <-ctx.Done():
			return fmt.Errorf("wait for the directory: %w", ctx.Err())
		}
	}
}

// Home returns the operator's own account: the first that was made here. What belongs
// to no account, such as a sign-in with an unknown key, is recorded under it.
func (d *Directory) Home() domain.AccountID {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return d.home
}

// Key returns the newest known state of a key made here.
func (d *Directory) Key(id domain.KeyID) (domain.KeyState, bool) {
	d.mu.RLock()
	defer d.mu.RUnlock()
	e, ok := d.keys[id]
	return e.state, ok
}

// KeyByFingerprint returns the newest known state of the key whose secret has that
// fingerprint.
func (d *Directory) KeyByFingerprint(fingerprint string) (domain.KeyState, bool) {
	d.mu.RLock()
	defer d.mu.RUnlock()
	id, ok := d.byFingerprint[fingerprint]
	if !ok {
		return domain.KeyState{}, false
	}
	return d.keys[id].state, true
}

// KeysOf returns the newest known states of the keys made here that act as an identity in
// an account, but for deleted ones.
func (d *Directory) KeysOf(account domain.AccountID, iam domain.IAMID) []domain.KeyState {
	d.mu.RLock()
	defer d.mu.RUnlock()
	var out []domain.KeyState
	for _, id := range d.byOwner[keyOwner{account, iam}] {
		if s := d.keys[id].state; !s.Deleted {
			out = append(out, s)
		}
	}
	return out
}

// KeyIDsOf returns the keys made here that ever acted as an identity in an account.
func (d *Directory) KeyIDsOf(account domain.AccountID, iam domain.IAMID) []domain.KeyID {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return slices.Clone(d.byOwner[keyOwner{account, iam}])
}

// ServiceIDsOf returns the service IDs of an account, but for deleted ones, in no order.
func (d *Directory) ServiceIDsOf(account domain.AccountID) []domain.ServiceIDState {
	d.mu.RLock()
	defer d.mu.RUnlock()
	var out []domain.ServiceIDState
	for _, id := range d.servicesOf[account] {
		if e := d.services[id]; !e.gone {
			out = append(out, e.service.State())
		}
	}
	return out
}

// ExternalAccounts returns the accounts that have an external key with that id, sorted.
// The caller must not change the list.
func (d *Directory) ExternalAccounts(id domain.KeyID) []domain.AccountID {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return d.external[id]
}

// Account returns an account.
func (d *Directory) Account(id domain.AccountID) (domain.Account, bool) {
	d.mu.RLock()
	defer d.mu.RUnlock()
	e, ok := d.accounts[id]
	return e.account, ok
}

// ServiceID returns a service ID, deleted or not.
func (d *Directory) ServiceID(id string) (domain.ServiceIDState, bool) {
	d.mu.RLock()
	defer d.mu.RUnlock()
	e, ok := d.services[id]
	s := e.service.State()
	s.Deleted = s.Deleted || e.gone
	return s, ok
}

// AccountsOf returns the accounts in which an identity is anything, sorted. The caller
// must not change the list.
func (d *Directory) AccountsOf(iam domain.IAMID) []domain.AccountID {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return d.accountsOf[iam]
}

// Standing returns what an identity is in an account. A service ID that lives there is
// a member; a deleted one is a stranger everywhere.
func (d *Directory) Standing(iam domain.IAMID, account domain.AccountID) domain.Standing {
	d.mu.RLock()
	defer d.mu.RUnlock()
	in := d.accounts[account].account.Standing(iam)
	id, isService := domain.ServiceIDOf(iam)
	if !isService {
		return in
	}
	s, ok := d.services[id]
	if !ok || s.gone {
		return domain.Standing{}
	}
	in.Member = in.Member || s.service.State().Account == account
	return in
}

// NameOf returns the name of an identity: a service ID's own, or a user's as the first
// of its accounts has it. It is "" where none is known.
func (d *Directory) NameOf(iam domain.IAMID) string {
	if id, ok := domain.ServiceIDOf(iam); ok {
		s, _ := d.ServiceID(id)
		return s.Name
	}
	for _, account := range d.AccountsOf(iam) {
		a, _ := d.Account(account)
		if m, ok := a.Member(iam); ok && m.Name != "" {
			return m.Name
		}
	}
	return ""
}

// Check returns nil if the key is valid at t: it is active, its identity exists, and
// its stream can be read.
func (d *Directory) Check(s domain.KeyState, t time.Time) error {
	d.mu.RLock()
	defer d.mu.RUnlock()
	if err := d.readyLocked(); err != nil {
		return err
	}
	if d.closed[domain.KeyStream(s.ID)] || d.closed[domain.AccountStream(s.Account)] {
		return domain.Errorf(domain.Unavailable, "the history of this key cannot be read").WithMessageCode("key_closed")
	}
	switch s.StatusAt(t) {
	case domain.StatusDeleted:
		return refused("key_deleted", "the API key is deleted")
	case domain.StatusDisabled:
		return refused("key_disabled", "the API key is disabled")
	case domain.StatusExpired:
		return refused("key_expired", "the API key has expired")
	case domain.StatusUnknown:
		return refused("invalid_credential", "the API key is not known")
	case domain.StatusActive:
	}
	return d.checkIdentityLocked(s)
}

// checkIdentityLocked returns nil if the identity of the key exists: its service ID is not
// deleted, its user is a member of the key's account and was so ever since the key was made.
func (d *Directory) checkIdentityLocked(s domain.KeyState) error {
	if id, ok := domain.ServiceIDOf(s.IAMID); ok {
		svc, known := d.services[id]
		if !known || svc.gone || d.closed[domain.ServiceIDStream(id)] {
			return refused("identity_invalid", "the service ID of the API key is deleted")
		}
		return nil
	}
	account := d.accounts[s.Account].account
	if _, member := account.Member(s.IAMID); !member || account.RemovedAt(s.IAMID) > d.keys[s.ID].born {
		return refused("identity_invalid", "the user of the API key is no member of its account")
	}
	return nil
}

// CheckFrom returns nil if the key may be used from that address: both the key's account and
// its user must allow it. An address that nobody knows is in no list.
func (d *Directory) CheckFrom(s domain.KeyState, from netip.Addr) error {
	d.mu.RLock()
	defer d.mu.RUnlock()
	account := d.accounts[s.Account].account
	if !account.Addresses().Allows(from) {
		return domain.Errorf(domain.Forbidden, "the account does not allow requests from this address").WithMessageCode(MessageCodeIPRefused)
	}
	if m, ok := account.Member(s.IAMID); ok && !m.Addresses.Allows(from) {
		return domain.Errorf(domain.Forbidden, "the user does not allow requests from this address").WithMessageCode(MessageCodeIPRefused)
	}
	return nil
}

// MessageCodeIPRefused marks refusals because of the address that a request came from.
const MessageCodeIPRefused = "ip_refused"

// SessionLimits returns what a sign-in in an account gives.
func (d *Directory) SessionLimits(account domain.AccountID) domain.SessionLimits {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return d.accounts[account].account.SessionLimits()
}

// IdentityEnded reports whether the identity of a key is known to be gone: its service ID is
// deleted, or its user was removed from the account since the key was made.
func (d *Directory) IdentityEnded(s domain.KeyState) bool {
	d.mu.RLock()
	defer d.mu.RUnlock()
	if id, ok := domain.ServiceIDOf(s.IAMID); ok {
		return d.services[id].gone
	}
	born := d.keys[s.ID].born
	return born > 0 && d.accounts[s.Account].account.RemovedAt(s.IAMID) > born
}

func refused(messageCode, message string) error {
	return domain.Errorf(domain.Unauthenticated, "%s", message).WithMessageCode(messageCode)
}
