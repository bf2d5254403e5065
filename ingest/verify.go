package ingest

import (
	"maps"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/gin-gonic/gin"

	"example.com/keytrail/domain"
	"example.com/keytrail/internal/apidoc"
	"example.com/keytrail/internal/auth"
	"example.com/keytrail/internal/httpx"
	"example.com/keytrail/internal/keystore"
)

// verifyRoutes answer what a key is worth. Both surfaces take every kind of key.
func (h *KeyAPI) verifyRoutes() apidoc.Table {
	return apidoc.Table{
		{
			Method: http.MethodPost, Path: "/v1/apikeys/verify", Group: groupKeys, Summary: "Say what a key is worth that was shown.",
			Description: "Needs the role Verifier in an account in which the key's identity is anything; any other key is NOT_FOUND. The answer comes when the use is durable.",
			Request:     verifyBody{}, Answers: apidoc.OK(verifyView{}), Handler: h.verify,
		},
		{
			Method: http.MethodPost, Path: "/v1/authorize", Group: groupKeys, Summary: "The same, for what calls the classic infrastructure API.",
			Request: verifyBody{}, Answers: apidoc.OK(verifyView{}), Handler: h.verify,
		},
	}
}

// verifyBody is the body of POST /v1/apikeys/verify.
type verifyBody struct {
	APIKey string `json:"apikey" required:"true" description:"The value that was shown."`
	// Action and Target say what it is to be used for.
	Action    string `json:"action,omitempty" description:"What it is to be used for, such as cos.object.get. It becomes the action of the use."`
	SourceIP  string `json:"source_ip,omitempty" description:"Where it was shown from. Required where the account or the user allows only some addresses."`
	UserAgent string `json:"user_agent,omitempty"`
	Target    string `json:"target,omitempty" description:"What it is to be used on: a CRN, or an account's id."`
}

// verifyView is the answer. Of a key that the caller may not know of it says no more than of
// a value that no key has.
type verifyView struct {
	Valid     bool               `json:"valid"`
	Code      domain.VerifyCode  `json:"code"`
	Reason    string             `json:"reason,omitempty"`
	KeyID     domain.KeyID       `json:"key_id,omitempty"`
	Name      string             `json:"name,omitempty"`
	Kind      domain.KeyKind     `json:"kind,omitempty"`
	IAMID     domain.IAMID       `json:"iam_id,omitempty"`
	AccountID domain.AccountID   `json:"account_id,omitempty"`
	Accounts  []domain.AccountID `json:"accounts,omitempty" description:"Every account in which the key's identity is anything."`
	ExpiresAt string             `json:"expires_at,omitempty"`
	// CrossAccount is what the account of the target decided, if that is not the key's.
	CrossAccount *crossingView `json:"cross_account,omitempty"`
}

type crossingView struct {
	AccountID  domain.AccountID `json:"account_id"`
	Decision   string           `json:"decision" enum:"Permit,Deny"`
	IsEnforced bool             `json:"is_enforced"`
}

// question is what is asked of a key, checked.
type question struct {
	secret keystore.Secret
	verifyBody
	from netip.Addr // The zero Addr: nobody said.
}

// verdict is what a key that the caller may know of is worth.
type verdict struct {
	code     domain.VerifyCode
	reason   string
	key      domain.KeyState
	accounts []domain.AccountID
	crossing *domain.Crossing
}

// bindQuestion reads a question. Texts that could be a key's value are refused: they would
// be recorded.
func bindQuestion(c *gin.Context) (question, error) {
	var q question
	if err := httpx.BindJSON(c, &q.verifyBody); err != nil {
		return q, err //nolint:wrapcheck // Worded for the caller.
	}
	q.secret, q.APIKey = keystore.NewSecret(q.APIKey), ""
	if q.secret.Empty() {
		return q, domain.Errorf(domain.Invalid, "is required: the value that was shown").WithField("apikey").WithMessageCode("missing_apikey")
	}
	for _, f := range []struct {
		name, value string
		bytesMax    int
	}{{"action", q.Action, useTextBytesMax}, {"target", q.Target, useLongBytesMax}, {"user_agent", q.UserAgent, useLongBytesMax}} {
		if err := domain.CheckUseText(f.name, f.value, f.bytesMax); err != nil {
			return q, err //nolint:wrapcheck // Worded for the caller.
		}
		if value := q.secret.Reveal(); len(value) >= domain.KeyValueCharsMin && strings.Contains(f.value, value) {
			return q, domain.Errorf(domain.Invalid, "holds the value of the key").WithField(f.name).WithMessageCode("holds_secret")
		}
	}
	if q.SourceIP == "" {
		return q, nil
	}
	from, err := netip.ParseAddr(q.SourceIP)
	if err != nil || from.Zone() != "" {
		return q, domain.Errorf(domain.Invalid, "is not an IPv4 or IPv6 address").WithField("source_ip").WithMessageCode("invalid_source_ip")
	}
	q.from = from.Unmap()
	q.SourceIP = q.from.String()
	return q, nil
}

// verify says what a key is worth that somebody showed to the caller. The answer comes when
// the use is durable.
func (h *KeyAPI) verify(c *gin.Context) {
	q, err := bindQuestion(c)
	if err != nil {
		httpx.Fail(c, err)
		return
	}
	caller := auth.CallerOf(c)
	scope := caller.Accounts(domain.RightVerify)
	if len(scope) == 0 {
		httpx.Fail(c, h.mayNotVerify(c, caller))
		return
	}
	v, err := h.judge(c, q, scope)
	if err != nil {
		httpx.Fail(c, err)
		return
	}
	if v.code == domain.VerifyNotFound {
		h.verifyUnknown(c, q, v)
		return
	}
	pos, err := h.recordVerdict(c, q, v)
	if err != nil {
		httpx.Fail(c, err)
		return
	}
	// It may have taken long to record: what is answered must hold now.
	again, err := h.judge(c, q, scope)
	if err == nil && again.code != v.code {
		err = domain.Errorf(domain.Unavailable, "the key was changed while it was verified; try again").WithMessageCode("concurrent_change")
	}
	if err != nil {
		httpx.Fail(c, err)
		return
	}
	httpx.Position(c, pos)
	view := verifyView{
		Valid: v.code == domain.VerifyValid, Code: v.code, Reason: v.reason, KeyID: v.key.ID, Name: v.key.Name, Kind: v.key.Kind,
		IAMID: v.key.IAMID, AccountID: v.key.Account, Accounts: v.accounts, ExpiresAt: domain.FormatExpiry(v.key.ExpiresAt),
	}
	if v.crossing != nil {
		view.CrossAccount = &crossingView{AccountID: v.crossing.Account, Decision: v.crossing.Decision(), IsEnforced: v.crossing.Enforced}
	}
	answerVerify(c, view)
}

func answerVerify(c *gin.Context, v verifyView) {
	c.Header("Cache-Control", "no-store")
	c.JSON(http.StatusOK, v)
}

// judge answers q by what the directory knows. scope are the accounts for which the caller
// may ask.
func (h *KeyAPI) judge(c *gin.Context, q question, scope []domain.AccountID) (v verdict, err error) {
	err = h.Auth.Judge(c.Request.Context(), func(now time.Time) error {
		v, err = h.judgeNow(q, scope, now)
		return err
	})
	return v, err //nolint:wrapcheck // It is worded for the caller.
}

func (h *KeyAPI) judgeNow(q question, scope []domain.AccountID, now time.Time) (verdict, error) {
	nothing := verdict{code: domain.VerifyNotFound, reason: "no such API key"}
	key, err := h.Auth.Lookup(q.secret)
	if err != nil {
		return nothing, nil //nolint:nilerr // That there is none is the answer.
	}
	v := verdict{key: key, code: domain.VerifyValid}
	for _, account := range h.Directory.AccountsOf(key.IAMID) {
		if h.Directory.Standing(key.IAMID, account).Known() {
			v.accounts = append(v.accounts, account)
		}
	}
	asks := func(a domain.AccountID) bool { return slices.Contains(scope, a) }
	if !asks(key.Account) && !slices.ContainsFunc(v.accounts, asks) {
		return nothing, nil
	}
	refused := h.Directory.Check(key, now)
	if refused == nil {
		refused = h.Directory.CheckFrom(key, q.from)
	}
	if refused == nil {
		v.code, v.reason, v.crossing = h.accessQuestion(q, key).Decide()
		return v, nil
	}
	code, known := verifyCodeOf(refused)
	if !known {
		return verdict{}, refused //nolint:wrapcheck // Nobody can tell; it is worded for the caller.
	}
	v.code, v.reason = code, refused.Error()
	if code == domain.VerifyIPRefused && !q.from.IsValid() {
		v.reason += "; source_ip was not given"
	}
	return v, nil
}

// accessQuestion is what is known of where the key is to be used.
func (h *KeyAPI) accessQuestion(q question, key domain.KeyState) domain.AccessQuestion {
	where, named := h.Directory.Account(domain.AccountID(q.Target))
	if account := domain.AccountOfCRN(q.Target); account != "" {
		where, _ = h.Directory.Account(account) // One that we do not know is nobody's.
	} else if !named {
		where, _ = h.Directory.Account(key.Account)
	}
	return domain.AccessQuestion{
		Key: key, Action: q.Action, Target: q.Target, Where: where, Known: h.Directory.Standing(key.IAMID, where.ID()).Known(),
	}
}

// verifyCodeOf returns the code of what [auth.Directory.Check] said.
func verifyCodeOf(err error) (domain.VerifyCode, bool) {
	code, ok := map[string]domain.VerifyCode{
		"key_deleted": domain.VerifyDeleted, "key_disabled": domain.VerifyDisabled, "key_expired": domain.VerifyExpired,
		"identity_invalid": domain.VerifyIdentityInvalid, auth.MessageCodeIPRefused: domain.VerifyIPRefused, "invalid_credential": domain.VerifyNotFound,
	}[messageCodeOf(err)]
	return code, ok
}

// recordVerdict records the use of the key, and before it, for the account of the target, what
// that decided.
func (h *KeyAPI) recordVerdict(c *gin.Context, q question, v verdict) (uint64, error) {
	u := h.useOf(c, q, v)
	if v.crossing != nil {
		e := u
		e.ID = domain.DeriveID("eval", httpx.RequestID(c)).String()
		e.Account, e.KeyID, e.Action = v.crossing.Account, "", domain.ActionAccessEval
		e.Outcome, e.Status, e.ErrorCode = domain.OutcomeSuccess, http.StatusOK, ""
		if v.crossing.Refused() {
			e.Outcome, e.Status, e.ErrorCode = domain.OutcomeFailure, http.StatusForbidden, string(domain.VerifyCrossAccountRefused)
		}
		e.Labels = maps.Clone(u.Labels)
		e.Labels[domain.LabelDecision], e.Labels[domain.LabelEnforced] = v.crossing.Decision(), strconv.FormatBool(v.crossing.Enforced)
		e.Labels["key_id"], e.Labels["key_account_id"] = string(v.key.ID), string(v.key.Account)
		if _, err := h.Uses.RecordUse(c.Request.Context(), e); err != nil {
			return 0, err //nolint:wrapcheck // It says what was attempted.
		}
	}
	return h.Uses.RecordUse(c.Request.Context(), u) //nolint:wrapcheck // It says what was attempted.
}

// useOf is the use of a key that a verification is.
func (h *KeyAPI) useOf(c *gin.Context, q question, v verdict) domain.Use {
	u := domain.Use{
		ID: domain.DeriveID("verify", httpx.RequestID(c)).String(), Time: h.Now().UTC(), Account: v.key.Account, KeyID: v.key.ID,
		IAMID: v.key.IAMID, Action: q.Action, Outcome: domain.OutcomeSuccess, Status: http.StatusOK,
		Source: q.SourceIP, UserAgent: q.UserAgent, Target: q.Target, RequestID: httpx.Trace(c),
		Labels: map[string]string{domain.LabelVerified: string(auth.CallerOf(c).Initiator.IAMID)},
	}
	if u.Action == "" {
		u.Action = domain.KeyAction(v.key.Kind, domain.VerbLogin)
	}
	switch v.code {
	case domain.VerifyValid:
		return u
	case domain.VerifyIPRefused, domain.VerifyCrossAccountRefused, domain.VerifyForbidden:
		u.Status = http.StatusForbidden
	case domain.VerifyDeleted, domain.VerifyDisabled, domain.VerifyExpired, domain.VerifyIdentityInvalid, domain.VerifyNotFound:
		u.Status = http.StatusUnauthorized
	}
	u.Outcome, u.ErrorCode = domain.OutcomeFailure, string(v.code)
	return u
}

// verifyUnknown records that a value was shown that no key has, or none that the caller may
// know of: the two look the same and take the same time.
func (h *KeyAPI) verifyUnknown(c *gin.Context, q question, v verdict) {
	who, caller := auth.Anonymous(c), auth.CallerOf(c).Initiator
	if q.SourceIP != "" {
		who.Address = q.SourceIP
	}
	if q.UserAgent != "" {
		who.Agent = q.UserAgent
	}
	err := recordRefusal(c.Request.Context(), h.Refusals, who, httpx.Trace(c), domain.CommandRefused{
		Action: domain.KeyAction(domain.KindUser, domain.VerbLogin), Account: caller.Account, Status: http.StatusUnauthorized,
		Request: requestOf(map[string]string{"key_fingerprint": h.Auth.Fingerprint(q.secret), "verified": string(caller.IAMID)}),
	}, domain.Errorf(domain.Unauthenticated, "%s", v.reason).WithMessageCode(string(v.code)))
	if domain.CodeOf(err) != domain.Unauthenticated {
		httpx.Fail(c, err)
		return
	}
	httpx.Position(c, h.Directory.Reached())
	answerVerify(c, verifyView{Code: v.code, Reason: v.reason})
}

// mayNotVerify records that somebody asked who may ask nowhere.
func (h *KeyAPI) mayNotVerify(c *gin.Context, caller auth.Caller) error {
	who := caller.Initiator
	err := domain.AuthorizeAccount(who, caller.Standing(who.Account), domain.RightVerify)
	if err == nil {
		return domain.Errorf(domain.Unavailable, "your rights are just being changed; try again").WithMessageCode("concurrent_change")
	}
	return recordRefusal(c.Request.Context(), h.Refusals, who, httpx.Trace(c), domain.CommandRefused{Action: domain.ActionKeyVerify}, err)
}
