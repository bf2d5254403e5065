package domain_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"example.com/keytrail/domain"
)

var update = flag.Bool("update", false, "write missing golden files; existing ones are history and never rewritten")

var t0 = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// sampleState fills every field of a key's state.
func sampleState() domain.KeyState {
	expires := t0.AddDate(1, 0, 0)
	return domain.KeyState{
		ID: "ApiKey-1", Account: "acct1", IAMID: "User-1", Kind: domain.KindUser, Name: "demo-key", Description: "a key",
		Version: 3, Locked: true, Disabled: true, Deleted: true, ExpiresAt: &expires, CreatedAt: t0, CreatedBy: "User-1",
		ModifiedAt: t0.Add(time.Hour), ActionOnLeak: domain.LeakDisable, SupportSessions: true,
		SecretHash: "hmac-sha256:00ff", Source: "aws", Parent: "AKIA1",
	}
}

func sampleFinding() domain.Finding {
	return domain.Finding{
		ID: domain.DeriveID("finding", "x"), Rule: "new-network", RuleVersion: 1, Level: domain.LevelHigh, Technique: "T1078.004",
		Account: "acct1", KeyID: "ApiKey-1", IAMID: "User-1", Title: "a title", Reason: "a reason", Advice: "advice", DedupeKey: "d",
		FirstSeen: t0, LastSeen: t0.Add(time.Minute), Count: 2, Status: domain.FindingOpen,
		Evidence: []domain.Evidence{{EventID: "e1", Position: 7, Index: 1, Time: t0, Action: "s3:GetObject"}},
	}
}

func sampleSeal() domain.UsageSegmentSealed {
	return domain.UsageSegmentSealed{
		Stream: "kt.usage-client-07", Segment: 2, FirstRevision: 8, LastRevision: 9, FirstPosition: 100, LastPosition: 300,
		FirstRecordedAt: t0, LastRecordedAt: t0.Add(time.Hour), Events: 2, Records: 70,
		Places:          domain.PackPlaces([]domain.Place{{Position: 100, Records: 30}, {Position: 300, Records: 40}}),
		Accounts:        []domain.SegmentAccount{{Account: "acct1", Records: 70, Failures: 3, Bytes: 9000}},
		AccountsOmitted: 1, SHA256: "ab", Previous: "cd",
		Archive: &domain.SegmentArchive{Name: "usage-client-07.00000002.ab.kta", SHA256: "ef", Bytes: 4096},
	}
}

func sampleSession() domain.SessionState {
	return domain.SessionState{
		ID: "s1", Account: "acct1", IAMID: "User-1", KeyID: "ApiKey-1", CreatedAt: t0, ExpiresAt: t0.Add(24 * time.Hour), EndsAt: t0.Add(2 * time.Hour),
		RefreshedAt: t0.Add(time.Minute), Generation: 2, Address: "192.0.2.1", Agent: "cli", Over: true,
	}
}

// samples holds one event of every type, with every field set.
func samples() []domain.Event {
	s, ends := sampleState(), t0.AddDate(0, 0, 1)
	rotated := s // And with what came after its golden files.
	rotated.ValueStored, rotated.Successor, rotated.EndsAt, rotated.Predecessor, rotated.AbandonedSuccessor = true, "ApiKey-2", &ends, "ApiKey-0", "ApiKey-3"
	roles := []domain.Role{domain.RoleAuditor, domain.RoleViewer}
	return append(accountSamples(), []domain.Event{
		domain.AccountCreated{Account: "acct1", Name: "Acme", Owner: "User-1", OwnerName: "Ada", OwnerEmail: "ada@example.com", Source: "aws"},
		domain.MemberAdded{Account: "acct1", IAMID: "User-2", Name: "Bob", Email: "bob@example.com", Roles: roles},
		domain.RolesSet{Account: "acct1", IAMID: "User-2", Old: roles, New: []domain.Role{domain.RoleEditor}},
		domain.AccountSettingsSet{
			Account: "acct1", Old: domain.AccountSettings{RestrictUserKeys: domain.RestrictionNotSet, RestrictServiceIDs: domain.RestrictionOff},
			New: domain.AccountSettings{RestrictUserKeys: domain.RestrictionOn, RestrictServiceIDs: domain.RestrictionOn},
		},
		domain.ServiceIDCreated{ID: "ServiceId-1", IAMID: "iam-ServiceId-1", Account: "acct1", Name: "ci", Description: "builds"},
		domain.ServiceIDUpdated{
			ID: "ServiceId-1", IAMID: "iam-ServiceId-1", Account: "acct1", Name: "ci", Description: "builds", Instances: []string{"crn:v1:x"},
			Changes: []domain.Change{{Field: "name", Old: "a", New: "ci"}},
		},
		domain.ServiceIDLocked{ID: "ServiceId-1", IAMID: "iam-ServiceId-1", Account: "acct1", Name: "ci"},
		domain.ServiceIDUnlocked{ID: "ServiceId-1", IAMID: "iam-ServiceId-1", Account: "acct1", Name: "ci"},
		domain.ServiceIDDeleted{ID: "ServiceId-1", IAMID: "iam-ServiceId-1", Account: "acct1", Name: "ci"},
		domain.KeyCreated{After: s},
		domain.KeyUpdated{Changes: []domain.Change{{Field: "name", Old: "a", New: "demo-key"}}, After: s},
		domain.KeyLocked{After: s},
		domain.KeyUnlocked{After: s},
		domain.KeyDisabled{After: s},
		domain.KeyEnabled{After: s},
		domain.KeyDeleted{After: s},
		domain.KeyObserved{Fact: domain.ObservedCreated, SourceEvent: "src-1", After: s},
		domain.KeyCreationAbandoned{After: s},
		domain.KeyRotated{After: rotated},
		domain.KeyRotationAbandoned{After: rotated},
		domain.KeyValueRead{After: rotated},
		domain.KeySlotTaken{
			Account: "acct1", IAMID: "User-1", KeyID: "ApiKey-2", Kind: domain.KindUser, Predecessor: "ApiKey-1",
			ValueHash: "hmac-sha256:00ff", Used: 3, Limit: 20,
		},
		domain.KeySlotFreed{Account: "acct1", IAMID: "User-1", KeyID: "ApiKey-2", Used: 2, Limit: 20},
		domain.KeySlotsAdopted{Account: "acct1", IAMID: "User-1", KeyIDs: []domain.KeyID{"ApiKey-1"}, Rest: 1, Used: 1},
		domain.KeyLimitNeared{Account: "acct1", IAMID: "User-1", Used: 18, Limit: 20},
		domain.KeyLimitReached{Account: "acct1", IAMID: "User-1", Used: 20, Limit: 20},
		domain.KeyValueReserved{Account: "acct1", KeyID: "ApiKey-2"},
		domain.KeyValueReleased{Account: "acct1", KeyID: "ApiKey-2"},
		domain.AccountLimitsSet{
			Account: "acct1", Old: domain.AccountLimits{KeysPerIdentity: 20},
			New: domain.AccountLimits{KeysPerIdentity: 30, Identities: map[domain.IAMID]int{"User-1": 40}},
		},
		domain.UsageRecorded{Batch: domain.UsageBatch{
			Batch: "b1", Caller: "User-1", BodyHash: "aa", First: 1, Lines: 3, Last: true, Count: 2, Rejected: 1, Repeated: 1,
			From: t0, To: t0.Add(time.Minute), NetworkDB: "2026-01", Columns: []byte{1, 2, 3},
		}},
		domain.CommandRefused{
			Action: "iam-identity.user-apikey.update", Account: "acct1", Target: "ApiKey-1", TargetName: "demo-key", TargetKind: "user",
			Status: 409, Code: domain.Conflict, Reason: "locked", Locked: true, Request: json.RawMessage(`{"name":"x"}`), Count: 2, First: t0, Last: t0,
		},
		domain.AuditAccessed{Action: "activity.export", Account: "acct1", Request: json.RawMessage(`{"filter":""}`), Count: 9, SHA256: "ab", Complete: true},
		domain.FindingOpened{After: sampleFinding()},
		domain.FindingExtended{After: sampleFinding()},
		sampleSeal(),
		domain.UsageRangeCut{Stream: "kt.usage-client-07", Segment: 2, Before: 10},
		domain.LegalHoldSet{Hold: "case-7", Account: "acct1", Reason: "litigation"},
		domain.SessionCreated{After: sampleSession()},
		domain.SessionRefreshed{After: sampleSession()},
		domain.SessionRevoked{Reason: domain.SessionReused, After: sampleSession()},
		domain.ReportRequested{Account: "acct1", Reference: "r1", Kind: domain.ReportInactive, Hours: 720, From: t0.AddDate(0, 0, -30), Until: t0},
		domain.ReportCompleted{Account: "acct1", Reference: "r1", Part: 1, Parts: 2, ReportContent: domain.ReportContent{
			Users:      []domain.InactiveUser{{IAMID: "User-2", Name: "Bob", LastAuthn: new(t0)}},
			ServiceIDs: []domain.InactiveServiceID{{ID: "ServiceId-1", Name: "ci", LastAuthn: new(t0)}},
			Keys:       []domain.InactiveKey{{ID: "ApiKey-1", Name: "demo", Kind: domain.KindUser, IAMID: "User-2", OwnerName: "Bob", LastAuthn: new(t0)}},
		}},
		domain.LegalHoldReleased{Hold: "case-7", Account: "acct1", Reason: "settled"},
	}...)
}

// TestStoredBytesOfEveryEventStayReadable holds one golden file per stored name and
// version: bytes that were once written must decode to the same event for ever, and
// what is written today must be those bytes.
func TestStoredBytesOfEveryEventStayReadable(t *testing.T) {
	t.Parallel()
	byType := map[string]domain.Event{}
	for _, e := range samples() {
		byType[e.Type()] = e
	}
	for _, name := range domain.EventTypes() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e, ok := byType[name]
			if !ok {
				t.Fatalf("no sample of %s", name)
			}
			encoded, _, err := domain.EncodeEvent(e)
			if err != nil {
				t.Fatal(err)
			}
			path := filepath.Join("testdata", "events", name+".golden")
			golden, err := os.ReadFile(path)
			if os.IsNotExist(err) && *update {
				golden = encoded
				err = os.WriteFile(path, encoded, 0o600)
			}
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(encoded, golden) {
				t.Errorf("stored bytes of %s changed; history needs a new version and an upcaster\n got %q\nwant %q", name, encoded, golden)
			}
			decoded, err := domain.DecodeEvent(name, golden)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(e, decoded); diff != "" {
				t.Errorf("golden bytes of %s decode to something else (-want +got):\n%s", name, diff)
			}
		})
	}
}

// TestEveryStoredNameIsListed reads the source: a Type constant that EventTypes lacks
// would have no golden file.
func TestEveryStoredNameIsListed(t *testing.T) {
	t.Parallel()
	set := token.NewFileSet()
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, file := range files {
		f, err := parser.ParseFile(set, file, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(f, func(n ast.Node) bool {
			spec, ok := n.(*ast.ValueSpec)
			if !ok || !strings.HasPrefix(spec.Names[0].Name, "Type") || len(spec.Values) != 1 {
				return true
			}
			if lit, ok := spec.Values[0].(*ast.BasicLit); ok {
				name, err := strconv.Unquote(lit.Value)
				if err != nil {
					t.Fatal(err)
				}
				names = append(names, name)
			}
			return true
		})
	}
	want := domain.EventTypes()
	slices.Sort(names)
	slices.Sort(want)
	if diff := cmp.Diff(names, want); diff != "" {
		t.Errorf("EventTypes (-source +list):\n%s", diff)
	}
	entries, err := fs.ReadDir(os.DirFS("testdata/events"), ".")
	if err != nil {
		t.Fatal(err)
	}
	if len(entries) < len(want) {
		t.Errorf("%d golden files for %d names", len(entries), len(want))
	}
}

func TestDecodeRefusesWhatItDoesNotKnow(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, typ, data string
	}{
		{name: "an unknown name", typ: "apikey.created.v9", data: `{}`},
		{name: "no JSON", typ: domain.TypeKeyCreated, data: `{`},
		{name: "two values", typ: domain.TypeKeyCreated, data: `{}{}`},
		{name: "a usage batch without magic", typ: domain.TypeUsageRecorded, data: `{}`},
		{name: "a usage batch whose header is longer than the bytes", typ: domain.TypeUsageRecorded, data: "KTU1\xff\xff\xff\xff{}"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if e, err := domain.DecodeEvent(tt.typ, []byte(tt.data)); err == nil {
				t.Errorf("DecodeEvent(%q, %q) = %v, want an error", tt.typ, tt.data, e)
			}
		})
	}
}

func TestDecodeIgnoresFieldsOfLaterVersions(t *testing.T) {
	t.Parallel()
	e, err := domain.DecodeEvent(domain.TypeKeyLocked, []byte(`{"after":{"id":"k","new_thing":1},"more":true}`))
	if err != nil {
		t.Fatal(err)
	}
	if got, ok := e.(domain.KeyLocked); !ok || got.After.ID != "k" {
		t.Errorf("decoded %#v", e)
	}
}

// FuzzDecodeEvent: no bytes crash the decoder, and what decodes encodes to bytes that
// decode to the same again.
func FuzzDecodeEvent(f *testing.F) {
	for _, e := range samples() {
		data, _, err := domain.EncodeEvent(e)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(e.Type(), data)
	}
	f.Fuzz(func(t *testing.T, typ string, data []byte) {
		e, err := domain.DecodeEvent(typ, data)
		if err != nil {
			return
		}
		again, _, err := domain.EncodeEvent(e)
		if err != nil {
			return // A time outside RFC 3339's years decodes from no stored bytes of ours.
		}
		e2, err := domain.DecodeEvent(typ, again)
		if err != nil {
			t.Fatalf("re-encoded %s does not decode: %v", typ, err)
		}
		third, _, err := domain.EncodeEvent(e2)
		if err != nil || !bytes.Equal(again, third) {
			t.Fatalf("%s: %q then %q (%v)", typ, again, third, err)
		}
	})
}

func TestMetadataRoundTripsAndRefusesOtherSchemas(t *testing.T) {
	t.Parallel()
	m := domain.Metadata{Schema: domain.MetadataSchema, EffectiveAt: t0, Initiator: domain.Initiator{IAMID: "User-1"}, CorrelationID: "c"}
	b, err := domain.EncodeMetadata(m)
	if err != nil {
		t.Fatal(err)
	}
	got, err := domain.DecodeMetadata(b)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(m, got); diff != "" {
		t.Error(diff)
	}
	if _, err := domain.DecodeMetadata([]byte(`{"v":99}`)); err == nil {
		t.Error("metadata of schema 99 was read")
	}
}
