package domain

import (
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"time"
)

const (
	// ReportInactive is the one kind of report.
	ReportInactive = "inactive"
	// ReportHoursDefault is 30 days.
	ReportHoursDefault = 720
	// ReportHoursMax is about ten years.
	ReportHoursMax = 87_600
	// reportsPendingMax bounds the reports of one account that are being made.
	reportsPendingMax = 10
)

// Report is what is known of one report.
type Report struct {
	Reference   string
	Hours       uint64
	From, Until time.Time
	By          IAMID
	// Position is where the log ends for this report. Cause is the event that asked for it.
	Position    uint64
	Cause       EventID
	Correlation string
	// Done parts of Parts are there, the first in revision First.
	Done, Parts, First uint64
}

// Complete reports whether every part is there.
func (r Report) Complete() bool { return r.Parts > 0 && r.Done == r.Parts }

// Reports is the fold of an account's stream of reports, without what is in them.
type Reports struct {
	list []Report
	last time.Time
}

// Evolve returns r after rec; events that are not about a report change nothing.
func (r Reports) Evolve(rec Recorded) Reports {
	about, ok := rec.Event.(ReportEvent)
	if !ok {
		return r
	}
	r.last = rec.Meta.EffectiveAt
	switch e := about.(type) {
	case ReportRequested:
		r.list = append(slices.Clip(r.list), Report{
			Reference: e.Reference, Hours: e.Hours, From: e.From, Until: e.Until, By: rec.Meta.Initiator.IAMID,
			Position: rec.Position, Cause: rec.ID, Correlation: rec.Meta.CorrelationID,
		})
	case ReportCompleted:
		r.list = slices.Clone(r.list)
		for i := range r.list {
			one := &r.list[i]
			if one.Reference != e.Reference {
				continue
			}
			if one.Done == 0 {
				one.First = rec.Revision
			}
			one.Done, one.Parts = e.Part, e.Parts
		}
	}
	return r
}

// Find returns the report of that reference.
func (r Reports) Find(reference string) (Report, bool) {
	i := slices.IndexFunc(r.list, func(one Report) bool { return one.Reference == reference })
	if i < 0 {
		return Report{}, false
	}
	return r.list[i], true
}

// Latest returns the newest report that is complete or, where none is, the newest.
func (r Reports) Latest() (Report, bool) {
	for _, one := range slices.Backward(r.list) {
		if one.Complete() {
			return one, true
		}
	}
	if len(r.list) == 0 {
		return Report{}, false
	}
	return r.list[len(r.list)-1], true
}

// NextEffective returns the effective time of a fact that is decided now.
func (r Reports) NextEffective(now time.Time) time.Time { return NextEffective(now, r.last) }

// ReportCommand is an order about an account's reports. The set is closed.
//
//sumtype:decl
type ReportCommand interface{ isReportCommand() }

// RequestReport asks for a report on the Hours before At.
type RequestReport struct {
	Account   AccountID
	Reference string
	Kind      string
	Hours     uint64
	At        time.Time
}

// CompleteReport adds the part that follows to a report. A part that is there already
// changes nothing.
type CompleteReport struct {
	Account     AccountID
	Reference   string
	Part, Parts uint64
	Content     ReportContent
}

func (RequestReport) isReportCommand()  {}
func (CompleteReport) isReportCommand() {}

// Decide returns the facts that cmd adds. None and a nil error mean that it repeats what
// is already so.
func (r Reports) Decide(cmd ReportCommand) ([]Event, error) {
	switch c := cmd.(type) {
	case RequestReport:
		return r.request(c)
	case CompleteReport:
		return r.complete(c)
	}
	return nil, Errorf(Internal, "unexpected command %T", cmd)
}

func (r Reports) request(c RequestReport) ([]Event, error) {
	if c.Kind != ReportInactive {
		return nil, Errorf(Invalid, "must be %s", ReportInactive).WithField("type").WithMessageCode("invalid_type")
	}
	if c.Hours < 1 || c.Hours > ReportHoursMax {
		return nil, Errorf(Invalid, "must be 1 to %d hours", ReportHoursMax).WithField("duration").WithMessageCode("invalid_duration")
	}
	pending := 0
	for _, one := range r.list {
		if !one.Complete() {
			pending++
		}
	}
	if pending >= reportsPendingMax {
		return nil, Errorf(Conflict, "%d reports of this account are being made; wait for one", pending).WithMessageCode("reports_pending")
	}
	return []Event{ReportRequested{
		Account: c.Account, Reference: c.Reference, Kind: c.Kind, Hours: c.Hours,
		From: c.At.Add(-time.Duration(c.Hours) * time.Hour), Until: c.At,
	}}, nil
}

func (r Reports) complete(c CompleteReport) ([]Event, error) {
	one, ok := r.Find(c.Reference)
	switch {
	case !ok:
		return nil, errNoReport()
	case one.Done >= c.Part:
		return nil, nil
	case one.Done+1 != c.Part || c.Part > c.Parts || one.Parts > 0 && one.Parts != c.Parts:
		return nil, Errorf(Internal, "part %d of %d after %d of %d", c.Part, c.Parts, one.Done, one.Parts)
	}
	return []Event{ReportCompleted{Account: c.Account, Reference: c.Reference, Part: c.Part, Parts: c.Parts, ReportContent: c.Content}}, nil
}

func errNoReport() *Error {
	return Errorf(NotFound, "no such report").WithMessageCode("report_not_found")
}

// AccountActivity is what the log says, up to a position, of the sign-ins in one account.
// What is deleted is not in it.
type AccountActivity struct {
	Keys       []KeyState
	ServiceIDs []InactiveServiceID // All of them; LastAuthn is not set.
	// KeyLast and IdentityLast are the last sign-ins; KeyLastUse the last successful uses.
	KeyLast, KeyLastUse map[KeyID]time.Time
	IdentityLast        map[IAMID]time.Time
}

// InactiveSince returns who and what of the account did not sign in from since on. Each
// list is sorted by id.
func InactiveSince(account Account, seen AccountActivity, since time.Time) ReportContent {
	var c ReportContent
	for _, id := range account.Identities() {
		if _, service := ServiceIDOf(id); service {
			continue
		}
		if last, inactive := inactiveAt(seen.IdentityLast, id, since); inactive {
			m, _ := account.Member(id)
			c.Users = append(c.Users, InactiveUser{IAMID: id, Name: m.Name, LastAuthn: last})
		}
	}
	names := map[IAMID]string{}
	for _, s := range seen.ServiceIDs {
		iam := ServiceIAMID(s.ID)
		names[iam] = s.Name
		if last, inactive := inactiveAt(seen.IdentityLast, iam, since); inactive {
			s.LastAuthn = last
			c.ServiceIDs = append(c.ServiceIDs, s)
		}
	}
	for _, k := range seen.Keys {
		lasts := seen.KeyLast
		if k.Kind == KindExternal {
			lasts = seen.KeyLastUse
		}
		last, inactive := inactiveAt(lasts, k.ID, since)
		if !inactive {
			continue
		}
		m, _ := account.Member(k.IAMID)
		c.Keys = append(c.Keys, InactiveKey{
			ID: k.ID, Name: k.Name, Kind: k.Kind, IAMID: k.IAMID, OwnerName: firstOf(names[k.IAMID], m.Name), LastAuthn: last,
		})
	}
	slices.SortFunc(c.ServiceIDs, func(a, b InactiveServiceID) int { return cmp.Compare(a.ID, b.ID) })
	slices.SortFunc(c.Keys, func(a, b InactiveKey) int { return cmp.Compare(a.ID, b.ID) })
	return c
}

// inactiveAt returns the last time of id, and whether that is before since.
func inactiveAt[K comparable](lasts map[K]time.Time, id K, since time.Time) (*time.Time, bool) {
	last, ok := lasts[id]
	if !ok {
		return nil, true
	}
	last = last.UTC()
	return &last, last.Before(since)
}

// Cut returns c in parts of at most bytesMax each as JSON, but of one entry at least; an
// empty report is one empty part.
func (c ReportContent) Cut(bytesMax int) ([]ReportContent, error) {
	parts := []ReportContent{{}}
	size := 0
	room := func(entry any) (*ReportContent, error) {
		text, err := json.Marshal(entry)
		if err != nil {
			return nil, fmt.Errorf("cut report: %w", err)
		}
		if size > 0 && size+len(text) > bytesMax {
			parts, size = append(parts, ReportContent{}), 0
		}
		size += len(text) + 1
		return &parts[len(parts)-1], nil
	}
	for _, u := range c.Users {
		part, err := room(u)
		if err != nil {
			return nil, err
		}
		part.Users = append(part.Users, u)
	}
	for _, s := range c.ServiceIDs {
		part, err := room(s)
		if err != nil {
			return nil, err
		}
		part.ServiceIDs = append(part.ServiceIDs, s)
	}
	for _, k := range c.Keys {
		part, err := room(k)
		if err != nil {
			return nil, err
		}
		part.Keys = append(part.Keys, k)
	}
	return parts, nil
}

// ofReportEvent makes a record of a report that was asked for (pending) or is made; the
// two have one correlation id and one target.
func ofReportEvent(a *Activity, e ReportEvent) {
	switch e := e.(type) {
	case ReportRequested:
		ofReport(a, e.Account, e.Reference, struct {
			Kind  string `json:"type"`
			Hours uint64 `json:"duration_hours"`
		}{e.Kind, e.Hours}, 0)
		a.Outcome, a.ReasonCode = OutcomePending, 202
	case ReportCompleted:
		ofReport(a, e.Account, e.Reference, struct {
			Part  uint64 `json:"part"`
			Parts uint64 `json:"parts"`
		}{e.Part, e.Parts}, len(e.Users)+len(e.ServiceIDs)+len(e.Keys))
	}
}

func ofReport(a *Activity, account AccountID, reference string, request any, count int) {
	a.Action, a.Account, a.TargetName = ActionReportCreate, account, reference
	a.TargetID = crn(account, "report", reference)
	text, err := json.Marshal(request)
	if err != nil {
		text = nil // Numbers and texts always marshal.
	}
	a.RequestData = requestData{Request: text, Count: uint64(count)}.encode() //nolint:gosec // A length.
}
