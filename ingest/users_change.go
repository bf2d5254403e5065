package ingest

import (
	"net/http"

	"github.com/gin-gonic/gin"

	"example.com/keytrail/domain"
	"example.com/keytrail/internal/apidoc"
	"example.com/keytrail/internal/auth"
	"example.com/keytrail/internal/httpx"
)

// userRequest names a user of an account.
type userRequest struct {
	ID    string `path:"id" json:"-" description:"Id of the account."`
	IAMID string `path:"iam_id" json:"-" description:"IAM id of the user."`
}

// updateUserBody is the body of PATCH …/users/{iam_id}; what is absent stays as it is.
type updateUserBody struct {
	Name           *string `json:"name,omitempty" description:"Ours. Default: first and last name."`
	Firstname      *string `json:"firstname,omitempty"`
	Lastname       *string `json:"lastname,omitempty"`
	Email          *string `json:"email,omitempty"`
	State          *string `json:"state,omitempty" enum:"ACTIVE"`
	Phonenumber    *string `json:"phonenumber,omitempty" description:"Not kept: must be empty."`
	Altphonenumber *string `json:"altphonenumber,omitempty" description:"Not kept: must be empty."`
	Photo          *string `json:"photo,omitempty" description:"Not kept: must be empty."`
}

type updateUserRequest struct {
	userRequest
	updateUserBody
}

// userSettingsView are a user's settings in an account, in IBM's shape.
type userSettingsView struct {
	Language             string `json:"language"`
	NotificationLanguage string `json:"notification_language"`
	AllowedAddresses     string `json:"allowed_ip_addresses"`
	SelfManage           bool   `json:"self_manage"`
}

func userSettingsOf(a domain.Account, id domain.IAMID) *userSettingsView {
	m, _ := a.Member(id)
	return &userSettingsView{
		Language: m.Settings.Language, NotificationLanguage: m.Settings.NotificationLanguage,
		AllowedAddresses: m.Settings.AllowedAddresses, SelfManage: m.Settings.SelfManage,
	}
}

// updateUserSettingsBody is the body of PATCH …/settings; what is absent stays as it is.
type updateUserSettingsBody struct {
	Language             *string `json:"language,omitempty"`
	NotificationLanguage *string `json:"notification_language,omitempty"`
	AllowedAddresses     *string `json:"allowed_ip_addresses,omitempty" description:"Addresses, ranges a-b and networks, separated by commas; empty for all. Only administrators set it."`
	SelfManage           *bool   `json:"self_manage,omitempty"`
}

type updateUserSettingsRequest struct {
	userRequest
	updateUserSettingsBody
}

type rolesBody struct {
	Roles []domain.Role `json:"roles" required:"true" description:"All roles from now on."`
}

type rolesRequest struct {
	userRequest
	rolesBody
}

type rolesView struct {
	IAMID domain.IAMID  `json:"iam_id"`
	Roles []domain.Role `json:"roles"`
}

type parentBody struct {
	Parent domain.IAMID `json:"parent" required:"true" description:"The user that stands above from now on."`
}

type parentRequest struct {
	userRequest
	parentBody
}

type parentView struct {
	IAMID     domain.IAMID   `json:"iam_id"`
	Parent    domain.IAMID   `json:"parent"`
	Ancestors []domain.IAMID `json:"ancestors" description:"The nearest first, the owner of the account last."`
}

func (h *KeyAPI) userRoutes() apidoc.Table {
	const users, user = "/v2/accounts/:id/users", "/v2/accounts/:id/users/:iam_id"
	done := []apidoc.Answer{{Status: http.StatusNoContent}}
	invited := []apidoc.Answer{{Status: http.StatusAccepted, Body: invitedView{}, Description: "They are users of the account now."}}
	return apidoc.Table{
		{Method: http.MethodGet, Path: users, Group: groupUsers, Summary: "The users of an account.", Request: listUsersRequest{}, Answers: apidoc.OK(usersView{}), Handler: h.listUsers},
		{Method: http.MethodPost, Path: users, Group: groupUsers, Summary: "Take users into an account, all or none.", Request: inviteRequest{}, Answers: invited, Handler: h.inviteUsers},
		{Method: http.MethodGet, Path: user, Group: groupUsers, Summary: "One user.", Request: userRequest{}, Answers: apidoc.OK(userView{}), Handler: h.getUser},
		{Method: http.MethodPatch, Path: user, Group: groupUsers, Summary: "Change the given fields of a user.", Request: updateUserRequest{}, Answers: done, Handler: h.patchUser},
		{Method: http.MethodDelete, Path: user, Group: groupUsers, Summary: "Remove a user; its keys of this account are refused for ever.", Request: userRequest{}, Answers: done, Handler: h.removeUser},
		{Method: http.MethodGet, Path: user + "/settings", Group: groupUsers, Summary: "A user's settings.", Request: userRequest{}, Answers: apidoc.OK(userSettingsView{}), Handler: h.getUserSettings},
		{Method: http.MethodPatch, Path: user + "/settings", Group: groupUsers, Summary: "Change the given settings of a user.", Request: updateUserSettingsRequest{}, Answers: done, Handler: h.patchUserSettings},
		{Method: http.MethodPut, Path: user + "/roles", Group: groupUsers, Summary: "Set the roles of a user, or of a service ID of the account.", Request: rolesRequest{}, Answers: apidoc.OK(rolesView{}), Handler: h.putRoles},
		{Method: http.MethodPut, Path: user + "/parent", Group: groupUsers, Summary: "Move a user in the classic hierarchy.", Request: parentRequest{}, Answers: apidoc.OK(parentView{}), Handler: h.putParent},
		{Method: http.MethodPut, Path: user + "/functional", Group: groupUsers, Summary: "Mark a user as a functional ID.", Request: userRequest{}, Answers: done, Handler: h.setFunctional(true)},
		{Method: http.MethodDelete, Path: user + "/functional", Group: groupUsers, Summary: "Mark a user as a person.", Request: userRequest{}, Answers: done, Handler: h.setFunctional(false)},
	}
}

// changeUser carries out cmd and returns the account after it. It has answered where it
// returns false.
func (h *KeyAPI) changeUser(c *gin.Context, cmd domain.AccountCommand) (domain.Account, bool) {
	a, pos, err := h.Commands.ChangeAccount(c.Request.Context(), orderOf(c), domain.AccountID(c.Param("id")), cmd)
	if err != nil {
		httpx.Fail(c, err)
		return a, false
	}
	httpx.Position(c, pos)
	return a, true
}

func (h *KeyAPI) patchUser(c *gin.Context) {
	var b updateUserBody
	if err := httpx.BindJSON(c, &b); err != nil {
		httpx.Fail(c, err)
		return
	}
	for _, f := range []struct {
		name  string
		value *string
		keeps string // The one value that is taken.
	}{{"state", b.State, userActive}, {"phonenumber", b.Phonenumber, ""}, {"altphonenumber", b.Altphonenumber, ""}, {"photo", b.Photo, ""}} {
		if f.value != nil && *f.value != f.keeps {
			httpx.Fail(c, domain.Errorf(domain.Invalid, "can only be %q", f.keeps).WithField(f.name).WithMessageCode("not_kept"))
			return
		}
	}
	cmd := domain.UpdateMember{IAMID: domain.IAMID(c.Param("iam_id")), Name: b.Name, Firstname: b.Firstname, Lastname: b.Lastname, Email: b.Email}
	if _, ok := h.changeUser(c, cmd); ok {
		c.Status(http.StatusNoContent)
	}
}

func (h *KeyAPI) removeUser(c *gin.Context) {
	if _, ok := h.changeUser(c, domain.RemoveMember{IAMID: domain.IAMID(c.Param("iam_id"))}); ok {
		c.Status(http.StatusNoContent)
	}
}

// getUserSettings answers to the user itself, and to who may see the account's settings.
func (h *KeyAPI) getUserSettings(c *gin.Context) {
	a, id, ok := h.userOf(c, func(o Order, in domain.Standing, _ domain.Account, id domain.IAMID) error {
		if id == o.Caller.Initiator.IAMID {
			return nil
		}
		return domain.AuthorizeAccount(o.Caller.Initiator, in, domain.RightSettings)
	})
	if ok {
		c.JSON(http.StatusOK, userSettingsOf(a, id))
	}
}

func (h *KeyAPI) patchUserSettings(c *gin.Context) {
	var b updateUserSettingsBody
	if err := httpx.BindJSON(c, &b); err != nil {
		httpx.Fail(c, err)
		return
	}
	cmd := domain.SetMemberSettings{
		IAMID: domain.IAMID(c.Param("iam_id")), AllowedAddresses: b.AllowedAddresses, Language: b.Language,
		NotificationLanguage: b.NotificationLanguage, SelfManage: b.SelfManage,
	}
	if cmd.IAMID == auth.CallerOf(c).Initiator.IAMID {
		cmd.From = auth.AddressOf(c)
	}
	if _, ok := h.changeUser(c, cmd); ok {
		c.Status(http.StatusNoContent)
	}
}

func (h *KeyAPI) putRoles(c *gin.Context) {
	var b rolesBody
	if err := httpx.BindJSON(c, &b); err != nil {
		httpx.Fail(c, err)
		return
	}
	if b.Roles == nil {
		httpx.Fail(c, domain.Errorf(domain.Invalid, "is required: all roles from now on").WithField("roles").WithMessageCode("missing_roles"))
		return
	}
	cmd := domain.SetRoles{IAMID: domain.IAMID(c.Param("iam_id")), Roles: b.Roles}
	if a, ok := h.changeUser(c, cmd); ok {
		c.JSON(http.StatusOK, rolesView{IAMID: cmd.IAMID, Roles: userViewOf(a, cmd.IAMID).Roles})
	}
}

func (h *KeyAPI) putParent(c *gin.Context) {
	var b parentBody
	if err := httpx.BindJSON(c, &b); err != nil {
		httpx.Fail(c, err)
		return
	}
	cmd := domain.SetParent{IAMID: domain.IAMID(c.Param("iam_id")), Parent: b.Parent}
	if a, ok := h.changeUser(c, cmd); ok {
		c.JSON(http.StatusOK, parentView{IAMID: cmd.IAMID, Parent: cmd.Parent, Ancestors: a.Ancestors(cmd.IAMID)})
	}
}

// setFunctional returns the handler that marks a user, or takes the mark away.
func (h *KeyAPI) setFunctional(functional bool) gin.HandlerFunc {
	return func(c *gin.Context) {
		if _, ok := h.changeUser(c, domain.SetFunctional{IAMID: domain.IAMID(c.Param("iam_id")), Functional: functional}); ok {
			c.Status(http.StatusNoContent)
		}
	}
}
