package ingest

import (
	"cmp"
	"context"
	"maps"
	"net/http"
	"slices"

	"github.com/gin-gonic/gin"

	"example.com/keytrail/domain"
	"example.com/keytrail/internal/apidoc"
	"example.com/keytrail/internal/httpx"
)

// grantAccountsMax bounds the accounts of one command about grants.
const grantAccountsMax = 100

// grantView is one grant of an identity, in one account.
type grantView struct {
	Account domain.AccountID `json:"account_id" required:"true"`
	domain.Grant
}

type grantsRequest struct {
	ID string `path:"id" json:"-" description:"IAM id of a user or a service ID."`
}

func (h *KeyAPI) grantRoutes() apidoc.Table {
	const path = "/v1/identities/:id/grants"
	return apidoc.Table{
		{
			Method: http.MethodGet, Path: path, Group: groupUsers, Summary: "What an identity may do, in the accounts that the caller may read.",
			Description: "In an account without grants, what the identity does is not checked.",
			Request:     grantsRequest{}, Answers: apidoc.OK([]grantView{}), Handler: h.getGrants,
		},
		{
			Method: http.MethodPut, Path: path, Group: groupUsers, Summary: "Set what an identity may do, in all accounts where the caller assigns.",
			Description: "Needs the right to assign in every account that is named. In accounts that are not named, but where the caller may assign, the identity has no grants from then on: what it does there is not checked.",
			Request:     grantsRequest{}, Body: []grantView{}, Answers: apidoc.OK([]grantView{}), Handler: h.putGrants,
		},
	}
}

// identityAccounts returns the accounts in which an identity is anything and the caller is
// somebody, sorted, as the log has them now, and the position of the newest of them.
func (s *Commands) identityAccounts(ctx context.Context, o Order, iam domain.IAMID) ([]domain.Account, uint64, error) {
	var out []domain.Account
	var position uint64
	for _, id := range s.cfg.Directory.AccountsOf(iam) {
		if !o.Caller.Standing(id).Known() && !o.Caller.Initiator.IsSystem() {
			continue
		}
		f, err := foldNow(ctx, s.cfg.Log, s.accounts, domain.AccountStream(id))
		if err != nil {
			return nil, 0, err
		}
		out, position = append(out, f.state), max(position, f.position)
	}
	return out, position, nil
}

// ReadGrants returns the grants of an identity in the accounts where the caller may see the
// settings, or all of them where it is the caller's own. That it was refused is recorded.
func (s *Commands) ReadGrants(ctx context.Context, o Order, iam domain.IAMID) (map[domain.AccountID]domain.Grants, uint64, error) {
	accounts, position, err := s.identityAccounts(ctx, o, iam)
	if err != nil {
		return nil, 0, err
	}
	if len(accounts) == 0 {
		return nil, 0, errNoIdentity()
	}
	out := map[domain.AccountID]domain.Grants{}
	var refused error
	for _, a := range accounts {
		if iam != o.Caller.Initiator.IAMID {
			if err := domain.AuthorizeAccount(o.Caller.Initiator, o.Caller.Standing(a.ID()), domain.RightSettings); err != nil {
				refused = err
				continue
			}
		}
		out[a.ID()] = a.Grants(iam)
	}
	if len(out) == 0 {
		return nil, 0, s.refuseRead(ctx, o, domain.CommandRefused{Action: domain.ActionGrantsRead, Account: accounts[0].ID(), Target: string(iam)}, refused)
	}
	return out, position, nil
}

// SetGrants sets what an identity may do in the accounts of want, and takes away its grants
// in the others where the caller may assign. All is checked before anything is appended;
// what breaks off after that is finished by the same command again.
func (s *Commands) SetGrants(ctx context.Context, o Order, iam domain.IAMID, want map[domain.AccountID]domain.Grants) (map[domain.AccountID]domain.Grants, uint64, error) {
	accounts, position, err := s.identityAccounts(ctx, o, iam)
	if err != nil {
		return nil, 0, err
	}
	plan := maps.Clone(want)
	for _, a := range accounts {
		_, named := want[a.ID()]
		if !named && len(a.Grants(iam)) > 0 && o.Caller.Can(domain.RightAssign, a.ID()) {
			plan[a.ID()] = nil
		}
	}
	order := slices.Sorted(maps.Keys(plan))
	for _, id := range order {
		if err := s.mayGrant(ctx, o, id, domain.SetGrants{IAMID: iam, Grants: plan[id]}); err != nil {
			return nil, 0, err
		}
	}
	if len(order) == 0 && len(accounts) == 0 {
		return nil, 0, errNoIdentity()
	}
	for _, id := range order {
		_, pos, err := s.ChangeAccount(ctx, o, id, domain.SetGrants{IAMID: iam, Grants: plan[id]})
		if err != nil {
			return nil, 0, err
		}
		position = max(position, pos)
	}
	return plan, position, nil
}

// mayGrant returns why the command about an account would be refused, and records that.
func (s *Commands) mayGrant(ctx context.Context, o Order, id domain.AccountID, cmd domain.SetGrants) error {
	refusal := accountRefusal(id, cmd)
	in := o.Caller.Standing(id)
	if !in.Known() && !o.Caller.Initiator.IsSystem() {
		refusal.Account = o.Caller.Initiator.Account
		return s.refuse(ctx, o, refusal, errNoAccount())
	}
	f, err := foldNow(ctx, s.cfg.Log, s.accounts, domain.AccountStream(id))
	if err != nil {
		return err
	}
	if err := domain.AuthorizeAccountChange(o.Caller.Initiator, in, f.state, cmd); err != nil {
		return s.refuse(ctx, o, refusal, err)
	}
	if err := s.namesService(id, cmd); err != nil {
		return s.refuse(ctx, o, refusal, err)
	}
	if _, err := f.state.Decide(cmd); err != nil {
		return s.refuse(ctx, o, refusal, err)
	}
	return nil
}

func errNoIdentity() error {
	return domain.Errorf(domain.NotFound, "no such identity").WithMessageCode("identity_not_found")
}

// grantsViewOf lists grants by account, in the order in which they were given.
func grantsViewOf(grants map[domain.AccountID]domain.Grants) []grantView {
	v := []grantView{}
	for _, id := range slices.Sorted(maps.Keys(grants)) {
		for _, g := range grants[id] {
			v = append(v, grantView{Account: id, Grant: g})
		}
	}
	return v
}

func (h *KeyAPI) getGrants(c *gin.Context) {
	grants, pos, err := h.Commands.ReadGrants(c.Request.Context(), orderOf(c), domain.IAMID(c.Param("id")))
	if err != nil {
		httpx.Fail(c, err)
		return
	}
	httpx.Position(c, pos)
	c.JSON(http.StatusOK, grantsViewOf(grants))
}

// putGrants answers 200 with what was set, when all of it is durable.
func (h *KeyAPI) putGrants(c *gin.Context) {
	var body []grantView
	if err := httpx.BindJSON(c, &body); err != nil {
		httpx.Fail(c, err)
		return
	}
	want, err := grantsOf(body)
	if err != nil {
		httpx.Fail(c, err)
		return
	}
	set, pos, err := h.Commands.SetGrants(c.Request.Context(), orderOf(c), domain.IAMID(c.Param("id")), want)
	if err != nil {
		httpx.Fail(c, err)
		return
	}
	httpx.Position(c, pos)
	c.JSON(http.StatusOK, grantsViewOf(set))
}

// grantsOf returns the grants of a body, by account.
func grantsOf(body []grantView) (map[domain.AccountID]domain.Grants, error) {
	if body == nil {
		return nil, domain.Errorf(domain.Invalid, "must be a list of grants").WithField("grants").WithMessageCode("missing_grants")
	}
	want := map[domain.AccountID]domain.Grants{}
	for _, g := range body {
		if !domain.ValidID(string(g.Account)) {
			return nil, domain.Errorf(domain.Invalid, "is required: an account's id").WithField("account_id").WithMessageCode("invalid_id")
		}
		want[g.Account] = append(want[g.Account], g.Grant)
	}
	if len(want) > grantAccountsMax {
		return nil, domain.Errorf(domain.Invalid, "names more than %d accounts", grantAccountsMax).WithField("account_id").WithMessageCode("too_many")
	}
	return want, nil
}

// byCount orders what was done most first.
func byCount(a, b UsedAction) int {
	return cmp.Or(cmp.Compare(b.Count, a.Count), cmp.Compare(a.Action, b.Action))
}
