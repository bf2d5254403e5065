package query

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"log/slog"
	"net/http"
	"strconv"
	"time"

	"github.com/gin-gonic/gin"

	"example.com/keytrail/domain"
	"example.com/keytrail/internal/apidoc"
	"example.com/keytrail/internal/httpx"
)

const (
	actionExport = "activity.export"
	// exportBuffer is what an export collects before it writes.
	exportBuffer = 64 << 10
	// exportStride is how many records may pass before the deadline of the connection
	// is moved, exportPatience how long a reader may take for them.
	exportStride   = 256
	exportPatience = 2 * time.Minute
	// sortPatience is how long the store may take until the first record.
	sortPatience = 15 * time.Minute
	// recordPatience bounds the recording of how an export ended.
	recordPatience = 15 * time.Second
	// sortMemoryBytes is what the store may sort in memory; beyond it sorts on disk.
	sortMemoryBytes = 256 << 20
)

// Trailers of the HTTP answer, sent behind the body of a whole export only.
const (
	trailerCount  = "Keytrail-Count"
	trailerSHA256 = "Keytrail-Sha256"
	trailerPinned = "Keytrail-Pinned-Position"
)

// ExportRequest asks for all activity records of a range.
type ExportRequest struct {
	Fresh
	Span
	Filter  string `query:"filter" maxLength:"8192" description:"AIP-160 filter over the record's fields."`
	Account string `query:"account_id" maxLength:"128" description:"Only this account; else all that the caller may read."`
	Format  string `query:"format" enum:"ndjson,csv" default:"ndjson" description:"One CADF event a line, or a table."`
}

// Trailer ends an export. In NDJSON it is the last line, {"trailer":{…}}; in CSV it is
// the last line behind "# ". Without it the export is not whole.
type Trailer struct {
	Count          uint64 `json:"count"`
	FirstPosition  string `json:"first_position"`
	LastPosition   string `json:"last_position"`
	PinnedPosition string `json:"pinned_position"`
	SHA256         string `json:"sha256"`
	// Poisoned counts events of the log that are in no table, and so not in here.
	Poisoned uint64 `json:"poisoned,omitempty"`
}

type trailerLine struct {
	Trailer Trailer `json:"trailer"`
}

func (h *Handler) exportRoute() apidoc.Route {
	return apidoc.Route{
		Method: http.MethodGet, Path: "/v1/events/export", Summary: "Export activity records.", Group: groupEvents,
		Description: "All records of the range as of one position, in order of event time, streamed and without a bound. The last line is a trailer: " +
			"in NDJSON {\"trailer\":{count, first_position, last_position, pinned_position, sha256}}, in CSV the same behind '# '. " +
			"first_position and last_position are those of the first and the last record; sha256 is of all bytes before the trailer's line. " +
			"Count, hash and pinned position also come as HTTP trailers. " +
			"An export that fails breaks the connection and has no trailer. CSV cells that a spreadsheet would take for a formula begin with an apostrophe. " +
			"Beginning and end of every export are recorded in the log; one that cannot be recorded is refused.",
		Request: ExportRequest{},
		Answers: []apidoc.Answer{
			{Status: http.StatusOK, Body: "", ContentType: "application/x-ndjson"},
			{Status: http.StatusOK, Body: "", ContentType: "text/csv"},
		},
		Handler: h.stream(h.export),
	}
}

// export streams all records of a range. It is recorded before the first byte and
// again before the trailer; a recording that fails ends it.
func (h *Handler) export(c *gin.Context, v view) error {
	var req ExportRequest
	if err := bind(c, &req); err != nil {
		return err
	}
	events := EventsRequest{Span: req.Span, Filter: req.Filter, Account: req.Account, Sort: "asc"}
	s, err := events.selection(v, nil)
	if err != nil {
		return err
	}
	if len(s.accounts) == 0 {
		return domain.Errorf(domain.Forbidden, "there is no account whose activity you may read").WithMessageCode("missing_role")
	}
	select {
	case h.exports <- struct{}{}:
		defer func() { <-h.exports }()
	default:
		return domain.Errorf(domain.Unavailable, "too many exports are under way").WithMessageCode("exports_busy")
	}
	if err := patience(c, sortPatience); err != nil {
		return err
	}
	s.settings = map[string]any{"max_bytes_before_external_sort": sortMemoryBytes}
	records, err := h.open(c.Request.Context(), s)
	if err != nil {
		return err
	}
	e := &exporting{h: h, c: c, who: v.who.Initiator, req: req, selection: s}
	if err := e.record(c.Request.Context(), false, Trailer{}, "begin"); err != nil {
		return errors.Join(err, records.Close())
	}
	if err := errors.Join(e.run(records), records.Close()); err != nil {
		e.breakOff(err)
	}
	return nil
}

// exporting is one export under way.
type exporting struct {
	h         *Handler
	c         *gin.Context
	who       domain.Initiator
	req       ExportRequest
	selection selection

	out         *bufio.Writer
	sum         hash.Hash
	count       uint64
	first, last uint64
}

// lineWriter writes records in one format.
type lineWriter interface {
	header() error
	record(record) error
	// flush hands on all that was written.
	flush() error
	// trailerPrefix stands before the trailer's JSON.
	trailerPrefix() string
}

// run writes everything, the trailer last.
func (e *exporting) run(records *merged) error {
	e.out, e.sum = bufio.NewWriterSize(e.c.Writer, exportBuffer), sha256.New()
	body := io.MultiWriter(e.out, e.sum)
	var lines lineWriter = &ndjsonLines{to: body}
	contentType := "application/x-ndjson"
	if e.req.Format == "csv" {
		lines, contentType = newCSVLines(body), "text/csv; charset=utf-8"
	}
	header := e.c.Writer.Header()
	header.Set("Content-Type", contentType)
	header.Set("Content-Disposition", `attachment; filename="activity.`+e.req.Format+`"`)
	header.Set("Trailer", trailerCount+", "+trailerSHA256+", "+trailerPinned)
	e.c.Status(http.StatusOK)
	if err := e.body(records, lines); err != nil {
		return err
	}
	return e.finish(lines.trailerPrefix())
}

func (e *exporting) body(records *merged, lines lineWriter) error {
	if err := lines.header(); err != nil {
		return err
	}
	for {
		r, ok, err := records.Next()
		if err != nil {
			return err
		}
		if !ok {
			return lines.flush()
		}
		if e.count == 0 {
			e.first = r.position
		}
		if e.count%exportStride == 0 {
			if err := patience(e.c, exportPatience); err != nil {
				return err
			}
		}
		e.last = r.position
		e.count++
		if err := lines.record(r); err != nil {
			return err
		}
	}
}

// finish records that the export is whole and only then says so.
func (e *exporting) finish(prefix string) error {
	t := e.trailer()
	if err := e.out.Flush(); err != nil {
		return fmt.Errorf("write export: %w", err)
	}
	if err := e.record(e.c.Request.Context(), true, t, "end"); err != nil {
		return err
	}
	line, err := json.Marshal(trailerLine{Trailer: t})
	if err != nil {
		return fmt.Errorf("encode trailer: %w", err)
	}
	if _, err := e.c.Writer.WriteString(prefix + string(line) + "\n"); err != nil {
		return fmt.Errorf("write trailer: %w", err)
	}
	header := e.c.Writer.Header()
	header.Set(trailerCount, strconv.FormatUint(t.Count, 10))
	header.Set(trailerSHA256, t.SHA256)
	header.Set(trailerPinned, t.PinnedPosition)
	return nil
}

func (e *exporting) trailer() Trailer {
	position := func(p uint64) string { return strconv.FormatUint(p, 10) }
	return Trailer{
		Count: e.count, FirstPosition: position(e.first), LastPosition: position(e.last),
		PinnedPosition: position(e.selection.pin), SHA256: hex.EncodeToString(e.sum.Sum(nil)), Poisoned: e.selection.tables.Poisoned,
	}
}

// record puts the export into the log, once for each account whose records it holds.
func (e *exporting) record(ctx context.Context, complete bool, t Trailer, phase string) error {
	request, err := json.Marshal(map[string]string{
		"phase": phase, "format": e.req.Format, "filter": e.req.Filter, "from": e.req.From, "to": e.req.To,
		"pinned_position": strconv.FormatUint(e.selection.pin, 10),
	})
	if err != nil {
		return fmt.Errorf("encode the request: %w", err)
	}
	accessed := domain.AuditAccessed{Action: actionExport, Request: request, Count: t.Count, SHA256: t.SHA256, Complete: complete}
	if err := e.h.cfg.Access.RecordAccess(ctx, e.who, httpx.Trace(e.c), e.selection.accounts, accessed); err != nil {
		refusal := domain.Errorf(domain.Unavailable, "the export cannot be recorded").WithMessageCode("log_unavailable")
		return fmt.Errorf("%w: %w", refusal, err)
	}
	return nil
}

// breakOff ends an export that failed: what was handed out is recorded as incomplete,
// and the connection is broken, so that nobody takes the part for the whole.
func (e *exporting) breakOff(cause error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(e.c.Request.Context()), recordPatience)
	defer cancel()
	t := e.trailer()
	t.SHA256 = ""
	err := errors.Join(cause, e.record(ctx, false, t, "broken off"))
	e.h.cfg.Logger.ErrorContext(ctx, "export broken off", slog.String("trace", httpx.Trace(e.c)), slog.Uint64("records", e.count), slog.String("error", err.Error()))
	panic(http.ErrAbortHandler)
}
