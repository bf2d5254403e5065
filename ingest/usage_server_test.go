package ingest_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gin-gonic/gin"

	"example.com/keytrail/ingest"
	"example.com/keytrail/internal/auth"
	"example.com/keytrail/internal/httpx"
)

// TestManyCallersAndTwoNodesOnTheRealLogLoseAndDoubleNothing runs uploads, repeats and
// small batches of several callers against the embedded event store.
func TestManyCallersAndTwoNodesOnTheRealLogLoseAndDoubleNothing(t *testing.T) {
	log := openLog(t)
	nodes := []*ingest.Usage{newUsage(t, log, nil), newUsage(t, log, nil)}
	const callers, batches, perBatch = 4, 6, 400
	var wg sync.WaitGroup
	start := time.Now()
	for caller := range callers {
		for batch := range batches {
			wg.Go(func() {
				text := lines(fmt.Sprintf("c%d-b%d", caller, batch), perBatch)
				for try := range 3 {
					res, err := nodes[(batch+try)%2].Record(t.Context(), orderOf(order().Caller.Initiator.IAMID+"-x"), ingest.UploadRequest{
						Batch: fmt.Sprintf("c%d-b%d", caller, batch), Body: body(text),
					})
					if err != nil || res.Accepted != perBatch {
						t.Errorf("caller %d batch %d: %+v, %v", caller, batch, res, err)
					}
				}
			})
		}
	}
	wg.Wait()
	t.Logf("%d uses, each sent three times, in %s", callers*batches*perBatch, time.Since(start))
	if n := len(usesIn(t, log, "client")); n != callers*batches*perBatch {
		t.Errorf("%d uses in the log", n)
	}
}

func TestAnUploadOverHTTPIsAnswered202WithItsPosition(t *testing.T) {
	log := newMemLog()
	u := newUsage(t, log, nil)
	engine := httpx.NewEngine(testLogger(t))
	engine.POST("/v1/usage", func(c *gin.Context) { auth.WithCaller(c, order().Caller) }, u.HandleUsage)
	send := func(batch, text string) (*httptest.ResponseRecorder, ingest.UsageAnswer) {
		req := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/v1/usage", strings.NewReader(text))
		req.Header.Set(ingest.HeaderBatchID, batch)
		w := httptest.NewRecorder()
		engine.ServeHTTP(w, req)
		var a ingest.UsageAnswer
		if err := json.Unmarshal(w.Body.Bytes(), &a); err != nil {
			t.Fatalf("%s: %v", w.Body, err)
		}
		return w, a
	}
	w, a := send("b1", lines("a", 2)+"bad\n")
	if w.Code != http.StatusAccepted || a.Accepted != 2 || a.RejectedCount != 1 || a.Rejected[0].Line != 3 || a.Position != "3" || a.BatchID != "b1" || w.Header().Get("Keytrail-Position") != "3" {
		t.Errorf("got %d %s", w.Code, w.Body)
	}
	if w, _ := send("b2", lines("c", 1)); !strings.Contains(w.Body.String(), `"rejected":[]`) {
		t.Errorf("no list of rejected lines: %s", w.Body)
	}
	if w, _ := send("b1", lines("b", 2)); w.Code != http.StatusConflict {
		t.Errorf("other bytes: %d %s", w.Code, w.Body)
	}
	log.fault = func(string, int) fault { return lost }
	if w, _ := send("b3", lines("d", 2)); w.Code != http.StatusServiceUnavailable || w.Header().Get("Retry-After") == "" {
		t.Errorf("log down: %d %v", w.Code, w.Header())
	}
}
