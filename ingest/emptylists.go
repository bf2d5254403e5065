package ingest

import (
	"net/http"

	"github.com/gin-gonic/gin"

	"example.com/keytrail/domain"
	"example.com/keytrail/internal/apidoc"
	"example.com/keytrail/internal/auth"
	"example.com/keytrail/internal/httpx"
)

// emptyList is the answer to a list of what keytrail does not have. Programs made for
// IBM's cloud ask what there is before they begin and after they end; the truth is:
// nothing. What makes such things does not exist here (404).
type emptyList struct {
	Context httpx.RequestContext `json:"context"`
	Offset  int                  `json:"offset"`
	Limit   int                  `json:"limit"`
}

type profilesView struct {
	emptyList
	Profiles []struct{} `json:"profiles"`
}

type profileTemplatesView struct {
	emptyList
	ProfileTemplates []struct{} `json:"profile_templates"`
}

type settingsTemplatesView struct {
	emptyList
	Templates []struct{} `json:"account_settings_templates"`
}

type emptyListRequest struct {
	Account string `query:"account_id" description:"Default: the account of the caller's key."`
}

// emptyRoutes are the lists that are always empty.
func (h *KeyAPI) emptyRoutes() apidoc.Table {
	route := func(path, summary string, answer any, view func(emptyList) any) apidoc.Route {
		return apidoc.Route{
			Method: http.MethodGet, Path: path, Group: groupAccounts, Summary: summary,
			Request: emptyListRequest{}, Answers: apidoc.OK(answer), Handler: h.listNothing(view),
		}
	}
	return apidoc.Table{
		route("/v1/profiles", "Trusted profiles: there are none.", profilesView{}, func(e emptyList) any {
			return profilesView{emptyList: e, Profiles: []struct{}{}}
		}),
		route("/v1/profile_templates", "Templates of trusted profiles: there are none.", profileTemplatesView{}, func(e emptyList) any {
			return profileTemplatesView{emptyList: e, ProfileTemplates: []struct{}{}}
		}),
		route("/v1/account_settings_templates", "Templates of account settings: there are none.", settingsTemplatesView{}, func(e emptyList) any {
			return settingsTemplatesView{emptyList: e, Templates: []struct{}{}}
		}),
	}
}

func (h *KeyAPI) listNothing(view func(emptyList) any) gin.HandlerFunc {
	return func(c *gin.Context) {
		caller, account := auth.CallerOf(c), domain.AccountID(c.Query("account_id"))
		if account == "" {
			account = caller.Initiator.Account
		}
		if !caller.Standing(account).Known() {
			httpx.Fail(c, domain.Errorf(domain.NotFound, "no such account").WithField("account_id").WithMessageCode("account_not_found"))
			return
		}
		httpx.Position(c, h.Directory.Reached())
		c.JSON(http.StatusOK, view(emptyList{Context: httpx.Context(c), Limit: pageSizeDefault}))
	}
}
