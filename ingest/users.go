package ingest

import (
	"encoding/base64"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/gin-gonic/gin"

	"example.com/keytrail/domain"
	"example.com/keytrail/internal/httpx"
)

const (
	groupUsers   = "users"
	usersPageMax = 100
	usersAtOnce  = 100 // Of one invitation.
	userRealm    = "keytrail"
	userActive   = "ACTIVE"
)

type listUsersRequest struct {
	ID       string `path:"id" json:"-" description:"Id of the account."`
	Limit    int    `query:"limit" json:"-" minimum:"1" maximum:"100" default:"100"`
	Start    string `query:"_start" json:"-" description:"From next_url."`
	Search   string `query:"search" json:"-" description:"field:value, several with commas between: those that match one of them. Fields: firstname, lastname, name, email, state, substate, iam_id, realm, userId, role, functional."`
	UserID   string `query:"user_id" json:"-"`
	Settings bool   `query:"include_settings" json:"-" description:"Show the users' settings; needs the right to read the account's."`
}

// userView is a user of an account. The first fields are IBM's, the last ours.
type userView struct {
	ID             string            `json:"id"`
	IAMID          domain.IAMID      `json:"iam_id"`
	Realm          string            `json:"realm"`
	UserID         string            `json:"user_id"`
	Firstname      string            `json:"firstname"`
	Lastname       string            `json:"lastname"`
	State          string            `json:"state"`
	Email          string            `json:"email"`
	Phonenumber    string            `json:"phonenumber"`
	Altphonenumber string            `json:"altphonenumber"`
	Photo          string            `json:"photo"`
	AccountID      domain.AccountID  `json:"account_id"`
	AddedOn        string            `json:"added_on"`
	Settings       *userSettingsView `json:"settings,omitempty"`
	Name           string            `json:"name"`
	Roles          []domain.Role     `json:"roles"`
	IsOwner        bool              `json:"is_owner"`
	Functional     bool              `json:"functional"`
	Parent         domain.IAMID      `json:"parent,omitempty"`
}

type usersView struct {
	TotalResults int        `json:"total_results"`
	Limit        int        `json:"limit"`
	FirstURL     string     `json:"first_url"`
	NextURL      string     `json:"next_url,omitempty"`
	Resources    []userView `json:"resources"`
}

func userViewOf(a domain.Account, id domain.IAMID) userView {
	m, _ := a.Member(id)
	v := userView{
		ID: string(id), IAMID: id, Realm: userRealm, UserID: m.Email, Firstname: m.Firstname, Lastname: m.Lastname, State: userActive, Email: m.Email,
		AccountID: a.ID(), AddedOn: showTime(m.AddedAt), Name: m.Name, Roles: m.Roles, IsOwner: id == a.Owner(), Functional: m.Functional,
	}
	if v.UserID == "" {
		v.UserID = string(id)
	}
	if v.Firstname == "" && v.Lastname == "" {
		v.Firstname = m.Name
	}
	if v.Roles == nil {
		v.Roles = []domain.Role{}
	}
	if up := a.Ancestors(id); len(up) > 0 {
		v.Parent = up[0]
	}
	return v
}

// searchTerm is one field:value of a search.
type searchTerm struct{ field, value string }

// has reports whether v is what the term asks for.
func (t searchTerm) has(v userView) bool {
	texts := map[string]string{
		"firstname": v.Firstname, "lastname": v.Lastname, "name": v.Name, "email": v.Email, "state": v.State, "substate": "",
		"iam_id": string(v.IAMID), "realm": v.Realm, "userId": v.UserID, "functional": strconv.FormatBool(v.Functional),
	}
	if t.field == "role" {
		return slices.ContainsFunc(v.Roles, func(r domain.Role) bool { return strings.EqualFold(string(r), t.value) })
	}
	return strings.EqualFold(texts[t.field], t.value)
}

func parseSearch(text string) ([]searchTerm, error) {
	if text == "" {
		return nil, nil
	}
	fields := []string{"firstname", "lastname", "name", "email", "state", "substate", "iam_id", "realm", "userId", "role", "functional"}
	var terms []searchTerm
	for part := range strings.SplitSeq(text, ",") {
		field, value, ok := strings.Cut(part, ":")
		if !ok || !slices.Contains(fields, field) {
			return nil, domain.Errorf(domain.Invalid, "must be field:value with one of the fields %s", strings.Join(fields, ", ")).
				WithField("search").WithMessageCode("invalid_search")
		}
		terms = append(terms, searchTerm{field, value})
	}
	return terms, nil
}

// usersQuery is what a list of users asks for.
type usersQuery struct {
	limit    int
	after    domain.IAMID
	terms    []searchTerm
	userID   string
	settings bool
}

func usersQueryOf(c *gin.Context) (usersQuery, error) {
	q := usersQuery{limit: usersPageMax, userID: c.Query("user_id")}
	if text := c.Query("limit"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 || n > usersPageMax {
			return q, domain.Errorf(domain.Invalid, "must be 1 to %d", usersPageMax).WithField("limit").WithMessageCode("invalid_limit")
		}
		q.limit = n
	}
	after, err := base64.RawURLEncoding.DecodeString(c.Query("_start"))
	if err != nil || len(after) > 0 && !domain.ValidID(string(after)) {
		return q, domain.Errorf(domain.Invalid, "is not from a next_url").WithField("_start").WithMessageCode("invalid_start")
	}
	q.after = domain.IAMID(after)
	if q.terms, err = parseSearch(c.Query("search")); err != nil {
		return q, err
	}
	q.settings, err = boolQuery(c, "include_settings")
	return q, err
}

// matches reports whether v is one of those that q asks for.
func (q usersQuery) matches(v userView) bool {
	if q.userID != "" && !strings.EqualFold(q.userID, v.UserID) {
		return false
	}
	return q.terms == nil || slices.ContainsFunc(q.terms, func(t searchTerm) bool { return t.has(v) })
}

// listUsers answers a page of the users that the caller may see, by IAM id. Where the
// account hides its users, whoever holds no role sees itself and those below it.
func (h *KeyAPI) listUsers(c *gin.Context) {
	q, err := usersQueryOf(c)
	if err != nil {
		httpx.Fail(c, err)
		return
	}
	o := orderOf(c)
	var in domain.Standing
	a, pos, err := h.Commands.ReadAccount(c.Request.Context(), o, domain.AccountID(c.Param("id")), domain.ActionMemberList, func(s domain.Standing, _ domain.Account) error {
		in = s
		if q.settings {
			return domain.AuthorizeAccount(o.Caller.Initiator, s, domain.RightSettings) //nolint:wrapcheck // The domain's words are the answer.
		}
		return nil
	})
	if err != nil {
		httpx.Fail(c, err)
		return
	}
	v := usersView{Limit: q.limit, FirstURL: usersURL(c, ""), Resources: []userView{}}
	for _, id := range a.Users() {
		user := userViewOf(a, id)
		if domain.AuthorizeUser(o.Caller.Initiator, in, domain.VerbList, a, id) != nil || !q.matches(user) {
			continue
		}
		v.TotalResults++
		switch {
		case q.after != "" && id <= q.after:
		case len(v.Resources) == q.limit:
			v.NextURL = usersURL(c, v.Resources[q.limit-1].IAMID)
		default:
			if q.settings {
				user.Settings = userSettingsOf(a, id)
			}
			v.Resources = append(v.Resources, user)
		}
	}
	httpx.Position(c, pos)
	c.JSON(http.StatusOK, v)
}

// usersURL returns the address of the page of the same list after one user, as IBM does:
// without the server.
func usersURL(c *gin.Context, after domain.IAMID) string {
	values := c.Request.URL.Query()
	values.Del("_start")
	if after != "" {
		values.Set("_start", base64.RawURLEncoding.EncodeToString([]byte(after)))
	}
	u := url.URL{Path: c.Request.URL.Path, RawQuery: values.Encode()}
	return u.String()
}

// userOf returns the account and the user that the path names, where the caller may read
// it. It has answered where it returns false.
func (h *KeyAPI) userOf(c *gin.Context, right func(o Order, in domain.Standing, a domain.Account, id domain.IAMID) error) (domain.Account, domain.IAMID, bool) {
	o, id := orderOf(c), domain.IAMID(c.Param("iam_id"))
	a, pos, err := h.Commands.ReadAccount(c.Request.Context(), o, domain.AccountID(c.Param("id")), domain.ActionMemberRead, func(in domain.Standing, a domain.Account) error {
		return right(o, in, a, id)
	})
	if err == nil && !slices.Contains(a.Users(), id) {
		err = domain.Errorf(domain.NotFound, "no such user in the account").WithMessageCode("member_not_found")
	}
	if err != nil {
		httpx.Fail(c, err)
		return a, id, false
	}
	httpx.Position(c, pos)
	return a, id, true
}

func (h *KeyAPI) getUser(c *gin.Context) {
	a, id, ok := h.userOf(c, func(o Order, in domain.Standing, a domain.Account, id domain.IAMID) error {
		return domain.AuthorizeUser(o.Caller.Initiator, in, domain.VerbRead, a, id)
	})
	if ok {
		c.JSON(http.StatusOK, userViewOf(a, id))
	}
}

// inviteBody is the body of POST …/users. Policies and access groups are IBM's: keytrail
// has roles instead.
type inviteBody struct {
	Users        []inviteUser `json:"users" required:"true"`
	Policies     []any        `json:"iam_policy,omitempty" description:"Not taken: give roles."`
	AccessGroups []string     `json:"access_groups,omitempty" description:"Not taken: give roles."`
}

type inviteUser struct {
	Email       string        `json:"email,omitempty"`
	AccountRole string        `json:"account_role,omitempty" enum:"Member"`
	IAMID       domain.IAMID  `json:"iam_id,omitempty" description:"Ours: the identity of somebody who is known already. Default: one is made."`
	Name        string        `json:"name,omitempty"`
	Firstname   string        `json:"firstname,omitempty"`
	Lastname    string        `json:"lastname,omitempty"`
	Roles       []domain.Role `json:"roles,omitempty"`
	Parent      domain.IAMID  `json:"parent,omitempty" description:"Who stands above the user in the classic hierarchy. Default: who invites."`
	Functional  bool          `json:"functional,omitempty" description:"A functional ID: one that programs share."`
}

type inviteRequest struct {
	ID string `path:"id" json:"-" description:"Id of the account."`
	inviteBody
}

type invitedView struct {
	Resources []invitedUserView `json:"resources"`
}

type invitedUserView struct {
	Email string       `json:"email,omitempty"`
	ID    domain.IAMID `json:"id"`
	State string       `json:"state"`
}

// inviteUsers answers 202, as IBM does, when all are members. keytrail sends no mail: who
// is invited belongs to the account at once.
func (h *KeyAPI) inviteUsers(c *gin.Context) {
	var b inviteBody
	if err := httpx.BindJSON(c, &b); err != nil {
		httpx.Fail(c, err)
		return
	}
	o := orderOf(c)
	cmd, err := h.invitation(o, b)
	if err != nil {
		httpx.Fail(c, err)
		return
	}
	_, pos, err := h.Commands.ChangeAccount(c.Request.Context(), o, domain.AccountID(c.Param("id")), cmd)
	if err != nil {
		httpx.Fail(c, err)
		return
	}
	v := invitedView{Resources: []invitedUserView{}}
	for _, m := range cmd.Members {
		v.Resources = append(v.Resources, invitedUserView{Email: m.Email, ID: m.IAMID, State: userActive})
	}
	httpx.Position(c, pos)
	c.JSON(http.StatusAccepted, v)
}

func (h *KeyAPI) invitation(o Order, b inviteBody) (domain.AddMembers, error) {
	refuse := func(field, code, why string) (domain.AddMembers, error) {
		return domain.AddMembers{}, domain.Errorf(domain.Invalid, "%s", why).WithField(field).WithMessageCode(code)
	}
	switch {
	case len(b.Policies) > 0:
		return refuse("iam_policy", "no_policies", "is not taken: give the users roles")
	case len(b.AccessGroups) > 0:
		return refuse("access_groups", "no_access_groups", "is not taken: give the users roles")
	case len(b.Users) == 0 || len(b.Users) > usersAtOnce:
		return refuse("users", "invalid_users", "must name 1 to "+strconv.Itoa(usersAtOnce)+" users")
	}
	var cmd domain.AddMembers
	for _, u := range b.Users {
		if u.AccountRole != "" && u.AccountRole != "Member" {
			return refuse("account_role", "unknown_value", "must be Member")
		}
		if u.Email == "" && u.IAMID == "" {
			return refuse("email", "missing_email", "is required, or iam_id")
		}
		if u.IAMID == "" {
			id, err := h.Commands.newUUID()
			if err != nil {
				return cmd, err
			}
			u.IAMID = domain.IAMID("User-" + id)
		}
		cmd.Members = append(cmd.Members, domain.AddMember{
			IAMID: u.IAMID, Name: u.Name, Firstname: u.Firstname, Lastname: u.Lastname, Email: u.Email, Roles: u.Roles,
			Functional: u.Functional, Parent: u.Parent, By: o.Caller.Initiator.IAMID,
		})
	}
	return cmd, nil
}
