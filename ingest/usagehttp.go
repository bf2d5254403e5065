package ingest

import (
	"io"
	"net/http"
	"strconv"

	"github.com/gin-gonic/gin"

	"example.com/keytrail/internal/auth"
	"example.com/keytrail/internal/httpx"
)

// HeaderBatchID names the header by which a caller names its batch. Without it the
// batch is named by the SHA-256 of the body.
const HeaderBatchID = "Keytrail-Batch-Id"

// UploadRequest is one upload, of uses or of records to import.
type UploadRequest struct {
	Batch    string // "" = by the body's SHA-256.
	Encoding string // Content-Encoding: "", "identity", "gzip" or "zstd".
	Body     io.Reader
}

// UsageAnswer is the body of an answer to POST /v1/usage.
type UsageAnswer struct {
	BatchID  string `json:"batch_id"`
	Accepted uint64 `json:"accepted"`
	// Rejected lists at most [RejectedLinesMax] of RejectedCount lines.
	Rejected      []RejectedLine `json:"rejected"`
	RejectedCount uint64         `json:"rejected_count"`
	Repeated      uint64         `json:"repeated"`
	Position      string         `json:"position"`
}

// HandleUsage answers POST /v1/usage: 202 when every accepted use is durable. After a
// 5xx or no answer the caller sends the same bytes again.
func (u *Usage) HandleUsage(c *gin.Context) {
	res, err := u.Record(c.Request.Context(), orderOfUpload(c), uploadRequest(c))
	if err != nil {
		httpx.Fail(c, err)
		return
	}
	httpx.Position(c, res.Position)
	c.JSON(http.StatusAccepted, res.answer())
}

func (r UsageResult) answer() UsageAnswer {
	return UsageAnswer{
		BatchID: r.Batch, Accepted: r.Accepted, Repeated: r.Repeated,
		Rejected: append([]RejectedLine{}, r.Rejected...), RejectedCount: r.RejectedCount,
		Position: strconv.FormatUint(r.Position, 10),
	}
}

func uploadRequest(c *gin.Context) UploadRequest {
	return UploadRequest{Batch: c.GetHeader(HeaderBatchID), Encoding: c.GetHeader("Content-Encoding"), Body: c.Request.Body}
}

func orderOfUpload(c *gin.Context) Order {
	return Order{Caller: auth.CallerOf(c), CorrelationID: httpx.Trace(c), RequestID: httpx.RequestID(c)}
}
