package ingest

import (
	"net/http"
	"time"

	"github.com/gin-gonic/gin"

	"example.com/keytrail/domain"
	"example.com/keytrail/internal/apidoc"
	"example.com/keytrail/internal/httpx"
)

type contactsBody struct {
	Contacts  []domain.SecurityContact `json:"contacts" description:"All of them. One that is new is confirmed by this."`
	StaleDays *int                     `json:"stale_after_days,omitempty" minimum:"1" maximum:"3650" description:"After so many days without confirmation a contact is stale. Default: as it is, at first 90."`
}

type contactsRequest struct {
	ID string `path:"id" json:"-" description:"Id of the account."`
	contactsBody
}

type contactsView struct {
	AccountID domain.AccountID `json:"account_id"`
	Contacts  []contactView    `json:"contacts"`
	StaleDays int              `json:"stale_after_days"`
	Stale     bool             `json:"stale" description:"One of them is, or there is none."`
}

type contactView struct {
	Name          string       `json:"name"`
	Email         string       `json:"email"`
	LastConfirmed string       `json:"last_confirmed"`
	ConfirmedBy   domain.IAMID `json:"confirmed_by"`
	Stale         bool         `json:"stale"`
}

func (h *KeyAPI) contactRoutes() apidoc.Table {
	const path = "/v1/accounts/:id/security_contacts"
	return apidoc.Table{
		{Method: http.MethodGet, Path: path, Group: groupSettings, Summary: "Who is told of what concerns an account's security.", Request: idRequest{}, Answers: apidoc.OK(contactsView{}), Handler: h.getContacts},
		{Method: http.MethodPut, Path: path, Group: groupSettings, Summary: "Set the security contacts of an account.", Request: contactsRequest{}, Answers: apidoc.OK(contactsView{}), Handler: h.putContacts},
		{Method: http.MethodPost, Path: path + "/confirm", Group: groupSettings, Summary: "Say that all security contacts are still right.", Request: idRequest{}, Answers: apidoc.OK(contactsView{}), Handler: h.confirmContacts},
	}
}

func contactsViewOf(a domain.Account, now time.Time) contactsView {
	v := contactsView{AccountID: a.ID(), Contacts: []contactView{}, StaleDays: a.ContactsStaleAfter(), Stale: len(a.SecurityContacts()) == 0}
	for _, contact := range a.SecurityContacts() {
		shown := contactView{
			Name: contact.Name, Email: contact.Email, LastConfirmed: showTime(contact.ConfirmedAt), ConfirmedBy: contact.ConfirmedBy,
			Stale: contact.StaleAt(now, v.StaleDays),
		}
		v.Stale = v.Stale || shown.Stale
		v.Contacts = append(v.Contacts, shown)
	}
	return v
}

func (h *KeyAPI) getContacts(c *gin.Context) {
	o := orderOf(c)
	a, pos, err := h.Commands.ReadAccount(c.Request.Context(), o, domain.AccountID(c.Param("id")), domain.ActionContactsRead, maySettings(o))
	h.answerContacts(c, a, pos, err)
}

func (h *KeyAPI) putContacts(c *gin.Context) {
	var b contactsBody
	if err := httpx.BindJSON(c, &b); err != nil {
		httpx.Fail(c, err)
		return
	}
	h.changeContacts(c, domain.SetSecurityContacts{Contacts: b.Contacts, StaleDays: b.StaleDays})
}

func (h *KeyAPI) confirmContacts(c *gin.Context) {
	h.changeContacts(c, domain.ConfirmSecurityContacts{})
}

func (h *KeyAPI) changeContacts(c *gin.Context, cmd domain.AccountCommand) {
	a, pos, err := h.Commands.ChangeAccount(c.Request.Context(), orderOf(c), domain.AccountID(c.Param("id")), cmd)
	h.answerContacts(c, a, pos, err)
}

func (h *KeyAPI) answerContacts(c *gin.Context, a domain.Account, position uint64, err error) {
	if err != nil {
		httpx.Fail(c, err)
		return
	}
	httpx.Position(c, position)
	c.JSON(http.StatusOK, contactsViewOf(a, h.Now()))
}
