package ingest

import (
	"context"

	"example.com/keytrail/domain"
)

// ReadAccount returns an account as the log has it now, with the position of its newest
// event, to whom may lets. That it was refused is recorded as action.
func (s *Commands) ReadAccount(ctx context.Context, o Order, id domain.AccountID, action string, may func(in domain.Standing, a domain.Account) error) (domain.Account, uint64, error) {
	in := o.Caller.Standing(id)
	if !domain.ValidID(string(id)) || !in.Known() && !o.Caller.Initiator.IsSystem() {
		return domain.Account{}, 0, errNoAccount()
	}
	f, err := foldNow(ctx, s.cfg.Log, s.accounts, domain.AccountStream(id))
	if err != nil {
		return domain.Account{}, 0, err
	}
	if err := may(in, f.state); err != nil {
		return domain.Account{}, 0, s.refuseRead(ctx, o, domain.CommandRefused{Action: action, Account: id, TargetName: string(id)}, err)
	}
	return f.state, f.position, nil
}

// maySettings lets those through who may see the settings of an account.
func maySettings(o Order) func(domain.Standing, domain.Account) error {
	return func(in domain.Standing, _ domain.Account) error {
		return domain.AuthorizeAccount(o.Caller.Initiator, in, domain.RightSettings) //nolint:wrapcheck // The domain's words are the answer.
	}
}

// AccountHistory returns what was recorded about an account, in log order.
func (s *Commands) AccountHistory(ctx context.Context, id domain.AccountID) ([]domain.Recorded, error) {
	return readAll(ctx, s.cfg.Log, domain.AccountStream(id))
}

// ownsService refuses identities that are service IDs of no account or of another.
func (s *Commands) ownsService(account domain.AccountID, iam domain.IAMID) error {
	id, ok := domain.ServiceIDOf(iam)
	if !ok {
		return nil
	}
	if svc, known := s.cfg.Directory.ServiceID(id); !known || svc.Deleted || svc.Account != account {
		return errNoServiceID()
	}
	return nil
}

func errNoAccount() error {
	return domain.Errorf(domain.NotFound, "no such account").WithMessageCode("account_not_found")
}

// accountActionOf names what a route about accounts would have done, for callers whom
// nobody knows.
func accountActionOf(route string) string {
	switch route {
	case "PUT /v1/accounts/:id/settings/identity":
		return domain.ActionSettingsUpdate
	case "PUT /v1/accounts/:id/settings/access_management", "PATCH /v1/accounts/:id/settings/access_management":
		return domain.ActionAccessSettingsUpdate
	case "PUT /v1/accounts/:id/security_contacts":
		return domain.ActionContactsUpdate
	case "POST /v1/accounts/:id/security_contacts/confirm":
		return domain.ActionContactsConfirm
	case "POST /v2/accounts/:id/users":
		return domain.ActionMemberAdd
	case "DELETE /v2/accounts/:id/users/:iam_id":
		return domain.ActionMemberRemove
	case "PATCH /v2/accounts/:id/users/:iam_id", "PATCH /v2/accounts/:id/users/:iam_id/settings", "PUT /v2/accounts/:id/users/:iam_id/parent",
		"PUT /v2/accounts/:id/users/:iam_id/functional", "DELETE /v2/accounts/:id/users/:iam_id/functional":
		return domain.ActionMemberUpdate
	case "PUT /v2/accounts/:id/users/:iam_id/roles":
		return domain.ActionRolesSet
	case "PUT /v1/identities/:id/grants":
		return domain.ActionGrantsUpdate
	}
	return "iam-identity.request.refuse"
}
