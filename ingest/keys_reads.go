package ingest

import (
	"context"
	"slices"
	"strconv"

	"github.com/gin-gonic/gin"

	"example.com/keytrail/domain"
	"example.com/keytrail/internal/httpx"
)

// ReadRecorder records durably that keys were read; [AccessLog] does.
type ReadRecorder interface {
	RecordAccess(ctx context.Context, who domain.Initiator, correlationID string, accounts []domain.AccountID, e domain.AuditAccessed) error
}

// recordRead records that a key is read, where its account wants that. It comes before the
// answer: with an error the key must not be shown.
func (h *KeyAPI) recordRead(c *gin.Context, key domain.KeyState) error {
	e := domain.AuditAccessed{
		Action: domain.KeyAction(key.Kind, domain.VerbRead), Target: string(key.ID), TargetName: key.Name, TargetKind: key.Kind,
		Request: requestOf(queryOf(c)), Count: 1, Complete: true,
	}
	return h.recordReads(c, []domain.AccountID{key.Account}, e)
}

// recordList records that keys are listed, in each account of the question that wants that.
func (h *KeyAPI) recordList(c *gin.Context, q domain.KeysQuery, page domain.KeysPage) error {
	kind := q.Type
	if kind == "" {
		kind = domain.KindUser // IBM has no name for a list of all kinds; the request says which.
	}
	e := domain.AuditAccessed{
		Action: domain.KeyAction(kind, domain.VerbList), Request: requestOf(queryOf(c)), Count: uint64(len(page.Keys)), Complete: true,
	}
	return h.recordReads(c, q.Accounts, e)
}

func (h *KeyAPI) recordReads(c *gin.Context, accounts []domain.AccountID, e domain.AuditAccessed) error {
	wanted := slices.DeleteFunc(slices.Clone(accounts), func(id domain.AccountID) bool {
		account, ok := h.Directory.Account(id)
		return !ok || !account.Settings().RecordReads
	})
	if len(wanted) == 0 {
		return nil
	}
	o := orderOf(c)
	return h.Reads.RecordAccess(c.Request.Context(), o.Caller.Initiator, httpx.Trace(c), wanted, e) //nolint:wrapcheck // It says what was attempted.
}

// queryBytesMax bounds what a record repeats of a query.
const queryBytesMax = 8 << 10

// queryOf returns what a request asks for, but page tokens: they say nothing to people.
// Where it is too large, its size stands for it.
func queryOf(c *gin.Context) map[string][]string {
	if n := len(c.Request.URL.RawQuery); n > queryBytesMax {
		return map[string][]string{"oversize": {strconv.Itoa(n) + " bytes"}}
	}
	q := c.Request.URL.Query()
	q.Del("pagetoken")
	return q
}
