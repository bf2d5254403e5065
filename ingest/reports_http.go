package ingest

import (
	"net/http"
	"strconv"
	"time"

	"github.com/gin-gonic/gin"

	"example.com/keytrail/domain"
	"example.com/keytrail/internal/apidoc"
	"example.com/keytrail/internal/httpx"
)

const groupReports = "reports"

type createReportRequest struct {
	ID       string `path:"id" description:"Id of the account."`
	Type     string `query:"type" enum:"inactive" default:"inactive"`
	Duration string `query:"duration" default:"720" description:"Hours."`
}

type getReportRequest struct {
	ID        string `path:"id" description:"Id of the account."`
	Reference string `path:"reference" description:"As it was answered, or latest."`
}

type referenceView struct {
	Reference string `json:"reference"`
}

// reportView is a report, in IBM's shape. There are no trusted profiles.
type reportView struct {
	CreatedBy  domain.IAMID    `json:"created_by"`
	Reference  string          `json:"reference"`
	Duration   string          `json:"report_duration"`
	StartTime  string          `json:"report_start_time"`
	EndTime    string          `json:"report_end_time"`
	Users      []userActivity  `json:"users"`
	APIKeys    []keyActivity   `json:"apikeys"`
	ServiceIDs []namedActivity `json:"serviceids"`
	Profiles   []namedActivity `json:"profiles"`
}

type userActivity struct {
	userOwner
	LastAuthn string `json:"last_authn,omitempty"`
}

// userOwner is a user. Name is as it was; the e-mail address is as it is now.
type userOwner struct {
	IAMID    domain.IAMID `json:"iam_id"`
	Name     string       `json:"name,omitempty"`
	Username string       `json:"username"`
	Email    string       `json:"email,omitempty"`
}

type namedActivity struct {
	ID        string `json:"id"`
	Name      string `json:"name,omitempty"`
	LastAuthn string `json:"last_authn,omitempty"`
}

type keyActivity struct {
	namedActivity
	Type      domain.KeyKind `json:"type"`
	ServiceID *namedActivity `json:"serviceid,omitempty"`
	User      *userOwner     `json:"user,omitempty"`
}

func (h *KeyAPI) reportRoutes() apidoc.Table {
	accepted := []apidoc.Answer{{Status: http.StatusAccepted, Body: referenceView{}}}
	got := []apidoc.Answer{{Status: http.StatusOK, Body: reportView{}}, {Status: http.StatusNoContent, Description: "It is being made."}}
	return apidoc.Table{
		{
			Method: http.MethodPost, Path: "/v1/activity/accounts/:id/report", Group: groupReports, Summary: "Ask who and what did not sign in for some hours.",
			Description: "The report holds what the log holds at this moment, and is kept.",
			Request:     createReportRequest{}, Answers: accepted, Handler: h.createReport,
		},
		{
			Method: http.MethodGet, Path: "/v1/activity/accounts/:id/report/:reference", Group: groupReports, Summary: "A report that was asked for.",
			Request: getReportRequest{}, Answers: got, Handler: h.getReport,
		},
	}
}

// createReport answers 202 when the question is durable; the report follows.
func (h *KeyAPI) createReport(c *gin.Context) {
	hours := uint64(domain.ReportHoursDefault)
	if text, ok := c.GetQuery("duration"); ok {
		var err error
		if hours, err = strconv.ParseUint(text, 10, 64); err != nil {
			httpx.Fail(c, domain.Errorf(domain.Invalid, "must be a number of hours").WithField("duration").WithMessageCode("invalid_duration"))
			return
		}
	}
	account := domain.AccountID(c.Param("id"))
	reference, position, err := h.Commands.RequestReport(c.Request.Context(), orderOf(c), account, c.DefaultQuery("type", domain.ReportInactive), hours)
	if err != nil {
		httpx.Fail(c, err)
		return
	}
	h.Reports.ensure(reportRef{account, reference})
	httpx.Position(c, position)
	c.JSON(http.StatusAccepted, referenceView{Reference: reference})
}

// getReport answers 204 while the report is being made, and sees to it that it is.
func (h *KeyAPI) getReport(c *gin.Context) {
	account := domain.AccountID(c.Param("id"))
	report, content, position, err := h.Commands.ReadReport(c.Request.Context(), orderOf(c), account, c.Param("reference"))
	if err != nil {
		httpx.Fail(c, err)
		return
	}
	httpx.Position(c, position)
	if !report.Complete() {
		h.Reports.ensure(reportRef{account, report.Reference})
		c.Status(http.StatusNoContent)
		return
	}
	c.JSON(http.StatusOK, h.reportViewOf(account, report, content))
}

func (h *KeyAPI) reportViewOf(id domain.AccountID, r domain.Report, content domain.ReportContent) reportView {
	account, _ := h.Directory.Account(id)
	v := reportView{
		CreatedBy: r.By, Reference: r.Reference, Duration: strconv.FormatUint(r.Hours, 10), StartTime: showTime(r.From), EndTime: showTime(r.Until),
		Users: []userActivity{}, APIKeys: []keyActivity{}, ServiceIDs: []namedActivity{}, Profiles: []namedActivity{},
	}
	for _, u := range content.Users {
		v.Users = append(v.Users, userActivity{userOwner: ownerOf(account, u.IAMID, u.Name), LastAuthn: showLast(u.LastAuthn)})
	}
	for _, s := range content.ServiceIDs {
		v.ServiceIDs = append(v.ServiceIDs, namedActivity{ID: s.ID, Name: s.Name, LastAuthn: showLast(s.LastAuthn)})
	}
	for _, k := range content.Keys {
		one := keyActivity{namedActivity: namedActivity{ID: string(k.ID), Name: k.Name, LastAuthn: showLast(k.LastAuthn)}, Type: k.Kind}
		if service, ok := domain.ServiceIDOf(k.IAMID); ok {
			one.ServiceID = &namedActivity{ID: service, Name: k.OwnerName}
		} else if k.IAMID != "" {
			owner := ownerOf(account, k.IAMID, k.OwnerName)
			one.User = &owner
		}
		v.APIKeys = append(v.APIKeys, one)
	}
	return v
}

func ownerOf(account domain.Account, id domain.IAMID, name string) userOwner {
	m, _ := account.Member(id)
	o := userOwner{IAMID: id, Name: name, Username: m.Email, Email: m.Email}
	if o.Username == "" {
		o.Username = string(id)
	}
	return o
}

func showLast(t *time.Time) string {
	if t == nil {
		return ""
	}
	return showTime(*t)
}
