package ingest

import (
	"net/http"

	"github.com/gin-gonic/gin"

	"example.com/keytrail/internal/httpx"
)

// ImportAnswer is the body of an answer to POST /v1/imports/cloudtrail.
type ImportAnswer struct {
	UsageAnswer
	Uses  uint64 `json:"uses"`
	Facts uint64 `json:"facts"`
}

// HandleCloudTrail answers POST /v1/imports/cloudtrail: 202 when every accepted record
// and every fact in it is durable. After a 5xx or no answer the caller sends the same
// records again.
func (i *Importer) HandleCloudTrail(c *gin.Context) {
	res, err := i.CloudTrail(c.Request.Context(), orderOfUpload(c), uploadRequest(c))
	if err != nil {
		httpx.Fail(c, err)
		return
	}
	httpx.Position(c, res.Position)
	c.JSON(http.StatusAccepted, ImportAnswer{UsageAnswer: res.answer(), Uses: res.Uses, Facts: res.Facts})
}
