package domain_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"example.com/keytrail/domain"
)

// everySetting sets all that [allSettings] holds.
func everySetting() domain.UpdateAccountSettings {
	return domain.UpdateAccountSettings{
		IfMatch: "*", RestrictUserKeys: new(domain.RestrictionOn), RestrictServiceIDs: new(domain.RestrictionOff), RestrictUserList: new(domain.RestrictionOn),
		UserDomains:      []domain.UserDomains{{Realm: "IBMid", Patterns: []string{"**@example.com"}, Restrict: true}},
		AllowedAddresses: new("10.0.0.1/8"), MFA: new(domain.MFALevel3), UserMFA: []domain.UserMFA{{IAMID: "User-1", MFA: domain.MFANone}},
		SessionExpirationSeconds: new("86400"), SessionInvalidationSeconds: new("7200"), SessionsMax: new("10"), AccessTokenSeconds: new("900"),
		RefreshTokenSeconds: new("259200"), RecordReads: new(true),
	}
}

// TestEverySettingIsKeptAndRecordedOldAndNew, and can be taken back.
func TestEverySettingIsKeptAndRecordedOldAndNew(t *testing.T) {
	t.Parallel()
	before := account(t, acme()...)
	a := account(t, acme(everySetting())...)
	if diff := cmp.Diff(allSettings(), a.Settings()); diff != "" {
		t.Error(diff)
	}
	want := []domain.Change{
		{Field: "restrict_create_platform_apikey", Old: "NOT_SET", New: "RESTRICTED"},
		{Field: "restrict_create_service_id", Old: "NOT_SET", New: "NOT_RESTRICTED"},
		{Field: "restrict_user_list_visibility", Old: "NOT_RESTRICTED", New: "RESTRICTED"},
		{Field: "restrict_user_domains", New: "IBMid=true[**@example.com]"},
		{Field: "allowed_ip_addresses", New: "10.0.0.0/8"},
		{Field: "mfa", Old: "NONE", New: "LEVEL3"},
		{Field: "user_mfa", New: "User-1=NONE"},
		{Field: "session_expiration_in_seconds", Old: "NOT_SET", New: "86400"},
		{Field: "session_invalidation_in_seconds", Old: "NOT_SET", New: "7200"},
		{Field: "max_sessions_per_identity", Old: "NOT_SET", New: "10"},
		{Field: "system_access_token_expiration_in_seconds", Old: "NOT_SET", New: "900"},
		{Field: "system_refresh_token_expiration_in_seconds", Old: "NOT_SET", New: "259200"},
		{Field: "record_reads", Old: "false", New: "true"},
	}
	events, err := before.Decide(everySetting())
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, events[0].(domain.AccountSettingsSet).Changes()); diff != "" {
		t.Errorf("changes (-want +got):\n%s", diff)
	}
	record, _ := domain.ActivityOf(recorded(events[0]))
	if record.Action != "iam-identity.account-settings.update" || record.Severity != domain.SeverityWarning || strings.Count(string(record.RequestData), `"field"`) != len(want) {
		t.Errorf("record %+v: %s", record, record.RequestData)
	}
	if got, err := a.Decide(everySetting()); err != nil || got != nil {
		t.Errorf("the same again: %v, %v", got, err)
	}
	back := domain.UpdateAccountSettings{
		IfMatch: a.SettingsTag(), RestrictUserKeys: new(domain.RestrictionNotSet), RestrictServiceIDs: new(domain.RestrictionNotSet), RestrictUserList: new(domain.RestrictionOff),
		UserDomains: []domain.UserDomains{{Realm: "IBMid"}}, AllowedAddresses: new(""), MFA: new(domain.MFANone), UserMFA: []domain.UserMFA{},
		SessionExpirationSeconds: new("NOT_SET"), SessionInvalidationSeconds: new("NOT_SET"), SessionsMax: new("NOT_SET"), AccessTokenSeconds: new("NOT_SET"),
		RefreshTokenSeconds: new("NOT_SET"), RecordReads: new(false),
	}
	again := account(t, acme(everySetting(), back)...).Settings()
	if len(again.UserMFA) != 0 || len(again.UserDomains) != 0 {
		t.Errorf("lists that were taken back: %+v", again)
	}
	again.UserMFA, again.UserDomains = nil, nil
	if diff := cmp.Diff(before.Settings(), again); diff != "" {
		t.Errorf("taken back (-want +got):\n%s", diff)
	}
}

// TestOneSettingLeavesTheOthers: what a command does not name stays as it is.
func TestOneSettingLeavesTheOthers(t *testing.T) {
	t.Parallel()
	a := account(t, acme(everySetting(), domain.UpdateAccountSettings{IfMatch: "*", AccessTokenSeconds: new("1200")})...)
	want := allSettings()
	want.AccessTokenSeconds = 1200
	if diff := cmp.Diff(want, a.Settings()); diff != "" {
		t.Error(diff)
	}
	a = account(t, acme(everySetting(), domain.UpdateAccountSettings{IfMatch: "*", UserDomains: []domain.UserDomains{{Realm: "AppID", Restrict: true}}})...)
	if got := a.Settings().UserDomains; len(got) != 2 || got[0].Realm != "AppID" || got[1].Realm != "IBMid" {
		t.Errorf("domains %+v", got)
	}
}

// TestSettingsHaveBounds: at them, a setting is taken; beyond them, it is refused with its
// name, and nothing of the command is done.
func TestSettingsHaveBounds(t *testing.T) {
	t.Parallel()
	a := account(t, acme()...)
	number := func(set func(*domain.UpdateAccountSettings, *string)) func(string) domain.UpdateAccountSettings {
		return func(text string) domain.UpdateAccountSettings {
			c := domain.UpdateAccountSettings{IfMatch: "*", RecordReads: new(true)}
			set(&c, &text)
			return c
		}
	}
	tests := []struct {
		field  string
		of     func(string) domain.UpdateAccountSettings
		in     []string
		beyond []string
	}{
		{"session_expiration_in_seconds", number(func(c *domain.UpdateAccountSettings, s *string) { c.SessionExpirationSeconds = s }), []string{"900", "86400", "NOT_SET"}, []string{"899", "86401"}},
		{"session_invalidation_in_seconds", number(func(c *domain.UpdateAccountSettings, s *string) { c.SessionInvalidationSeconds = s }), []string{"900", "7200", "NOT_SET"}, []string{"899", "7201"}},
		{"max_sessions_per_identity", number(func(c *domain.UpdateAccountSettings, s *string) { c.SessionsMax = s }), []string{"1", "100000", "NOT_SET"}, []string{"0", "-1", "100001"}},
		{"system_access_token_expiration_in_seconds", number(func(c *domain.UpdateAccountSettings, s *string) { c.AccessTokenSeconds = s }), []string{"900", "3600", "NOT_SET"}, []string{"899", "3601", "1e3", " 900", "+900", "0900", ""}},
		{"system_refresh_token_expiration_in_seconds", number(func(c *domain.UpdateAccountSettings, s *string) { c.RefreshTokenSeconds = s }), []string{"900", "259200", "NOT_SET"}, []string{"899", "259201", "99999999999999999999"}},
		{"restrict_create_platform_apikey", number(func(c *domain.UpdateAccountSettings, s *string) { c.RestrictUserKeys = (*domain.Restriction)(s) }), []string{"RESTRICTED", "NOT_RESTRICTED", "NOT_SET"}, []string{"", "restricted"}},
		{"restrict_create_service_id", number(func(c *domain.UpdateAccountSettings, s *string) { c.RestrictServiceIDs = (*domain.Restriction)(s) }), []string{"RESTRICTED"}, []string{"YES"}},
		{"restrict_user_list_visibility", number(func(c *domain.UpdateAccountSettings, s *string) { c.RestrictUserList = (*domain.Restriction)(s) }), []string{"RESTRICTED", "NOT_RESTRICTED"}, []string{"NOT_SET", ""}},
		{"mfa", number(func(c *domain.UpdateAccountSettings, s *string) { c.MFA = (*domain.MFA)(s) }), []string{"NONE", "NONE_NO_ROPC", "TOTP", "TOTP4ALL", "LEVEL1", "LEVEL2", "LEVEL3"}, []string{"", "LEVEL4"}},
		{"allowed_ip_addresses", number(func(c *domain.UpdateAccountSettings, s *string) { c.AllowedAddresses = s }), []string{"", "::1,10.0.0.0/8"}, []string{"home"}},
		{"user_mfa", number(func(c *domain.UpdateAccountSettings, s *string) {
			c.UserMFA = []domain.UserMFA{{IAMID: domain.IAMID(*s), MFA: domain.MFANone}}
		}), []string{"User-2"}, []string{"User-9", "iam-ServiceId-1", ""}},
		{"restrict_user_domains", number(func(c *domain.UpdateAccountSettings, s *string) {
			c.UserDomains = []domain.UserDomains{{Realm: "r", Patterns: []string{*s}}}
		}), []string{"*@example.com", "**"}, []string{"", "a b", "ü@x", "<a@b>"}},
	}
	for _, tt := range tests {
		for _, text := range tt.in {
			if _, err := a.Decide(tt.of(text)); err != nil {
				t.Errorf("%s = %q: %v", tt.field, text, err)
			}
		}
		for _, text := range tt.beyond {
			got, err := a.Decide(tt.of(text))
			e, ok := err.(*domain.Error) //nolint:errorlint // It comes unwrapped.
			if !ok || e.Code != domain.Invalid || e.Field != tt.field || got != nil {
				t.Errorf("%s = %q: %v, %v; want invalid with the field's name", tt.field, text, got, err)
			}
		}
	}
	twice := domain.UpdateAccountSettings{IfMatch: "*", UserMFA: []domain.UserMFA{{IAMID: "User-1", MFA: domain.MFANone}, {IAMID: "User-1", MFA: domain.MFATOTP}}}
	if _, err := a.Decide(twice); domain.CodeOf(err) != domain.Invalid {
		t.Errorf("a user twice: %v", err)
	}
	if _, err := a.Decide(domain.UpdateAccountSettings{IfMatch: "*", UserDomains: []domain.UserDomains{{Realm: "r"}, {Realm: "r"}}}); domain.CodeOf(err) != domain.Invalid {
		t.Errorf("a realm twice: %v", err)
	}
}

// TestSettingsAreChangedByTheirTag: the one that was read, or any; every change makes another.
func TestSettingsAreChangedByTheirTag(t *testing.T) {
	t.Parallel()
	first := account(t, acme()...)
	second := account(t, acme(domain.UpdateAccountSettings{IfMatch: "*", RecordReads: new(true)})...)
	if first.SettingsTag() == second.SettingsTag() || second.AccessSettingsTag() != first.AccessSettingsTag() || first.SettingsTag() == first.AccessSettingsTag() {
		t.Error("a change makes another tag of the settings that it changes, and of no others")
	}
	for _, tt := range []struct {
		name, tag string
		want      domain.Code
	}{
		{"the tag of now", second.SettingsTag(), ""},
		{"the tag of now, in quotes", `"` + second.SettingsTag() + `"`, ""},
		{"any", "*", ""},
		{"a stale tag", first.SettingsTag(), domain.Conflict},
		{"another's tag", second.AccessSettingsTag(), domain.Conflict},
		{"no tag", "", domain.Invalid},
	} {
		if _, err := second.Decide(domain.UpdateAccountSettings{IfMatch: tt.tag, RecordReads: new(false)}); codeOf(err) != tt.want {
			t.Errorf("%s: %v, want %q", tt.name, err, tt.want)
		}
	}
}

// TestSettingsHaveIBMsDefaults where the account sets nothing.
func TestSettingsHaveIBMsDefaults(t *testing.T) {
	t.Parallel()
	s := account(t, acme()...).Settings()
	limit, limited := s.SessionLimit()
	got := []any{s.AccessTokenLifetime(), s.RefreshTokenLifetime(), s.SessionLifetime(), s.SessionIdle(), limit, limited}
	if diff := cmp.Diff([]any{time.Hour, 72 * time.Hour, 24 * time.Hour, 2 * time.Hour, 0, false}, got); diff != "" {
		t.Error(diff)
	}
	e := s.Effective()
	if e.RestrictUserKeys != domain.RestrictionOff || e.AccessTokenSeconds != 3600 || e.RefreshTokenSeconds != 259200 || e.SessionExpirationSeconds != 86400 || e.SessionInvalidationSeconds != 7200 || e.SessionsMax != 0 {
		t.Errorf("effective %+v", e)
	}
	set := account(t, acme(everySetting())...).Settings()
	limit, limited = set.SessionLimit()
	got = []any{set.AccessTokenLifetime(), set.RefreshTokenLifetime(), limit, limited, set.Effective().AccessTokenSeconds}
	if diff := cmp.Diff([]any{15 * time.Minute, 72 * time.Hour, 10, true, 900}, got); diff != "" {
		t.Error(diff)
	}
}

// TestWhoMayChangeASetting: what restricts creation needs another right than the rest, and
// who sends back what is already so needs no more than to read.
func TestWhoMayChangeASetting(t *testing.T) {
	t.Parallel()
	a := account(t, acme()...)
	admins, operators := "Administrator,Owner", "Operator,Administrator,Owner"
	readers := "Viewer,Operator,Editor,Administrator,Auditor,Owner"
	tests := map[string]struct {
		cmd     domain.AccountCommand
		allowed string
	}{
		"restrict user keys":   {domain.UpdateAccountSettings{IfMatch: "*", RestrictUserKeys: new(domain.RestrictionOn)}, operators},
		"restrict service IDs": {domain.UpdateAccountSettings{IfMatch: "*", RestrictServiceIDs: new(domain.RestrictionOn)}, operators},
		"hide users":           {domain.UpdateAccountSettings{IfMatch: "*", RestrictUserList: new(domain.RestrictionOn)}, admins},
		"addresses":            {domain.UpdateAccountSettings{IfMatch: "*", AllowedAddresses: new("::1")}, admins},
		"lifetimes":            {domain.UpdateAccountSettings{IfMatch: "*", AccessTokenSeconds: new("900")}, admins},
		"record reads":         {domain.UpdateAccountSettings{IfMatch: "*", RecordReads: new(true)}, admins},
		"both":                 {domain.UpdateAccountSettings{IfMatch: "*", RestrictUserKeys: new(domain.RestrictionOn), RecordReads: new(true)}, admins},
		"what is so":           {domain.UpdateAccountSettings{IfMatch: "*", RestrictUserKeys: new(domain.RestrictionNotSet), RecordReads: new(false)}, readers},
		"cross-account access": {domain.UpdateAccessSettings{IfMatch: "*", User: &domain.Interaction{State: domain.InteractionLimited}}, admins},
		"contacts":             {domain.SetSecurityContacts{}, admins},
		"confirm contacts":     {domain.ConfirmSecurityContacts{}, admins},
		"grants":               {domain.SetGrants{IAMID: "User-2"}, admins},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for _, p := range personas() {
				want := domain.Forbidden
				if strings.Contains(","+tt.allowed+",", ","+p.name+",") {
					want = ""
				}
				if got := codeOf(domain.AuthorizeAccountChange(domain.Initiator{IAMID: "User-2"}, p.in, a, tt.cmd)); got != want {
					t.Errorf("%s: %q, want %q", p.name, got, want)
				}
			}
			if got := codeOf(domain.AuthorizeAccountChange(domain.Initiator{IAMID: "User-2"}, domain.Standing{}, a, tt.cmd)); got != domain.NotFound {
				t.Errorf("a stranger: %q", got)
			}
		})
	}
}

// TestOnlyAllowedEmailsAreInvited, once the account says so; the patterns are IBM's.
func TestOnlyAllowedEmailsAreInvited(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, pattern string
		in, out       []string
	}{
		{"one star ends at dots and @", "*@example.com", []string{"ada@example.com", "ADA@Example.COM", "@example.com"}, []string{"ada.l@example.com", "ada@x.example.com", "ada@example.org", ""}},
		{"two stars do not", "**@example.com", []string{"ada@example.com", "ada.l@example.com"}, []string{"ada@x.example.com"}},
		{"two stars in the domain", "**@**example.com", []string{"ada@x.y.example.com", "a@example.com"}, []string{"a@example.org"}},
		{"a star in the middle", "a*a@x.y", []string{"aa@x.y", "abba@x.y"}, []string{"a@x.y", "a.a@x.y"}},
		{"three stars", "***", []string{"a@b.c", ""}, nil},
		{"no star", "a@b.c", []string{"a@b.c"}, []string{"a@b.cd", "aa@b.c"}},
	}
	for _, tt := range tests {
		s := domain.AccountSettings{UserDomains: []domain.UserDomains{{Realm: "r", Patterns: []string{"nobody@nowhere", tt.pattern}, Restrict: true}}}
		for _, email := range tt.in {
			if !s.AllowsEmail(email) {
				t.Errorf("%s: %q is refused", tt.name, email)
			}
		}
		for _, email := range tt.out {
			if s.AllowsEmail(email) {
				t.Errorf("%s: %q is allowed", tt.name, email)
			}
		}
		s.UserDomains[0].Restrict = false
		if !s.AllowsEmail("x") {
			t.Errorf("%s: what does not restrict refuses", tt.name)
		}
	}
	a := account(t, acme(domain.UpdateAccountSettings{IfMatch: "*", UserDomains: []domain.UserDomains{{Realm: "r", Patterns: []string{"*@example.com"}, Restrict: true}}})...)
	for email, want := range map[string]domain.Code{"di@example.com": "", "di@example.org": domain.Conflict, "": domain.Conflict} {
		if _, err := a.Decide(domain.AddMember{IAMID: "User-4", Email: email}); codeOf(err) != want {
			t.Errorf("inviting %q: %v, want %q", email, err, want)
		}
	}
	if _, err := a.Decide(domain.UpdateMember{IAMID: "User-2", Email: new("bob@example.org")}); codeOf(err) != domain.Conflict {
		t.Errorf("a user takes an address that is not allowed: %v", err)
	}
}

// FuzzAllowsEmail: no pattern takes long, and two stars match what one does.
func FuzzAllowsEmail(f *testing.F) {
	f.Add("**@*.com", "ada@example.com")
	f.Add(strings.Repeat("*a", 100), strings.Repeat("a", 200))
	f.Fuzz(func(t *testing.T, pattern, email string) {
		if len(pattern) > 254 || len(email) > 254 {
			return
		}
		allows := func(p string) bool {
			return domain.AccountSettings{UserDomains: []domain.UserDomains{{Realm: "r", Patterns: []string{p}, Restrict: true}}}.AllowsEmail(email)
		}
		if allows(pattern) && !allows(strings.ReplaceAll(pattern, "*", "**")) {
			t.Errorf("%q matches %q, with two stars it does not", pattern, email)
		}
	})
}

// TestSettingsOfOldBytesAreToday's: events from before a field was there say the default.
func TestSettingsOfOldBytesAreTodays(t *testing.T) {
	t.Parallel()
	data, err := os.ReadFile(filepath.Join("testdata", "events", domain.TypeAccountSettings+".golden"))
	if err != nil {
		t.Fatal(err)
	}
	e, err := domain.DecodeEvent(domain.TypeAccountSettings, data)
	if err != nil {
		t.Fatal(err)
	}
	got := account(t, acme()...).Evolve(domain.Recorded{Event: e}).Settings()
	if diff := cmp.Diff(settings(domain.RestrictionOn, domain.RestrictionOn), got); diff != "" {
		t.Error(diff)
	}
	full := domain.AccountSettingsSet{Account: "acct1", Old: settings(domain.RestrictionNotSet, domain.RestrictionNotSet), New: allSettings()}
	stored, _, err := domain.EncodeEvent(full)
	if err != nil {
		t.Fatal(err)
	}
	back, err := domain.DecodeEvent(full.Type(), stored)
	if diff := cmp.Diff(domain.Event(full), back); err != nil || diff != "" {
		t.Errorf("%v\n%s", err, diff)
	}
}

func TestAccessSettings(t *testing.T) {
	t.Parallel()
	limited := domain.UpdateAccessSettings{IfMatch: "*", User: &domain.Interaction{State: domain.InteractionLimited, Allowed: []domain.AccountID{"acct3", "acct2", "acct3"}}}
	a := account(t, acme(limited, domain.UpdateAccessSettings{IfMatch: "*", ServiceID: &domain.Interaction{State: domain.InteractionMonitor}})...)
	got := a.AccessSettings()
	if diff := cmp.Diff([]domain.AccountID{"acct2", "acct3"}, got.User.Allowed); diff != "" || got.Service.State != domain.InteractionEnabled || got.Service.Allowed == nil {
		t.Errorf("%+v %s", got, diff)
	}
	for _, tt := range []struct {
		id               domain.IAMID
		from             domain.AccountID
		permit, enforced bool
	}{
		{"User-1", "acct1", true, true},
		{"User-1", "acct2", true, true},
		{"User-1", "acct4", false, true},
		{"iam-ServiceId-1", "acct1", true, false},
		{"iam-ServiceId-1", "acct2", false, false},
	} {
		permit, enforced := got.Of(tt.id).Permits("acct1", tt.from)
		if permit != tt.permit || enforced != tt.enforced {
			t.Errorf("%s from %s: %t %t", tt.id, tt.from, permit, enforced)
		}
	}
	if permit, _ := got.Service.Permits("acct1", "acct9"); !permit {
		t.Error("enabled refuses")
	}
	for name, bad := range map[string]domain.Interaction{
		"an unknown state": {State: "closed"}, "no state": {}, "accounts where all are allowed": {State: domain.InteractionEnabled, Allowed: []domain.AccountID{"acct2"}},
		"no account id": {State: domain.InteractionLimited, Allowed: []domain.AccountID{"a b"}},
	} {
		if _, err := a.Decide(domain.UpdateAccessSettings{IfMatch: "*", User: &bad}); domain.CodeOf(err) != domain.Invalid || err == nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if events, err := a.Decide(limited); err != nil || events != nil {
		t.Errorf("the same again: %v %v", events, err)
	}
	stale := account(t, acme()...).AccessSettingsTag()
	if _, err := a.Decide(domain.UpdateAccessSettings{IfMatch: stale, Service: &domain.Interaction{State: domain.InteractionLimited}}); domain.CodeOf(err) != domain.Conflict {
		t.Errorf("a stale tag: %v", err)
	}
}

// TestContactsGetStale, each by its own confirmation.
func TestContactsGetStale(t *testing.T) {
	t.Parallel()
	ada, bob := domain.SecurityContact{Name: "Ada", Email: "ada@example.com"}, domain.SecurityContact{Name: "Bob", Email: "bob@example.com"}
	day := func(n int) time.Time { return t0.AddDate(0, 0, n) }
	var a domain.Account
	do := func(at time.Time, cmd domain.AccountCommand) {
		t.Helper()
		events, err := a.Decide(cmd)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range events {
			a = a.Evolve(domain.Recorded{Event: e, Meta: domain.Metadata{EffectiveAt: at, Initiator: domain.Initiator{IAMID: "User-1"}}})
		}
	}
	confirmed := func() []time.Time {
		var out []time.Time
		for _, c := range a.SecurityContacts() {
			out = append(out, c.ConfirmedAt)
		}
		return out
	}
	do(day(0), domain.CreateAccount{Account: "acct1", Name: "Acme", Owner: "User-1"})
	do(day(1), domain.SetSecurityContacts{Contacts: []domain.SecurityContact{ada}})
	do(day(5), domain.SetSecurityContacts{Contacts: []domain.SecurityContact{bob, ada}, StaleDays: new(30)})
	if diff := cmp.Diff([]time.Time{day(5), day(1)}, confirmed()); diff != "" {
		t.Errorf("a new contact is confirmed, an old one stays as it was: %s", diff)
	}
	first := a.SecurityContacts()[1]
	if first.StaleAt(day(31).Add(-time.Millisecond), a.ContactsStaleAfter()) || !first.StaleAt(day(31), a.ContactsStaleAfter()) || first.ConfirmedBy != "User-1" {
		t.Errorf("%+v is stale after %d days", first, a.ContactsStaleAfter())
	}
	do(day(40), domain.ConfirmSecurityContacts{})
	if diff := cmp.Diff([]time.Time{day(40), day(40)}, confirmed()); diff != "" {
		t.Error(diff)
	}
	do(day(41), domain.SetSecurityContacts{})
	if _, err := a.Decide(domain.ConfirmSecurityContacts{}); domain.CodeOf(err) != domain.Conflict || len(confirmed()) != 0 {
		t.Errorf("nothing is confirmed: %v", err)
	}
	for name, bad := range map[string]domain.SetSecurityContacts{
		"no name": {Contacts: []domain.SecurityContact{{Email: "a@b.c"}}}, "no address": {Contacts: []domain.SecurityContact{{Name: "Ada"}}},
		"an address twice": {Contacts: []domain.SecurityContact{ada, {Name: "A", Email: "ADA@example.com"}}}, "no days": {StaleDays: new(0)}, "too many days": {StaleDays: new(3651)},
	} {
		if _, err := a.Decide(bad); domain.CodeOf(err) != domain.Invalid || err == nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestGrants(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name           string
		grants         domain.Grants
		action, target string
		want           bool
	}{
		{"no grants are not checked", nil, "s3:Delete", "x", true},
		{"an action", domain.Grants{{Actions: []string{"s3:Get"}}}, "s3:Get", "anything", true},
		{"another action", domain.Grants{{Actions: []string{"s3:Get"}}}, "s3:GetObject", "", false},
		{"letters matter", domain.Grants{{Actions: []string{"s3:Get"}}}, "S3:get", "", false},
		{"a beginning", domain.Grants{{Actions: []string{"s3:*"}}}, "s3:", "", true},
		{"an end", domain.Grants{{Actions: []string{"*.read"}}}, "a.b.read", "", true},
		{"a middle", domain.Grants{{Actions: []string{"a*b*c"}}}, "a-b-b-c", "", true},
		{"not the middle", domain.Grants{{Actions: []string{"a*b*c"}}}, "a-c-b", "", false},
		{"a resource", domain.Grants{{Actions: []string{"*"}, Resources: []string{"bucket/*"}}}, "s3:Get", "bucket/a", true},
		{"another resource", domain.Grants{{Actions: []string{"*"}, Resources: []string{"bucket/*"}}}, "s3:Get", "other/a", false},
		{"no resource named", domain.Grants{{Actions: []string{"*"}, Resources: []string{"bucket/*"}}}, "s3:Get", "", false},
		{"no resource named, all allowed", domain.Grants{{Actions: []string{"*"}, Resources: []string{"*"}}}, "s3:Get", "", true},
		{"the second grant", domain.Grants{{Actions: []string{"a"}, Resources: []string{"x"}}, {Actions: []string{"b"}, Resources: []string{"y"}}}, "b", "y", true},
		{"an action of one, a resource of another", domain.Grants{{Actions: []string{"a"}, Resources: []string{"x"}}, {Actions: []string{"b"}, Resources: []string{"y"}}}, "a", "y", false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if got := tt.grants.Allows(tt.action, tt.target); got != tt.want {
				t.Errorf("%t, want %t", got, tt.want)
			}
		})
	}
}

// TestAWildcardStandsForAnyText: a pattern of which parts were replaced by * matches, and
// the matcher agrees with the slow one.
func TestAWildcardStandsForAnyText(t *testing.T) {
	t.Parallel()
	var slow func(p, s string) bool
	slow = func(p, s string) bool {
		if p == "" {
			return s == ""
		}
		if p[0] == '*' {
			return slow(p[1:], s) || s != "" && slow(p, s[1:])
		}
		return s != "" && p[0] == s[0] && slow(p[1:], s[1:])
	}
	rapid.Check(t, func(t *rapid.T) {
		p, s := rapid.StringOfN(rapid.RuneFrom([]rune("ab*")), 0, 8, -1).Draw(t, "pattern"), rapid.StringOfN(rapid.RuneFrom([]rune("ab")), 0, 10, -1).Draw(t, "text")
		if got := domain.MatchesAction(p, s); got != slow(p, s) {
			t.Fatalf("%q on %q: %t", p, s, got)
		}
	})
}

// TestGrantsAreSetPerAccountAndEndWithMembership.
func TestGrantsAreSetPerAccountAndEndWithMembership(t *testing.T) {
	t.Parallel()
	set := domain.SetGrants{IAMID: "User-2", Grants: domain.Grants{{Actions: []string{"b", "a", "b"}, Resources: []string{"r"}}}}
	a := account(t, acme(set)...)
	if diff := cmp.Diff(domain.Grants{{Actions: []string{"a", "b"}, Resources: []string{"r"}}}, a.Grants("User-2")); diff != "" || a.Grants("User-3") != nil {
		t.Error(diff)
	}
	if events, err := a.Decide(set); err != nil || events != nil {
		t.Errorf("the same again: %v %v", events, err)
	}
	if got := account(t, acme(set, domain.SetGrants{IAMID: "User-2"})...).Grants("User-2"); got != nil {
		t.Errorf("taken away: %v", got)
	}
	if got := account(t, acme(set, domain.RemoveMember{IAMID: "User-2"}, domain.AddMember{IAMID: "User-2"})...).Grants("User-2"); got != nil {
		t.Errorf("after the membership: %v", got)
	}
	many := make([]string, 201)
	for name, bad := range map[string]domain.Grants{
		"no action": {{Resources: []string{"r"}}}, "an empty pattern": {{Actions: []string{""}}}, "too many": {{Actions: many}}, "a line break": {{Actions: []string{"a\nb"}}},
		"too long": {{Actions: []string{strings.Repeat("x", 513)}}}, "no text": {{Actions: []string{"\xff"}}},
	} {
		if _, err := a.Decide(domain.SetGrants{IAMID: "User-2", Grants: bad}); domain.CodeOf(err) != domain.Invalid || err == nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := a.Decide(domain.SetGrants{IAMID: "User-9", Grants: set.Grants}); domain.CodeOf(err) != domain.NotFound {
		t.Errorf("a stranger: %v", err)
	}
}
