package main

import (
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"example.com/keytrail/ingest"
	"example.com/keytrail/internal/apidoc"
)

// sdkOperations returns the call of every operation of IBM's SDK, by its name, from the
// SDK's source.
func sdkOperations(t *testing.T) map[string]string {
	t.Helper()
	dir, err := exec.CommandContext(t.Context(), "go", "list", "-f", "{{.Dir}}", "github.com/IBM/platform-services-go-sdk/iamidentityv1").Output()
	if err != nil {
		t.Fatal(err)
	}
	source, err := os.ReadFile(filepath.Join(strings.TrimSpace(string(dir)), "iam_identity_v1.go"))
	if err != nil {
		t.Fatal(err)
	}
	operation := regexp.MustCompile(`(?s)\nfunc \(iamIdentity \*IamIdentityV1\) (\w+)WithContext\(.*?NewRequestBuilder\(core\.(\w+)\).*?` + "`(/[^`]*)`")
	all := map[string]string{}
	for _, m := range operation.FindAllStringSubmatch(string(source), -1) {
		all[m[1]] = m[2] + " " + m[3]
	}
	return all
}

// TestEveryOperationOfIBMsSDKIsJudged: docs/ibm-compatibility.md names each with its call,
// and what it says is there is there.
func TestEveryOperationOfIBMsSDKIsJudged(t *testing.T) {
	text, err := os.ReadFile(filepath.Join("..", "..", "docs", "ibm-compatibility.md"))
	if err != nil {
		t.Fatal(err)
	}
	row := regexp.MustCompile("(?m)^\\| `(\\w+)` \\| `([A-Z]+ /[^`]*)` \\| (same|different|absent) \\| (.*) \\|$")
	judged, verdicts, counts := map[string]string{}, map[string]string{}, map[string]int{}
	for _, m := range row.FindAllStringSubmatch(string(text), -1) {
		judged[m[1]], verdicts[m[1]] = m[2], m[3]
		counts[m[3]]++
		if m[3] != "same" && m[4] == "" {
			t.Errorf("%s is %s, and nobody says how", m[1], m[3])
		}
	}
	if diff := cmp.Diff(sdkOperations(t), judged); diff != "" {
		t.Errorf("operations (-SDK +document):\n%s", diff)
	}
	keys := ingest.NewKeyAPI(ingest.KeyAPIConfig{})
	var ours []string
	for _, r := range slices.Concat(keys.PublicRoutes(), keys.Routes()) {
		ours = append(ours, unnamed(r.Method+" "+apidoc.TemplatePath(r.Path)))
	}
	for _, name := range slices.Sorted(maps.Keys(judged)) {
		if there := slices.Contains(ours, unnamed(judged[name])); there != (verdicts[name] != "absent") {
			t.Errorf("%s (%s) is said to be %s; a route is there: %v", name, judged[name], verdicts[name], there)
		}
	}
	t.Logf("%d operations: %v", len(judged), counts)
}

// unnamed is a call without the names of its parameters and without a slash at its end.
func unnamed(call string) string {
	return regexp.MustCompile(`\{[^}]*\}`).ReplaceAllString(strings.TrimSuffix(call, "/"), "{}")
}
