package apidoc_test

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/gin-gonic/gin"
	"github.com/google/go-cmp/cmp"

	"example.com/keytrail/internal/apidoc"
)

type (
	request struct {
		ID    string `path:"id" description:"Which one."`
		Limit int    `query:"limit" minimum:"1" maximum:"1000" default:"50" description:"How many."`
		Wait  uint64 `header:"Keytrail-Wait-Position" description:"Wait for this position."`
	}
	answer struct {
		Name string `json:"name" description:"Its name."`
	}
	refusal struct {
		Trace string `json:"trace"`
	}
)

func handler(c *gin.Context) { c.String(http.StatusOK, c.Param("id")) }

func route(change func(*apidoc.Route)) apidoc.Route {
	r := apidoc.Route{
		Method: http.MethodGet, Path: "/v1/things/:id", Summary: "One thing.", Group: "things",
		Request: request{}, Answers: apidoc.OK(answer{}), Handler: handler,
	}
	if change != nil {
		change(&r)
	}
	return r
}

func TestDocumentDescribesParametersAnswersAndRefusals(t *testing.T) {
	table := apidoc.Table{
		route(nil),
		route(func(r *apidoc.Route) {
			r.Path, r.Request, r.Public = "/export", nil, true
			r.Answers = []apidoc.Answer{{Status: http.StatusOK, Body: "", ContentType: "text/csv"}}
		}),
	}
	text, err := apidoc.Document(apidoc.Info{Title: "t", Version: "1", Error: refusal{}}, table)
	if err != nil {
		t.Fatal(err)
	}
	type operation struct {
		Parameters []struct {
			Name, In string
			Required bool
			Schema   map[string]any
		}
		Responses map[string]struct {
			Content map[string]any
		}
		Security []map[string][]string
	}
	var doc struct {
		Openapi string
		Paths   map[string]map[string]operation
	}
	if err := json.Unmarshal(text, &doc); err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(doc.Openapi, "3.1.") {
		t.Errorf("openapi = %q, want 3.1", doc.Openapi)
	}
	op := doc.Paths["/v1/things/{id}"]["get"]
	got := make([]string, 0, len(op.Parameters))
	for _, p := range op.Parameters {
		got = append(got, p.In+" "+p.Name)
		if p.Name == "limit" && p.Schema["maximum"] != float64(1000) {
			t.Errorf("limit's schema = %v, want its bound in it", p.Schema)
		}
	}
	want := []string{"query limit", "path id", "header Keytrail-Wait-Position"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("parameters (-want +got):\n%s", diff)
	}
	if _, ok := op.Responses["default"]; !ok || len(op.Security) != 1 {
		t.Errorf("responses %v, security %v, want a default refusal and a credential", op.Responses, op.Security)
	}
	export := doc.Paths["/export"]["get"]
	if _, ok := export.Responses["200"].Content["text/csv"]; !ok || len(export.Security) != 0 {
		t.Errorf("export: responses %v, security %v, want text/csv and no credential", export.Responses, export.Security)
	}
}

// TestABodyThatIsAListIsDescribed, beside the parameters.
func TestABodyThatIsAListIsDescribed(t *testing.T) {
	table := apidoc.Table{{
		Method: http.MethodPut, Path: "/v1/things/:id", Summary: "Set all.", Group: "things", Handler: handler,
		Request: struct {
			ID string `path:"id"`
		}{}, Body: []answer{}, Answers: apidoc.OK([]answer{}),
	}}
	text, err := apidoc.Document(apidoc.Info{Title: "t", Version: "1"}, table)
	if err != nil {
		t.Fatal(err)
	}
	var doc struct {
		Paths map[string]map[string]struct {
			Parameters  []struct{ Name string }
			RequestBody struct {
				Content map[string]struct{ Schema map[string]any }
			}
		}
	}
	if err := json.Unmarshal(text, &doc); err != nil {
		t.Fatal(err)
	}
	put := doc.Paths["/v1/things/{id}"]["put"]
	if schema := put.RequestBody.Content["application/json"].Schema; len(put.Parameters) != 1 || schema["items"] == nil {
		t.Errorf("parameters %v, body %v", put.Parameters, schema)
	}
}

func TestDocumentRefusesAnUndocumentedRoute(t *testing.T) {
	tests := []struct {
		name   string
		change func(*apidoc.Route)
	}{
		{name: "no summary", change: func(r *apidoc.Route) { r.Summary = "" }},
		{name: "no group", change: func(r *apidoc.Route) { r.Group = "" }},
		{name: "no answer", change: func(r *apidoc.Route) { r.Answers = nil }},
		{name: "no handler", change: func(r *apidoc.Route) { r.Handler = nil }},
		{name: "a path parameter that the request lacks", change: func(r *apidoc.Route) { r.Request = nil }},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := apidoc.Document(apidoc.Info{Title: "t", Version: "1"}, apidoc.Table{route(tt.change)}); err == nil {
				t.Error("no error, want the route to be named")
			}
		})
	}
}

func TestDocumentRefusesARouteTwice(t *testing.T) {
	if _, err := apidoc.Document(apidoc.Info{Title: "t", Version: "1"}, apidoc.Table{route(nil)}, apidoc.Table{route(nil)}); err == nil {
		t.Error("no error for one route in two tables")
	}
}

func TestDocumentIsTheSameEveryTime(t *testing.T) {
	table := apidoc.Table{route(nil), route(func(r *apidoc.Route) { r.Method = http.MethodDelete })}
	first, err := apidoc.Document(apidoc.Info{Title: "t", Version: "1", Error: refusal{}}, table)
	if err != nil {
		t.Fatal(err)
	}
	for range 10 {
		again, err := apidoc.Document(apidoc.Info{Title: "t", Version: "1", Error: refusal{}}, table)
		if err != nil || string(again) != string(first) {
			t.Fatalf("another document for the same routes (%v)", err)
		}
	}
}

func TestRegisterServesEveryRoute(t *testing.T) {
	gin.SetMode(gin.TestMode)
	engine := gin.New()
	apidoc.Table{route(nil)}.Register(engine)
	rec := httptest.NewRecorder()
	engine.ServeHTTP(rec, httptest.NewRequest(http.MethodGet, "/v1/things/x", nil))
	if rec.Body.String() != "x" {
		t.Errorf("answer %d %q, want the route's handler", rec.Code, rec.Body)
	}
}
