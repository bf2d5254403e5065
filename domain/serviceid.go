package domain

import "time"

// ServiceIDState is all that is known of a service ID.
type ServiceIDState struct {
	ID          string
	IAMID       IAMID
	Account     AccountID
	Name        string
	Description string
	CreatedAt   time.Time
	CreatedBy   IAMID
	Deleted     bool
	DeletedAt   time.Time
}

// EntityTag returns the tag of this version of the service ID, which so far can only
// be created and deleted.
func (s ServiceIDState) EntityTag() string { return KeyState{ID: KeyID(s.ID), Version: 1}.EntityTag() }

// ServiceID is the fold of a service ID's stream. The zero ServiceID has no history.
type ServiceID struct {
	state ServiceIDState
	last  time.Time
}

// FoldServiceID returns the service ID whose whole stream is history, in log order.
func FoldServiceID(history []Recorded) ServiceID {
	var s ServiceID
	for _, rec := range history {
		s = s.Evolve(rec)
	}
	return s
}

// Evolve returns s after rec; events that are not about a service ID change nothing.
func (s ServiceID) Evolve(rec Recorded) ServiceID {
	about, ok := rec.Event.(ServiceIDEvent)
	if !ok {
		return s
	}
	switch e := about.(type) {
	case ServiceIDCreated:
		s.state = ServiceIDState{
			ID: e.ID, IAMID: e.IAMID, Account: e.Account, Name: e.Name, Description: e.Description,
			CreatedAt: rec.Meta.EffectiveAt, CreatedBy: rec.Meta.Initiator.IAMID,
		}
	case ServiceIDDeleted:
		s.state.Deleted, s.state.DeletedAt = true, rec.Meta.EffectiveAt
	}
	s.last = rec.Meta.EffectiveAt
	return s
}

// State returns what is known now, deleted or not.
func (s ServiceID) State() ServiceIDState { return s.state }

// Exists reports whether the service ID was ever created.
func (s ServiceID) Exists() bool { return s.state.ID != "" }

// NextEffective returns the effective time of a fact that is decided now.
func (s ServiceID) NextEffective(now time.Time) time.Time { return NextEffective(now, s.last) }

// ServiceIDCommand is an order about one service ID. The set is closed.
//
//sumtype:decl
type ServiceIDCommand interface {
	isServiceIDCommand()
}

// CreateServiceID makes a new service ID.
type CreateServiceID struct {
	ID          string
	Account     AccountID
	Name        string
	Description string
}

// DeleteServiceID ends a service ID, and with it the validity of its keys.
type DeleteServiceID struct{}

func (CreateServiceID) isServiceIDCommand() {}
func (DeleteServiceID) isServiceIDCommand() {}

// Decide returns the facts that cmd adds to the history of s. No facts and a nil
// error mean that cmd repeats what is already so.
func (s ServiceID) Decide(cmd ServiceIDCommand) ([]Event, error) {
	switch c := cmd.(type) {
	case CreateServiceID:
		if err := checkName(c.Name); err != nil {
			return nil, err
		}
		if err := checkDescription(c.Description); err != nil {
			return nil, err
		}
		if s.Exists() {
			return nil, Errorf(Conflict, "service ID %s already exists", c.ID).WithMessageCode("serviceid_exists")
		}
		return []Event{ServiceIDCreated{
			ID: c.ID, IAMID: ServiceIAMID(c.ID), Account: c.Account, Name: c.Name, Description: c.Description,
		}}, nil
	case DeleteServiceID:
		switch {
		case !s.Exists():
			return nil, errNoServiceID()
		case s.state.Deleted:
			return nil, nil
		}
		return []Event{ServiceIDDeleted{ID: s.state.ID, IAMID: s.state.IAMID, Account: s.state.Account, Name: s.state.Name}}, nil
	default:
		return nil, Errorf(Internal, "unexpected command %T", cmd)
	}
}

func errNoServiceID() *Error {
	return Errorf(NotFound, "no such service ID").WithMessageCode("serviceid_not_found")
}
