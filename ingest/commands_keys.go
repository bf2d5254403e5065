package ingest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"example.com/keytrail/domain"
	"example.com/keytrail/internal/keystore"
)

// KeyRef names a key as a caller does. The account is needed only where several of the
// caller's accounts have an external key with that id.
type KeyRef struct {
	ID      domain.KeyID
	Account domain.AccountID
}

// NewKey is what a caller asks for when it creates a key.
type NewKey struct {
	Account         domain.AccountID  `json:"account_id,omitempty"` // "" = the account of the caller's credential.
	IAMID           domain.IAMID      `json:"iam_id"`
	Name            string            `json:"name"`
	Description     string            `json:"description,omitempty"`
	ExpiresAt       string            `json:"expires_at,omitempty"`
	ActionOnLeak    domain.LeakAction `json:"action_when_leaked,omitempty"`
	SupportSessions bool              `json:"support_sessions,omitempty"`
	Locked          bool              `json:"lock,omitempty"`
	Disabled        bool              `json:"disabled,omitempty"`
	// Type is the kind of key; "" = what the identity's keys are: user or serviceid.
	Type domain.KeyKind `json:"type,omitempty"`
	// StoreValue keeps the value to be read again.
	StoreValue bool `json:"store_value,omitempty"`
	// Value is the caller's own choice of a value; empty = keytrail makes one.
	Value keystore.Secret `json:"-"`
}

// CreateKey makes a key and returns it without history, and its value, which nobody can
// read again. Nothing is written for what is refused for its form or for lack of rights.
func (s *Commands) CreateKey(ctx context.Context, o Order, n NewKey) (domain.Key, keystore.Secret, uint64, error) {
	if n.Account == "" {
		n.Account = o.Caller.Initiator.Account
	}
	kind, err := n.kind()
	if err != nil {
		return domain.Key{}, keystore.Secret{}, 0, err
	}
	if !domain.ValidID(string(n.IAMID)) {
		return domain.Key{}, keystore.Secret{}, 0, domain.Errorf(domain.Invalid, "is required: the identity that the key will act as").
			WithField("iam_id").WithMessageCode("missing_iam_id")
	}
	asked := domain.KeyState{Account: n.Account, IAMID: n.IAMID, Kind: kind, Name: n.Name}
	m, err := s.newKey(o, kind, n)
	if err == nil {
		err = s.mayCreate(o, asked)
	}
	if err != nil {
		return domain.Key{}, keystore.Secret{}, 0, s.refuse(ctx, o, keyRefusal(domain.VerbCreate, asked, n), err)
	}
	m.may = func() error { return s.mayCreate(o, asked) }
	f, err := s.makeKey(ctx, o, m)
	if err != nil {
		return domain.Key{}, keystore.Secret{}, 0, s.refuse(ctx, o, keyRefusal(domain.VerbCreate, asked, n), err)
	}
	return f.state, m.secret, f.position, nil
}

// kind returns the kind of key that is asked for.
func (n NewKey) kind() (domain.KeyKind, error) {
	kind := domain.KindUser
	if _, ok := domain.ServiceIDOf(n.IAMID); ok {
		kind = domain.KindServiceID
	}
	switch {
	case n.Type == "" || n.Type == kind:
		return kind, nil
	case n.Type == domain.KindClassic && kind == domain.KindUser, n.Type == domain.KindServiceCredential && kind == domain.KindServiceID:
		return n.Type, nil
	}
	return "", domain.Errorf(domain.Invalid, "is no kind of key that this identity can have").WithField("type").WithMessageCode("invalid_type")
}

// keyMaking is a key on its way into the log.
type keyMaking struct {
	cmd    domain.CreateKey
	secret keystore.Secret
	chosen bool         // The value is the caller's choice.
	may    func() error // Says whether it still may be made.
}

// newKey returns what is to be made of n: well formed, whoever asks for it.
func (s *Commands) newKey(o Order, kind domain.KeyKind, n NewKey) (keyMaking, error) {
	m := keyMaking{secret: n.Value, chosen: !n.Value.Empty()}
	var err error
	if m.chosen {
		err = checkChosen(n)
	} else {
		m.secret, err = keystore.NewKeyValue(s.cfg.Random)
	}
	if err != nil {
		return m, fmt.Errorf("key value: %w", err)
	}
	id, err := s.newUUID()
	if err != nil {
		return m, err
	}
	m.cmd = domain.CreateKey{
		ID: domain.KeyID("ApiKey-" + id), Account: n.Account, IAMID: n.IAMID, Kind: kind, Name: n.Name, Description: n.Description,
		ExpiresAt: n.ExpiresAt, ActionOnLeak: n.ActionOnLeak, SupportSessions: n.SupportSessions,
		Locked: n.Locked, Disabled: n.Disabled, SecretHash: s.cfg.Store.FingerprintSecret(m.secret), StoreValue: n.StoreValue,
		By: o.Caller.Initiator, At: s.cfg.Now(),
	}
	_, err = domain.Key{}.Decide(m.cmd)
	return m, err //nolint:wrapcheck // The domain's words are the answer.
}

// checkChosen refuses a value of the caller's own that cannot be one, or that stands where
// everybody can read it.
func checkChosen(n NewKey) error {
	value := n.Value.Reveal()
	if err := domain.CheckChosenValue(value); err != nil {
		return err //nolint:wrapcheck // The domain's words are the answer.
	}
	for _, f := range []struct{ field, text string }{{"name", n.Name}, {"description", n.Description}} {
		if strings.Contains(f.text, value) {
			return domain.Errorf(domain.Invalid, "holds the key's value").WithField(f.field).WithMessageCode("holds_secret")
		}
	}
	return nil
}

// makeKey is the saga of a creation: see slots.go.
func (s *Commands) makeKey(ctx context.Context, o Order, m keyMaking) (folded[domain.Key], error) {
	k := keySlot{account: m.cmd.Account, iam: m.cmd.IAMID, kind: m.cmd.Kind, id: m.cmd.ID}
	valueHash := ""
	if m.chosen {
		valueHash = m.cmd.SecretHash
		if err := s.valueTaken(ctx, k, valueHash); err != nil {
			return folded[domain.Key]{}, err
		}
	}
	if err := s.takeSlot(ctx, o, k, m.cmd.Predecessor, valueHash); err != nil {
		return folded[domain.Key]{}, err
	}
	f, err := s.fillSlot(ctx, o, k, m)
	if err != nil && !doubtful(err) {
		// It was certainly not made: what was kept for it is given back now, not after the
		// grace. What fails of that is left to whoever settles next.
		_, _ = s.settle(ctx, k, domain.KeySlot{KeyID: k.id, Kind: k.kind, ValueHash: valueHash})
	}
	return f, err
}

// fillSlot makes the key for which a slot is taken.
func (s *Commands) fillSlot(ctx context.Context, o Order, k keySlot, m keyMaking) (folded[domain.Key], error) {
	if m.chosen {
		if err := s.reserveValue(ctx, o, k, m.cmd.SecretHash); err != nil {
			return folded[domain.Key]{}, err
		}
	}
	if m.cmd.StoreValue || k.kind == domain.KindClassic {
		if err := s.cfg.Store.KeepValue(string(k.id), m.secret); err != nil {
			return folded[domain.Key]{}, fmt.Errorf("keep the value: %w", err)
		}
	}
	return transact(ctx, s, s.keys, o, domain.KeyStream(k.id), true, func(key domain.Key) (decision, error) {
		if err := m.may(); err != nil {
			return decision{}, err
		}
		return decideKey(key, m.cmd, m.cmd.At)
	})
}

// mayCreate checks the account, the rights and the identity that the key would act as.
func (s *Commands) mayCreate(o Order, asked domain.KeyState) error {
	if err := s.authorizeKey(o, domain.VerbCreate, asked); err != nil {
		return err
	}
	id, ok := domain.ServiceIDOf(asked.IAMID)
	if !ok {
		return nil
	}
	if svc, known := s.cfg.Directory.ServiceID(id); !known || svc.Deleted || svc.Account != asked.Account {
		return domain.Errorf(domain.NotFound, "no such service ID").WithField("iam_id").WithMessageCode("serviceid_not_found")
	}
	return nil
}

// ChangeKey carries out a command about an existing key and returns the key after it,
// without history. A refusal is recorded before ChangeKey returns it. request is what was asked, for
// that record: without secrets.
func (s *Commands) ChangeKey(ctx context.Context, o Order, ref KeyRef, cmd domain.KeyCommand, request any) (domain.Key, uint64, error) {
	target := domain.KeyState{ID: ref.ID, Account: o.Caller.Initiator.Account}
	stream, err := s.resolve(ctx, o, ref)
	if err != nil {
		return domain.Key{}, 0, s.refuse(ctx, o, keyRefusal(cmd.Verb(), target, request), err)
	}
	f, err := transact(ctx, s, s.keys, o, stream, false, func(key domain.Key) (decision, error) {
		if err := visible(o, ref, key); err != nil {
			return decision{}, err
		}
		target = key.State()
		if err := s.authorizeKey(o, cmd.Verb(), target); err != nil {
			return decision{}, err
		}
		return decideKey(key, cmd, s.cfg.Now())
	})
	if err != nil {
		return domain.Key{}, 0, s.refuse(ctx, o, keyRefusal(cmd.Verb(), target, request), err)
	}
	if f.state.State().Deleted {
		s.ended(ctx, o, f.state.State())
	}
	return f.state, f.position, nil
}

func decideKey(key domain.Key, cmd domain.KeyCommand, now time.Time) (decision, error) {
	events, err := key.Decide(cmd)
	if err != nil {
		return decision{}, err //nolint:wrapcheck // The domain's words are the answer.
	}
	d := decision{account: key.State().Account, events: events, at: key.NextEffective(now)}
	if len(events) > 0 {
		if e, ok := events[0].(domain.KeyEvent); ok {
			d.account = e.State().Account
			if e.Type() != domain.TypeKeyValueRead { // A read modifies nothing.
				d.at = e.State().ModifiedAt
			}
		}
	}
	return d, nil
}

// ReadKey returns the fold of a key's stream, with its history: exact, with this node's
// and every other node's writes in it. That it was refused is recorded.
func (s *Commands) ReadKey(ctx context.Context, o Order, ref KeyRef) (domain.Key, uint64, error) {
	return s.readKey(ctx, o, ref, func(stream string) (domain.Key, uint64, error) {
		history, err := readAll(ctx, s.cfg.Log, stream)
		return domain.FoldKey(history), lastPosition(history), err
	})
}

// ReadKeyState is [Commands.ReadKey] for those who need no history: of what this node
// knows of it nothing is read again.
func (s *Commands) ReadKeyState(ctx context.Context, o Order, ref KeyRef) (domain.Key, uint64, error) {
	return s.readKey(ctx, o, ref, func(stream string) (domain.Key, uint64, error) {
		f, err := foldNow(ctx, s.cfg.Log, s.keys, stream)
		return f.state, f.position, err
	})
}

func (s *Commands) readKey(ctx context.Context, o Order, ref KeyRef, read func(stream string) (domain.Key, uint64, error)) (domain.Key, uint64, error) {
	stream, err := s.resolve(ctx, o, ref)
	if err != nil {
		return domain.Key{}, 0, err
	}
	key, position, err := read(stream)
	if err != nil {
		return domain.Key{}, 0, err
	}
	if err := visible(o, ref, key); err != nil {
		return domain.Key{}, 0, err
	}
	state := key.State()
	if err := s.authorizeKey(o, domain.VerbRead, state); err != nil {
		return domain.Key{}, 0, s.refuseRead(ctx, o, keyRefusal(domain.VerbRead, state, nil), err)
	}
	return key, position, nil
}

// authorizeKey says whether the caller may do verb to key.
func (s *Commands) authorizeKey(o Order, verb domain.Verb, key domain.KeyState) error {
	account, _ := s.cfg.Directory.Account(key.Account)
	return domain.AuthorizeKeyIn(o.Caller.Initiator, o.Caller.Standing(key.Account), verb, account, key) //nolint:wrapcheck // The domain's words are the answer.
}

// RevealKey returns a key that is kept to be read again, with its value. That it was handed
// out is durable before RevealKey returns it.
func (s *Commands) RevealKey(ctx context.Context, o Order, ref KeyRef) (domain.Key, keystore.Secret, uint64, error) {
	cmd := domain.RevealKey{By: o.Caller.Initiator, At: s.cfg.Now()}
	key, position, err := s.ChangeKey(ctx, o, ref, cmd, nil)
	if err != nil {
		return key, keystore.Secret{}, 0, err
	}
	value, err := s.cfg.Store.KeptValue(string(key.State().ID))
	if errors.Is(err, keystore.ErrNoValue) {
		err = domain.Errorf(domain.Unavailable, "the key store of this node does not hold the value").WithMessageCode("value_not_here")
	}
	return key, value, position, err //nolint:wrapcheck // The key store says what it is.
}

// MayReveal reports whether the value of key can be read again by the caller.
func (s *Commands) MayReveal(o Order, key domain.KeyState) bool {
	return key.ValueStored && !key.Deleted && s.authorizeKey(o, domain.VerbReveal, key) == nil
}

// visible hides keys that do not exist, and those of accounts in which the caller is
// nobody: the two look the same.
func visible(o Order, ref KeyRef, key domain.Key) error {
	s := key.State()
	known := o.Caller.Initiator.IsSystem() || o.Caller.Standing(s.Account).Known()
	if !key.Exists() || s.ID != ref.ID || !known || (ref.Account != "" && ref.Account != s.Account) {
		return domain.Errorf(domain.NotFound, "no such API key").WithMessageCode("key_not_found")
	}
	return nil
}

// resolve returns the stream of the key that ref names. A key made here has one; an
// external key has one in every account that knows it.
func (s *Commands) resolve(ctx context.Context, o Order, ref KeyRef) (string, error) {
	if !domain.ValidID(string(ref.ID)) || (ref.Account != "" && !domain.ValidID(string(ref.Account))) {
		return "", domain.Errorf(domain.NotFound, "no such API key").WithMessageCode("key_not_found")
	}
	own := domain.KeyStream(ref.ID)
	if _, ok := s.cfg.Directory.Key(ref.ID); ok {
		return own, nil
	}
	if _, ok, err := s.cfg.Log.Last(ctx, own); err != nil {
		return "", logError("read "+own, err)
	} else if ok {
		return own, nil
	}
	if ref.Account != "" {
		return domain.ExternalKeyStream(ref.Account, ref.ID), nil
	}
	accounts := slices.DeleteFunc(slices.Clone(s.cfg.Directory.ExternalAccounts(ref.ID)), func(a domain.AccountID) bool {
		return !o.Caller.Standing(a).Known()
	})
	switch len(accounts) {
	case 0:
		return own, nil
	case 1:
		return domain.ExternalKeyStream(accounts[0], ref.ID), nil
	}
	return "", domain.Errorf(domain.Invalid, "is required: %d of your accounts have a key with this id", len(accounts)).
		WithField("account_id").WithMessageCode("ambiguous_key")
}

// newUUID returns a random UUID (version 4).
func (s *Commands) newUUID() (string, error) {
	var id domain.EventID
	if _, err := io.ReadFull(s.cfg.Random, id[:]); err != nil {
		return "", fmt.Errorf("read random bytes: %w", err)
	}
	id[6] = id[6]&0x0f | 0x40
	id[8] = id[8]&0x3f | 0x80
	return id.String(), nil
}
