package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const (
	// hostileInputs is how many inputs each route gets; KEYTRAIL_HOSTILE_INPUTS says another
	// number, KEYTRAIL_HOSTILE_SEED which.
	hostileInputs = 20
	// rareInputs is for routes whose work is heavy: they make tables anew, or read all of them.
	rareInputs = 3
	// secretMark stands in everything that is sent as a secret, and in no answer.
	secretMark = "kt_MARKOFASECRETTHATNOANSWERMAYREPEAT"
)

// operation is a route, as the server describes it.
type operation struct {
	Method, Path string
	Tags         []string
	Parameters   []struct {
		Name, In string
	}
	RequestBody struct {
		Content map[string]struct {
			Schema struct {
				Ref        string `json:"$ref"`
				Properties map[string]json.RawMessage
			}
		}
	}
}

// fields are the names of what its body holds; form says that it is a form.
func (o operation) fields(doc openAPI) (names []string, form bool) {
	for kind, content := range o.RequestBody.Content {
		properties := content.Schema.Properties
		if name, ok := strings.CutPrefix(content.Schema.Ref, "#/components/schemas/"); ok {
			properties = doc.Components.Schemas[name].Properties
		}
		names = append(names, slices.Collect(maps.Keys(properties))...)
		form = strings.Contains(kind, "form")
	}
	slices.Sort(names)
	return names, form
}

type openAPI struct {
	Paths      map[string]map[string]operation
	Components struct {
		Schemas map[string]struct {
			Properties map[string]json.RawMessage
		}
	}
}

// operations returns every route of the server.
func (s *system) operations() (openAPI, []operation) {
	s.t.Helper()
	var doc openAPI
	if err := s.api.JSON(s.t.Context(), httpRequest(http.MethodGet, "/openapi.json"), nil, &doc); err != nil {
		s.t.Fatal(err)
	}
	var out []operation
	for _, path := range slices.Sorted(maps.Keys(doc.Paths)) {
		for _, method := range slices.Sorted(maps.Keys(doc.Paths[path])) {
			o := doc.Paths[path][method]
			o.Method, o.Path = strings.ToUpper(method), path
			out = append(out, o)
		}
	}
	return doc, out
}

// hostile makes inputs that nobody should send.
type hostile struct {
	*rand.Rand
	doc   openAPI
	known map[string]string // Ids of things that there are, so that some inputs get far.
}

// sane returns JSON that is right for a field of that name, where there is one.
func (h hostile) sane(field string) (string, bool) {
	words := map[string]string{
		"name": "n", "description": "d", "reason": "r", "expires_at": "2049-01-02T18:30:00+0000", "action_when_leaked": "none", "type": "inactive",
		"iam_id": h.known["iam"], "owner_iam_id": h.known["iam"], "account_id": h.known["accounts"], "email": "a@example.com", "mfa": "NONE",
		"restrict_create_platform_apikey": "RESTRICTED", "allowed_ip_addresses": "192.0.2.0/24", "session_expiration_in_seconds": "86400",
	}
	if word, ok := words[field]; ok {
		return strconv.Quote(word), true
	}
	raw := map[string]string{"roles": `["Viewer"]`, "support_sessions": "true", "apikeys_per_identity": "30", "functional": "true", "users": `[{"email":"b@example.com"}]`}
	text, ok := raw[field]
	return text, ok
}

// place returns what stands for the parameter in the path: often the id of a thing of the
// right kind.
func (h hostile) place(o operation, name string) string {
	_, after, _ := strings.Cut(o.Path, "/v")
	for kind, id := range h.known {
		right := strings.Contains(after, "/"+kind+"/{"+name+"}") || name == "iam_id" && kind == "iam"
		if right && h.IntN(4) > 0 && (o.Method != http.MethodDelete || h.IntN(10) == 0) {
			return id
		}
	}
	return h.text()
}

func (h hostile) pick(list ...string) string { return list[h.IntN(len(list))] }

// text returns a string of which most are wrong anywhere.
func (h hostile) text() string {
	if h.IntN(4) == 0 {
		return h.pick(slices.Sorted(maps.Values(h.known))...)
	}
	return h.pick("", " ", "\x00", "a\x00b", "../../etc/passwd", "..%2f..%2f", "%00", "'; DROP TABLE usage; --", strings.Repeat("A", 9000),
		"\u202e\u0000💥", "\xff\xfe\xfd", "-1", "1e309", "NaN", "true", "null", "{}", "[", "ApiKey-", "latest", "*", "9999-99-99T99:99+0000",
		"0000-01-01T00:00+0000", "2049-01-02T18:30:00+0000", "-7d", "now", "18446744073709551616", "-9223372036854775809", "0.0.0.0/99", "::1%eth0",
		"256.1.1.1", "10.0.0.9-10.0.0.1", "http://[::1", "a\"b\\c", "name co \"", "outcome=\"x\" AND (", "((((((((((", "RESTRICTED", "Ω≈ç√∫˜µ≤",
		"iam-ServiceId-x", "crn:v1:keytrail:public:iam-identity::a/x::apikey:y", "100", "0", "1", "false", "asc", "ndjson")
}

// value returns JSON, or what looks like it.
func (h hostile) value(field string) string {
	if strings.Contains(strings.ToLower(field), "apikey") || strings.Contains(field, "token") {
		return strconv.Quote(secretMark)
	}
	if text, ok := h.sane(field); ok && h.IntN(3) > 0 {
		return text
	}
	text, err := json.Marshal(h.text())
	if err != nil {
		panic(err) // A string always marshals.
	}
	return h.pick(string(text), string(text), string(text), "0", "-1", "1e400", "123456789012345678901234567890", "0.1", "true", "null", "[]", "{}",
		"["+string(text)+"]", `{"a":`+string(text)+`}`, `{"a":1,"a":2}`, strings.Repeat("[", 40)+strings.Repeat("]", 40), "[1,\"a\",null,{}]", "\"\xff\"", `"\ud800"`)
}

// object returns a JSON object with some of the fields, and sometimes one that nobody knows.
func (h hostile) object(fields []string) string {
	var parts []string
	right := h.IntN(4) == 0 // What is wrong, if anything, is then not in the body.
	for _, f := range fields {
		if text, ok := h.sane(f); right && ok {
			parts = append(parts, strconv.Quote(f)+":"+text)
		}
		if !right && h.IntN(3) > 0 {
			parts = append(parts, strconv.Quote(f)+":"+h.value(f))
		}
	}
	switch h.IntN(8) {
	case 0:
		if right {
			break
		}
		parts = append(parts, `"nobody_knows":1`)
	case 1:
		if len(fields) > 0 && !right {
			f := h.pick(fields...)
			parts = append(parts, strconv.Quote(f)+`:"a"`, strconv.Quote(strings.ToUpper(f))+`:"b"`)
		}
	}
	h.Shuffle(len(parts), func(i, j int) { parts[i], parts[j] = parts[j], parts[i] })
	return "{" + strings.Join(parts, ",") + "}"
}

// body returns a body for the route.
func (h hostile) body(o operation) (text, kind string) {
	fields, form := o.fields(h.doc)
	if form && h.IntN(4) > 0 {
		v := url.Values{}
		for _, f := range fields {
			v.Set(f, h.text())
			if strings.Contains(f, "apikey") || strings.Contains(f, "token") {
				v.Set(f, secretMark)
			}
			if f == "grant_type" && h.IntN(2) == 0 {
				v.Set(f, h.pick("urn:ibm:params:oauth:grant-type:apikey", "refresh_token"))
			}
		}
		return v.Encode(), "application/x-www-form-urlencoded"
	}
	if h.IntN(4) > 0 {
		return h.object(fields), "application/json"
	}
	whole := h.object(fields)
	return h.pick("", "{", "null", "[]", "7", `"x"`, "\xef\xbb\xbf{}", "{} {}", whole[:h.IntN(len(whole))], strings.Repeat("[", 100_000), "\x00\x01\x02",
		strings.Repeat(`{"a":`, 5000)+"1"+strings.Repeat("}", 5000), `{"name":"`+strings.Repeat("x", 200<<10)+`"}`, "a=b&c=%zz", "<xml/>"), h.pick("application/json", "text/plain", "", "application/x-www-form-urlencoded", "multipart/form-data")
}

// request returns an input for the route.
func (h hostile) request(base, key string, o operation) (*http.Request, error) {
	path, query := o.Path, url.Values{}
	header := http.Header{"Authorization": {"Bearer " + key}}
	for _, p := range o.Parameters {
		switch p.In {
		case "path":
			path = strings.ReplaceAll(path, "{"+p.Name+"}", url.PathEscape(h.place(o, p.Name)))
		case "query":
			if h.IntN(2) == 0 {
				query.Add(p.Name, h.text())
			}
		case "header":
			v := h.text()
			if p.Name == "If-Match" && h.IntN(4) > 0 {
				v = "*"
			}
			if p.Name != "IAM-ApiKey" && h.IntN(2) == 0 && !strings.ContainsAny(v, "\x00\r\n") {
				header.Set(p.Name, v)
			}
		}
	}
	switch h.IntN(12) {
	case 0:
		header.Set("Authorization", h.pick("Bearer "+secretMark, "Basic "+secretMark, "Bearer", "Basic YXBpa2V5Og==", "Digest x", "Bearer a.b.c", strings.Repeat("x", 9000)))
	case 1:
		header.Set(h.pick("Transaction-Id", "X-Correlation-Id", "Keytrail-Wait-Position", "Content-Encoding", "If-Match", "User-Agent", "Keytrail-Batch-Id"), h.pick("☃", "gzip", "zstd", strings.Repeat("é", 9000)))
	case 2:
		query.Add("x"+h.text(), h.text())
	case 3:
		header.Set("Iam-Apikey", secretMark)
	}
	text, kind := h.body(o)
	if o.Method == http.MethodGet {
		text = ""
	}
	req, err := http.NewRequest(o.Method, base, strings.NewReader(text))
	if err != nil {
		return nil, err
	}
	req.URL.RawQuery = query.Encode()
	req.URL.Path, req.URL.RawPath = unescaped(path), path
	req.Header = header
	if kind != "" {
		req.Header.Set("Content-Type", kind)
	}
	return req, nil
}

func unescaped(path string) string {
	text, err := url.PathUnescape(path)
	if err != nil {
		return path
	}
	return text
}

// wholeBody are the codes of refusals that concern no single field.
func wholeBody() []string {
	return []string{
		"empty_body", "invalid_json", "too_deep", "body_broken", "body_too_large", "wrong_type", "invalid_form", "unsupported_encoding", "damaged_body",
	}
}

// wrong says what is wrong with an answer to an input, "" for nothing.
func wrong(status int, body []byte) string {
	var shape struct {
		StatusCode int `json:"status_code"`
		Trace      string
		Errors     []struct {
			Code, Message, Details string
			MessageCode            string `json:"message_code"`
		}
		ErrorCode, ErrorMessage string // Of a sign-in that is refused.
	}
	switch {
	case status >= 500:
		return "a fault of the server"
	case bytes.Contains(body, []byte(secretMark)):
		return "a secret is repeated"
	case status < 400:
		return ""
	}
	if err := json.Unmarshal(body, &shape); err != nil {
		return "no JSON: " + err.Error()
	}
	if shape.Trace == "" {
		return "no trace"
	}
	if shape.ErrorCode != "" && shape.ErrorMessage != "" && status == http.StatusBadRequest {
		return ""
	}
	if shape.StatusCode != status || len(shape.Errors) == 0 {
		return "not the shape of an error"
	}
	for _, e := range shape.Errors {
		if e.Code == "" || e.Message == "" || e.MessageCode == "" {
			return "an error without code or message"
		}
		if e.Details == "" && status == http.StatusBadRequest && !slices.Contains(wholeBody(), e.MessageCode) {
			return "no field is named"
		}
	}
	return ""
}

func envInt(t *testing.T, name string, or int) int {
	t.Helper()
	text, ok := os.LookupEnv(name)
	if !ok {
		return or
	}
	n, err := strconv.Atoi(text)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return n
}

// TestNoInputIsTooBad sends wrong and hostile inputs to every route that the server
// describes: whatever is refused is refused in the one shape, changes nothing, and repeats
// no secret; nothing is a fault of the server.
func TestNoInputIsTooBad(t *testing.T) {
	s := newSystem(t)
	doc, operations := s.operations()
	seed := envInt(t, "KEYTRAIL_HOSTILE_SEED", int(rand.Int32()))
	h := hostile{Rand: rand.New(rand.NewPCG(uint64(seed), 1)), doc: doc, known: s.scratch()}
	perRoute := envInt(t, "KEYTRAIL_HOSTILE_INPUTS", hostileInputs)
	answers, refused, tried := map[int]int{}, map[string]bool{}, 0
	for _, o := range operations {
		n := perRoute
		if slices.Contains(o.Tags, "operation") || slices.Contains(o.Tags, "horizon") {
			n = min(n, rareInputs)
		}
		for range n {
			req, err := h.request(s.srv.Address, s.api.Key(), o)
			if err != nil {
				t.Fatal(err)
			}
			correlation := fmt.Sprint("hostile-", tried)
			if req.Header.Get("Transaction-Id") == "" && req.Header.Get("X-Correlation-Id") == "" {
				req.Header.Set("Transaction-Id", correlation)
			}
			status, body := s.send(req)
			tried++
			answers[status]++
			if status >= 400 {
				refused[correlation] = true
			}
			if what := wrong(status, body); what != "" {
				t.Errorf("seed %d: %s %s?%s (%s): %d: %s\n%.400s", seed, o.Method, o.Path, req.URL.RawQuery, req.Header.Get("Content-Type"), status, what, body)
			}
		}
	}
	for _, e := range s.exported() {
		id, _ := e["correlationId"].(string)
		if e["outcome"] != "failure" && e["dataEvent"] == false && refused[id] {
			t.Errorf("seed %d: a refused request left %v", seed, e)
		}
	}
	s.verified()
	t.Logf("seed %d: %d inputs at %d routes; answers by status: %v", seed, tried, len(operations), answers)
}

// scratch makes an account, a key and a service ID for hostile inputs to hit, and returns
// their ids, by the word that stands before them in paths.
func (s *system) scratch() map[string]string {
	s.t.Helper()
	iam, _ := s.me()
	var account, key, service struct{ ID string }
	for _, make := range []struct {
		path string
		in   map[string]string
		out  any
	}{
		{"/v1/accounts", map[string]string{"name": "scratch", "owner_iam_id": iam}, &account},
		{"/v1/apikeys", map[string]string{"name": "scratch", "iam_id": iam}, &key},
		{"/v1/serviceids", map[string]string{"name": "scratch"}, &service},
	} {
		if err := s.post(http.MethodPost, make.path, make.in, make.out); err != nil {
			s.t.Fatal(err)
		}
	}
	return map[string]string{"accounts": account.ID, "apikeys": key.ID, "serviceids": service.ID, "iam": iam}
}

// send returns status and body of the answer to req, and not more than a megabyte of it.
func (s *system) send(req *http.Request) (status int, body []byte) {
	s.t.Helper()
	resp, err := http.DefaultClient.Do(req.WithContext(s.t.Context()))
	if err != nil {
		s.t.Fatalf("%s %s: %v", req.Method, req.URL.Path, err)
	}
	body, err = io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err != nil {
		s.t.Fatal(err)
	}
	if err := resp.Body.Close(); err != nil {
		s.t.Fatal(err)
	}
	return resp.StatusCode, body
}
