package domain_test

import (
	"testing"

	"example.com/keytrail/domain"
)

func codeOf(err error) domain.Code {
	if err == nil {
		return ""
	}
	return domain.CodeOf(err)
}

// TestAccessTable is the table of api.md, "Who may do what": kind of key × role × verb.
func TestAccessTable(t *testing.T) {
	t.Parallel()
	verbs := []domain.Verb{
		domain.VerbCreate, domain.VerbRead, domain.VerbList, domain.VerbUpdate, domain.VerbLock,
		domain.VerbUnlock, domain.VerbDisable, domain.VerbEnable, domain.VerbDelete,
	}
	all := "create read list update lock unlock disable enable delete"
	tests := []struct {
		name    string
		who     domain.IAMID
		in      domain.Standing
		kind    domain.KeyKind
		allowed string
	}{
		{"own user key, no role", "User-1", domain.Standing{Member: true}, domain.KindUser, all},
		{"other's user key, no role", "User-2", domain.Standing{Member: true}, domain.KindUser, ""},
		{"other's user key, Viewer", "User-2", role(domain.RoleViewer), domain.KindUser, ""},
		{"other's user key, Operator", "User-2", role(domain.RoleOperator), domain.KindUser, ""},
		{"other's user key, Editor", "User-2", role(domain.RoleEditor), domain.KindUser, ""},
		{"other's user key, Auditor", "User-2", role(domain.RoleAuditor), domain.KindUser, "read list"},
		{"other's user key, Responder", "User-2", role(domain.RoleResponder), domain.KindUser, "disable"},
		{"other's user key, Administrator", "User-2", role(domain.RoleAdministrator), domain.KindUser, "read list update lock unlock disable enable delete"},
		{"other's user key, account owner", "User-2", domain.Standing{Owner: true}, domain.KindUser, "read list update lock unlock disable enable delete"},

		{"service ID key, no role", "User-2", domain.Standing{Member: true}, domain.KindServiceID, ""},
		{"service ID key, Viewer", "User-2", role(domain.RoleViewer), domain.KindServiceID, "read list"},
		{"service ID key, Operator", "User-2", role(domain.RoleOperator), domain.KindServiceID, "create read list delete"},
		{"service ID key, Editor", "User-2", role(domain.RoleEditor), domain.KindServiceID, "create read list update lock unlock disable enable"},
		{"service ID key, Administrator", "User-2", role(domain.RoleAdministrator), domain.KindServiceID, all},
		{"service ID key, Verifier", "User-2", role(domain.RoleVerifier), domain.KindServiceID, ""},
		{"service ID key, Ingester", "User-2", role(domain.RoleIngester), domain.KindServiceID, ""},
		{"service ID key, the service ID itself", "User-1", domain.Standing{Member: true}, domain.KindServiceID, "read"},
		{"external key, Viewer", "User-2", role(domain.RoleViewer), domain.KindExternal, "read list"},
		{"any key, the system", domain.SystemIAMID, domain.Standing{}, domain.KindUser, all},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			for _, verb := range verbs {
				want := domain.Forbidden
				if containsWord(tt.allowed, string(verb)) {
					want = ""
				}
				key := domain.KeyState{ID: "k", Account: "acct1", IAMID: "User-1", Kind: tt.kind}
				if got := codeOf(domain.AuthorizeKey(domain.Initiator{IAMID: tt.who}, tt.in, verb, key)); got != want {
					t.Errorf("%s: %q, want %q", verb, got, want)
				}
			}
		})
	}
}

func role(r ...domain.Role) domain.Standing { return domain.Standing{Member: true, Roles: r} }

func containsWord(list, word string) bool {
	for i := 0; i+len(word) <= len(list); i++ {
		if list[i:i+len(word)] == word && (i == 0 || list[i-1] == ' ') && (i+len(word) == len(list) || list[i+len(word)] == ' ') {
			return true
		}
	}
	return false
}

func TestAStrangerLearnsNothing(t *testing.T) {
	t.Parallel()
	stranger := domain.Initiator{IAMID: "User-1"}
	key := domain.KeyState{ID: "k", Account: "acct2", IAMID: "User-1", Kind: domain.KindUser}
	if got := codeOf(domain.AuthorizeKey(stranger, domain.Standing{}, domain.VerbRead, key)); got != domain.NotFound {
		t.Errorf("key: %q, want not_found", got)
	}
	if got := codeOf(domain.AuthorizeServiceID(stranger, domain.Standing{}, domain.VerbDelete, domain.ServiceIDState{ID: "s"})); got != domain.NotFound {
		t.Errorf("service ID: %q, want not_found", got)
	}
	if got := codeOf(domain.AuthorizeAccount(stranger, domain.Standing{}, domain.RightAssign)); got != domain.NotFound {
		t.Errorf("account: %q, want not_found", got)
	}
}

func TestRightsOfRoles(t *testing.T) {
	t.Parallel()
	rights := []domain.Right{domain.RightRead, domain.RightVerify, domain.RightIngest, domain.RightTriage, domain.RightConfigure, domain.RightAssign}
	tests := []struct {
		name string
		in   domain.Standing
		want string
	}{
		{"owner", domain.Standing{Owner: true}, "read verify ingest triage configure assign"},
		{"Administrator", role(domain.RoleAdministrator), "read ingest triage configure assign"},
		{"Editor", role(domain.RoleEditor), "read"},
		{"Operator", role(domain.RoleOperator), "read"},
		{"Viewer", role(domain.RoleViewer), "read"},
		{"Auditor", role(domain.RoleAuditor), "read"},
		{"Verifier", role(domain.RoleVerifier), "verify"},
		{"Ingester", role(domain.RoleIngester), "ingest"},
		{"Responder", role(domain.RoleResponder), "triage"},
		{"member without roles", domain.Standing{Member: true}, ""},
		{"stranger", domain.Standing{}, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			for _, right := range rights {
				if got, want := tt.in.Can(right), containsWord(tt.want, string(right)); got != want {
					t.Errorf("%s: %t, want %t", right, got, want)
				}
			}
		})
	}
}
