package ingest

import (
	"slices"
	"strconv"
	"time"

	"github.com/gin-gonic/gin"

	"example.com/keytrail/domain"
	"example.com/keytrail/internal/filter"
	"example.com/keytrail/internal/httpx"
)

// viewTime is how the key API writes times of creation and change.
const viewTime = "2006-01-02T15:04:05.000-0700"

// keyView is a key as the API shows it; the field names are IBM's.
type keyView struct {
	Context          *httpx.RequestContext `json:"context,omitempty"`
	ID               domain.KeyID          `json:"id"`
	EntityTag        string                `json:"entity_tag"`
	CRN              string                `json:"crn"`
	Locked           bool                  `json:"locked"`
	Disabled         bool                  `json:"disabled"`
	CreatedAt        string                `json:"created_at"`
	CreatedBy        domain.IAMID          `json:"created_by"`
	ModifiedAt       string                `json:"modified_at"`
	Name             string                `json:"name"`
	Description      string                `json:"description,omitempty"`
	SupportSessions  bool                  `json:"support_sessions"`
	ActionWhenLeaked domain.LeakAction     `json:"action_when_leaked,omitempty"`
	ExpiresAt        string                `json:"expires_at,omitempty"`
	IAMID            domain.IAMID          `json:"iam_id"`
	AccountID        domain.AccountID      `json:"account_id"`
	APIKey           string                `json:"apikey"` // At creation, and where it is kept to be read again.
	History          []historyView         `json:"history,omitempty"`
	Activity         *activityView         `json:"activity,omitempty"`
	// Ours: the kind of key, where an external one comes from, and with as_of what the
	// key was worth then.
	Kind   domain.KeyKind `json:"kind"`
	Source string         `json:"source,omitempty"`
	Parent string         `json:"parent,omitempty"`
	// Of a rotation: who follows, when this one ends because of that, whom it follows.
	Successor   domain.KeyID     `json:"successor,omitempty"`
	EndsAt      string           `json:"ends_at,omitempty"`
	Predecessor domain.KeyID     `json:"predecessor,omitempty"`
	AsOf        string           `json:"as_of,omitempty"`
	Status      domain.KeyStatus `json:"status,omitempty"`
}

type historyView struct {
	Timestamp    string           `json:"timestamp"`
	IAMID        domain.IAMID     `json:"iam_id"`
	IAMIDAccount domain.AccountID `json:"iam_id_account"`
	Action       string           `json:"action"`
	Params       []string         `json:"params"`
	Message      string           `json:"message"`
}

type activityView struct {
	LastAuthn  string `json:"last_authn,omitempty"`
	AuthnCount uint64 `json:"authn_count"`
}

func viewOf(s domain.KeyState) keyView {
	return keyView{
		ID: s.ID, EntityTag: s.EntityTag(), CRN: domain.KeyCRN(s.Account, s.ID), Locked: s.Locked, Disabled: s.Disabled,
		CreatedAt: showTime(s.CreatedAt), CreatedBy: s.CreatedBy, ModifiedAt: showTime(s.ModifiedAt),
		Name: s.Name, Description: s.Description, SupportSessions: s.SupportSessions, ActionWhenLeaked: s.ActionOnLeak,
		ExpiresAt: domain.FormatExpiry(s.ExpiresAt), IAMID: s.IAMID, AccountID: s.Account,
		Kind: s.Kind, Source: s.Source, Parent: s.Parent,
		Successor: s.Successor, EndsAt: domain.FormatExpiry(s.EndsAt), Predecessor: s.Predecessor,
	}
}

// viewOf returns a key as the API shows it: that of a functional ID as such.
func (h *KeyAPI) viewOf(s domain.KeyState) keyView {
	v := viewOf(s)
	if account, _ := h.Directory.Account(s.Account); s.Kind == domain.KindUser {
		if m, ok := account.Member(s.IAMID); ok && m.Functional {
			v.Kind = kindFunctional
		}
	}
	return v
}

// kindFunctional is how the keys of functional IDs are shown and asked for. To the log they
// are users' keys.
const kindFunctional domain.KeyKind = "functional"

func showTime(t time.Time) string { return t.UTC().Format(viewTime) }

func asOf(t time.Time, s domain.KeyState) func(*keyView) {
	return func(v *keyView) { v.AsOf, v.Status = showTime(t), s.StatusAt(t) }
}

// withHistory shows the key's events, up to until if it is given.
func withHistory(history []domain.Recorded, until *time.Time) func(*keyView) {
	return func(v *keyView) {
		v.History = historiesOf(slices.DeleteFunc(slices.Clone(history), func(rec domain.Recorded) bool {
			return until != nil && rec.Meta.EffectiveAt.After(*until)
		}))
	}
}

func historiesOf(history []domain.Recorded) []historyView {
	var out []historyView
	for _, rec := range history {
		if a, ok := domain.ActivityOf(rec); ok {
			out = append(out, historyOf(rec, a))
		}
	}
	return out
}

func historyOf(rec domain.Recorded, a domain.Activity) historyView {
	changes := changesOf(rec.Event)
	params := make([]string, len(changes))
	for i, change := range changes {
		params[i] = change.Field + "=" + strconv.Quote(change.New)
	}
	return historyView{
		Timestamp: showTime(rec.Meta.EffectiveAt), IAMID: rec.Meta.Initiator.IAMID,
		IAMIDAccount: rec.Meta.Initiator.Account, Action: a.Action, Params: params, Message: a.Message,
	}
}

// changesOf returns the fields that an update set.
func changesOf(e domain.Event) []domain.Change {
	if e, ok := e.(domain.KeyUpdated); ok {
		return e.Changes
	}
	if e, ok := e.(domain.ServiceIDUpdated); ok {
		return e.Changes
	}
	return nil
}

func withActivity(a KeyActivity) func(*keyView) {
	return func(v *keyView) {
		v.Activity = &activityView{AuthnCount: a.AuthnCount}
		if a.LastAuthn != nil {
			v.Activity.LastAuthn = showTime(*a.LastAuthn)
		}
	}
}

// showOptions is what the query of a GET asks to be shown.
type showOptions struct {
	asOf              *time.Time
	history, activity bool
}

func showOptionsOf(c *gin.Context, now time.Time) (showOptions, error) {
	var o showOptions
	var err error
	if o.history, err = boolQuery(c, "include_history"); err != nil {
		return o, err
	}
	if o.activity, err = boolQuery(c, "include_activity"); err != nil {
		return o, err
	}
	if text := c.Query("as_of"); text != "" {
		t, err := parseAsOf(text, now)
		if err != nil {
			return o, err
		}
		o.asOf = &t
	}
	return o, nil
}

// parseAsOf reads a time in the forms that searches take.
func parseAsOf(text string, now time.Time) (time.Time, error) {
	t, err := filter.ParseTime(text, now)
	if err != nil {
		return time.Time{}, domain.Errorf(domain.Invalid, "%s", err.Error()).WithField("as_of").WithMessageCode("invalid_time")
	}
	return t, nil
}
