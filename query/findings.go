package query

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"time"

	"github.com/gin-gonic/gin"

	"example.com/keytrail/domain"
	"example.com/keytrail/internal/clickhouse"
)

const tableFindings = "findings"

// FindingsRequest asks for findings.
type FindingsRequest struct {
	Fresh
	Account  string `query:"account_id" maxLength:"128" description:"Only this account; else all that the caller may read."`
	Status   string `query:"status" maxLength:"32" description:"Only findings whose triage stands there, such as open."`
	Severity string `query:"severity" enum:"low,medium,high,critical" description:"Only findings of this severity."`
	Rule     string `query:"rule_id" maxLength:"128" description:"Only findings of this rule."`
	Key      string `query:"key_id" maxLength:"128" description:"Only findings about this key."`
	Limit    int    `query:"limit" minimum:"1" maximum:"500" default:"50" description:"Findings on a page."`
	Cursor   string `query:"cursor" maxLength:"1024" description:"The next of the page before. The other parameters must be the same."`
}

// FindingsAnswer is a page of findings, the newest first seen first. Each is shown as
// it stands now; one that was opened after the first page is not shown.
type FindingsAnswer struct {
	Stated
	Findings []domain.Finding `json:"findings"`
	Next     string           `json:"next" description:"Cursor of the next page; empty on the last."`
}

type finding struct {
	id        string
	firstSeen time.Time
	state     domain.Finding
}

// findings reads findings in their newest state under conditions.
func (g Generation) findings(ctx context.Context, accounts []domain.AccountID, limit int, where ...clickhouse.Cond) ([]finding, error) {
	rows, err := g.Store.Query(ctx, clickhouse.Select{
		Table: tableFindings, Final: true, Scope: scopeOf(accounts), Columns: []string{"id", "first_seen", "finding"},
		Where: where, OrderBy: []string{"first_seen DESC", "id DESC"}, Limit: limit, Settings: readSettings(),
	})
	if err != nil {
		return nil, fmt.Errorf("read findings: %w", err)
	}
	var out []finding
	err = each(rows, func() error {
		var (
			f    finding
			text string
		)
		if err := rows.Scan(&f.id, &f.firstSeen, &text); err != nil {
			return err //nolint:wrapcheck // Wrapped below.
		}
		if err := json.Unmarshal([]byte(text), &f.state); err != nil {
			return fmt.Errorf("finding %s: %w", f.id, err)
		}
		out = append(out, f)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read findings: %w", err)
	}
	return out, nil
}

// listFindings answers a page of findings.
func (h *Handler) listFindings(c *gin.Context, v view) error {
	var req FindingsRequest
	if err := bind(c, &req); err != nil {
		return err
	}
	accounts, err := v.accounts(req.Account)
	if err != nil {
		return err
	}
	question := questionOf("findings", req.Account, req.Status, req.Severity, req.Rule, req.Key)
	cur, err := h.resume(c, &v, req.Cursor, question)
	if err != nil {
		return err
	}
	pin := v.position
	var where []clickhouse.Cond
	if cur != nil {
		pin = cur.Pin
		first := time.UnixMilli(cur.Time).UTC()
		where = append(where, clickhouse.Raw("(first_seen, id) < (?, ?)", first, cur.ID))
	}
	// A finding's first event has revision 0: beyond the pin it was not there yet.
	where = append(where, clickhouse.Not(clickhouse.And(clickhouse.Eq("version", 0), clickhouse.Gt("position", pin))))
	for _, p := range []struct{ column, value string }{
		{"status", req.Status}, {"severity", req.Severity}, {"rule_id", req.Rule}, {"key_id", req.Key},
	} {
		if p.value != "" {
			where = append(where, clickhouse.Eq(p.column, p.value))
		}
	}
	found, err := v.tables.findings(c.Request.Context(), accounts, req.Limit+1, where...)
	if err != nil {
		return err
	}
	answer := FindingsAnswer{Findings: []domain.Finding{}}
	if len(found) > req.Limit {
		found = found[:req.Limit]
		last := found[req.Limit-1]
		answer.Next, err = h.cursors.seal(cursor{Question: question, Generation: v.tables.Name, Pin: pin, Now: v.now.UnixMilli(), Time: last.firstSeen.UnixMilli(), ID: last.id})
		if err != nil {
			return err
		}
	}
	for _, f := range found {
		answer.Findings = append(answer.Findings, f.state)
	}
	c.JSON(http.StatusOK, answer)
	return nil
}

// FindingRequest asks for one finding.
type FindingRequest struct {
	Fresh
	ID string `path:"id" maxLength:"36" description:"Id of the finding."`
}

// getFinding answers one finding as it stands.
func (h *Handler) getFinding(c *gin.Context, v view) error {
	var req FindingRequest
	if err := bind(c, &req); err != nil {
		return err
	}
	accounts, err := v.accounts("")
	if err != nil {
		return err
	}
	found, err := v.tables.findings(c.Request.Context(), accounts, 1, clickhouse.Eq("id", req.ID))
	if err != nil {
		return err
	}
	if len(found) == 0 {
		return domain.Errorf(domain.NotFound, "no such finding").WithMessageCode("no_such_finding")
	}
	c.JSON(http.StatusOK, found[0].state)
	return nil
}
