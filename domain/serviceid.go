package domain

import (
	"slices"
	"strings"
	"time"
)

// serviceInstancesMax bounds the services that a service ID says it is connected to.
const serviceInstancesMax = 100

// ServiceIDState is all that is known of a service ID.
type ServiceIDState struct {
	ID          string
	IAMID       IAMID
	Account     AccountID
	Name        string
	Description string
	// Instances are the CRNs of the services that it is connected to.
	Instances []string
	// Version counts the changes; it is the entity tag's source.
	Version    uint64
	Locked     bool
	CreatedAt  time.Time
	CreatedBy  IAMID
	ModifiedAt time.Time
	Deleted    bool
	DeletedAt  time.Time
}

// EntityTag returns the tag of this version of the service ID, for If-Match.
func (s ServiceIDState) EntityTag() string {
	return KeyState{ID: KeyID(s.ID), Version: s.Version}.EntityTag()
}

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
	s.state.Version++
	s.state.ModifiedAt, s.last = rec.Meta.EffectiveAt, rec.Meta.EffectiveAt
	switch e := about.(type) {
	case ServiceIDCreated:
		s.state = ServiceIDState{
			ID: e.ID, IAMID: e.IAMID, Account: e.Account, Name: e.Name, Description: e.Description, Instances: e.Instances,
			Version: 1, Locked: e.Locked, CreatedAt: rec.Meta.EffectiveAt, CreatedBy: rec.Meta.Initiator.IAMID, ModifiedAt: rec.Meta.EffectiveAt,
		}
	case ServiceIDUpdated:
		s.state.Name, s.state.Description, s.state.Instances = e.Name, e.Description, e.Instances
	case ServiceIDLocked:
		s.state.Locked = true
	case ServiceIDUnlocked:
		s.state.Locked = false
	case ServiceIDDeleted:
		s.state.Deleted, s.state.DeletedAt = true, rec.Meta.EffectiveAt
	}
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
	// Verb returns what the command would do to the service ID.
	Verb() Verb
	isServiceIDCommand()
}

// CreateServiceID makes a new service ID.
type CreateServiceID struct {
	ID          string
	Account     AccountID
	Name        string
	Description string
	Instances   []string
	Locked      bool
	// Credential says that a key is made with it: the two are a service credential.
	Credential bool
}

// UpdateServiceID changes the fields that are not nil. An empty description clears it; an
// empty name is refused.
type UpdateServiceID struct {
	// IfMatch is the entity tag that the caller has read, or "*". Required.
	IfMatch     string
	Name        *string
	Description *string
	Instances   *[]string
}

// LockServiceID makes a service ID refuse update and delete. Its keys still work.
type LockServiceID struct{}

// UnlockServiceID lets a locked service ID be changed again.
type UnlockServiceID struct{}

// DeleteServiceID ends a service ID, and with it the validity of its keys.
type DeleteServiceID struct {
	System bool // It is keytrail's own act: a lock does not stop it.
}

// Verb implements [ServiceIDCommand].
func (CreateServiceID) Verb() Verb { return VerbCreate }

// Verb implements [ServiceIDCommand].
func (UpdateServiceID) Verb() Verb { return VerbUpdate }

// Verb implements [ServiceIDCommand].
func (LockServiceID) Verb() Verb { return VerbLock }

// Verb implements [ServiceIDCommand].
func (UnlockServiceID) Verb() Verb { return VerbUnlock }

// Verb implements [ServiceIDCommand].
func (DeleteServiceID) Verb() Verb { return VerbDelete }

func (CreateServiceID) isServiceIDCommand() {}
func (UpdateServiceID) isServiceIDCommand() {}
func (LockServiceID) isServiceIDCommand()   {}
func (UnlockServiceID) isServiceIDCommand() {}
func (DeleteServiceID) isServiceIDCommand() {}

// Decide returns the facts that cmd adds to the history of s. No facts and a nil
// error mean that cmd repeats what is already so.
func (s ServiceID) Decide(cmd ServiceIDCommand) ([]Event, error) {
	switch c := cmd.(type) {
	case CreateServiceID:
		return s.create(c)
	case UpdateServiceID:
		return s.update(c)
	case LockServiceID:
		return s.flag(s.state.Locked, ServiceIDLocked(s.ref()))
	case UnlockServiceID:
		return s.flag(!s.state.Locked, ServiceIDUnlocked(s.ref()))
	case DeleteServiceID:
		return s.delete(c)
	default:
		return nil, Errorf(Internal, "unexpected command %T", cmd)
	}
}

func (s ServiceID) create(c CreateServiceID) ([]Event, error) {
	if err := checkName(c.Name); err != nil {
		return nil, err
	}
	if err := checkDescription(c.Description); err != nil {
		return nil, err
	}
	if err := checkInstances(c.Instances); err != nil {
		return nil, err
	}
	if s.Exists() {
		return nil, Errorf(Conflict, "service ID %s already exists", c.ID).WithMessageCode("serviceid_exists")
	}
	return []Event{ServiceIDCreated{
		ID: c.ID, IAMID: ServiceIAMID(c.ID), Account: c.Account, Name: c.Name, Description: c.Description,
		Instances: c.Instances, Locked: c.Locked, Credential: c.Credential,
	}}, nil
}

// update checks the input first (400), then the state: a locked service ID is refused
// before the tag is looked at, since no tag would help.
func (s ServiceID) update(c UpdateServiceID) ([]Event, error) {
	e := ServiceIDUpdated{
		ID: s.state.ID, IAMID: s.state.IAMID, Account: s.state.Account,
		Name: s.state.Name, Description: s.state.Description, Instances: s.state.Instances,
	}
	if c.Name != nil {
		e.Name = *c.Name
		if err := checkName(e.Name); err != nil {
			return nil, err
		}
	}
	if c.Description != nil {
		e.Description = *c.Description
		if err := checkDescription(e.Description); err != nil {
			return nil, err
		}
	}
	if c.Instances != nil {
		e.Instances = *c.Instances
		if err := checkInstances(e.Instances); err != nil {
			return nil, err
		}
	}
	if c.IfMatch == "" {
		return nil, errNoTag()
	}
	switch {
	case !s.Exists() || s.state.Deleted:
		return nil, errNoServiceID()
	case s.state.Locked:
		return nil, errServiceIDLocked(s.state)
	case !matchesTag(c.IfMatch, s.state.EntityTag()):
		return nil, errStaleTag("service ID")
	}
	for _, f := range []Change{
		{"name", s.state.Name, e.Name},
		{"description", s.state.Description, e.Description},
		{"unique_instance_crns", strings.Join(s.state.Instances, ","), strings.Join(e.Instances, ",")},
	} {
		if f.Old != f.New {
			e.Changes = append(e.Changes, f)
		}
	}
	if len(e.Changes) == 0 {
		return nil, nil
	}
	return []Event{e}, nil
}

// flag records fact about a living service ID, unless it is so already.
func (s ServiceID) flag(already bool, fact Event) ([]Event, error) {
	switch {
	case !s.Exists() || s.state.Deleted:
		return nil, errNoServiceID()
	case already:
		return nil, nil
	}
	return []Event{fact}, nil
}

func (s ServiceID) delete(c DeleteServiceID) ([]Event, error) {
	switch {
	case !s.Exists():
		return nil, errNoServiceID()
	case s.state.Deleted:
		return nil, nil
	case s.state.Locked && !c.System:
		return nil, errServiceIDLocked(s.state)
	}
	return []Event{ServiceIDDeleted(s.ref())}, nil
}

func (s ServiceID) ref() serviceIDRef {
	return serviceIDRef{ID: s.state.ID, IAMID: s.state.IAMID, Account: s.state.Account, Name: s.state.Name}
}

func checkInstances(crns []string) error {
	if len(crns) > serviceInstancesMax {
		return Errorf(Invalid, "names more than %d services", serviceInstancesMax).WithField("unique_instance_crns").WithMessageCode("too_long")
	}
	for _, c := range crns {
		if err := checkText("unique_instance_crns", c, KeyNameBytesMax); err != nil {
			return err
		}
	}
	if slices.Contains(crns, "") {
		return Errorf(Invalid, "must not hold an empty CRN").WithField("unique_instance_crns").WithMessageCode("invalid_crn")
	}
	return nil
}

func errNoServiceID() *Error {
	return Errorf(NotFound, "no such service ID").WithMessageCode("serviceid_not_found")
}

func errServiceIDLocked(s ServiceIDState) *Error {
	return Errorf(Conflict, "service ID %s is locked; unlock it first", s.ID).WithMessageCode(MessageCodeLocked)
}
