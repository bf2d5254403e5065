package main

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
)

// state is what became of a test.
type state string

const (
	statePassed  state = "passed"
	stateFailed  state = "failed"
	stateSkipped state = "skipped"
)

// test is one of IBM's tests. why says what it needs that keytrail does not have, "" for
// nothing.
type test struct {
	name  string
	state state
	why   string
	said  string // How it failed, and the end of what it printed.
}

// tally is what came of the tests, in their order.
type tally struct {
	tests []test
}

// absent is something that keytrail does not have, by the words that open the names of
// the tests about it.
type absent struct {
	why   string
	names []string
}

func absents() []absent {
	return []absent{
		{"keytrail has no groups of service IDs", []string{
			"CreateServiceIDGroup", "GetServiceIDGroup", "ListServiceIDGroup", "UpdateServiceIDGroup", "DeleteServiceIDGroup",
		}},
		{"keytrail has no trusted profiles", []string{
			"CreateProfile1", "CreateProfile2", "GetProfile ", "ListProfiles", "UpdateProfile ", "DeleteProfile1", "DeleteProfile2",
			"CreateClaimRule", "GetClaimRule", "ListClaimRules", "UpdateClaimRule", "DeleteClaimRule", "CreateLink", "GetLink", "ListLinks", "DeleteLink",
			"SetProfileIdentit", "GetProfileIdentit", "DeleteProfileIdentity",
			"CreateProfileBadRequest", "GetProfileNotFound", "UpdateProfileNotFound", "DeleteProfileNotFound",
		}},
		{"keytrail has no templates of an enterprise", []string{
			"CreateProfileTemplateIT", "GetProfileTemplateIT", "ListProfileTemplate", "UpdateProfileTemplate", "AssignProfileTemplateIT",
			"CreateNewProfileTemplateVersionIT", "GetLatestProfileTemplateVersionIT", "DeleteProfileTemplate",
			"CreateAccountSettingsTemplateIT", "GetAccountSettingsTemplateIT", "ListAccountSettingsTemplate", "UpdateAccountSettingsTemplate",
			"AssignAccountSettingsTemplateIT", "CreateNewAccountSettingsTemplateVersionIT", "GetLatestAccountSettingsTemplateVersionIT",
			"DeleteAccountSettingsTemplate",
		}},
		{"people do not sign in to keytrail with a second factor", []string{
			"CreateReportMfa", "GetReportMfaComplete", "GetReportMfaNotFound", "GetMfaStatus",
		}},
		{"keytrail keeps no preferences of a console", []string{
			"UpdatePreferenceOnScopeAccount", "GetPreferencesOnScopeAccount", "GetAllPreferencesOnScopeAccount", "DeletePreferencesOnScopeAccount",
		}},
		{"keytrail has no identity providers yet", []string{
			"CreateIdp", "ListIdps", "GetIdp", "UpdateIdp", "DeleteIdp", "ListConsumerAccounts", "GetLoginSettings", "UpdateLoginSettings",
			"ListIDPSettings", "AddIDPSetting", "GetIDPSetting", "UpdateIDPSetting", "RemoveIDPSetting",
		}},
	}
}

// absenceOf says what the test needs that keytrail does not have, "" for nothing.
func absenceOf(name string) string {
	for _, a := range absents() {
		if slices.ContainsFunc(a.names, func(opening string) bool { return strings.HasPrefix(name, opening) }) {
			return a.why
		}
	}
	return ""
}

// named returns the tests of what keytrail has that are in s.
func (t *tally) named(s state) []string {
	var out []string
	for _, one := range t.tests {
		if one.why == "" && one.state == s {
			out = append(out, one.name)
		}
	}
	return out
}

// report is what people read. A test about what keytrail does not have is never counted
// as passed: some of them pass because they want a refusal.
func (t *tally) report(detail bool) string {
	var b strings.Builder
	asked, whole := 0, 0
	beyond := map[string]int{}
	for _, one := range t.tests {
		whole++
		if detail {
			fmt.Fprintf(&b, "%s %s\n", one.state, one.name)
		}
		if one.why != "" {
			beyond[one.why]++
			continue
		}
		asked++
		if one.state != statePassed {
			fmt.Fprintf(&b, "%s %s\n%s\n", strings.ToUpper(string(one.state)), one.name, one.said)
		}
	}
	fmt.Fprintf(&b, "%s, integration tests: %d of %d about what keytrail has pass; %d of all %d are about something else\n",
		sdkPackage, len(t.named(statePassed)), asked, whole-asked, whole)
	for _, a := range absents() {
		fmt.Fprintf(&b, "  %d: %s\n", beyond[a.why], a.why)
	}
	return b.String()
}

// verdict is an error unless all of must passed.
func (t *tally) verdict(must []string) error {
	var errs []error
	passed := t.named(statePassed)
	for _, name := range must {
		if !slices.Contains(passed, name) {
			errs = append(errs, fmt.Errorf("a test that must pass does not: %s", name))
		}
	}
	return errors.Join(errs...)
}

func readNames(file string) ([]string, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("read the tests that must pass: %w", err)
	}
	return strings.FieldsFunc(string(text), func(r rune) bool { return r == '\n' }), nil
}

func writeNames(file string, names []string) error {
	if err := os.WriteFile(file, []byte(strings.Join(names, "\n")+"\n"), 0o600); err != nil {
		return fmt.Errorf("write the tests that must pass: %w", err)
	}
	return nil
}
