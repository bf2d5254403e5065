package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// cliStep is a command line and what it prints for people. $name stands for what an earlier
// step has kept: the field keep of its JSON.
type cliStep struct {
	line string
	want []string
	json bool   // Run with -o json.
	keep string // name=field
	fail string // What the error says, where it must fail.
}

// TestAnAdministratorDoesEverythingFromTheCommandLine drives every command of every group.
func TestAnAdministratorDoesEverythingFromTheCommandLine(t *testing.T) {
	s := newSystem(t)
	dir := t.TempDir()
	me, account := s.me()
	known := map[string]string{"me": me, "account": account, "dir": dir}
	write := func(name, text string) {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("grants.json", `[{"account_id":"`+account+`","actions":["s3:Get*"],"resources":["*"]}]`)
	write("contacts.json", `{"contacts":[{"name":"Ada","email":"ada@example.com"}]}`)
	write("access.json", `{"external_account_identity_interaction":{"identity_types":{"user":{"state":"monitor"}}}}`)
	steps := []cliStep{
		{line: "accounts create --name Other", json: true, keep: "other=id"},
		{line: "accounts list", want: []string{"OWNER IAM ID", "Other"}},
		{line: "accounts get $other", want: []string{"is_owner", "true"}},
		{line: "users invite --email bob@example.com --name Bob --role Viewer --functional", json: true, keep: "bob=0.id"},
		{line: "users invite --email eve@example.com", json: true, keep: "eve=0.id"},
		{line: "users list --search role:Viewer", want: []string{"bob@example.com", "Viewer"}},
		{line: "users get $bob", want: []string{"functional", "true", "ACTIVE"}},
		{line: "users update $bob --name Robert", want: []string{"done"}},
		{line: "users parent $eve --parent $bob", want: []string{"ancestors", "$bob"}},
		{line: "users person $bob", want: []string{"done"}},
		{line: "users functional $bob", want: []string{"done"}},
		{line: "users allow $bob --addresses 192.0.2.0/24", want: []string{"done"}},
		{line: "roles set $bob --role Auditor --role Operator", want: []string{"Auditor, Operator"}},
		{line: "roles list", want: []string{"Robert", "Auditor, Operator"}},
		{line: "roles set $me --role Viewer", fail: "the owner of an account holds every role"},
		{line: "grants set $bob --file $dir/grants.json", want: []string{"s3:Get*"}},
		{line: "grants show $bob", want: []string{"ACTIONS", "s3:Get*"}},
		{line: "grants set $bob", fail: "no --file"},
		{line: "users remove $eve", want: []string{"done"}},
		{line: "serviceids create --name ci --description builds", json: true, keep: "ci=id"},
		{line: "serviceids list --name ci", want: []string{"$ci", "IAM ID"}},
		{line: "serviceids get $ci", want: []string{"builds", "entity_tag"}},
		{line: "serviceids update $ci --if-match stale --name cd", fail: "look at it again"},
		{line: "serviceids update $ci --name cd", want: []string{"cd"}},
		{line: "serviceids lock $ci", want: []string{"done"}},
		{line: "serviceids delete $ci", fail: "unlock it first"},
		{line: "serviceids unlock $ci", want: []string{"done"}},
		{line: "keys create --name old", json: true, keep: "key=id"},
		{line: "keys create --name classic --type classic", json: true, keep: "classic=id"},
		{line: "keys rotate $key --overlap 1h", json: true, keep: "next=id"},
		{line: "keys list", want: []string{"$next", "$classic"}},
		{line: "keys get $next", json: true},
		{line: "serviceids delete $ci", want: []string{"done"}},
		{line: "settings show", want: []string{"restrict_create_platform_apikey", "NOT_SET"}},
		{line: "settings set --restrict-service-ids RESTRICTED --record-reads", want: []string{"record_reads", "true", "RESTRICTED"}},
		{line: "settings effective", want: []string{"effective.restrict_create_service_id", "RESTRICTED"}},
		{line: "serviceids create --name no", fail: "role:Administrator"},
		{line: "settings set-access --file $dir/access.json", want: []string{"monitor"}},
		{line: "settings access", want: []string{"monitor"}},
		{line: "limits set --keys 30 --identity $me=7", want: []string{"30"}},
		{line: "limits show --identities $me", want: []string{"apikeys_per_identity.limit", "30"}},
		{line: "contacts set --file $dir/contacts.json", want: []string{"ada@example.com"}},
		{line: "contacts confirm", want: []string{"stale", "false"}},
		{line: "contacts show", want: []string{"Ada"}},
		{line: "sessions list --account $account", want: []string{"REFRESHED AT"}},
		{line: "sessions revoke none", fail: "'list' shows what there is"},
		{line: "reports inactive --hours 24", json: true, keep: "report=reference"},
		{line: "reports get $report"},
		{line: "reports privilege --days 30", want: []string{"UNRESTRICTED", "administrator"}},
		{line: "users get User-none", fail: "no such user"},
	}
	used := map[string]bool{}
	for _, step := range steps {
		words := strings.Fields(expand(step.line, known))
		used[words[0]+" "+words[1]] = true
		out, failure := s.line(step.json, words...)
		switch {
		case (failure != "") != (step.fail != "") || !strings.Contains(failure, step.fail):
			t.Errorf("keytrail %s: %q, want a failure with %q", step.line, failure, step.fail)
			continue
		case step.json:
			keep(t, known, step, out)
		}
		for _, want := range step.want {
			if !strings.Contains(out, expand(want, known)) {
				t.Errorf("keytrail %s does not say %q:\n%s", step.line, want, out)
			}
		}
	}
	for _, g := range adminGroups() {
		for _, c := range g.calls {
			if line := g.use + " " + strings.Fields(c.use)[0]; !used[line] {
				t.Errorf("nobody tried: keytrail %s", line)
			}
		}
	}
	for _, words := range [][]string{{"users", "list"}, {"settings", "show"}, {"grants", "show", known["bob"]}, {"limits", "show"}, {"reports", "privilege"}} {
		if out, failure := s.line(true, words...); failure != "" || !json.Valid([]byte(out)) {
			t.Errorf("keytrail %v -o json: %s\n%s", words, failure, out)
		}
	}
}

func expand(text string, known map[string]string) string {
	return os.Expand(text, func(name string) string { return known[name] })
}

// line runs a command against the server and returns what it printed, and its error.
func (s *system) line(asJSON bool, words ...string) (out, failure string) {
	s.t.Helper()
	var stdout, stderr bytes.Buffer
	words = append(words, "--server", s.srv.Address, "--key-file", s.srv.KeyFile)
	if asJSON {
		words = append(words, "-o", "json")
	}
	if code := run(s.t.Context(), words, &stdout, &stderr); (code != 0) != (stderr.Len() > 0) {
		s.t.Errorf("keytrail %v: exit code %d, and on standard error: %s", words, code, &stderr)
	}
	return stdout.String(), stderr.String()
}

// keep keeps a field of what a step has printed.
func keep(t *testing.T, known map[string]string, step cliStep, out string) {
	t.Helper()
	var v any
	if err := json.Unmarshal([]byte(out), &v); err != nil {
		t.Fatalf("keytrail %s -o json: %v\n%s", step.line, err, out)
	}
	name, path, ok := strings.Cut(step.keep, "=")
	if !ok {
		return
	}
	if rest, first := strings.CutPrefix(path, "0."); first {
		v, path = v.([]any)[0], rest
	}
	if known[name] = field(v, path); known[name] == "" {
		t.Fatalf("keytrail %s: no %s in %s", step.line, path, out)
	}
}

// TestEveryCommandOfAnAdministratorHelps with words and an example that names it.
func TestEveryCommandOfAnAdministratorHelps(t *testing.T) {
	for _, g := range adminGroups() {
		for _, c := range g.calls {
			name := g.use + " " + strings.Fields(c.use)[0]
			var out, errOut bytes.Buffer
			words := append(strings.Fields(name), "--help")
			if code := run(t.Context(), words, &out, &errOut); code != 0 {
				t.Errorf("keytrail %v: %s", words, &errOut)
			}
			if !strings.Contains(out.String(), "keytrail "+name) || !strings.HasPrefix(c.example, name) || c.short == "" {
				t.Errorf("keytrail %v has no example of itself:\n%s", words, &out)
			}
			for _, f := range c.flags {
				if f.usage == "" || !slices.Contains(strings.Fields(out.String()), "--"+f.name) {
					t.Errorf("keytrail %v does not explain --%s", words, f.name)
				}
			}
		}
	}
}
