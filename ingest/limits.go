package ingest

import (
	"context"
	"net/http"
	"strings"

	"github.com/gin-gonic/gin"

	"example.com/keytrail/domain"
	"example.com/keytrail/internal/apidoc"
	"example.com/keytrail/internal/httpx"
)

// limitIdentitiesMax bounds the identities of one question.
const limitIdentitiesMax = 100

// KeysUsed returns how many keys each identity has in an account, as the log has it now.
func (s *Commands) KeysUsed(ctx context.Context, account domain.AccountID, ids []domain.IAMID) ([]int, error) {
	out := make([]int, len(ids))
	for i, iam := range ids {
		k := keySlot{account: account, iam: iam, kind: domain.KindUser}
		f, err := foldNow(ctx, s.cfg.Log, s.slots, k.stream())
		if err != nil {
			return nil, err
		}
		out[i] = f.state.Used()
		if !f.state.Complete() {
			out[i] = len(s.existing(k))
		}
	}
	return out, nil
}

// ReadLimits returns the limits of an account to who may read its audit data. That it was
// refused is recorded.
func (s *Commands) ReadLimits(ctx context.Context, o Order, id domain.AccountID) (domain.AccountLimits, error) {
	in := o.Caller.Standing(id)
	if err := domain.AuthorizeAccount(o.Caller.Initiator, in, domain.RightRead); err != nil {
		e := domain.CommandRefused{Action: domain.ActionLimitsRead, Account: id, TargetName: string(id)}
		return domain.AccountLimits{}, s.refuseRead(ctx, o, e, err)
	}
	account, _ := s.cfg.Directory.Account(id)
	return account.Limits(), nil
}

// limitsRequest asks for limits; for what keytrail has no limit of, there is no answer.
type limitsRequest struct {
	Account        string `path:"id" json:"-"`
	Identities     string `query:"apikeys_per_identity" json:"-" description:"IAM ids, with commas between, whose keys to count."`
	Groups         string `query:"serviceid_groups" json:"-" description:"As with IBM; keytrail has none, and says nothing of it. So with the others below."`
	PerGroup       string `query:"serviceids_per_group" json:"-"`
	Profiles       string `query:"profiles" json:"-"`
	Templates      string `query:"templates" json:"-"`
	Versions       string `query:"template_versions_per_template" json:"-"`
	IDPs           string `query:"idps" json:"-"`
	ClaimsGroup    string `query:"claim_rules_per_group" json:"-"`
	ClaimsProfile  string `query:"claim_rules_per_profile" json:"-"`
	Links          string `query:"cr_links" json:"-"`
	LinksProfile   string `query:"cr_links_per_profile" json:"-"`
	Resources      string `query:"cr_rules" json:"-"`
	ResourcesOfAll string `query:"cr_rules_per_profile" json:"-"`
}

// bulkLimitsBody is the body of POST …/limits/identity, IBM's. What keytrail has not, it
// takes and does not answer.
type bulkLimitsBody struct {
	ServiceIDGroups     *bool          `json:"serviceid_groups,omitempty"`
	ServiceIDsPerGroup  []string       `json:"serviceids_per_group,omitempty"`
	Profiles            *bool          `json:"profiles,omitempty"`
	KeysPerIdentity     []domain.IAMID `json:"apikeys_per_identity,omitempty"`
	Templates           *bool          `json:"templates,omitempty"`
	TemplateVersions    []string       `json:"template_versions_per_template,omitempty"`
	IDPs                *bool          `json:"idps,omitempty"`
	ClaimRulesPerGroup  []string       `json:"claim_rules_per_group,omitempty"`
	ClaimRulesProfile   []string       `json:"claim_rules_per_profile,omitempty"`
	Links               *bool          `json:"cr_links,omitempty"`
	LinksPerProfile     []string       `json:"cr_links_per_profile,omitempty"`
	ResourceRules       *bool          `json:"cr_rules,omitempty"`
	ResourceRulesOfEach []string       `json:"cr_rules_per_profile,omitempty"`
}

type bulkLimitsRequest struct {
	ID string `path:"id" json:"-"`
	bulkLimitsBody
}

// setLimitsBody is the body of PUT …/limits/identity: all the limits from now on.
type setLimitsBody struct {
	KeysPerIdentity int                  `json:"apikeys_per_identity,omitempty" minimum:"0" maximum:"100000" description:"How many keys an identity may have; absent = 20."`
	Identities      map[domain.IAMID]int `json:"identities,omitempty" description:"By IAM id, where it is another number."`
}

type setLimitsRequest struct {
	ID string `path:"id" json:"-"`
	setLimitsBody
}

// limitsView are limits and what is used of them; the field names are IBM's.
type limitsView struct {
	Keys keyLimitView `json:"apikeys_per_identity"`
}

type keyLimitView struct {
	Limit      int                 `json:"limit"`
	Identities []identityCountView `json:"identities,omitempty"`
	// Ours: the identities that have another limit.
	Limits map[domain.IAMID]int `json:"limits,omitempty"`
}

type identityCountView struct {
	IAMID domain.IAMID `json:"iam_id"`
	Count int          `json:"count"`
	Limit int          `json:"limit"` // Ours.
}

func (h *KeyAPI) limitRoutes() apidoc.Table {
	const path = "/v1/accounts/:id/limits/identity"
	return apidoc.Table{
		{Method: http.MethodGet, Path: path, Group: groupAccounts, Summary: "How many keys an identity may have, and has.", Request: limitsRequest{}, Answers: apidoc.OK(limitsView{}), Handler: h.getLimits},
		{Method: http.MethodPost, Path: path, Group: groupAccounts, Summary: "The same for many identities.", Request: bulkLimitsRequest{}, Answers: apidoc.OK(limitsView{}), Handler: h.bulkLimits},
		{Method: http.MethodPut, Path: path, Group: groupAccounts, Summary: "Set how many keys an identity may have.", Request: setLimitsRequest{}, Answers: apidoc.OK(limitsView{}), Handler: h.setLimits},
	}
}

func (h *KeyAPI) getLimits(c *gin.Context) {
	var ids []domain.IAMID
	for id := range strings.SplitSeq(c.Query("apikeys_per_identity"), ",") {
		if id = strings.TrimSpace(id); id != "" {
			ids = append(ids, domain.IAMID(id))
		}
	}
	h.answerLimits(c, ids)
}

func (h *KeyAPI) bulkLimits(c *gin.Context) {
	var b bulkLimitsBody
	if err := httpx.BindJSON(c, &b); err != nil {
		httpx.Fail(c, err)
		return
	}
	h.answerLimits(c, b.KeysPerIdentity)
}

func (h *KeyAPI) answerLimits(c *gin.Context, ids []domain.IAMID) {
	account := domain.AccountID(c.Param("id"))
	limits, err := h.Commands.ReadLimits(c.Request.Context(), orderOf(c), account)
	if err == nil {
		err = checkIdentities(ids)
	}
	if err != nil {
		httpx.Fail(c, err)
		return
	}
	used, err := h.Commands.KeysUsed(c.Request.Context(), account, ids)
	if err != nil {
		httpx.Fail(c, err)
		return
	}
	v := limitsViewOf(limits)
	for i, iam := range ids {
		v.Keys.Identities = append(v.Keys.Identities, identityCountView{IAMID: iam, Count: used[i], Limit: limits.Keys(iam)})
	}
	httpx.Position(c, h.Directory.Reached())
	c.JSON(http.StatusOK, v)
}

func checkIdentities(ids []domain.IAMID) error {
	if len(ids) > limitIdentitiesMax {
		return domain.Errorf(domain.Invalid, "names more than %d identities", limitIdentitiesMax).WithField("apikeys_per_identity").WithMessageCode("too_long")
	}
	for _, id := range ids {
		if !domain.ValidID(string(id)) {
			return domain.Errorf(domain.Invalid, "names what is not an IAM id").WithField("apikeys_per_identity").WithMessageCode("invalid_iam_id")
		}
	}
	return nil
}

func limitsViewOf(l domain.AccountLimits) limitsView {
	return limitsView{Keys: keyLimitView{Limit: l.Keys(""), Limits: l.Identities}}
}

// setLimits answers 200 with the limits after the change, without counts.
func (h *KeyAPI) setLimits(c *gin.Context) {
	var b setLimitsBody
	if err := httpx.BindJSON(c, &b); err != nil {
		httpx.Fail(c, err)
		return
	}
	cmd := domain.SetAccountLimits{Limits: domain.AccountLimits{KeysPerIdentity: b.KeysPerIdentity, Identities: b.Identities}}
	account, pos, err := h.Commands.ChangeAccount(c.Request.Context(), orderOf(c), domain.AccountID(c.Param("id")), cmd)
	if err != nil {
		httpx.Fail(c, err)
		return
	}
	httpx.Position(c, pos)
	c.JSON(http.StatusOK, limitsViewOf(account.Limits()))
}
