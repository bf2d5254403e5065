package eventstore

import (
	"container/list"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"math"
)

// limits is what a stream's metadata hides at read. The zero value hides nothing.
type limits struct {
	maxCount  sql.NullInt64
	maxAgeS   sql.NullInt64
	trimBelow sql.NullInt64
}

// softDeleted reports whether all that the stream holds so far is hidden.
func (l limits) softDeleted() bool { return l.trimBelow.Valid && l.trimBelow.Int64 == math.MaxInt64 }

// parseLimits reads the limits out of a stream's metadata. What is not a limit is
// the caller's own; a value that is no number hides nothing, as in EventStoreDB.
func parseLimits(data []byte) limits {
	var m struct {
		MaxCount *int64 `json:"$maxCount"`
		MaxAge   *int64 `json:"$maxAge"`
		TB       *int64 `json:"$tb"`
	}
	if json.Unmarshal(data, &m) != nil {
		return limits{}
	}
	return limits{maxCount: positive(m.MaxCount), maxAgeS: positive(m.MaxAge), trimBelow: positive(m.TB)}
}

func positive(v *int64) sql.NullInt64 {
	if v == nil || *v <= 0 {
		return sql.NullInt64{}
	}
	return sql.NullInt64{Int64: *v, Valid: true}
}

// head is where a stream ends.
type head struct {
	sid    int64  // 0: the stream has no number yet.
	last   uint64 // Last revision, if exists.
	exists bool   // It holds events.
	cut    uint64 // Events below may be gone. The tables may be ahead of this.
	limits limits
}

// tombstoned reports whether the stream is gone for good.
func (h head) tombstoned() bool { return h.exists && h.last == revisionMax }

// visible reports whether the stream counts as existing for an expected revision.
func (h head) visible() bool { return h.exists && !h.limits.softDeleted() }

// next is the revision of the next event.
func (h head) next() uint64 {
	if !h.exists {
		return 0
	}
	return h.last + 1
}

const headQuery = `
SELECT s.sid, s.max_count, s.max_age_s, s.trim_below, s.cut_below,
       (SELECT r.first_rev + (r.events - 1) FROM runs r WHERE r.sid = s.sid ORDER BY r.first_rev DESC LIMIT 1)
FROM streams s WHERE s.name = ?`

// loadHead reads the head of a stream.
func loadHead(ctx context.Context, stmt *sql.Stmt, stream string) (head, error) {
	return scanHead(stmt.QueryRowContext(ctx, stream))
}

func scanHead(row scanner) (head, error) {
	var h head
	var last sql.NullInt64
	err := row.Scan(&h.sid, &h.limits.maxCount, &h.limits.maxAgeS, &h.limits.trimBelow, &h.cut, &last)
	if errors.Is(err, sql.ErrNoRows) {
		return head{}, nil
	}
	if err != nil {
		return head{}, fmt.Errorf("read head of stream: %w", err)
	}
	h.last, h.exists = uint64(last.Int64), last.Valid //nolint:gosec // Revisions are not negative.
	return h, nil
}

// headCache remembers the heads of the streams written last. Only the writer uses
// it, so that what it holds is always what is committed.
type headCache struct {
	max    int
	byName map[string]*list.Element
	order  *list.List // Most recently used first; values are *cachedHead.
}

type cachedHead struct {
	stream string
	head   head
}

func newHeadCache(limit int) *headCache {
	return &headCache{max: limit, byName: make(map[string]*list.Element), order: list.New()}
}

func (c *headCache) get(stream string) (head, bool) {
	e, ok := c.byName[stream]
	if !ok {
		return head{}, false
	}
	c.order.MoveToFront(e)
	return e.Value.(*cachedHead).head, true //nolint:errcheck,forcetypeassert // The list holds nothing else.
}

func (c *headCache) put(stream string, h head) {
	if e, ok := c.byName[stream]; ok {
		e.Value.(*cachedHead).head = h //nolint:errcheck,forcetypeassert // The list holds nothing else.
		c.order.MoveToFront(e)
		return
	}
	c.byName[stream] = c.order.PushFront(&cachedHead{stream: stream, head: h})
	if c.order.Len() > c.max {
		old := c.order.Back()
		delete(c.byName, old.Value.(*cachedHead).stream) //nolint:errcheck,forcetypeassert // The list holds nothing else.
		c.order.Remove(old)
	}
}
