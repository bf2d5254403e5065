package query

import (
	"context"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/gin-gonic/gin"

	"example.com/keytrail/domain"
	"example.com/keytrail/internal/clickhouse"
)

// TimelineRequest asks for everything about one key.
type TimelineRequest struct {
	Fresh
	Span
	ID      string `path:"id" maxLength:"128" description:"Id of the key."`
	Account string `query:"account_id" maxLength:"128" description:"Only this account. Ids of external keys are unique within an account only."`
	Filter  string `query:"filter" maxLength:"8192" description:"AIP-160 filter over the record's fields."`
	Sort    string `query:"sort" enum:"asc,desc" default:"desc" description:"Order of event time."`
	Limit   int    `query:"limit" minimum:"1" maximum:"1000" default:"50" description:"Entries on a page."`
	Cursor  string `query:"cursor" maxLength:"1024" description:"The next of the page before. The other parameters must be the same."`
}

// The kinds of entry in a timeline.
const (
	kindCommand = "command"
	kindUse     = "use"
	kindFinding = "finding"
)

// Entry is one thing in a key's timeline.
type Entry struct {
	Kind     string          `json:"kind" enum:"command,use,finding" description:"What it is: a command, a use, or news of a finding."`
	Time     time.Time       `json:"time" description:"Event time, UTC."`
	Position string          `json:"position" description:"Position in the log."`
	Index    uint32          `json:"index" description:"Place in the batch, for a use."`
	Event    CADF            `json:"event" description:"The record."`
	Finding  *domain.Finding `json:"finding,omitempty" description:"For a finding: how it stands now."`
}

// TimelineAnswer is a page of a key's timeline: commands, uses and findings in one
// order.
type TimelineAnswer struct {
	Stated
	Entries []Entry `json:"entries"`
	Next    string  `json:"next" description:"Cursor of the next page; empty on the last."`
}

// timeline answers a page of what happened to a key and what it did.
func (h *Handler) timeline(c *gin.Context, v view) error {
	var req TimelineRequest
	if err := bind(c, &req); err != nil {
		return err
	}
	question := questionOf("timeline", req.ID, req.Filter, req.From, req.To, req.Sort, req.Account)
	cur, err := h.resume(c, &v, req.Cursor, question)
	if err != nil {
		return err
	}
	events := EventsRequest{Span: req.Span, Filter: req.Filter, Account: req.Account, Sort: req.Sort, Limit: req.Limit}
	s, err := events.selection(v, cur)
	if err != nil {
		return err
	}
	s.key = req.ID
	records, more, err := h.page(c.Request.Context(), s)
	if err != nil {
		return err
	}
	if len(records) == 0 && cur == nil {
		if err := h.mustKnowKey(c.Request.Context(), s); err != nil {
			return err
		}
	}
	answer := TimelineAnswer{}
	if answer.Entries, err = s.tables.entries(c.Request.Context(), s.accounts, records); err != nil {
		return err
	}
	if more {
		if answer.Next, err = h.next(s, question, records[len(records)-1].place); err != nil {
			return err
		}
	}
	c.JSON(http.StatusOK, answer)
	return nil
}

// mustKnowKey refuses a key that nothing is known of in the accounts of s. A key
// without a record in the range, or that fits the filter, is known all the same.
func (h *Handler) mustKnowKey(ctx context.Context, s selection) error {
	keys := clickhouse.Select{
		Table: "api_keys", Scope: scopeOf(s.accounts), Columns: []string{"id"}, Limit: 1, Settings: readSettings(),
		Where: []clickhouse.Cond{clickhouse.Eq("id", s.key)},
	}
	records := selection{tables: s.tables, accounts: s.accounts, pin: s.pin, key: s.key, limit: 1, settings: readSettings()}
	known := false
	rows, err := s.tables.Store.Query(ctx, keys)
	if err == nil {
		err = each(rows, func() error { known = true; return nil })
	}
	if err != nil {
		return fmt.Errorf("find key: %w", err)
	}
	if known {
		return nil
	}
	found, _, err := h.page(ctx, records)
	if err != nil {
		return err
	}
	if len(found) == 0 {
		return domain.Errorf(domain.NotFound, "no such API key").WithMessageCode("no_such_key")
	}
	return nil
}

// entries makes the entries of records, with the findings that they are about.
func (g Generation) entries(ctx context.Context, accounts []domain.AccountID, records []record) ([]Entry, error) {
	var ids []string
	for _, r := range records {
		if id, ok := findingOf(r); ok {
			ids = append(ids, id)
		}
	}
	states := map[string]*domain.Finding{}
	if len(ids) > 0 {
		found, err := g.findings(ctx, accounts, len(ids), clickhouse.In("id", ids))
		if err != nil {
			return nil, err
		}
		for _, f := range found {
			states[f.id] = &f.state
		}
	}
	out := make([]Entry, len(records))
	for i, r := range records {
		text, err := r.cadf()
		if err != nil {
			return nil, err
		}
		e := Entry{Kind: kindCommand, Time: r.time.UTC(), Position: strconv.FormatUint(r.position, 10), Index: r.index, Event: text}
		if r.activity.DataEvent {
			e.Kind = kindUse
		}
		if id, ok := findingOf(r); ok {
			e.Kind, e.Finding = kindFinding, states[id]
		}
		out[i] = e
	}
	return out, nil
}

// findingOf returns the id of the finding that an event is of.
func findingOf(r record) (string, bool) {
	return strings.CutPrefix(r.ext.Stream, domain.FindingStreams)
}
