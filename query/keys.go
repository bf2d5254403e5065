package query

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"time"

	"example.com/keytrail/domain"
	"example.com/keytrail/internal/clickhouse"
)

// keyPageMax bounds a page of keys.
const keyPageMax = 1000

// KeyLister lists keys from the tables. Pages follow a key's place in the order, not
// a number of rows, so that keys made or deleted meanwhile move nothing else.
type KeyLister struct{ h *Handler }

// Keys returns the lister of keys.
func (h *Handler) Keys() *KeyLister { return &KeyLister{h: h} }

// keyToken is the place of a page: before or after one key.
type keyToken struct {
	Question   []byte `json:"q"`
	Generation string `json:"g"`
	Text       string `json:"s,omitempty"` // The sort column's value, where it is text.
	Time       int64  `json:"t,omitempty"` // And where it is a time, in milliseconds.
	Account    string `json:"a"`
	ID         string `json:"i"`
	Backward   bool   `json:"b,omitempty"`
	Offset     int    `json:"o"`
}

// ListKeys returns the page that q asks for. A bad filter or token is a
// [domain.Invalid] that names the field.
func (l *KeyLister) ListKeys(ctx context.Context, q domain.KeysQuery) (domain.KeysPage, error) {
	page, err := l.list(ctx, q)
	if err != nil {
		return domain.KeysPage{}, worded(err)
	}
	return page, nil
}

func (l *KeyLister) list(ctx context.Context, q domain.KeysQuery) (domain.KeysPage, error) {
	if q.PageSize < 1 || q.PageSize > keyPageMax {
		return domain.KeysPage{}, domain.Errorf(domain.Invalid, "must be 1 to %d", keyPageMax).WithField("pagesize")
	}
	question := questionOf("keys", string(q.Account), string(q.IAMID), q.Scope, string(q.Type), q.Sort, q.Order, q.Filter)
	var at *keyToken
	if q.PageToken != "" {
		at = &keyToken{}
		if !l.h.cursors.unseal(q.PageToken, at) || string(at.Question) != string(question) {
			return domain.KeysPage{}, domain.Errorf(domain.Invalid, "is not a token of this list").WithField("pagetoken").WithMessageCode("invalid_pagetoken")
		}
	}
	tables, err := l.tables(at)
	if err != nil {
		return domain.KeysPage{}, err
	}
	page := domain.KeysPage{Lag: tables.Progress.Lag()}
	_, page.Position, _ = tables.Progress.Completed()
	read, err := keysRead(q, at)
	if err != nil {
		return page, err
	}
	keys, err := tables.keys(ctx, read)
	if err != nil {
		return page, err
	}
	more := len(keys) > q.PageSize
	if more {
		keys = keys[:q.PageSize]
	}
	backward := at != nil && at.Backward
	if backward {
		slices.Reverse(keys)
	}
	switch {
	case backward && more:
		page.Offset = max(at.Offset-len(keys), 0)
	case at != nil && !backward:
		page.Offset = at.Offset
	}
	return l.links(page, q, keyToken{Question: question, Generation: tables.Name}, keys, at, more)
}

// tables returns the generation that a page is read from: the token's, if there is one.
func (l *KeyLister) tables(at *keyToken) (Generation, error) {
	live, err := l.h.cfg.Tables.Live()
	if err != nil || at == nil || at.Generation == live.Name {
		return live, err //nolint:wrapcheck // It is worded for the caller.
	}
	tables, ok := l.h.cfg.Tables.Named(at.Generation)
	if !ok {
		return Generation{}, errGenerationGone("pagetoken")
	}
	return tables, nil
}

// links adds the keys and the tokens of the pages beside this one.
func (l *KeyLister) links(page domain.KeysPage, q domain.KeysQuery, like keyToken, keys []keyRow, at *keyToken, more bool) (domain.KeysPage, error) {
	backward := at != nil && at.Backward
	page.Keys = make([]domain.KeyState, len(keys))
	for i, k := range keys {
		page.Keys[i] = k.state
	}
	if len(keys) == 0 {
		return page, nil
	}
	var err error
	if more || backward {
		page.Next, err = l.token(q, like, keys[len(keys)-1], false, page.Offset+len(keys))
	}
	if err == nil && (at != nil && !backward || backward && more) {
		page.Previous, err = l.token(q, like, keys[0], true, page.Offset)
	}
	return page, err
}

func (l *KeyLister) token(q domain.KeysQuery, t keyToken, k keyRow, backward bool, offset int) (string, error) {
	t.Account, t.ID, t.Backward, t.Offset = string(k.state.Account), string(k.state.ID), backward, offset
	switch q.Sort {
	case "name":
		t.Text = k.state.Name
	case "description":
		t.Text = k.state.Description
	case "created_by":
		t.Text = string(k.state.CreatedBy)
	case "created_at":
		t.Time = k.created.UnixMilli()
	}
	return l.h.cursors.seal(t)
}

// keysRead is the read for one page and one key more.
func keysRead(q domain.KeysQuery, at *keyToken) (clickhouse.Select, error) {
	sort, ok := map[string]string{"": "", "name": "name", "description": "description", "created_at": "created_at", "created_by": "created_by"}[q.Sort]
	if !ok || q.Order != "asc" && q.Order != "desc" {
		return clickhouse.Select{}, domain.Errorf(domain.Invalid, "has an unknown value").WithField("sort").WithMessageCode("invalid_sort")
	}
	matches, err := parseSCIM(q.Filter)
	if err != nil {
		return clickhouse.Select{}, err
	}
	where := []clickhouse.Cond{clickhouse.Eq("deleted", false), matches}
	if q.IAMID != "" {
		where = append(where, clickhouse.Eq("iam_id", string(q.IAMID)))
	}
	switch {
	case q.Kinds != nil:
		where = append(where, clickhouse.In("kind", texts(q.Kinds)))
	case q.Type != "":
		where = append(where, clickhouse.Eq("kind", string(q.Type)))
	}
	if q.Identities != nil {
		where = append(where, clickhouse.In("iam_id", texts(q.Identities)))
	}
	// Of classic keys nobody sees but those that he may.
	classic := clickhouse.Ne("kind", string(domain.KindClassic))
	if len(q.ClassicOf) > 0 {
		classic = clickhouse.Or(classic, clickhouse.In("iam_id", texts(q.ClassicOf)))
	}
	where = append(where, classic)
	columns := []string{"account_id", "id"}
	if sort != "" {
		columns = []string{sort, "account_id", "id"}
	}
	descending := q.Order == "desc"
	if at != nil {
		descending = descending != at.Backward
		where = append(where, at.beyond(sort, descending))
	}
	order := slices.Clone(columns)
	if descending {
		for i := range order {
			order[i] += " DESC"
		}
	}
	return clickhouse.Select{
		Table: "api_keys", Final: true, Scope: scopeOf(q.Accounts), Columns: []string{"state", "created_at"},
		Where: where, OrderBy: order, Limit: q.PageSize + 1, Settings: readSettings(),
	}, nil
}

func texts[T ~string](list []T) []string {
	out := make([]string, len(list))
	for i, v := range list {
		out[i] = string(v)
	}
	return out
}

// beyond holds for the keys behind the token's, in the direction of reading.
func (t keyToken) beyond(sort string, descending bool) clickhouse.Cond {
	op := " > "
	if descending {
		op = " < "
	}
	switch sort {
	case "":
		return clickhouse.Raw("(account_id, id)"+op+"(?, ?)", t.Account, t.ID)
	case "created_at":
		return clickhouse.Raw("(created_at, account_id, id)"+op+"(?, ?, ?)", time.UnixMilli(t.Time).UTC(), t.Account, t.ID)
	}
	return clickhouse.Raw("("+sort+", account_id, id)"+op+"(?, ?, ?)", t.Text, t.Account, t.ID)
}

type keyRow struct {
	state   domain.KeyState
	created time.Time
}

func (g Generation) keys(ctx context.Context, q clickhouse.Select) ([]keyRow, error) {
	rows, err := g.Store.Query(ctx, q)
	if err != nil {
		return nil, fmt.Errorf("list keys: %w", err)
	}
	var out []keyRow
	err = each(rows, func() error {
		var (
			k    keyRow
			text string
		)
		if err := rows.Scan(&text, &k.created); err != nil {
			return err //nolint:wrapcheck // Wrapped below.
		}
		if err := json.Unmarshal([]byte(text), &k.state); err != nil {
			return fmt.Errorf("row %s: %w", strconv.Itoa(len(out)), err)
		}
		out = append(out, k)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list keys: %w", err)
	}
	return out, nil
}
