package cloudtrail

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"example.com/keytrail/domain"
)

// Source is the name of the system that the records come from.
const Source = "aws"

// LabelBytesMax bounds a label that holds JSON text.
const LabelBytesMax = 16 << 10

// The labels of a use. A label that would be empty is left out.
const (
	LabelEventName          = "event_name"
	LabelEventSource        = "event_source"
	LabelEventType          = "event_type"
	LabelIdentityType       = "identity_type"
	LabelUserName           = "user_name"
	LabelPrincipalID        = "principal_id"
	LabelIdentityAccount    = "identity_account_id"
	LabelIssuerARN          = "session_issuer_arn"
	LabelIssuerType         = "session_issuer_type"
	LabelInvokedBy          = "invoked_by"
	LabelErrorMessage       = "error_message"
	LabelMFA                = "mfa_authenticated" // "true" or "false"
	LabelFromConsole        = "session_credential_from_console"
	LabelSharedEventID      = "shared_event_id"
	LabelRequestParameters  = "request_parameters"    // JSON text
	LabelResponseElements   = "response_elements"     // JSON text
	LabelAdditionalData     = "additional_event_data" // JSON text
	LabelRecipientAccountID = "recipient_account_id"  // Only if it is no valid id.
	LabelAccessKeyID        = "access_key_id"         // Only if it is no valid id.
)

// Observed is what one record says.
type Observed struct {
	Use domain.Use
	// Facts are what the record states about keys, mostly nothing. They are all in
	// the use's account: a log speaks for its own account only.
	Facts []domain.ObserveKey
	// firstUse is the lesser fact that the use itself is; see [Observed.FirstUse].
	firstUse domain.ObserveKey
}

// FirstUse returns the fact that the key was in use at this time, for keys of which
// nothing older is known. It is false where the use has no key.
func (o Observed) FirstUse() (domain.ObserveKey, bool) { return o.firstUse, o.Use.KeyID != "" }

// Parser turns records into uses.
type Parser struct {
	// Default is the account of records that name none.
	Default domain.AccountID
	// Redact, if set, takes secrets out of every string of the use.
	Redact func(string) string
}

// record holds the members that are looked at.
type record struct {
	EventID       text           `json:"eventID"`
	EventTime     text           `json:"eventTime"`
	Timestamp     text           `json:"@timestamp"`
	EventSource   text           `json:"eventSource"`
	EventName     text           `json:"eventName"`
	EventType     text           `json:"eventType"`
	Region        text           `json:"awsRegion"`
	SourceIP      text           `json:"sourceIPAddress"`
	UserAgent     text           `json:"userAgent"`
	ErrorCode     text           `json:"errorCode"`
	ErrorMessage  text           `json:"errorMessage"`
	RequestID     text           `json:"requestID"`
	SharedEventID text           `json:"sharedEventID"`
	ReadOnly      text           `json:"readOnly"`
	FromConsole   text           `json:"sessionCredentialFromConsole"`
	Account       text           `json:"recipientAccountId"`
	Identity      identity       `json:"userIdentity"`
	Request       jsontext.Value `json:"requestParameters"`
	Response      jsontext.Value `json:"responseElements"`
	Additional    jsontext.Value `json:"additionalEventData"`
	Resources     jsontext.Value `json:"resources"`
}

type identity struct {
	Type        text `json:"type"`
	PrincipalID text `json:"principalId"`
	ARN         text `json:"arn"`
	Account     text `json:"accountId"`
	AccessKeyID text `json:"accessKeyId"`
	UserName    text `json:"userName"`
	InvokedBy   text `json:"invokedBy"`
	Session     struct {
		Issuer struct {
			Type     text `json:"type"`
			ARN      text `json:"arn"`
			UserName text `json:"userName"`
		} `json:"sessionIssuer"`
		Attributes struct {
			MFA text `json:"mfaAuthenticated"`
		} `json:"attributes"`
	} `json:"sessionContext"`
}

// text is a scalar of any type as text: logs that went through other tools write
// account numbers as numbers and booleans as strings.
type text string

// UnmarshalJSONFrom implements json.UnmarshalerFrom.
func (t *text) UnmarshalJSONFrom(d *jsontext.Decoder) error {
	if k := d.PeekKind(); k == '{' || k == '[' {
		return errors.New("an object or array where a text belongs")
	}
	tok, err := d.ReadToken()
	if err != nil {
		return err //nolint:wrapcheck // Read by reason, which needs the type.
	}
	if *t = text(tok.String()); tok.Kind() == 'n' {
		*t = ""
	}
	return nil
}

// Parse returns what raw says. Its errors quote nothing of raw. The record is
// exactly one use; only a record without a time or a name is none.
func (p Parser) Parse(raw []byte) (Observed, error) {
	var r record
	if err := json.Unmarshal(raw, &r); err != nil {
		return Observed{}, errors.New(parseReason(err))
	}
	if r.EventName == "" {
		return Observed{}, errors.New("eventName is missing")
	}
	at, err := eventTime(r)
	if err != nil {
		return Observed{}, err
	}
	u := domain.Use{
		ID: string(r.EventID), Time: at,
		Action: action(r), Access: access(r),
		Source: string(r.SourceIP), UserAgent: agent(string(r.UserAgent)), Region: string(r.Region),
		RequestID: string(r.RequestID), ErrorCode: string(r.ErrorCode),
		IAMID: domain.IAMID(first(r.Identity.ARN, r.Identity.PrincipalID, r.Identity.InvokedBy)),
	}
	if u.ID == "" {
		sum := sha256.Sum256(raw)
		u.ID = domain.DeriveID("cloudtrail", hex.EncodeToString(sum[:])).String()
	}
	u.Outcome, u.Status = outcome(r)
	u.Account = p.account(r)
	if domain.ValidID(string(r.Identity.AccessKeyID)) {
		u.KeyID = domain.KeyID(r.Identity.AccessKeyID)
	}
	u.Target = target(r)
	u.Labels = labels(r, u)
	o := Observed{Use: u, Facts: facts(r, u), firstUse: firstUse(r, u)}
	p.tidy(&o)
	return o, nil
}

// parseReason says what is wrong with a record, without its text.
func parseReason(err error) string {
	if semantic, ok := errors.AsType[*json.SemanticError](err); ok {
		return fmt.Sprintf("member %q has an unexpected type", semantic.JSONPointer)
	}
	return reason(err)
}

func eventTime(r record) (time.Time, error) {
	s := first(r.EventTime, r.Timestamp)
	if s == "" {
		return time.Time{}, errors.New("eventTime is missing")
	}
	for _, layout := range []string{time.RFC3339, "2006-01-02T15:04:05Z0700", "2006-01-02 15:04:05"} {
		if t, err := time.Parse(layout, s); err == nil {
			if t.Year() < 1970 || t.Year() > 2261 {
				return time.Time{}, errors.New("eventTime is out of range")
			}
			return t.UTC().Truncate(time.Millisecond), nil
		}
	}
	return time.Time{}, errors.New("eventTime is no time")
}

func (p Parser) account(r record) domain.AccountID {
	for _, id := range []text{r.Account, r.Identity.Account} {
		if domain.ValidID(string(id)) {
			return domain.AccountID(id)
		}
	}
	return p.Default
}

// tidy takes secrets out of everything that may be kept, and marks texts that are
// too large. A key id that is a secret is none: it stands under no key.
func (p Parser) tidy(o *Observed) {
	u := &o.Use
	for _, s := range []*string{&u.ID, &u.Action, &u.ErrorCode, &u.Source, &u.UserAgent, &u.Region, &u.Target, &u.RequestID} {
		*s = p.clean(*s)
	}
	u.IAMID = domain.IAMID(p.clean(string(u.IAMID)))
	if p.clean(string(u.KeyID)) != string(u.KeyID) {
		u.KeyID = ""
	}
	for k, v := range u.Labels {
		u.Labels[k] = p.clean(v)
	}
	o.Facts = slices.DeleteFunc(o.Facts, func(f domain.ObserveKey) bool { return p.clean(string(f.ID)) != string(f.ID) })
	for i := range o.Facts {
		p.tidyFact(&o.Facts[i])
	}
	o.firstUse.ID = u.KeyID
	p.tidyFact(&o.firstUse)
}

func (p Parser) tidyFact(f *domain.ObserveKey) {
	f.IAMID = domain.IAMID(p.clean(string(f.IAMID)))
	f.SourceEvent, f.Name, f.Parent = p.clean(f.SourceEvent), p.clean(f.Name), p.clean(f.Parent)
}

// clean returns s without secrets; a text of more than [LabelBytesMax] is replaced by
// a mark that names its length and hash.
func (p Parser) clean(s string) string {
	if p.Redact != nil {
		s = p.Redact(s)
	}
	if len(s) > LabelBytesMax {
		return oversize(s)
	}
	return s
}

func oversize[T string | []byte](s T) string {
	sum := sha256.Sum256([]byte(s))
	return fmt.Sprintf(`{"oversize":true,"bytes":%d,"sha256":"%s"}`, len(s), hex.EncodeToString(sum[:]))
}

func first(texts ...text) string {
	for _, t := range texts {
		if t != "" {
			return string(t)
		}
	}
	return ""
}

func action(r record) string {
	service, _, _ := strings.Cut(string(r.EventSource), ".")
	if service == "" {
		service = Source
	}
	return service + ":" + string(r.EventName)
}

func access(r record) domain.Access {
	if read, err := strconv.ParseBool(string(r.ReadOnly)); err == nil {
		if read {
			return domain.AccessRead
		}
		return domain.AccessWrite
	}
	for _, verb := range []string{
		"Get", "List", "Describe", "Head", "Lookup", "Search", "BatchGet", "Query", "Scan", "Select", "Check", "Validate",
		"Simulate", "Estimate", "Preview", "Download", "Filter", "Discover", "View", "Is", "AssumeRole",
	} {
		if strings.HasPrefix(string(r.EventName), verb) {
			return domain.AccessRead
		}
	}
	return domain.AccessWrite
}

// outcome reads errorCode; a console sign-in says it in its response instead.
func outcome(r record) (domain.Outcome, int) {
	code := string(r.ErrorCode)
	if code == "" {
		if r.EventName == "ConsoleLogin" && member(r.Response, "ConsoleLogin") == "Failure" {
			return domain.OutcomeFailure, 401
		}
		return domain.OutcomeSuccess, 200
	}
	return domain.OutcomeFailure, status(strings.TrimPrefix(strings.TrimPrefix(code, "Client."), "Server."))
}

func status(code string) int {
	has := func(parts ...string) bool {
		for _, p := range parts {
			if strings.Contains(code, p) {
				return true
			}
		}
		return false
	}
	switch {
	case has("AccessDenied", "UnauthorizedOperation", "UnauthorizedException", "NotAuthorized", "Forbidden"), code == "Unauthorized":
		return 403
	case has("InvalidClientTokenId", "SignatureDoesNotMatch", "ExpiredToken", "UnrecognizedClient", "InvalidAccessKeyId", "AuthFailure", "MissingAuthenticationToken"):
		return 401
	case has("Throttl", "RequestLimitExceeded", "TooManyRequests", "SlowDown"):
		return 429
	case has("ServiceUnavailable"):
		return 503
	case strings.HasPrefix(code, "Internal"):
		return 500
	}
	return 400
}

// agent returns a user agent without the brackets that S3 puts around it.
func agent(s string) string {
	if len(s) >= 2 && s[0] == '[' && s[len(s)-1] == ']' {
		return s[1 : len(s)-1]
	}
	return s
}

func labels(r record, u domain.Use) map[string]string {
	l := make(map[string]string, 12)
	set := func(name string, v text) {
		if v != "" {
			l[name] = string(v)
		}
	}
	set(LabelEventName, r.EventName)
	set(LabelEventSource, r.EventSource)
	set(LabelEventType, r.EventType)
	set(LabelIdentityType, r.Identity.Type)
	set(LabelUserName, r.Identity.UserName)
	set(LabelPrincipalID, r.Identity.PrincipalID)
	set(LabelIssuerARN, r.Identity.Session.Issuer.ARN)
	set(LabelIssuerType, r.Identity.Session.Issuer.Type)
	set(LabelInvokedBy, r.Identity.InvokedBy)
	set(LabelErrorMessage, r.ErrorMessage)
	set(LabelMFA, r.Identity.Session.Attributes.MFA)
	set(LabelFromConsole, r.FromConsole)
	set(LabelSharedEventID, r.SharedEventID)
	set(LabelRequestParameters, text(jsonLabel(r.Request)))
	set(LabelResponseElements, text(jsonLabel(r.Response)))
	set(LabelAdditionalData, text(jsonLabel(r.Additional)))
	if domain.AccountID(r.Identity.Account) != u.Account {
		set(LabelIdentityAccount, r.Identity.Account)
	}
	if !domain.ValidID(string(r.Account)) {
		set(LabelRecipientAccountID, r.Account)
	}
	if u.KeyID == "" {
		set(LabelAccessKeyID, r.Identity.AccessKeyID)
	}
	return l
}
