package domain_test

import (
	"encoding/json"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"example.com/keytrail/domain"
)

// recordRow is what the record of an event must say, by events.md.
type recordRow struct {
	Action   string
	Status   int
	Severity domain.Severity
	Outcome  domain.Outcome
	Message  string
	Compat   string // IBM's name, where IBM folds the act into another.
	Changes  bool   // Old and new values are in it.
}

// recordTable is written by hand: a row for every stored event that is a record.
func recordTable() map[string]recordRow {
	const (
		iam, access, users = "IAM Identity Service: ", "IAM Access Management: ", "User Management: "
		normal, warning    = domain.SeverityNormal, domain.SeverityWarning
		critical           = domain.SeverityCritical
		key, service       = "iam-identity.user-apikey.", "iam-identity.account-serviceid."
		user               = "user-management.user."
		ok, failed         = domain.OutcomeSuccess, domain.OutcomeFailure
	)
	return map[string]recordRow{
		"account.created.v1":                     {"iam-identity.account.create", 201, normal, ok, iam + "create account Acme", "", false},
		"account.settings-set.v1":                {"iam-identity.account-settings.update", 200, warning, ok, iam + "update account-settings acct1", "", true},
		"account.limits-set.v1":                  {"iam-identity.account-limits.update", 200, warning, ok, iam + "update account-limits acct1", "", true},
		"account.access-settings-set.v1":         {"iam-access-management.account-settings.update", 200, warning, ok, access + "update account-settings acct1", "", true},
		"account.grants-set.v1":                  {"iam-access-management.grants.update", 200, warning, ok, access + "update grants User-2", "", true},
		"account.security-contacts-set.v1":       {"user-management.security-contacts.update", 200, warning, ok, users + "update security-contacts acct1", "", true},
		"account.security-contacts-confirmed.v1": {"user-management.security-contacts.confirm", 200, warning, ok, users + "confirm security-contacts acct1", "", false},
		"account.member-added.v1":                {user + "invite", 202, normal, ok, users + "invite user Bob", "", true},
		"account.member-updated.v1":              {user + "update", 200, warning, ok, users + "update user Bob Builder", "", true},
		"account.member-removed.v1":              {user + "delete", 204, critical, ok, users + "delete user Bob", "", true},
		"account.roles-set.v1":                   {user + "update", 200, warning, ok, users + "update user User-2", "", true},
		"account.parent-set.v1":                  {user + "update", 200, warning, ok, users + "update user User-3", "", true},
		"account.functional-set.v1":              {user + "update", 200, warning, ok, users + "update user User-3", "", true},
		"account.member-settings-set.v1":         {user + "update", 200, warning, ok, users + "update user User-3", "", true},

		"serviceid.created.v1":  {service + "create", 201, normal, ok, iam + "create account-serviceid ci", "", false},
		"serviceid.updated.v1":  {service + "update", 200, warning, ok, iam + "update account-serviceid ci", "", true},
		"serviceid.locked.v1":   {service + "lock", 204, warning, ok, iam + "lock account-serviceid ci", service + "update", true},
		"serviceid.unlocked.v1": {service + "unlock", 204, warning, ok, iam + "unlock account-serviceid ci", service + "update", true},
		"serviceid.deleted.v1":  {service + "delete", 204, critical, ok, iam + "delete account-serviceid ci", "", false},

		"apikey.created.v1":            {key + "create", 201, normal, ok, iam + "create user-apikey demo-key", "", false},
		"apikey.updated.v1":            {key + "update", 200, warning, ok, iam + "update user-apikey demo-key", "", true},
		"apikey.locked.v1":             {key + "lock", 204, warning, ok, iam + "lock user-apikey demo-key", key + "update", true},
		"apikey.unlocked.v1":           {key + "unlock", 204, warning, ok, iam + "unlock user-apikey demo-key", key + "update", true},
		"apikey.disabled.v1":           {key + "disable", 204, warning, ok, iam + "disable user-apikey demo-key", key + "update", true},
		"apikey.enabled.v1":            {key + "enable", 204, warning, ok, iam + "enable user-apikey demo-key", key + "update", true},
		"apikey.deleted.v1":            {key + "delete", 204, critical, ok, iam + "delete user-apikey demo-key", "", false},
		"apikey.rotated.v1":            {key + "rotate", 201, critical, ok, iam + "rotate user-apikey demo-key", "", false},
		"apikey.value-read.v1":         {key + "reveal", 200, warning, ok, iam + "reveal user-apikey demo-key", "", false},
		"apikey.observed.v1":           {key + "create", 200, normal, ok, iam + "create user-apikey demo-key", "", false},
		"apikey.creation-abandoned.v1": {key + "abandon", 200, normal, ok, iam + "abandon user-apikey demo-key", "", false},
		"apikey.rotation-abandoned.v1": {key + "abandon", 200, normal, ok, iam + "abandon user-apikey demo-key", "", false},
		"keyslot.limit-neared.v1":      {"iam-identity.apikey-limit.near", 200, warning, ok, iam + "near apikey-limit User-1", "", false},
		"keyslot.limit-reached.v1":     {"iam-identity.apikey-limit.reach", 200, critical, ok, iam + "reach apikey-limit User-1", "", false},

		"session.created.v1":   {"iam-identity.user-session.create", 201, normal, ok, iam + "create user-session s1", "", false},
		"session.refreshed.v1": {"iam-identity.user-refreshtoken.login", 200, normal, ok, iam + "login user-refreshtoken s1", "", false},
		"session.revoked.v1":   {"iam-identity.user-session.revoke", 204, critical, ok, iam + "revoke user-session s1", "", false},

		"report.requested.v1": {"iam-identity.account-report.create", 202, normal, domain.OutcomePending, iam + "create account-report r1", "", false},
		"report.completed.v1": {"iam-identity.account-report.create", 200, normal, ok, iam + "create account-report r1", "", false},

		"command.refused.v1": {key + "update", 409, critical, failed, iam + "update user-apikey demo-key -failure", "", false},
		"audit.accessed.v1":  {"activity.export", 200, normal, ok, "Keytrail: export activity acct1", "", false},

		"finding.opened.v1":       {"finding.open", 200, critical, ok, "Keytrail: open finding a title", "", false},
		"finding.extended.v1":     {"finding.extend", 200, critical, ok, "Keytrail: extend finding a title", "", false},
		"usage.segment.sealed.v1": {"usage.segment.seal", 200, normal, ok, "Keytrail: seal segment kt.usage-client-07", "", false},
		"usage.range.cut.v1":      {"usage.range.cut", 200, normal, ok, "Keytrail: cut range kt.usage-client-07", "", false},
		"legalhold.set.v1":        {"legal-hold.hold.set", 201, warning, ok, "Keytrail: set hold case-7", "", false},
		"legalhold.released.v1":   {"legal-hold.hold.release", 200, warning, ok, "Keytrail: release hold case-7", "", false},
	}
}

// notRecords are the stored events that are no record: each use of a batch is one by
// itself, and what is reserved for a key shows in the key's own records.
func notRecords() []string {
	return []string{
		"usage.recorded.v1", "keyslot.taken.v1", "keyslot.freed.v1", "keyslot.adopted.v1", "keyvalue.reserved.v1", "keyvalue.released.v1",
	}
}

func TestEveryRecordSaysWhatEventsMDDemands(t *testing.T) {
	t.Parallel()
	table := recordTable()
	seen := map[string]bool{}
	for _, e := range samples() {
		a, ok := domain.ActivityOf(recorded(e))
		if ok == slices.Contains(notRecords(), e.Type()) {
			t.Errorf("%s is a record: %v", e.Type(), ok)
		}
		if !ok || seen[e.Type()] {
			continue
		}
		seen[e.Type()] = true
		var d struct {
			CompatAction string
			Changes      []domain.Change
		}
		if err := json.Unmarshal(a.RequestData, &d); err != nil {
			t.Fatal(err)
		}
		got := recordRow{a.Action, a.ReasonCode, a.Severity, a.Outcome, a.Message, d.CompatAction, len(d.Changes) > 0}
		if diff := cmp.Diff(table[e.Type()], got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", e.Type(), diff)
		}
		if a.Initiator.Name != "Ada" || a.Initiator.Address == "" || a.CorrelationID == "" {
			t.Errorf("%s: initiator %+v, correlation %q", e.Type(), a.Initiator, a.CorrelationID)
		}
	}
	for _, name := range domain.EventTypes() {
		if !seen[name] && !slices.Contains(notRecords(), name) {
			t.Errorf("%s has no sample", name)
		}
	}
}
