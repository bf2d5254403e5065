package ingest

import (
	"net/http"
	"strconv"

	"github.com/gin-gonic/gin"

	"example.com/keytrail/domain"
	"example.com/keytrail/internal/apidoc"
	"example.com/keytrail/internal/auth"
	"example.com/keytrail/internal/httpx"
)

const groupSettings = "settings"

type settingsRequest struct {
	ID      string `path:"id" json:"-" description:"Id of the account."`
	History bool   `query:"include_history" json:"-" description:"Show every change."`
	Resolve bool   `query:"resolve_user_mfa" json:"-" description:"Show the names of the users with a second factor of their own."`
}

type updateSettingsRequest struct {
	ID      string `path:"id" json:"-" description:"Id of the account."`
	IfMatch string `header:"If-Match" json:"-" required:"true" description:"The entity tag that was read, or *."`
	domain.UpdateAccountSettings
}

// settingsView are the settings of an account; the names are IBM's.
type settingsView struct {
	Context   *httpx.RequestContext `json:"context,omitempty"`
	AccountID domain.AccountID      `json:"account_id"`
	EntityTag string                `json:"entity_tag"`
	History   []historyView         `json:"history,omitempty"`
	settingsFields
	UserDomains []userDomainsView `json:"restrict_user_domains"`
}

// settingsFields are what settings and effective settings have in common.
type settingsFields struct {
	RestrictServiceIDs  domain.Restriction `json:"restrict_create_service_id"`
	RestrictUserKeys    domain.Restriction `json:"restrict_create_platform_apikey"`
	RestrictUserList    domain.Restriction `json:"restrict_user_list_visibility"`
	AllowedAddresses    string             `json:"allowed_ip_addresses"`
	MFA                 domain.MFA         `json:"mfa"`
	UserMFA             []userMFAView      `json:"user_mfa"`
	SessionExpiration   string             `json:"session_expiration_in_seconds"`
	SessionInvalidation string             `json:"session_invalidation_in_seconds"`
	SessionsMax         string             `json:"max_sessions_per_identity"`
	AccessToken         string             `json:"system_access_token_expiration_in_seconds"`
	RefreshToken        string             `json:"system_refresh_token_expiration_in_seconds"`
	RecordReads         bool               `json:"record_reads" description:"Ours: every read and list of the account's keys is recorded."`
}

type userMFAView struct {
	IAMID    domain.IAMID `json:"iam_id"`
	MFA      domain.MFA   `json:"mfa"`
	Name     string       `json:"name,omitempty"`
	UserName string       `json:"userName,omitempty"`
	Email    string       `json:"email,omitempty"`
}

// userDomainsView says false where something is not restricted, as IBM does.
type userDomainsView struct {
	Realm    string   `json:"realm_id"`
	Patterns []string `json:"invitation_email_allow_patterns,omitempty"`
	Restrict bool     `json:"restrict_invitation"`
}

// effectiveView are the settings that hold: the account's, and the defaults.
type effectiveView struct {
	Context   httpx.RequestContext `json:"context"`
	AccountID domain.AccountID     `json:"account_id"`
	Effective settingsFields       `json:"effective"`
	Account   settingsView         `json:"account"`
}

func (h *KeyAPI) settingsRoutes() apidoc.Table {
	const identity, access = "/v1/accounts/:id/settings/identity", "/v1/accounts/:id/settings/access_management"
	return apidoc.Table{
		{Method: http.MethodGet, Path: identity, Group: groupSettings, Summary: "An account's settings.", Request: settingsRequest{}, Answers: apidoc.OK(settingsView{}), Handler: h.getSettings},
		{Method: http.MethodPut, Path: identity, Group: groupSettings, Summary: "Change the given settings.", Request: updateSettingsRequest{}, Answers: apidoc.OK(settingsView{}), Handler: h.putSettings},
		{Method: http.MethodGet, Path: "/v1/accounts/:id/effective_settings/identity", Group: groupSettings, Summary: "The settings that hold, with the defaults.", Request: settingsRequest{}, Answers: apidoc.OK(effectiveView{}), Handler: h.getEffectiveSettings},
		{Method: http.MethodGet, Path: access, Group: groupSettings, Summary: "Which identities of other accounts are let in.", Request: idRequest{}, Answers: apidoc.OK(accessSettingsView{}), Handler: h.getAccessSettings},
		{Method: http.MethodPatch, Path: access, Group: groupSettings, Summary: "Let in identities of other accounts, or not.", Request: updateAccessRequest{}, Answers: apidoc.OK(accessSettingsView{}), Handler: h.putAccessSettings},
		{Method: http.MethodPut, Path: access, Group: groupSettings, Summary: "The same as PATCH: what is not given stays.", Request: updateAccessRequest{}, Answers: apidoc.OK(accessSettingsView{}), Handler: h.putAccessSettings},
	}
}

// settingsFieldsOf returns s as the API shows it. Where a is given, the users' names are
// shown.
func settingsFieldsOf(s domain.AccountSettings, a *domain.Account) settingsFields {
	v := settingsFields{
		RestrictServiceIDs: s.RestrictServiceIDs, RestrictUserKeys: s.RestrictUserKeys, RestrictUserList: s.RestrictUserList,
		AllowedAddresses: s.AllowedAddresses, MFA: s.MFA, UserMFA: []userMFAView{},
		SessionExpiration: domain.NumberText(s.SessionExpirationSeconds), SessionInvalidation: domain.NumberText(s.SessionInvalidationSeconds),
		SessionsMax: domain.NumberText(s.SessionsMax), AccessToken: domain.NumberText(s.AccessTokenSeconds), RefreshToken: domain.NumberText(s.RefreshTokenSeconds),
		RecordReads: s.RecordReads,
	}
	for _, u := range s.UserMFA {
		shown := userMFAView{IAMID: u.IAMID, MFA: u.MFA}
		if a != nil {
			m, _ := a.Member(u.IAMID)
			shown.Name, shown.UserName, shown.Email = m.Name, m.Email, m.Email
		}
		v.UserMFA = append(v.UserMFA, shown)
	}
	return v
}

// settingsOf returns the settings of a as the API shows them.
func settingsOf(a domain.Account, resolve bool) settingsView {
	s := a.Settings()
	v := settingsView{AccountID: a.ID(), EntityTag: a.SettingsTag(), UserDomains: []userDomainsView{}}
	v.settingsFields = settingsFieldsOf(s, nil)
	if resolve {
		v.settingsFields = settingsFieldsOf(s, &a)
	}
	for _, d := range s.UserDomains {
		v.UserDomains = append(v.UserDomains, userDomainsView(d))
	}
	return v
}

// settingsQuery reads what a question about settings wants to be shown.
func settingsQuery(c *gin.Context) (history, resolve bool, err error) {
	if history, err = boolQuery(c, "include_history"); err != nil {
		return false, false, err
	}
	resolve, err = boolQuery(c, "resolve_user_mfa")
	return history, resolve, err
}

// readSettings returns the settings that the path names, with what the query asks for, and
// the position that they hold at. It has answered where it returns false.
func (h *KeyAPI) readSettings(c *gin.Context) (domain.Account, settingsView, bool) {
	history, resolve, err := settingsQuery(c)
	if err != nil {
		httpx.Fail(c, err)
		return domain.Account{}, settingsView{}, false
	}
	o := orderOf(c)
	a, pos, err := h.Commands.ReadAccount(c.Request.Context(), o, domain.AccountID(c.Param("id")), domain.ActionSettingsRead, maySettings(o))
	if err != nil {
		httpx.Fail(c, err)
		return domain.Account{}, settingsView{}, false
	}
	v := settingsOf(a, resolve)
	if history {
		if v.History, err = h.settingsHistory(c, a.ID()); err != nil {
			httpx.Fail(c, err)
			return domain.Account{}, settingsView{}, false
		}
	}
	httpx.Position(c, pos)
	return a, v, true
}

// settingsHistory returns the creation of the account, with which its settings began, and
// each change of them.
func (h *KeyAPI) settingsHistory(c *gin.Context, id domain.AccountID) ([]historyView, error) {
	recorded, err := h.Commands.AccountHistory(c.Request.Context(), id)
	if err != nil {
		return nil, err
	}
	var list []historyView
	for _, rec := range recorded {
		params := []string{}
		switch e := rec.Event.(type) { //nolint:gochecksumtype // All others are no part of it.
		case domain.AccountCreated:
		case domain.AccountSettingsSet:
			for _, change := range e.Changes() {
				params = append(params, change.Field+"="+strconv.Quote(change.New))
			}
		default:
			continue
		}
		if a, ok := domain.ActivityOf(rec); ok {
			shown := historyOf(rec, a)
			shown.Params = params
			list = append(list, shown)
		}
	}
	return list, nil
}

func (h *KeyAPI) getSettings(c *gin.Context) {
	_, v, ok := h.readSettings(c)
	if !ok {
		return
	}
	context := httpx.Context(c)
	v.Context = &context
	c.Header("Etag", v.EntityTag)
	c.JSON(http.StatusOK, v)
}

// putSettings answers 200 with the settings after the change and their history, as IBM does.
// A stale entity tag is 409.
func (h *KeyAPI) putSettings(c *gin.Context) {
	var cmd domain.UpdateAccountSettings
	if err := httpx.BindJSON(c, &cmd); err != nil {
		httpx.Fail(c, err)
		return
	}
	cmd.IfMatch, cmd.From = c.GetHeader("If-Match"), auth.AddressOf(c)
	a, pos, err := h.Commands.ChangeAccount(c.Request.Context(), orderOf(c), domain.AccountID(c.Param("id")), cmd)
	if err != nil {
		httpx.Fail(c, err)
		return
	}
	v, context := settingsOf(a, false), httpx.Context(c)
	if v.History, err = h.settingsHistory(c, a.ID()); err != nil {
		httpx.Fail(c, err)
		return
	}
	v.Context = &context
	httpx.Position(c, pos)
	c.Header("Etag", v.EntityTag)
	c.JSON(http.StatusOK, v)
}

func (h *KeyAPI) getEffectiveSettings(c *gin.Context) {
	a, v, ok := h.readSettings(c)
	if !ok {
		return
	}
	effective := settingsFieldsOf(a.Settings().Effective(), nil)
	effective.UserMFA = v.UserMFA
	c.JSON(http.StatusOK, effectiveView{Context: httpx.Context(c), AccountID: a.ID(), Effective: effective, Account: v})
}

// accessSettingsView are the access management settings of an account, in IBM's shape.
type accessSettingsView struct {
	External externalInteractionView `json:"external_account_identity_interaction"`
}

type externalInteractionView struct {
	Types domain.AccessSettings `json:"identity_types"`
}

// updateAccessBody changes the types of identity that it names, each as a whole.
type updateAccessBody struct {
	External *struct {
		Types *domain.UpdateAccessSettings `json:"identity_types,omitempty"`
	} `json:"external_account_identity_interaction,omitempty"`
}

type updateAccessRequest struct {
	ID      string `path:"id" json:"-" description:"Id of the account."`
	IfMatch string `header:"If-Match" json:"-" required:"true" description:"The Etag that was read, or *."`
	updateAccessBody
}

func (h *KeyAPI) getAccessSettings(c *gin.Context) {
	o := orderOf(c)
	a, pos, err := h.Commands.ReadAccount(c.Request.Context(), o, domain.AccountID(c.Param("id")), domain.ActionAccessSettingsRead, maySettings(o))
	if err != nil {
		httpx.Fail(c, err)
		return
	}
	answerAccessSettings(c, a, pos)
}

func answerAccessSettings(c *gin.Context, a domain.Account, position uint64) {
	httpx.Position(c, position)
	c.Header("Etag", a.AccessSettingsTag())
	c.JSON(http.StatusOK, accessSettingsView{External: externalInteractionView{Types: a.AccessSettings()}})
}

// putAccessSettings answers 200 with the settings after the change. A stale Etag is 409.
func (h *KeyAPI) putAccessSettings(c *gin.Context) {
	var b updateAccessBody
	if err := httpx.BindJSON(c, &b); err != nil {
		httpx.Fail(c, err)
		return
	}
	cmd := domain.UpdateAccessSettings{}
	if b.External != nil && b.External.Types != nil {
		cmd = *b.External.Types
	}
	cmd.IfMatch = c.GetHeader("If-Match")
	a, pos, err := h.Commands.ChangeAccount(c.Request.Context(), orderOf(c), domain.AccountID(c.Param("id")), cmd)
	if err != nil {
		httpx.Fail(c, err)
		return
	}
	answerAccessSettings(c, a, pos)
}
