package scim_test

import (
	"strings"
	"testing"

	"example.com/keytrail/domain"
	"example.com/keytrail/internal/scim"
)

func TestWhatAFilterMatches(t *testing.T) {
	t.Parallel()
	of := func(attribute string) string {
		return map[string]string{"name": "Deploy Bot", "description": ""}[attribute]
	}
	for filter, want := range map[string]bool{
		``:                                 true,
		`name eq "deploy bot"`:             true,
		`name eq "deploy"`:                 false,
		`NAME co "bot" AND name sw "d"`:    true,
		`name ew "x" or description eq ""`: true,
		`not (name co "bot")`:              false,
		`name ne "x" and (name co "y" or name co "b")`: true,
	} {
		e, err := scim.Parse(filter, "name", "description")
		if err != nil {
			t.Errorf("%s: %v", filter, err)
			continue
		}
		if got := e.Match(of); got != want {
			t.Errorf("%s: %t, want %t", filter, got, want)
		}
	}
}

func TestAnAttributeThatIsNotOfTheListIsRefused(t *testing.T) {
	t.Parallel()
	_, err := scim.Parse(`secret eq "x"`, "name", "description")
	if domain.CodeOf(err) != domain.Invalid || !strings.Contains(err.Error(), "name or description") {
		t.Errorf("%v", err)
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{`name eq "a"`, `not (name co "\u0000")`, `((((((((((`, `name co "a" and`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		e, err := scim.Parse(text, "name", "description")
		if err != nil {
			if domain.CodeOf(err) != domain.Invalid {
				t.Errorf("%q: %v", text, err)
			}
			return
		}
		e.Match(func(string) string { return "x" })
	})
}
