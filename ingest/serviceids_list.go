package ingest

import (
	"cmp"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"slices"
	"strconv"

	"github.com/gin-gonic/gin"

	"example.com/keytrail/domain"
	"example.com/keytrail/internal/httpx"
	"example.com/keytrail/internal/scim"
)

type listServiceIDsRequest struct {
	Account  string `query:"account_id" description:"Default: the account of the caller's credential."`
	Group    string `query:"group_id" description:"There are no groups: it must be empty."`
	Name     string `query:"name" description:"Only those of exactly this name."`
	PageSize int    `query:"pagesize" minimum:"1" maximum:"100" default:"20"`
	Token    string `query:"pagetoken" description:"From the next or previous link."`
	Sort     string `query:"sort" enum:"name,description,created_at,modified_at"`
	Order    string `query:"order" enum:"asc,desc" default:"asc"`
	History  bool   `query:"include_history"`
	Filter   string `query:"filter" description:"SCIM: name co \"Go\"; eq, ne, co, sw, ew; and, or, not."`
	Show     string `query:"show_group_id" description:"As with IBM; there are no groups."`
}

type serviceIDListView struct {
	Context    httpx.RequestContext `json:"context"`
	Offset     int                  `json:"offset"`
	Limit      int                  `json:"limit"`
	First      string               `json:"first"`
	Previous   string               `json:"previous,omitempty"`
	Next       string               `json:"next,omitempty"`
	ServiceIDs []serviceIDView      `json:"serviceids"`
}

// serviceIDQuery is a checked question for a page of service IDs.
type serviceIDQuery struct {
	account  domain.AccountID
	name     string
	pageSize int
	after    serviceIDPlace
	sort     string
	order    string
	history  bool
	filter   scim.Expr
}

// serviceIDPlace is a place in the order: behind one service ID, wherever it is now. The zero
// place is before all.
type serviceIDPlace struct {
	Sort string `json:"s"` // What it was sorted by.
	Text string `json:"t"`
	ID   string `json:"i"`
}

// listServiceIDs answers a page of the service IDs of an account, from what this node knows
// of the log. Pages follow a place in the order, not a number, so that those made or deleted
// meanwhile move nothing else.
func (h *KeyAPI) listServiceIDs(c *gin.Context) {
	q, err := h.serviceIDQuery(c)
	if err != nil {
		httpx.Fail(c, err)
		return
	}
	position := h.Directory.Reached()
	all := slices.DeleteFunc(h.Directory.ServiceIDsOf(q.account), func(s domain.ServiceIDState) bool { return !q.takes(s) })
	slices.SortFunc(all, q.compare)
	start := 0
	if q.after.ID != "" {
		start, _ = slices.BinarySearchFunc(all, q.after, func(s domain.ServiceIDState, p serviceIDPlace) int {
			if q.behind(s, p) {
				return 1
			}
			return -1
		})
	}
	page := all[start:min(start+q.pageSize, len(all))]
	v := serviceIDListView{Context: httpx.Context(c), Offset: start, Limit: q.pageSize, First: pageURL(c, ""), ServiceIDs: make([]serviceIDView, len(page))}
	if end := start + len(page); end < len(all) {
		v.Next = pageURL(c, q.token(all[end-1]))
	}
	if before := start - q.pageSize; before > 0 {
		v.Previous = pageURL(c, q.token(all[before-1]))
	} else if start > 0 {
		v.Previous = pageURL(c, "")
	}
	for i, s := range page {
		v.ServiceIDs[i] = serviceIDViewOf(s)
		if !q.history {
			continue
		}
		_, history, _, err := h.Commands.ReadServiceID(c.Request.Context(), orderOf(c), s.ID, true)
		if err != nil && domain.CodeOf(err) != domain.NotFound { // It may be deleted since.
			httpx.Fail(c, err)
			return
		}
		v.ServiceIDs[i].History = historiesOf(history)
	}
	httpx.Position(c, position)
	c.JSON(http.StatusOK, v)
}

// serviceIDQuery reads, checks and permits the query of a list.
func (h *KeyAPI) serviceIDQuery(c *gin.Context) (serviceIDQuery, error) {
	o := orderOf(c)
	q := serviceIDQuery{
		account: domain.AccountID(c.DefaultQuery("account_id", string(o.Caller.Initiator.Account))), name: c.Query("name"),
		sort: c.Query("sort"), order: c.DefaultQuery("order", "asc"),
	}
	if c.Query("group_id") != "" {
		return q, domain.Errorf(domain.Invalid, "there are no groups of service IDs").WithField("group_id").WithMessageCode("no_groups")
	}
	var err error
	if q.pageSize, err = pageSizeOf(c); err != nil {
		return q, err
	}
	if err := oneOf("sort", q.sort, []string{"", "name", "description", "created_at", "modified_at"}); err != nil {
		return q, err
	}
	if err := oneOf("order", q.order, []string{"asc", "desc"}); err != nil {
		return q, err
	}
	if q.history, err = boolQuery(c, "include_history"); err != nil {
		return q, err
	}
	if q.filter, err = scim.Parse(c.Query("filter"), "name", "description", "iam_id", "created_by", "id"); err != nil {
		return q, err //nolint:wrapcheck // Worded for the caller.
	}
	if q.after, err = placeOf(c.Query("pagetoken"), q.sort); err != nil {
		return q, err
	}
	request := map[string]string{"account_id": string(q.account), "name": q.name, "filter": c.Query("filter")}
	return q, h.Commands.MayListServiceIDs(c.Request.Context(), o, q.account, request)
}

// pageSizeOf returns the page size that the query asks for.
func pageSizeOf(c *gin.Context) (int, error) {
	text := c.Query("pagesize")
	if text == "" {
		return pageSizeDefault, nil
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 || n > pageSizeMax {
		return 0, domain.Errorf(domain.Invalid, "must be 1 to %d", pageSizeMax).WithField("pagesize").WithMessageCode("invalid_pagesize")
	}
	return n, nil
}

func placeOf(token, sort string) (serviceIDPlace, error) {
	var p serviceIDPlace
	if token == "" {
		return p, nil
	}
	data, err := base64.RawURLEncoding.DecodeString(token)
	if err != nil || json.Unmarshal(data, &p) != nil || p.Sort != sort || !domain.ValidID(p.ID) {
		return p, domain.Errorf(domain.Invalid, "is not a token of this list").WithField("pagetoken").WithMessageCode("invalid_pagetoken")
	}
	return p, nil
}

// token names the place behind s.
func (q serviceIDQuery) token(s domain.ServiceIDState) string {
	data, err := json.Marshal(serviceIDPlace{Sort: q.sort, Text: q.sortText(s), ID: s.ID})
	if err != nil {
		panic(err) // Strings always marshal.
	}
	return base64.RawURLEncoding.EncodeToString(data)
}

func (q serviceIDQuery) takes(s domain.ServiceIDState) bool {
	return (q.name == "" || s.Name == q.name) && q.filter.Match(func(attribute string) string {
		switch attribute {
		case "name":
			return s.Name
		case "description":
			return s.Description
		case "iam_id":
			return string(s.IAMID)
		case "created_by":
			return string(s.CreatedBy)
		}
		return s.ID
	})
}

// sortText is what s is sorted by before its id; times have one length, and so their order.
func (q serviceIDQuery) sortText(s domain.ServiceIDState) string {
	switch q.sort {
	case "name":
		return s.Name
	case "description":
		return s.Description
	case "created_at":
		return showTime(s.CreatedAt)
	case "modified_at":
		return showTime(s.ModifiedAt)
	}
	return ""
}

func (q serviceIDQuery) compare(a, b domain.ServiceIDState) int {
	c := cmp.Or(cmp.Compare(q.sortText(a), q.sortText(b)), cmp.Compare(a.ID, b.ID))
	if q.order == "desc" {
		return -c
	}
	return c
}

// behind reports whether s comes behind p.
func (q serviceIDQuery) behind(s domain.ServiceIDState, p serviceIDPlace) bool {
	c := cmp.Or(cmp.Compare(q.sortText(s), p.Text), cmp.Compare(s.ID, p.ID))
	if q.order == "desc" {
		c = -c
	}
	return c > 0
}
