package ingest

import (
	"context"
	"net/http"
	"net/url"
	"slices"
	"time"

	"github.com/gin-gonic/gin"

	"example.com/keytrail/domain"
	"example.com/keytrail/internal/auth"
	"example.com/keytrail/internal/httpx"
)

const (
	pageSizeDefault = 20
	pageSizeMax     = 100
	// listWaitMax is how long a list waits for what this node has just written; after
	// it the answer says how far behind it is.
	listWaitMax = 2 * time.Second
)

// KeyLister lists keys; the read side does. A bad filter or token is a
// [domain.Invalid] that names the field.
type KeyLister interface {
	ListKeys(ctx context.Context, q domain.KeysQuery) (domain.KeysPage, error)
}

// Waiter waits until the tables of the read side hold what stands at position, or ctx
// ends; it returns how far they are. That ctx ended is no error.
type Waiter interface {
	Wait(ctx context.Context, position uint64) (reached uint64, err error)
}

type listView struct {
	Context  httpx.RequestContext `json:"context"`
	Offset   int                  `json:"offset"`
	Limit    int                  `json:"limit"`
	First    string               `json:"first"`
	Previous string               `json:"previous,omitempty"`
	Next     string               `json:"next,omitempty"`
	APIKeys  []keyView            `json:"apikeys"`
}

// listKeys answers a page of the keys that the caller may see. It waits at most two
// seconds for what this node wrote last in the account.
func (h *KeyAPI) listKeys(c *gin.Context) {
	q, history, err := h.listQuery(c)
	if err != nil {
		httpx.Fail(c, err)
		return
	}
	if err := h.waitWritten(c, q); err != nil {
		httpx.Fail(c, err)
		return
	}
	page, err := h.Lister.ListKeys(c.Request.Context(), q)
	if err != nil {
		httpx.Fail(c, err)
		return
	}
	views := make([]keyView, 0, len(page.Keys))
	for _, s := range page.Keys {
		v := h.viewOf(s)
		if history {
			key, _, err := h.Commands.ReadKey(c.Request.Context(), orderOf(c), KeyRef{ID: s.ID, Account: s.Account})
			if err != nil {
				httpx.Fail(c, err)
				return
			}
			withHistory(key.History(), nil)(&v)
		}
		views = append(views, v)
	}
	if err := h.recordList(c, q, page); err != nil {
		httpx.Fail(c, err)
		return
	}
	httpx.Position(c, page.Position)
	httpx.Lag(c, page.Lag)
	c.JSON(http.StatusOK, listView{
		Context: httpx.Context(c), Offset: page.Offset, Limit: q.PageSize, First: pageURL(c, ""),
		Previous: linkTo(c, page.Previous), Next: linkTo(c, page.Next), APIKeys: views,
	})
}

// waitWritten waits for the newest of: what this node wrote in the accounts of q, and
// what the caller asks for.
func (h *KeyAPI) waitWritten(c *gin.Context, q domain.KeysQuery) error {
	position, _, err := httpx.WaitPosition(c)
	if err != nil {
		return err //nolint:wrapcheck // Worded for the caller.
	}
	for _, account := range q.Accounts {
		position = max(position, h.Commands.LastWritten(account))
	}
	if position == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(c.Request.Context(), listWaitMax)
	defer cancel()
	_, err = h.Waiter.Wait(ctx, position)
	return err //nolint:wrapcheck // The read side words it.
}

func linkTo(c *gin.Context, token string) string {
	if token == "" {
		return ""
	}
	return pageURL(c, token)
}

// pageURL returns the address of another page of the same list.
func pageURL(c *gin.Context, token string) string {
	values := c.Request.URL.Query()
	values.Del("pagetoken")
	if token != "" {
		values.Set("pagetoken", token)
	}
	u := url.URL{Scheme: "http", Host: c.Request.Host, Path: c.Request.URL.Path, RawQuery: values.Encode()}
	if c.Request.TLS != nil {
		u.Scheme = "https"
	}
	return u.String()
}

// listQuery reads, checks and permits the query of a list.
func (h *KeyAPI) listQuery(c *gin.Context) (domain.KeysQuery, bool, error) {
	q := domain.KeysQuery{
		Account: domain.AccountID(c.Query("account_id")), IAMID: domain.IAMID(c.Query("iam_id")),
		PageToken: c.Query("pagetoken"), Scope: c.DefaultQuery("scope", "entity"), Type: domain.KeyKind(c.Query("type")),
		Sort: c.Query("sort"), Order: c.DefaultQuery("order", "asc"), Filter: c.Query("filter"), PageSize: pageSizeDefault,
	}
	history, err := boolQuery(c, "include_history")
	if err != nil {
		return q, false, err
	}
	if q.PageSize, err = pageSizeOf(c); err != nil {
		return q, false, err
	}
	for _, p := range []struct {
		field, value string
		allowed      []string
	}{
		{"scope", q.Scope, []string{"entity", "account"}},
		{"type", string(q.Type), []string{"", string(domain.KindUser), string(domain.KindServiceID), string(domain.KindExternal), string(domain.KindClassic), string(kindFunctional)}},
		{"sort", q.Sort, []string{"", "name", "description", "created_at", "created_by"}},
		{"order", q.Order, []string{"asc", "desc"}},
	} {
		if err := oneOf(p.field, p.value, p.allowed); err != nil {
			return q, false, err
		}
	}
	caller := auth.CallerOf(c)
	if err := h.permitList(caller, &q); err != nil {
		e := keyRefusal(domain.VerbList, domain.KeyState{Kind: q.Type, Account: q.Account}, listRequest(c))
		return q, false, h.Commands.refuseRead(c.Request.Context(), orderOf(c), e, err)
	}
	return q, history, nil
}

func oneOf(field, value string, allowed []string) error {
	if slices.Contains(allowed, value) {
		return nil
	}
	return domain.Errorf(domain.Invalid, "has an unknown value").WithField(field).WithMessageCode("invalid_" + field)
}

func listRequest(c *gin.Context) map[string]string {
	out := map[string]string{}
	for _, name := range []string{"account_id", "iam_id", "scope", "type", "filter"} {
		if v := c.Query(name); v != "" {
			out[name] = v
		}
	}
	return out
}

// permitList narrows q to what the caller may see, or refuses it. scope=entity lists
// the keys of one identity, the caller's own by default; scope=account lists all keys
// of an account, and then the caller must have the right to read every kind asked for.
func (h *KeyAPI) permitList(caller auth.Caller, q *domain.KeysQuery) error {
	who := caller.Initiator
	own := q.Scope == "entity" && (q.IAMID == "" || q.IAMID == who.IAMID)
	switch {
	case own && q.Account == "":
		q.IAMID, q.Accounts = who.IAMID, caller.Memberships()
		h.boundList(who, q)
		return nil
	case q.Account == "":
		q.Account = who.Account
	}
	in := caller.Standing(q.Account)
	if !in.Known() && !who.IsSystem() {
		return domain.Errorf(domain.NotFound, "no such account").WithField("account_id").WithMessageCode("account_not_found")
	}
	q.Accounts = []domain.AccountID{q.Account}
	if own {
		q.IAMID = who.IAMID
	}
	h.boundList(who, q)
	return domain.AuthorizeList(who, in, *q) //nolint:wrapcheck // The domain's words are the answer.
}

// boundList says which kinds the type of q means, and whose keys can be in the answer: of
// classic keys those of the caller and of the users below it, of functional IDs' keys theirs.
func (h *KeyAPI) boundList(who domain.Initiator, q *domain.KeysQuery) {
	q.Kinds = kindsOf(q.Type)
	q.ClassicOf = []domain.IAMID{who.IAMID}
	if q.Type == kindFunctional {
		q.Identities = []domain.IAMID{}
	}
	for _, id := range q.Accounts {
		account, _ := h.Directory.Account(id)
		for _, iam := range account.Identities() {
			m, _ := account.Member(iam)
			if q.Type == kindFunctional && m.Functional {
				q.Identities = append(q.Identities, iam)
			}
			if q.Account != "" && slices.Contains(account.Ancestors(iam), who.IAMID) {
				q.ClassicOf = append(q.ClassicOf, iam)
			}
		}
	}
}

// kindsOf returns the kinds of key that a type in a list's query means; nil = every one.
func kindsOf(t domain.KeyKind) []domain.KeyKind {
	switch t {
	case domain.KindServiceID:
		return []domain.KeyKind{domain.KindServiceID, domain.KindServiceCredential}
	case kindFunctional:
		return []domain.KeyKind{domain.KindUser}
	case "":
		return nil
	case domain.KindUser, domain.KindExternal, domain.KindClassic, domain.KindServiceCredential:
	}
	return []domain.KeyKind{t}
}
