package ingest

import (
	"context"
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/gin-gonic/gin"

	"example.com/keytrail/domain"
	"example.com/keytrail/internal/apidoc"
	"example.com/keytrail/internal/httpx"
)

const (
	privilegeDays    = 90
	privilegeDaysMax = 400
	// usedActionsMax bounds the actions of one key in the report; the others are counted.
	usedActionsMax = 200
)

// UsedAction is what was done with a key, successfully, apart from signing in.
type UsedAction struct {
	Action string
	Count  uint64
	Last   time.Time
}

// UsedReader says what was done with keys; the read side does.
type UsedReader interface {
	// UsedActions returns by key what was done with the given keys of account in [from, to),
	// in no order.
	UsedActions(ctx context.Context, account domain.AccountID, keys []domain.KeyID, from, to time.Time) (map[domain.KeyID][]UsedAction, error)
}

type privilegeRequest struct {
	ID       string `path:"id" json:"-" description:"Id of the account."`
	Days     int    `query:"days" json:"-" minimum:"1" maximum:"400" default:"90" description:"How far back to look."`
	PageSize int    `query:"pagesize" json:"-" minimum:"1" maximum:"100" default:"20"`
	Token    string `query:"pagetoken" json:"-" description:"From the next link."`
}

// privilegeView says what keys may do and what was done with them.
type privilegeView struct {
	AccountID domain.AccountID   `json:"account_id"`
	Days      int                `json:"days"`
	From      string             `json:"from"`
	To        string             `json:"to"`
	Limit     int                `json:"limit"`
	First     string             `json:"first"`
	Next      string             `json:"next,omitempty"`
	Keys      []keyPrivilegeView `json:"keys"`
}

type keyPrivilegeView struct {
	ID    domain.KeyID   `json:"key_id"`
	Name  string         `json:"name"`
	Kind  domain.KeyKind `json:"kind"`
	IAMID domain.IAMID   `json:"iam_id"`
	// Granted are the grants of the key's identity.
	Unrestricted bool           `json:"unrestricted" description:"The identity has no grants: what it does is not checked."`
	Granted      []domain.Grant `json:"granted"`
	Used         []usedView     `json:"used" description:"The most used first, at most 200."`
	UsedTotal    int            `json:"used_total" description:"How many different actions were used."`
	// Unused are those of the granted patterns that nothing used: they can be taken away.
	Unused []string `json:"unused"`
	// Beyond are used actions that no grant is for any more.
	Beyond []string `json:"beyond"`
}

type usedView struct {
	Action string `json:"action"`
	Count  uint64 `json:"count"`
	Last   string `json:"last_used"`
}

func (h *KeyAPI) privilegeRoutes() apidoc.Table {
	return apidoc.Table{{
		Method: http.MethodGet, Path: "/v1/accounts/:id/reports/privilege", Group: groupReports, Summary: "What each key may do, and what of it was used.",
		Description: "Needs the right to list all keys of the account. Refused uses do not count, nor do sign-ins.",
		Request:     privilegeRequest{}, Answers: apidoc.OK(privilegeView{}), Handler: h.privilegeReport,
	}}
}

// privilegeReport answers a page of keys with what is granted and what was used.
func (h *KeyAPI) privilegeReport(c *gin.Context) {
	days, q, err := privilegeQuery(c)
	if err != nil {
		httpx.Fail(c, err)
		return
	}
	o, ctx := orderOf(c), c.Request.Context()
	account, _, err := h.Commands.ReadAccount(ctx, o, q.Account, domain.ActionPrivilegeRead, func(in domain.Standing, _ domain.Account) error {
		return domain.AuthorizeList(o.Caller.Initiator, in, q) //nolint:wrapcheck // The domain's words are the answer.
	})
	if err == nil {
		err = h.waitWritten(c, q)
	}
	if err != nil {
		httpx.Fail(c, err)
		return
	}
	page, err := h.Lister.ListKeys(ctx, q)
	if err != nil {
		httpx.Fail(c, err)
		return
	}
	to := h.Now().UTC()
	from := to.AddDate(0, 0, -days)
	ids := make([]domain.KeyID, len(page.Keys))
	for i, k := range page.Keys {
		ids[i] = k.ID
	}
	used, err := h.Used.UsedActions(ctx, q.Account, ids, from, to)
	if err != nil {
		httpx.Fail(c, err)
		return
	}
	v := privilegeView{
		AccountID: q.Account, Days: days, From: showTime(from), To: showTime(to), Limit: q.PageSize, First: pageURL(c, ""), Next: linkTo(c, page.Next),
		Keys: make([]keyPrivilegeView, 0, len(page.Keys)),
	}
	for _, k := range page.Keys {
		v.Keys = append(v.Keys, privilegeOf(k, account.Grants(k.IAMID), used[k.ID]))
	}
	httpx.Position(c, page.Position)
	httpx.Lag(c, page.Lag)
	c.JSON(http.StatusOK, v)
}

func privilegeQuery(c *gin.Context) (days int, q domain.KeysQuery, err error) {
	id := domain.AccountID(c.Param("id"))
	q = domain.KeysQuery{Account: id, Accounts: []domain.AccountID{id}, Scope: "account", Order: "asc", PageToken: c.Query("pagetoken"), PageSize: pageSizeDefault}
	days = privilegeDays
	for _, p := range []struct {
		name string
		to   *int
		most int
	}{{"days", &days, privilegeDaysMax}, {"pagesize", &q.PageSize, pageSizeMax}} {
		text := c.Query(p.name)
		if text == "" {
			continue
		}
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 || n > p.most {
			return 0, q, domain.Errorf(domain.Invalid, "must be 1 to %d", p.most).WithField(p.name).WithMessageCode("invalid_" + p.name)
		}
		*p.to = n
	}
	return days, q, nil
}

// privilegeOf compares what is granted with what was used. used may be in any order.
func privilegeOf(k domain.KeyState, granted domain.Grants, used []UsedAction) keyPrivilegeView {
	v := keyPrivilegeView{
		ID: k.ID, Name: k.Name, Kind: k.Kind, IAMID: k.IAMID, Unrestricted: len(granted) == 0, Granted: []domain.Grant{},
		Used: []usedView{}, UsedTotal: len(used), Unused: []string{}, Beyond: []string{},
	}
	used = slices.SortedFunc(slices.Values(used), byCount)
	for _, u := range used {
		if len(v.Used) < usedActionsMax {
			v.Used = append(v.Used, usedView{Action: u.Action, Count: u.Count, Last: showTime(u.Last)})
		}
	}
	var patterns []string
	for _, g := range granted {
		v.Granted, patterns = append(v.Granted, g), append(patterns, g.Actions...)
	}
	slices.Sort(patterns)
	for _, p := range slices.Compact(patterns) {
		if !slices.ContainsFunc(used, func(u UsedAction) bool { return domain.MatchesAction(p, u.Action) }) {
			v.Unused = append(v.Unused, p)
		}
	}
	for _, u := range used {
		covered := slices.ContainsFunc(patterns, func(p string) bool { return domain.MatchesAction(p, u.Action) })
		if len(patterns) > 0 && !covered && len(v.Beyond) < usedActionsMax {
			v.Beyond = append(v.Beyond, u.Action)
		}
	}
	return v
}
