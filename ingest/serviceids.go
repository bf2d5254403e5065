package ingest

import (
	"context"
	"errors"
	"fmt"

	"example.com/keytrail/domain"
	"example.com/keytrail/internal/keystore"
)

// NewServiceID is what a caller asks for when it creates a service ID.
type NewServiceID struct {
	Account     domain.AccountID `json:"account_id,omitempty"` // "" = the account of the caller's credential.
	Name        string           `json:"name"`
	Description string           `json:"description,omitempty"`
	Instances   []string         `json:"unique_instance_crns,omitempty"`
	Locked      bool             `json:"lock,omitempty"`
	// Key is made with it, where it is given: the two are a service credential.
	Key *NewKey `json:"apikey,omitempty"`
}

// MadeServiceID is a new service ID, and its key where one was asked for.
type MadeServiceID struct {
	State    domain.ServiceIDState
	Key      *domain.KeyState
	Secret   keystore.Secret
	Position uint64
}

// CreateServiceID makes a service ID and, where it is asked for, its key: both or none. The
// service ID is made first; where the key cannot be made, it is deleted again.
func (s *Commands) CreateServiceID(ctx context.Context, o Order, n NewServiceID) (MadeServiceID, error) {
	if n.Account == "" {
		n.Account = o.Caller.Initiator.Account
	}
	asked := domain.ServiceIDState{Account: n.Account, Name: n.Name}
	refuse := func(err error) (MadeServiceID, error) {
		return MadeServiceID{}, s.refuse(ctx, o, serviceIDRefusal(domain.VerbCreate, asked, o, n), err)
	}
	uuid, err := s.newUUID()
	if err != nil {
		return MadeServiceID{}, err
	}
	cmd := domain.CreateServiceID{
		ID: "ServiceId-" + uuid, Account: n.Account, Name: n.Name, Description: n.Description, Instances: n.Instances,
		Locked: n.Locked, Credential: n.Key != nil,
	}
	may := func() error {
		return domain.AuthorizeServiceID(o.Caller.Initiator, o.Caller.Standing(n.Account), domain.VerbCreate, asked) //nolint:wrapcheck // The domain's words are the answer.
	}
	if err := may(); err != nil {
		return refuse(err)
	}
	m, err := s.credentialKey(ctx, o, cmd, n.Key)
	if err != nil {
		return refuse(err)
	}
	f, err := transact(ctx, s, s.services, o, domain.ServiceIDStream(cmd.ID), true, func(svc domain.ServiceID) (decision, error) {
		if err := may(); err != nil {
			return decision{}, err
		}
		return s.decideServiceID(svc, n.Account, cmd)
	})
	if err != nil {
		return refuse(err)
	}
	made := MadeServiceID{State: f.state.State(), Secret: m.secret, Position: f.position}
	if n.Key == nil {
		return made, nil
	}
	key, err := s.makeKey(ctx, o, m)
	if err != nil {
		// What fails of this is left to the reconciler: it ends credentials without a key.
		_ = s.endServiceID(ctx, "undo", cmd.ID)
		return refuse(err)
	}
	state := key.state.State()
	made.Key, made.Position = &state, key.position
	return made, nil
}

// credentialKey returns the key that is to be made with a service ID, if one is, and if the
// caller may make it: nothing is written before that is known.
func (s *Commands) credentialKey(ctx context.Context, o Order, svc domain.CreateServiceID, n *NewKey) (keyMaking, error) {
	if n == nil {
		return keyMaking{}, nil
	}
	key := *n
	key.Account, key.IAMID = svc.Account, domain.ServiceIAMID(svc.ID)
	asked := domain.KeyState{Account: key.Account, IAMID: key.IAMID, Kind: domain.KindServiceCredential, Name: key.Name}
	m, err := s.newKey(o, domain.KindServiceCredential, key)
	if e, ok := errors.AsType[*domain.Error](err); ok && e.Field != "" {
		return m, e.WithField("apikey." + e.Field)
	}
	if err != nil {
		return m, err
	}
	m.may = func() error { return s.authorizeKey(o, domain.VerbCreate, asked) }
	if err := m.may(); err != nil {
		return m, err
	}
	if m.chosen {
		err = s.valueTaken(ctx, keySlot{account: key.Account, iam: key.IAMID, kind: asked.Kind, id: m.cmd.ID}, m.cmd.SecretHash)
	}
	return m, err
}

// ChangeServiceID carries out a command about an existing service ID and returns it as it is
// after that. A refusal is recorded before ChangeServiceID returns it. request is what was
// asked, for that record.
func (s *Commands) ChangeServiceID(ctx context.Context, o Order, id string, cmd domain.ServiceIDCommand, request any) (domain.ServiceIDState, uint64, error) {
	target := domain.ServiceIDState{ID: id}
	if !domain.ValidID(id) {
		return target, 0, errNoServiceID()
	}
	f, err := transact(ctx, s, s.services, o, domain.ServiceIDStream(id), false, func(svc domain.ServiceID) (decision, error) {
		in := o.Caller.Standing(svc.State().Account)
		if svc.Exists() && (in.Known() || o.Caller.Initiator.IsSystem()) {
			target = svc.State()
		}
		if err := domain.AuthorizeServiceID(o.Caller.Initiator, in, cmd.Verb(), svc.State()); err != nil {
			return decision{}, err //nolint:wrapcheck // The domain's words are the answer.
		}
		return s.decideServiceID(svc, svc.State().Account, cmd)
	})
	if err != nil {
		return target, 0, s.refuse(ctx, o, serviceIDRefusal(cmd.Verb(), target, o, request), err)
	}
	return f.state.State(), f.position, nil
}

// endServiceID deletes a service ID as keytrail's own act.
func (s *Commands) endServiceID(ctx context.Context, act, id string) error {
	_, _, err := s.ChangeServiceID(ctx, systemOrder(act, id), id, domain.DeleteServiceID{System: true}, nil)
	return err
}

func (s *Commands) decideServiceID(svc domain.ServiceID, account domain.AccountID, cmd domain.ServiceIDCommand) (decision, error) {
	events, err := svc.Decide(cmd)
	return decision{account: account, events: events, at: svc.NextEffective(s.cfg.Now())}, err //nolint:wrapcheck // The domain's words.
}

// serviceIDRefusal describes a refused act on a service ID. request must hold no secret.
func serviceIDRefusal(verb domain.Verb, s domain.ServiceIDState, o Order, request any) domain.CommandRefused {
	e := domain.CommandRefused{
		Action: domain.ServiceIDAction(verb), Account: s.Account, Target: s.ID, TargetName: s.Name, TargetKind: "account-serviceid",
		Request: requestOf(request),
	}
	if !o.Caller.Standing(s.Account).Known() && !o.Caller.Initiator.IsSystem() {
		e.Account = o.Caller.Initiator.Account
	}
	return e
}

func errNoServiceID() error {
	return domain.Errorf(domain.NotFound, "no such service ID").WithMessageCode("serviceid_not_found")
}

// ReadServiceID returns the fold of a service ID's stream, and its history where that is
// asked for. That it was refused is recorded.
func (s *Commands) ReadServiceID(ctx context.Context, o Order, id string, history bool) (domain.ServiceIDState, []domain.Recorded, uint64, error) {
	if !domain.ValidID(id) {
		return domain.ServiceIDState{}, nil, 0, errNoServiceID()
	}
	f, err := foldNow(ctx, s.cfg.Log, s.services, domain.ServiceIDStream(id))
	if err != nil {
		return domain.ServiceIDState{}, nil, 0, err
	}
	state := f.state.State()
	if err := domain.AuthorizeServiceID(o.Caller.Initiator, o.Caller.Standing(state.Account), domain.VerbRead, state); err != nil {
		return domain.ServiceIDState{}, nil, 0, s.refuseRead(ctx, o, serviceIDRefusal(domain.VerbRead, state, o, nil), err)
	}
	if state.ID == "" || state.Deleted {
		return domain.ServiceIDState{}, nil, 0, errNoServiceID()
	}
	if !history {
		return state, nil, f.position, nil
	}
	all, err := readAll(ctx, s.cfg.Log, domain.ServiceIDStream(id))
	if err != nil {
		return domain.ServiceIDState{}, nil, 0, fmt.Errorf("read history: %w", err)
	}
	return state, all, f.position, nil
}

// MayListServiceIDs says whether the caller may list the service IDs of an account. That it
// was refused is recorded.
func (s *Commands) MayListServiceIDs(ctx context.Context, o Order, account domain.AccountID, request any) error {
	state := domain.ServiceIDState{Account: account}
	if err := domain.AuthorizeServiceID(o.Caller.Initiator, o.Caller.Standing(account), domain.VerbList, state); err != nil {
		return s.refuseRead(ctx, o, serviceIDRefusal(domain.VerbList, state, o, request), err)
	}
	return nil
}
