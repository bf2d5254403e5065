package domain

// Role is a right that an identity holds in one account (api.md, "Who may do what").
type Role string

// The roles.
const (
	RoleAdministrator Role = "Administrator"
	RoleOperator      Role = "Operator"
	RoleEditor        Role = "Editor"
	RoleViewer        Role = "Viewer"
	RoleVerifier      Role = "Verifier"
	RoleAuditor       Role = "Auditor"
	RoleIngester      Role = "Ingester"
	RoleResponder     Role = "Responder"
	// RoleUserKeyCreator and RoleServiceIDCreator lift what an account has [Restricted].
	RoleUserKeyCreator   Role = "User API key creator"
	RoleServiceIDCreator Role = "Service ID creator"
)

// AccountCreated records a new account and its owner, who holds every role in it.
type AccountCreated struct {
	Account    AccountID `json:"account_id"`
	Name       string    `json:"name"`
	Owner      IAMID     `json:"owner_iam_id"`
	OwnerName  string    `json:"owner_name,omitempty"`
	OwnerEmail string    `json:"owner_email,omitempty"`
	// Source is set for an account of another system, known from its logs ("aws").
	Source string `json:"source,omitempty"`
}

// MemberAdded records that a user belongs to an account, with these roles.
type MemberAdded struct {
	Account   AccountID `json:"account_id"`
	IAMID     IAMID     `json:"iam_id"`
	Name      string    `json:"name"`
	Email     string    `json:"email,omitempty"`
	Roles     []Role    `json:"roles,omitempty"`
	Firstname string    `json:"firstname,omitempty"`
	Lastname  string    `json:"lastname,omitempty"`
	// Parent stands above the user in the classic hierarchy. Events from before it was kept
	// have none: then it is the owner.
	Parent     IAMID `json:"parent_iam_id,omitempty"`
	Functional bool  `json:"functional,omitempty"`
}

// RolesSet records all the roles that an identity (user or service ID) holds in an
// account from now on.
type RolesSet struct {
	Account AccountID `json:"account_id"`
	IAMID   IAMID     `json:"iam_id"`
	Old     []Role    `json:"old,omitempty"`
	New     []Role    `json:"new,omitempty"`
}

// Stored names of the account events.
const (
	TypeAccountCreated = "account.created.v1"
	TypeMemberAdded    = "account.member-added.v1"
	TypeRolesSet       = "account.roles-set.v1"
)

// Type implements [Event].
func (AccountCreated) Type() string { return TypeAccountCreated }

// Type implements [Event].
func (MemberAdded) Type() string { return TypeMemberAdded }

// Type implements [Event].
func (RolesSet) Type() string { return TypeRolesSet }

func (AccountCreated) isEvent() {}
func (MemberAdded) isEvent()    {}
func (RolesSet) isEvent()       {}

func (AccountCreated) isAccountEvent() {}
func (MemberAdded) isAccountEvent()    {}
func (RolesSet) isAccountEvent()       {}

func (MemberAdded) isMemberEvent() {}
func (RolesSet) isMemberEvent()    {}
