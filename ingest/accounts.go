package ingest

import (
	"context"
	"encoding/hex"
	"net/http"

	"github.com/gin-gonic/gin"

	"example.com/keytrail/domain"
	"example.com/keytrail/internal/auth"
	"example.com/keytrail/internal/httpx"
)

// CreateAccount makes an account. Whoever may assign roles in the operator's own
// account may; the system (importers, first start) always.
func (s *Commands) CreateAccount(ctx context.Context, o Order, cmd domain.CreateAccount) (domain.Account, uint64, error) {
	refusal := domain.CommandRefused{
		Action: domain.ActionAccountCreate, TargetName: cmd.Name,
		Request: requestOf(map[string]string{"name": cmd.Name, "owner_iam_id": string(cmd.Owner)}),
	}
	return s.account(ctx, o, cmd.Account, cmd, refusal)
}

// ChangeAccount carries out a command about an existing account and returns the account
// after it. [domain.AuthorizeAccountChange] says who may. A refusal is recorded before
// ChangeAccount returns it.
func (s *Commands) ChangeAccount(ctx context.Context, o Order, id domain.AccountID, cmd domain.AccountCommand) (domain.Account, uint64, error) {
	if c, ok := cmd.(domain.CreateAccount); ok {
		return s.CreateAccount(ctx, o, c)
	}
	return s.account(ctx, o, id, cmd, accountRefusal(id, cmd))
}

func (s *Commands) account(ctx context.Context, o Order, id domain.AccountID, cmd domain.AccountCommand, refusal domain.CommandRefused) (domain.Account, uint64, error) {
	if !domain.ValidID(string(id)) {
		return domain.Account{}, 0, domain.Errorf(domain.Invalid, "is not an account id").WithField("account_id").WithMessageCode("invalid_id")
	}
	in := o.Caller.Standing(id)
	if _, creates := cmd.(domain.CreateAccount); creates {
		in = o.Caller.Standing(s.cfg.Directory.Home())
	} else if !in.Known() && !o.Caller.Initiator.IsSystem() {
		refusal.Account = o.Caller.Initiator.Account // A stranger writes nothing into this account's records.
	}
	f, err := transact(ctx, s, s.accounts, o, domain.AccountStream(id), false, func(account domain.Account) (decision, error) {
		if err := domain.AuthorizeAccountChange(o.Caller.Initiator, in, account, cmd); err != nil {
			return decision{}, err //nolint:wrapcheck // The domain's words are the answer.
		}
		if err := s.namesService(id, cmd); err != nil {
			return decision{}, err
		}
		events, err := account.Decide(cmd)
		return decision{account: id, events: events, at: account.NextEffective(s.cfg.Now())}, err //nolint:wrapcheck // The domain's words.
	})
	if err != nil {
		return domain.Account{}, 0, s.refuse(ctx, o, refusal, err)
	}
	return f.state, f.position, nil
}

// namesService refuses a command about a service ID that is not the account's.
func (s *Commands) namesService(account domain.AccountID, cmd domain.AccountCommand) error {
	switch c := cmd.(type) { //nolint:gochecksumtype // No other is about service IDs.
	case domain.SetRoles:
		return s.ownsService(account, c.IAMID)
	case domain.SetGrants:
		return s.ownsService(account, c.IAMID)
	}
	return nil
}

// accountRefusal describes a refused command about an account.
func accountRefusal(id domain.AccountID, cmd domain.AccountCommand) domain.CommandRefused {
	e := domain.CommandRefused{Action: domain.ActionMemberUpdate, Account: id}
	switch c := cmd.(type) {
	case domain.MemberCommand:
		memberRefusal(&e, c)
	case domain.SetAccountLimits:
		e.Action, e.TargetName, e.Request = domain.ActionLimitsUpdate, string(id), requestOf(c.Limits)
	case domain.UpdateAccountSettings:
		e.Action, e.TargetName, e.Request = domain.ActionSettingsUpdate, string(id), requestOf(c)
	case domain.UpdateAccessSettings:
		e.Action, e.TargetName, e.Request = domain.ActionAccessSettingsUpdate, string(id), requestOf(c)
	case domain.SetSecurityContacts:
		e.Action, e.TargetName = domain.ActionContactsUpdate, string(id)
	case domain.ConfirmSecurityContacts:
		e.Action, e.TargetName = domain.ActionContactsConfirm, string(id)
	case domain.CreateAccount:
		e.Action, e.TargetName = domain.ActionAccountCreate, c.Name
	}
	return e
}

func memberRefusal(e *domain.CommandRefused, cmd domain.MemberCommand) {
	var target domain.IAMID
	switch c := cmd.(type) {
	case domain.AddMember:
		e.Action, target, e.TargetName = domain.ActionMemberAdd, c.IAMID, c.Name
	case domain.AddMembers:
		e.Action = domain.ActionMemberAdd
		if len(c.Members) > 0 {
			target, e.TargetName = c.Members[0].IAMID, c.Members[0].Name
		}
	case domain.UpdateMember:
		target = c.IAMID
	case domain.RemoveMember:
		e.Action, target = domain.ActionMemberRemove, c.IAMID
	case domain.SetRoles:
		target, e.Request = c.IAMID, requestOf(map[string]any{"roles": c.Roles})
	case domain.SetParent:
		target, e.Request = c.IAMID, requestOf(map[string]any{"parent": c.Parent})
	case domain.SetFunctional:
		target, e.Request = c.IAMID, requestOf(map[string]any{"functional": c.Functional})
	case domain.SetGrants:
		e.Action, target, e.Request = domain.ActionGrantsUpdate, c.IAMID, requestOf(map[string]any{"grants": c.Grants})
	case domain.SetMemberSettings:
		target, e.Request = c.IAMID, requestOf(map[string]any{"allowed_ip_addresses": c.AllowedAddresses})
	}
	if domain.ValidID(string(target)) {
		e.Target = string(target)
	}
}

// newAccountID returns a random account id: 32 hex digits, as IBM's are.
func (s *Commands) newAccountID() (domain.AccountID, error) {
	id, err := s.newUUID()
	if err != nil {
		return "", err
	}
	parsed, err := domain.ParseEventID(id)
	return domain.AccountID(hex.EncodeToString(parsed[:])), err //nolint:wrapcheck // It is our own UUID.
}

type accountsView struct {
	Accounts []accountView `json:"accounts"`
}

// accountView is one account, as the caller sees it.
type accountView struct {
	ID        domain.AccountID `json:"id"`
	Name      string           `json:"name"`
	Owner     domain.IAMID     `json:"owner_iam_id"`
	Source    string           `json:"source,omitempty"`
	CreatedAt string           `json:"created_at"`
	Roles     []domain.Role    `json:"roles,omitempty"` // The caller's own.
	IsOwner   bool             `json:"is_owner"`
	KeyViews  []domain.View    `json:"key_views"` // The filters of a list of keys that are open to the caller.
}

func accountViewOf(a domain.Account, in domain.Standing) accountView {
	return accountView{
		ID: a.ID(), Name: a.Name(), Owner: a.Owner(), Source: a.Source(), CreatedAt: showTime(a.CreatedAt()),
		Roles: in.Roles, IsOwner: in.Owner, KeyViews: in.KeyViews(),
	}
}

type createAccountBody struct {
	Name  string       `json:"name"`
	Owner domain.IAMID `json:"owner_iam_id"`
}

// createAccount answers 201; the owner is the caller where none is named.
func (h *KeyAPI) createAccount(c *gin.Context) {
	var b createAccountBody
	if err := httpx.BindJSON(c, &b); err != nil {
		httpx.Fail(c, err)
		return
	}
	o := orderOf(c)
	cmd := domain.CreateAccount{Name: b.Name, Owner: b.Owner}
	if cmd.Owner == "" {
		cmd.Owner, cmd.OwnerName = o.Caller.Initiator.IAMID, o.Caller.Initiator.Name
	}
	id, err := h.Commands.newAccountID()
	if err != nil {
		httpx.Fail(c, err)
		return
	}
	cmd.Account = id
	account, pos, err := h.Commands.CreateAccount(c.Request.Context(), o, cmd)
	if err != nil {
		httpx.Fail(c, err)
		return
	}
	httpx.Position(c, pos)
	c.JSON(http.StatusCreated, accountViewOf(account, o.Caller.Standing(id)))
}

// listAccounts answers the accounts in which the caller is anything.
func (h *KeyAPI) listAccounts(c *gin.Context) {
	caller := auth.CallerOf(c)
	out := []accountView{}
	for _, id := range caller.Memberships() {
		if a, ok := h.Directory.Account(id); ok && caller.Standing(id).Known() {
			out = append(out, accountViewOf(a, caller.Standing(id)))
		}
	}
	httpx.Position(c, h.Directory.Reached())
	c.JSON(http.StatusOK, accountsView{Accounts: out})
}

func (h *KeyAPI) getAccount(c *gin.Context) {
	caller, id := auth.CallerOf(c), domain.AccountID(c.Param("id"))
	a, ok := h.Directory.Account(id)
	if !ok || !caller.Standing(id).Known() {
		httpx.Fail(c, errNoAccount())
		return
	}
	httpx.Position(c, h.Directory.Reached())
	c.JSON(http.StatusOK, accountViewOf(a, caller.Standing(id)))
}
