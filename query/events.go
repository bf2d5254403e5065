package query

import (
	"fmt"
	"net/http"
	"regexp"
	"strconv"
	"time"

	"github.com/gin-gonic/gin"

	"example.com/keytrail/domain"
	"example.com/keytrail/internal/clickhouse"
	"example.com/keytrail/internal/filter"
	"example.com/keytrail/internal/httpx"
)

// Fresh is the header that every read takes.
type Fresh struct {
	Wait string `header:"Keytrail-Wait-Position" json:"-" description:"Answer only when the tables hold this log position; 503 after 30 seconds."`
}

// Stated are the headers that every read answers with.
type Stated struct {
	Position string `header:"Keytrail-Position" json:"-" description:"The log position that the answer is of."`
	Lag      string `header:"Keytrail-Lag" json:"-" description:"How far the tables are behind the log, in seconds."`
	// Incomplete is only sent where there is something to say.
	Incomplete string `header:"Keytrail-Incomplete" json:"-" description:"How many events of the log the tables could not take in; absent if none."`
}

// Span is a range of event times.
type Span struct {
	From string `query:"from" maxLength:"64" description:"Earliest event time: RFC 3339, a date, now, or relative such as -7d, -24h."`
	To   string `query:"to" maxLength:"64" description:"Event times before this one, in the same forms."`
}

// EventsRequest asks for activity records.
type EventsRequest struct {
	Fresh
	Span
	Filter  string `query:"filter" maxLength:"8192" description:"AIP-160 filter over the record's fields."`
	Account string `query:"account_id" maxLength:"128" description:"Only this account; else all that the caller may read."`
	Sort    string `query:"sort" enum:"asc,desc" default:"desc" description:"Order of event time."`
	Limit   int    `query:"limit" minimum:"1" maximum:"1000" default:"50" description:"Records on a page."`
	Cursor  string `query:"cursor" maxLength:"1024" description:"The next of the page before. The other parameters must be the same."`
}

// EventsAnswer is a page of activity records.
type EventsAnswer struct {
	Stated
	Events []CADF `json:"events" description:"The records."`
	Next   string `json:"next" description:"Cursor of the next page; empty on the last."`
}

// span reads both ends of a range. Either may be missing.
func (s Span) times(now time.Time) (from, to time.Time, err error) {
	for _, end := range []struct {
		name, text string
		into       *time.Time
	}{{"from", s.From, &from}, {"to", s.To, &to}} {
		if end.text == "" {
			continue
		}
		t, err := filter.ParseTime(end.text, now)
		if err != nil {
			return from, to, domain.Errorf(domain.Invalid, "%s", err.Error()).WithField(end.name).WithMessageCode("invalid_time")
		}
		*end.into = t
	}
	if !from.IsZero() && !to.IsZero() && to.Before(from) {
		return from, to, domain.Errorf(domain.Invalid, "lies before from").WithField("to").WithMessageCode("invalid_range")
	}
	return from, to, nil
}

// selection turns the request into what to read; c is the cursor that it carried.
func (r EventsRequest) selection(v view, c *cursor) (selection, error) {
	accounts, err := v.accounts(r.Account)
	if err != nil {
		return selection{}, err
	}
	s := selection{tables: v.tables, accounts: accounts, pin: v.position, now: v.now, descending: r.Sort == "desc", limit: r.Limit, settings: readSettings()}
	if c != nil {
		s.pin, s.now = c.Pin, c.now()
		s.after = &place{time: time.UnixMilli(c.Time).UTC(), position: c.Position, index: c.Index}
	}
	if s.from, s.to, err = r.times(s.now); err != nil {
		return selection{}, err
	}
	s.filter, err = parseFilter(r.Filter, s.now)
	return s, err
}

// resume opens the cursor of a request, if it has one, makes v that of the tables that
// the cursor names, and waits until they hold its pin, which another node may have given.
func (h *Handler) resume(c *gin.Context, v *view, text string, question []byte) (*cursor, error) {
	if text == "" {
		return nil, nil //nolint:nilnil // No cursor is the first page, no fault.
	}
	cur, err := h.cursors.open(text, question)
	if err != nil {
		return nil, err
	}
	if cur.Generation != v.tables.Name {
		tables, ok := h.cfg.Tables.Named(cur.Generation)
		if !ok {
			return nil, errGenerationGone("cursor")
		}
		*v = h.viewOf(c, tables)
	}
	if cur.Pin > v.position {
		if err := wait(c.Request.Context(), v.tables.Progress.Wait, cur.Pin); err != nil {
			return nil, err
		}
	}
	httpx.Position(c, cur.Pin)
	return &cur, nil
}

// next seals the cursor behind the last record of a page.
func (h *Handler) next(s selection, question []byte, last place) (string, error) {
	return h.cursors.seal(cursor{
		Question: question, Generation: s.tables.Name, Pin: s.pin, Now: s.now.UnixMilli(), Time: last.time.UnixMilli(), Position: last.position, Index: last.index,
	})
}

// listEvents answers a page of the activity records, of log events and of uses.
func (h *Handler) listEvents(c *gin.Context, v view) error {
	var req EventsRequest
	if err := bind(c, &req); err != nil {
		return err
	}
	question := questionOf("events", req.Filter, req.From, req.To, req.Sort, req.Account)
	cur, err := h.resume(c, &v, req.Cursor, question)
	if err != nil {
		return err
	}
	s, err := req.selection(v, cur)
	if err != nil {
		return err
	}
	records, more, err := h.page(c.Request.Context(), s)
	if err != nil {
		return err
	}
	answer := EventsAnswer{Events: make([]CADF, len(records))}
	for i, r := range records {
		if answer.Events[i], err = r.cadf(); err != nil {
			return err
		}
	}
	if more {
		if answer.Next, err = h.next(s, question, records[len(records)-1].place); err != nil {
			return err
		}
	}
	c.JSON(http.StatusOK, answer)
	return nil
}

// EventRequest asks for one activity record.
type EventRequest struct {
	Fresh
	ID      string `path:"id" maxLength:"512" description:"Id of the record: an event's or a use's."`
	Account string `query:"account_id" maxLength:"128" description:"Only this account. Ids of uses are unique within an account."`
}

// generatedID is the id of a use whose source gave it none: position and index.
var generatedID = regexp.MustCompile(`^([0-9]{1,20})-([0-9]{1,10})$`)

// getEvent answers one activity record. A use's id that several accounts have needs
// the account named.
func (h *Handler) getEvent(c *gin.Context, v view) error {
	var req EventRequest
	if err := bind(c, &req); err != nil {
		return err
	}
	accounts, err := v.accounts(req.Account)
	if err != nil {
		return err
	}
	found, err := h.findEvent(c, v, accounts, req.ID)
	switch {
	case err != nil:
		return err
	case len(found) == 0:
		return domain.Errorf(domain.NotFound, "no such event").WithMessageCode("no_such_event")
	case len(found) > 1:
		return domain.Errorf(domain.Conflict, "several records have this id; name the account").WithField("account_id").WithMessageCode("ambiguous_id")
	}
	text, err := found[0].cadf()
	if err != nil {
		return err
	}
	c.Data(http.StatusOK, "application/json; charset=utf-8", text)
	return nil
}

// findEvent returns up to two records with id.
func (h *Handler) findEvent(c *gin.Context, v view, accounts []domain.AccountID, id string) ([]record, error) {
	use := clickhouse.Eq("use_id", id)
	if m := generatedID.FindStringSubmatch(id); m != nil {
		position, errPosition := strconv.ParseUint(m[1], 10, 64)
		index, errIndex := strconv.ParseUint(m[2], 10, 32)
		if errPosition == nil && errIndex == nil {
			use = clickhouse.Or(use, clickhouse.And(clickhouse.Eq("use_id", ""), clickhouse.Eq("position", position), clickhouse.Eq("idx", index)))
		}
	}
	var found []record
	for _, part := range []struct {
		table, timeColumn string
		columns           []string
		where             clickhouse.Cond
		scan              func(clickhouse.Rows) (record, error)
	}{
		{tableActivity, "event_time", activityColumns(), clickhouse.Eq("event_id", id), scanActivity},
		{tableUsage, "time", usageColumns(), use, scanUse},
	} {
		rows, err := v.tables.Store.Query(c.Request.Context(), clickhouse.Select{
			Table: part.table, Scope: scopeOf(accounts), Columns: part.columns, Limit: 2, Settings: readSettings(),
			Where: []clickhouse.Cond{part.where, clickhouse.Le("position", v.position)}, OrderBy: []string{part.timeColumn, "position", "idx"},
		})
		if err != nil {
			return nil, fmt.Errorf("find in %s: %w", part.table, err)
		}
		if err := each(rows, func() error {
			r, err := part.scan(rows)
			found = append(found, r)
			return err
		}); err != nil {
			return nil, fmt.Errorf("find in %s: %w", part.table, err)
		}
	}
	return found, nil
}
