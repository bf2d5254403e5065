package ingest

import (
	"context"

	"example.com/keytrail/domain"
)

var _ ImportAccounts = (*Commands)(nil)

// EnsureAccount implements [ImportAccounts]: it creates an account of another system,
// owned by the caller, or leaves the one that is there as it is. Two imports that
// create it at once make one account.
func (s *Commands) EnsureAccount(ctx context.Context, o Order, account domain.AccountID, source string) (uint64, error) {
	created := false
	f, err := transact(ctx, s, s.accounts, o, domain.AccountStream(account), false, func(a domain.Account) (decision, error) {
		if a.Exists() {
			created = false
			return decision{account: account}, nil
		}
		events, err := a.Decide(domain.CreateAccount{
			Account: account, Name: source + " " + string(account),
			Owner: o.Caller.Initiator.IAMID, OwnerName: o.Caller.Initiator.Name, Source: source,
		})
		created = true
		return decision{account: account, events: events, at: a.NextEffective(s.cfg.Now())}, err //nolint:wrapcheck // The domain's words.
	})
	if err != nil {
		return 0, err
	}
	if created {
		return f.position, nil
	}
	if !f.state.Standing(o.Caller.Initiator.IAMID).Can(domain.RightIngest) {
		return 0, domain.Errorf(domain.NotFound, "no such account, or no right to record uses in it").WithField("account_id")
	}
	return 0, nil
}
