package apidoc

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strings"

	"github.com/gin-gonic/gin"
	"github.com/swaggest/openapi-go"
	"github.com/swaggest/openapi-go/openapi31"
)

// Route is one method on one path, with what it takes and gives.
type Route struct {
	// Method and Path as gin takes them, such as "GET", "/v1/events/:id".
	Method, Path string
	// Summary is one line, Description as many as it takes. A summary is required.
	Summary, Description string
	// Group names the part of the API that the route belongs to. Required.
	Group string
	// Request is a value of a struct whose fields are tagged path, query, header,
	// formData or json, with description tags. nil: the route takes nothing. Every
	// parameter in Path must be a field tagged path.
	Request any
	// Body is a value of the type of a JSON body that is no object; nil: the body, if there
	// is one, is in Request.
	Body any
	// Answers lists what a success looks like; at least one.
	Answers []Answer
	// Public marks a route that needs no credential.
	Public bool
	// Handler serves it.
	Handler gin.HandlerFunc
}

// Answer is one kind of success.
type Answer struct {
	Status int
	// Body is a value of the type of the body; nil: none.
	Body any
	// ContentType where it is not JSON; the body is then plain text to the document.
	ContentType string
	Description string
}

// OK is the usual [Answer]: status 200 with a JSON body of v's type.
func OK(v any) []Answer { return []Answer{{Status: http.StatusOK, Body: v}} }

// Table is a set of routes.
type Table []Route

// Register adds every route of t to r, in order.
func (t Table) Register(r gin.IRoutes) {
	for _, route := range t {
		r.Handle(route.Method, route.Path, route.Handler)
	}
}

// Info heads a document.
type Info struct {
	Title, Version, Description string
	// Error is a value of the type of every refusal's body.
	Error any
	// ServerURL is where the API answers; empty: where the document came from.
	ServerURL string
}

// bearer names the security scheme.
const bearer = "token"

// Document returns the OpenAPI 3.1 description of tables, as JSON. The same input
// gives the same bytes. It reports everything that is wrong with the tables at once.
func Document(info Info, tables ...Table) ([]byte, error) {
	r := openapi31.NewReflector()
	r.Spec.Info = openapi31.Info{Title: info.Title, Version: info.Version}
	if info.Description != "" {
		r.Spec.Info.WithDescription(info.Description)
	}
	if info.ServerURL != "" {
		r.Spec.Servers = append(r.Spec.Servers, openapi31.Server{URL: info.ServerURL})
	}
	r.Spec.SetHTTPBearerTokenSecurity(bearer, "JWT", "A token of POST /identity/token. Basic authentication with the user apikey is accepted too.")
	var errs []error
	for _, route := range slices.Concat(tables...) {
		if err := add(r, info, route); err != nil {
			errs = append(errs, fmt.Errorf("%s %s: %w", route.Method, route.Path, err))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return nil, fmt.Errorf("apidoc: %w", err)
	}
	text, err := json.MarshalIndent(r.Spec, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("apidoc: %w", err)
	}
	return append(text, '\n'), nil
}

func add(r *openapi31.Reflector, info Info, route Route) error {
	if route.Summary == "" || route.Group == "" || len(route.Answers) == 0 || route.Handler == nil {
		return errors.New("a route has a summary, a group, an answer and a handler")
	}
	op, err := r.NewOperationContext(route.Method, TemplatePath(route.Path))
	if err != nil {
		return err //nolint:wrapcheck // The caller adds the route.
	}
	op.SetSummary(route.Summary)
	op.SetDescription(route.Description)
	op.SetTags(route.Group)
	op.SetID(operationID(route))
	if !route.Public {
		op.AddSecurity(bearer)
	}
	if route.Request != nil {
		op.AddReqStructure(route.Request)
	}
	if route.Body != nil {
		op.AddReqStructure(route.Body)
	}
	for _, a := range route.Answers {
		op.AddRespStructure(a.Body, a.options()...)
	}
	if info.Error != nil {
		op.AddRespStructure(info.Error, func(cu *openapi.ContentUnit) {
			cu.IsDefault = true
			cu.Description = "A refusal."
		})
	}
	return r.AddOperation(op) //nolint:wrapcheck // The caller adds the route.
}

func (a Answer) options() []openapi.ContentOption {
	description := a.Description
	if description == "" {
		description = http.StatusText(a.Status)
	}
	return []openapi.ContentOption{
		openapi.WithHTTPStatus(a.Status),
		openapi.WithContentType(a.ContentType),
		func(cu *openapi.ContentUnit) { cu.Description = description },
	}
}

var ginParameter = regexp.MustCompile(`[:*]([A-Za-z_][A-Za-z0-9_]*)`)

// TemplatePath returns a path of gin's as OpenAPI writes it: /v1/events/{id}.
func TemplatePath(path string) string {
	return ginParameter.ReplaceAllString(path, "{$1}")
}

var notWord = regexp.MustCompile(`[^A-Za-z0-9]+`)

// operationID makes a name that generated clients can use for a method.
func operationID(route Route) string {
	return strings.Trim(strings.ToLower(route.Method)+"_"+notWord.ReplaceAllString(route.Path, "_"), "_")
}
