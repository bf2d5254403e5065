package web_test

import (
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"example.com/keytrail/web"
)

func get(t *testing.T, path string, header http.Header) *httptest.ResponseRecorder {
	t.Helper()
	req := httptest.NewRequestWithContext(t.Context(), http.MethodGet, path, nil)
	req.Header = header
	rec := httptest.NewRecorder()
	web.Handler().ServeHTTP(rec, req)
	return rec
}

// Every file is served with a policy under which nothing but these files runs.
func TestEveryFileIsServedUnderAStrictPolicy(t *testing.T) {
	want := []string{"/", "/app.css", "/app.js", "/favicon.svg", "/licences.txt"}
	if got := web.Paths(); !slices.Equal(got, want) {
		t.Fatalf("got paths %v, want %v", got, want)
	}
	for _, path := range want {
		res := get(t, path, http.Header{})
		csp := res.Header().Get("Content-Security-Policy")
		if res.Code != http.StatusOK || !strings.Contains(csp, "default-src 'none'") || strings.Contains(csp, "unsafe") || strings.Contains(csp, "*") {
			t.Errorf("%s: status %d under %q", path, res.Code, csp)
		}
		if res.Header().Get("X-Content-Type-Options") != "nosniff" || res.Header().Get("Content-Type") == "" {
			t.Errorf("%s: headers %v", path, res.Header())
		}
		again := get(t, path, http.Header{"If-None-Match": {res.Header().Get("ETag")}})
		if again.Code != http.StatusNotModified {
			t.Errorf("%s: asked with its own tag: status %d, want 304", path, again.Code)
		}
	}
	for _, path := range []string{"/index.html", "/dist/app.js", "/../embed.go", "/v1/findings"} {
		if res := get(t, path, http.Header{}); res.Code != http.StatusNotFound {
			t.Errorf("%s: status %d, want 404", path, res.Code)
		}
	}
}

// The page works under its policy: no script, style or handler stands in it, and it
// asks no other host for anything.
func TestPageHoldsNothingThatItsPolicyForbids(t *testing.T) {
	page := get(t, "/", http.Header{}).Body.String()
	for _, bad := range []string{`<script>`, `<style`, ` style=`, ` onclick`, ` onload`, `javascript:`, `http://`, `https://`} {
		if strings.Contains(page, bad) {
			t.Errorf("the page holds %q", bad)
		}
	}
	for _, m := range regexp.MustCompile(`(?:src|href)="([^"#]+)"`).FindAllStringSubmatch(page, -1) {
		if !slices.Contains(web.Paths(), m[1]) && m[1] != "/docs" {
			t.Errorf("the page asks for %s, which is not served", m[1])
		}
	}
}

// No line of ours reads data as HTML or as code.
func TestSourcesNeverReadDataAsHTML(t *testing.T) {
	sources, err := filepath.Glob("src/*.ts")
	if err != nil || len(sources) < 5 {
		t.Fatalf("got %d sources and %v", len(sources), err)
	}
	bad := regexp.MustCompile(`innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|new Function|localStorage|document\.cookie`)
	for _, name := range sources {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if m := bad.Find(b); m != nil {
			t.Errorf("%s uses %s", name, m)
		}
	}
}

// dist was made from the page that is in src, and the lock file names no host.
func TestDistAndLockFileAreInTheirForm(t *testing.T) {
	for _, pair := range [][2]string{{"src/index.html", "dist/index.html"}, {"src/favicon.svg", "dist/favicon.svg"}} {
		a, errA := os.ReadFile(pair[0])
		b, errB := os.ReadFile(pair[1])
		if errA != nil || errB != nil || string(a) != string(b) {
			t.Errorf("%s is not %s: run make web (%v, %v)", pair[1], pair[0], errA, errB)
		}
	}
	lock, err := os.ReadFile("package-lock.json")
	if err != nil || strings.Contains(string(lock), `"resolved"`) || !strings.Contains(string(lock), `"integrity"`) {
		t.Errorf("the lock file names hosts, or no hashes (%v)", err)
	}
}
