package ingest_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"example.com/keytrail/domain"
	"example.com/keytrail/ingest"
	"example.com/keytrail/internal/eventlog"
)

// reads returns the records of reads, without what differs from run to run.
func (n *node) reads() []string {
	n.tb.Helper()
	var out []string
	for _, rec := range n.events(domain.AccessStreams) {
		a, ok := domain.ActivityOf(rec)
		if !ok {
			n.tb.Fatalf("%s is no activity", rec.Type)
		}
		e := rec.Event.(domain.AuditAccessed)
		out = append(out, fmt.Sprintf("%s %s by %s: %d %s", a.Action, a.TargetName, a.Initiator.Name, e.Count, e.Request))
	}
	return out
}

func TestReadsAndListsOfKeysAreRecordedWhereTheAccountWantsIt(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	id, value := n.createKey(n.admin, n.boot.Owner, "demo")
	ask := func() {
		t.Helper()
		n.must(200, n.call(n.admin, "GET", "/v1/apikeys/"+id+"?include_history=true", nil))
		n.must(200, n.call(n.admin, "GET", "/v1/apikeys/details", nil, "IAM-ApiKey", value))
		n.must(200, n.call(n.admin, "GET", "/v1/apikeys?type=user&filter=name+co+%22demo%22", nil))
		n.must(200, n.call(n.admin, "GET", "/v1/apikeys?scope=account", nil))
		n.must(404, n.call(n.admin, "GET", "/v1/apikeys/ApiKey-none", nil))
		n.must(400, n.call(n.admin, "GET", "/v1/apikeys?order=up", nil))
	}
	ask()
	if got := n.reads(); got != nil {
		t.Errorf("recorded though nobody asked for it: %q", got)
	}
	settings := "/v1/accounts/" + string(n.boot.Account) + "/settings/identity"
	n.must(200, n.call(n.admin, "PUT", settings, map[string]any{"record_reads": true}, "If-Match", "*"))
	ask()
	want := []string{
		`iam-identity.user-apikey.read demo by administrator: 1 {"include_history":["true"]}`,
		`iam-identity.user-apikey.read demo by administrator: 1 {}`,
		`iam-identity.user-apikey.list ` + string(n.boot.Account) + ` by administrator: 2 {"filter":["name co \"demo\""],"type":["user"]}`,
		`iam-identity.user-apikey.list ` + string(n.boot.Account) + ` by administrator: 2 {"scope":["account"]}`,
	}
	if diff := cmp.Diff(want, n.reads()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	n.must(200, n.call(n.admin, "GET", "/v1/apikeys?type=user&iam_id="+strings.Repeat("x", 10_000), nil))
	if got := n.reads(); !strings.Contains(got[len(got)-1], "oversize") {
		t.Errorf("a query of 10,000 bytes is recorded as %.100s", got[len(got)-1])
	}
	n.must(200, n.call(n.admin, "PUT", settings, map[string]any{"record_reads": false}, "If-Match", "*"))
	ask()
	if got := n.reads(); len(got) != len(want)+1 {
		t.Errorf("%d records after it was switched off, want %d", len(got), len(want)+1)
	}
}

func TestWhatCannotBeRecordedIsNotShown(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	id, _ := n.createKey(n.admin, n.boot.Owner, "demo")
	n.must(200, n.call(n.admin, "PUT", "/v1/accounts/"+string(n.boot.Account)+"/settings/identity", map[string]any{"record_reads": true}, "If-Match", "*"))
	n.fails = domain.Errorf(domain.Unavailable, "the event log is not available").WithMessageCode("log_unavailable")
	n.serve()
	for _, path := range []string{"/v1/apikeys/" + id, "/v1/apikeys"} {
		if r := n.call(n.admin, "GET", path, nil); r.status != 503 || strings.Contains(r.raw, "demo") {
			t.Errorf("%s: %d %s, want 503 without the key", path, r.status, r.raw)
		}
	}
}

// failingReads fails as it is told.
type failingReads struct {
	ingest.ReadRecorder
	err error
}

func (f failingReads) RecordAccess(ctx context.Context, who domain.Initiator, id string, accounts []domain.AccountID, e domain.AuditAccessed) error {
	if f.err != nil {
		return f.err
	}
	return f.ReadRecorder.RecordAccess(ctx, who, id, accounts, e)
}

func TestReadsAtOneTimeShareAnAppendAndEachIsDurable(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const readers = 100
		log := &memoryLog{hold: make(chan struct{})}
		reads := ingest.NewAccessLog(log, "w", "nonce", time.Now)
		var wg sync.WaitGroup
		for i := range readers {
			wg.Go(func() {
				e := domain.AuditAccessed{Action: "iam-identity.user-apikey.read", Target: fmt.Sprint("ApiKey-", i), Count: 1}
				if err := reads.RecordAccess(t.Context(), domain.Initiator{IAMID: "u"}, "c", []domain.AccountID{"a"}, e); err != nil {
					t.Error(err)
				}
			})
		}
		synctest.Wait() // One writes, the others wait for it.
		close(log.hold)
		wg.Wait()
		seen := map[string]bool{}
		for _, raw := range log.streams[domain.AccessStream("w")] {
			rec, err := eventlog.Decode(raw)
			if err != nil {
				t.Fatal(err)
			}
			seen[rec.Event.(domain.AuditAccessed).Target] = true
		}
		if len(seen) != readers || log.appends != 2 {
			t.Errorf("reads of %d keys in %d appends, want %d in 2", len(seen), log.appends, readers)
		}
		log.fail(errors.New("the disk is full"))
		if err := reads.RecordAccess(t.Context(), domain.Initiator{IAMID: "u"}, "c", []domain.AccountID{"a", "b"}, domain.AuditAccessed{}); err == nil {
			t.Error("what was not stored is said to be")
		}
	})
}
