package query

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"time"

	"github.com/gin-gonic/gin"
)

// checkTimeout bounds one readiness check.
const checkTimeout = 5 * time.Second

// ProjectionsRequest asks for the state of the projections.
type ProjectionsRequest struct{ Fresh }

// ProjectionsAnswer is the state of all projections.
type ProjectionsAnswer struct {
	Stated
	Projections []ProjectionStatus `json:"projections"`
}

// listProjections answers how far each projection is.
func (h *Handler) listProjections(c *gin.Context, _ view) error {
	if err := bind(c, &ProjectionsRequest{}); err != nil {
		return err
	}
	list, err := h.cfg.Projections.Projections(c.Request.Context())
	if err != nil {
		return fmt.Errorf("read projections: %w", err)
	}
	if list == nil {
		list = []ProjectionStatus{}
	}
	c.JSON(http.StatusOK, ProjectionsAnswer{Projections: list})
	return nil
}

// Health says whether the program runs and is ready.
type Health struct {
	Status string        `json:"status" enum:"ok,degraded,unavailable"`
	Checks []CheckResult `json:"checks,omitempty"`
}

// CheckResult is the outcome of one check. Why it failed is in the operator's log.
type CheckResult struct {
	Name string `json:"name"`
	OK   bool   `json:"ok"`
}

// healthz answers that the process serves requests, and nothing more.
func (h *Handler) healthz(c *gin.Context) { c.JSON(http.StatusOK, Health{Status: "ok"}) }

// readyz answers 200 when the program serves, perhaps less than all of it ("degraded"), else
// 503; with every check, so that one sees what is away.
func (h *Handler) readyz(c *gin.Context) {
	health, status := Health{Status: "ok"}, http.StatusOK
	for _, check := range h.cfg.Checks {
		err := runCheck(c.Request.Context(), check)
		switch {
		case err != nil && !check.Degrades:
			health.Status, status = "unavailable", http.StatusServiceUnavailable
		case err != nil && status == http.StatusOK:
			health.Status = "degraded"
		}
		if err != nil {
			h.cfg.Logger.DebugContext(c.Request.Context(), "not ready", slog.String("check", check.Name), slog.String("error", err.Error()))
		}
		health.Checks = append(health.Checks, CheckResult{Name: check.Name, OK: err == nil})
	}
	c.JSON(status, health)
}

func runCheck(ctx context.Context, check Check) error {
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	return check.Run(ctx)
}

// metrics serves the program's metrics.
func (h *Handler) metrics(c *gin.Context) { h.cfg.Metrics.ServeHTTP(c.Writer, c.Request) }

// openAPI answers the description of the whole API.
func (h *Handler) openAPI(c *gin.Context) {
	c.Data(http.StatusOK, "application/json; charset=utf-8", h.document)
}
