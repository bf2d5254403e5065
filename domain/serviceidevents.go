package domain

// ServiceIDCreated records a new service ID.
type ServiceIDCreated struct {
	ID          string    `json:"id"` // "ServiceId-<uuid>"
	IAMID       IAMID     `json:"iam_id"`
	Account     AccountID `json:"account_id"`
	Name        string    `json:"name"`
	Description string    `json:"description,omitempty"`
	Instances   []string  `json:"unique_instance_crns,omitempty"`
	Locked      bool      `json:"locked,omitempty"`
	// Credential says that a key was to be made with it, in the same call.
	Credential bool `json:"credential,omitempty"`
}

// ServiceIDUpdated records changed fields, with all of them as they are from now on.
type ServiceIDUpdated struct {
	ID          string    `json:"id"`
	IAMID       IAMID     `json:"iam_id"`
	Account     AccountID `json:"account_id"`
	Name        string    `json:"name"`
	Description string    `json:"description,omitempty"`
	Instances   []string  `json:"unique_instance_crns,omitempty"`
	Changes     []Change  `json:"changes"`
}

// serviceIDRef is what an event says of a service ID that it does not change otherwise.
type serviceIDRef struct {
	ID      string    `json:"id"`
	IAMID   IAMID     `json:"iam_id"`
	Account AccountID `json:"account_id"`
	Name    string    `json:"name"`
}

// ServiceIDLocked records that a service ID refuses changes from now on.
type ServiceIDLocked struct {
	ID      string    `json:"id"`
	IAMID   IAMID     `json:"iam_id"`
	Account AccountID `json:"account_id"`
	Name    string    `json:"name"`
}

// ServiceIDUnlocked records that a service ID may be changed again.
type ServiceIDUnlocked struct {
	ID      string    `json:"id"`
	IAMID   IAMID     `json:"iam_id"`
	Account AccountID `json:"account_id"`
	Name    string    `json:"name"`
}

// ServiceIDDeleted records the end of a service ID; its keys are invalid from then on.
type ServiceIDDeleted struct {
	ID      string    `json:"id"`
	IAMID   IAMID     `json:"iam_id"`
	Account AccountID `json:"account_id"`
	Name    string    `json:"name"`
}

// Stored names of the events about service IDs.
const (
	TypeServiceIDCreated  = "serviceid.created.v1"
	TypeServiceIDUpdated  = "serviceid.updated.v1"
	TypeServiceIDLocked   = "serviceid.locked.v1"
	TypeServiceIDUnlocked = "serviceid.unlocked.v1"
	TypeServiceIDDeleted  = "serviceid.deleted.v1"
)

// Type implements [Event].
func (ServiceIDCreated) Type() string { return TypeServiceIDCreated }

// Type implements [Event].
func (ServiceIDUpdated) Type() string { return TypeServiceIDUpdated }

// Type implements [Event].
func (ServiceIDLocked) Type() string { return TypeServiceIDLocked }

// Type implements [Event].
func (ServiceIDUnlocked) Type() string { return TypeServiceIDUnlocked }

// Type implements [Event].
func (ServiceIDDeleted) Type() string { return TypeServiceIDDeleted }

func (ServiceIDCreated) isEvent()  {}
func (ServiceIDUpdated) isEvent()  {}
func (ServiceIDLocked) isEvent()   {}
func (ServiceIDUnlocked) isEvent() {}
func (ServiceIDDeleted) isEvent()  {}

func (ServiceIDCreated) isServiceIDEvent()  {}
func (ServiceIDUpdated) isServiceIDEvent()  {}
func (ServiceIDLocked) isServiceIDEvent()   {}
func (ServiceIDUnlocked) isServiceIDEvent() {}
func (ServiceIDDeleted) isServiceIDEvent()  {}
