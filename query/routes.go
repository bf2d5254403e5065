package query

import (
	"encoding/json"
	"net/http"

	"example.com/keytrail/domain"
	"example.com/keytrail/internal/apidoc"
)

// The groups of the API's description.
const (
	groupEvents   = "events"
	groupUsage    = "usage"
	groupFindings = "findings"
	groupStatus   = "status"
)

// Routes returns the routes that need a credential.
func (h *Handler) Routes() apidoc.Table {
	get := func(group, path, summary, description string, request, answer any, handler viewHandler) apidoc.Route {
		return apidoc.Route{
			Method: http.MethodGet, Path: path, Summary: summary, Description: description, Group: group,
			Request: request, Answers: apidoc.OK(answer), Handler: h.fresh(handler),
		}
	}
	return apidoc.Table{
		get(groupEvents, "/v1/events", "Search the activity records.",
			"Records of log events and of uses, as CADF, in order of event time, position and index. A cursor pins the position.",
			EventsRequest{}, EventsAnswer{}, h.listEvents),
		get(groupEvents, "/v1/events/:id", "One activity record.", "", EventRequest{}, CADF(nil), h.getEvent),
		h.exportRoute(),
		get(groupEvents, "/v1/apikeys/:id/timeline", "Everything about one key.",
			"Commands, uses and findings of one key in one order.", TimelineRequest{}, TimelineAnswer{}, h.timeline),
		get(groupUsage, "/v1/usage/series", "Uses over time.",
			"A point for every step of the range, zero ones too; at most 10,000 over all series.", SeriesRequest{}, SeriesAnswer{}, h.usageSeries),
		get(groupUsage, "/v1/usage/top", "The most frequent values among uses.", "", TopRequest{}, TopAnswer{}, h.usageTop),
		get(groupUsage, "/v1/usage/heatmap", "Uses by hour of the week.", "", HeatmapRequest{}, HeatmapAnswer{}, h.usageHeatmap),
		get(groupFindings, "/v1/findings", "Findings.", "The newest first seen first.", FindingsRequest{}, FindingsAnswer{}, h.listFindings),
		get(groupFindings, "/v1/findings/:id", "One finding.", "", FindingRequest{}, struct {
			Stated
			domain.Finding
		}{}, h.getFinding),
		get(groupStatus, "/v1/projections", "State of the projections.", "", ProjectionsRequest{}, ProjectionsAnswer{}, h.listProjections),
	}
}

// PublicRoutes returns the routes that need no credential.
func (h *Handler) PublicRoutes() apidoc.Table {
	table := apidoc.Table{
		{
			Method: http.MethodGet, Path: "/healthz", Summary: "Whether the process serves.", Group: groupStatus, Public: true,
			Answers: apidoc.OK(Health{}), Handler: h.healthz,
		},
		{
			Method: http.MethodGet, Path: "/readyz", Summary: "Whether the program is ready.", Group: groupStatus, Public: true,
			Answers: []apidoc.Answer{{Status: http.StatusOK, Body: Health{}}, {Status: http.StatusServiceUnavailable, Body: Health{}}}, Handler: h.readyz,
		},
		{
			Method: http.MethodGet, Path: "/openapi.json", Summary: "This description.", Group: groupStatus, Public: true,
			Answers: apidoc.OK(json.RawMessage{}), Handler: h.openAPI,
		},
	}
	if h.cfg.Metrics != nil {
		table = append(table, apidoc.Route{
			Method: http.MethodGet, Path: "/metrics", Summary: "Metrics for Prometheus.", Group: groupStatus, Public: true,
			Answers: []apidoc.Answer{{Status: http.StatusOK, Body: "", ContentType: "text/plain"}}, Handler: h.metrics,
		})
	}
	return table
}
