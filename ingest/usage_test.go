package ingest_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"go.uber.org/goleak"
	"pgregory.net/rapid"

	"example.com/keytrail/domain"
	"example.com/keytrail/ingest"
	"example.com/keytrail/internal/auth"
	"example.com/keytrail/internal/eventlog"
	"example.com/keytrail/internal/keystore"
	"example.com/keytrail/internal/usagebatch"
)

func record(tb testing.TB, u *ingest.Usage, batch, text string) ingest.UsageResult {
	tb.Helper()
	res, err := u.Record(tb.Context(), order(), ingest.UploadRequest{Batch: batch, Body: body(text)})
	if err != nil {
		tb.Fatalf("record: %v", err)
	}
	return res
}

// wantUses checks that the log's client streams hold exactly the uses a-0 to a-(n-1).
func wantUses(tb testing.TB, log reader, n int) {
	tb.Helper()
	got := map[string]bool{}
	uses := usesIn(tb, log, "client")
	for _, u := range uses {
		got[u.ID] = true
	}
	for i := range n {
		if id := fmt.Sprintf("a-%d", i); !got[id] {
			tb.Fatalf("use %s is lost", id)
		}
	}
	if len(uses) != n {
		tb.Fatalf("the log holds %d uses, want %d", len(uses), n)
	}
}

func TestALineBecomesAUse(t *testing.T) {
	log := newMemLog()
	u := newUsage(t, log, nil)
	res := record(t, u, "b1", `{"id":"u1","time":"2026-04-30T12:00:00.1239+02:00","key_id":"ApiKey-mine","account_id":"acc-mine","action":"a.b.c","outcome":"failure",`+
		`"status":403,"source_ip":"10.0.0.1","user_agent":"sdk","region":"eu","target":"crn:x","request_id":"r","latency_ms":7,"bytes":18446744073709551615,`+
		`"labels":{"env":"prod","n":null},"extra":{"a": [1]},"flag":true,"quo\u0074e":"a\"b"}`)
	if res.Accepted != 1 || res.Position == 0 || res.RejectedCount != 0 {
		t.Fatalf("got %+v", res)
	}
	want := []domain.Use{{
		ID: "u1", Time: time.Date(2026, 4, 30, 10, 0, 0, 123e6, time.UTC), Account: mine, KeyID: "ApiKey-mine", IAMID: "IBMid-7", Action: "a.b.c",
		Outcome: domain.OutcomeFailure, Status: 403, Source: "10.0.0.1", UserAgent: "sdk", Region: "eu", Target: "crn:x", RequestID: "r",
		LatencyMS: 7, Bytes: 1<<64 - 1, Labels: map[string]string{"env": "prod", "extra": `{"a":[1]}`, "flag": "true", "quote": `a"b`},
	}}
	if diff := cmp.Diff(want, usesIn(t, log, "client")); diff != "" {
		t.Error(diff)
	}
}

func TestKeysAreNamedByIdOrHashAndNeverAcrossTenants(t *testing.T) {
	tests := []struct {
		name, line          string
		key                 domain.KeyID
		account             domain.AccountID
		fingerprint, denied bool
	}{
		{name: "by hash", line: fmt.Sprintf(`"key_hash":"%s"`, hashOf(mySecret)), key: "ApiKey-mine", account: mine},
		{name: "by another tenant's hash", line: fmt.Sprintf(`"key_hash":"%s"`, hashOf(theirSecret)), account: mine, fingerprint: true},
		{name: "by an unknown hash", line: fmt.Sprintf(`"key_hash":"%s"`, hashOf("?")), account: mine, fingerprint: true},
		{name: "by no key", line: `"action":"x"`, account: mine},
		{name: "another tenant's account", line: `"account_id":"acc-theirs"`, denied: true},
		{name: "an account that is not there", line: `"account_id":"acc-none"`, denied: true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			log := newMemLog()
			res := record(t, newUsage(t, log, nil), "", `{"time":"2026-04-30T12:00:00Z",`+tt.line+`}`)
			uses := usesIn(t, log, "client")
			if tt.denied {
				if len(uses) != 0 || res.RejectedCount != 1 || res.Rejected[0].Error != "account_id: no such account, or no right to record uses in it" {
					t.Fatalf("got %+v and %+v", uses, res)
				}
				return
			}
			if len(uses) != 1 || uses[0].KeyID != tt.key || uses[0].Account != tt.account || (uses[0].KeyFingerprint != "") != tt.fingerprint {
				t.Errorf("got %+v", uses)
			}
		})
	}
}

func TestBadLinesAreReportedByNumberAndGoodOnesKept(t *testing.T) {
	secret, err := keystore.NewKeyValue(bytes.NewReader(make([]byte, 32)))
	if err != nil {
		t.Fatal(err)
	}
	value := secret.Reveal()
	escaped := `\u006bt_` + value[3:]
	const at = `"time":"2026-04-30T12:00:00Z"`
	tests := []struct{ name, line, want string }{
		{name: "no time", line: `{"key_id":"k"}`, want: "time: is required"},
		{name: "bad time", line: `{"time":"yesterday"}`, want: "time: must be a time such as 2026-01-31T23:59:59.123Z"},
		{name: "a time as a number", line: `{"time":1}`, want: "time: must be a time such as 2026-01-31T23:59:59.123Z"},
		{name: "a time of long ago", line: `{"time":"1066-10-14T09:00:00Z"}`, want: "time: must lie between 1970 and 2261"},
		{name: "not an object", line: `[1]`, want: "not a JSON object"},
		{name: "cut off", line: `{` + at + `,"action":`, want: "not valid JSON after byte 41"},
		{name: "broken", line: `{` + at + `,}`, want: "not valid JSON after byte 30"},
		{name: "two values", line: `{` + at + `}{}`, want: "more than one value on the line"},
		{name: "a field twice", line: `{` + at + `,"action":"a","action":"b"}`, want: "a field occurs twice"},
		{name: "a field twice, escaped", line: `{` + at + `,"action":"a","\u0061ction":"b"}`, want: "a field occurs twice"},
		{name: "invalid UTF-8", line: "{" + at + ",\"action\":\"\xff\"}", want: "not valid JSON after byte 41"},
		{name: "a number as text", line: `{` + at + `,"action":7}`, want: "action: must be a string"},
		{name: "an unknown outcome", line: `{` + at + `,"outcome":"maybe"}`, want: "outcome: must be one of success, failure, pending"},
		{name: "a fraction", line: `{` + at + `,"latency_ms":1.5}`, want: "latency_ms: must be a whole number from 0 to 4294967295"},
		{name: "a negative", line: `{` + at + `,"bytes":-1}`, want: "bytes: must be a whole number from 0 to 18446744073709551615"},
		{name: "no key id", line: `{` + at + `,"key_id":"a b"}`, want: "key_id: is not a key id: 1 to 128 letters, digits and -_.:@"},
		{name: "a short hash", line: `{` + at + `,"key_hash":"abc"}`, want: "key_hash: must be the hex SHA-256 of the key's value"},
		{name: "both", line: `{` + at + `,"key_id":"k","key_hash":"` + hashOf("x") + `"}`, want: "key_hash: give key_id or key_hash, not both"},
		{name: "a label twice", line: `{` + at + `,"x":"1","labels":{"x":"2"}}`, want: "labels: a label is given twice, as a field and in labels"},
		{name: "a label of keytrail's own", line: `{` + at + `,"labels":{"keytrail.verified":"me"}}`, want: "labels: names that begin with keytrail. are keytrail's own"},
		{name: "one given as a field", line: `{` + at + `,"keytrail.verified":"me"}`, want: "labels: names that begin with keytrail. are keytrail's own"},
		{name: "labels that are none", line: `{` + at + `,"labels":"x"}`, want: "labels: must be an object"},
		{name: "a long action", line: `{` + at + `,"action":"` + strings.Repeat("x", 300) + `"}`, want: "action: has 300 bytes, at most 256"},
		{name: "a long line", line: `{` + at + `,"x":"` + strings.Repeat("x", 256<<10) + `"}`, want: "has more than 262144 bytes"},
		{name: "a secret as key id", line: `{` + at + `,"key_id":"` + value + `"}`, want: "key_id: is the value of a key, not its id; send key_hash, the hex SHA-256 of the value, instead"},
		{name: "what begins like a secret as key id", line: `{` + at + `,"key_id":"kt_short"}`, want: "key_id: is the value of a key, not its id; send key_hash, the hex SHA-256 of the value, instead"},
		{name: "a secret in a field", line: `{` + at + `,"target":"x?key=` + value + `&y"}`, want: "target: holds the value of an API key"},
		{name: "a secret in a label", line: `{` + at + `,"note":"` + escaped + `"}`, want: "labels: one holds the value of an API key"},
		{name: "a secret in a label's name", line: `{` + at + `,"` + value + `":1}`, want: "labels: one holds the value of an API key"},
		{name: "a secret deep in a label", line: `{` + at + `,"note":[{"` + escaped + `":1}]}`, want: "labels: one holds the value of an API key"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			log := newMemLog()
			res := record(t, newUsage(t, log, nil), "b", lines("a", 2)+"\n"+tt.line+"\r\n"+`{"id":"a-2","time":"2026-04-30T10:00:00Z"}`)
			want := []ingest.RejectedLine{{Line: 4, Error: tt.want}}
			if diff := cmp.Diff(want, res.Rejected); diff != "" {
				t.Error(diff)
			}
			wantUses(t, log, 3)
			if s := fmt.Sprintf("%+v", res); strings.Contains(s, value) || strings.Contains(s, "kt_short") {
				t.Error("the answer echoes a secret")
			}
		})
	}
}

func TestTheListOfRejectedLinesIsCutOnlyWithItsCount(t *testing.T) {
	log := newMemLog()
	res := record(t, newUsage(t, log, nil), "b", strings.Repeat("x\n", 40_000)+lines("a", 1))
	if res.RejectedCount != 40_000 || len(res.Rejected) != ingest.RejectedLinesMax || res.Rejected[999].Line != 1000 || res.Accepted != 1 {
		t.Errorf("got %d rejected, %d listed, %d accepted", res.RejectedCount, len(res.Rejected), res.Accepted)
	}
}

func TestABatchSentAgainChangesNothing(t *testing.T) {
	text := lines("a", 40_000) + "bad\n"
	for _, batch := range []string{"b1", ""} {
		t.Run("batch="+batch, func(t *testing.T) {
			log := newMemLog()
			u := newUsage(t, log, nil)
			first := record(t, u, batch, text)
			events := log.position
			if diff := cmp.Diff(first, record(t, u, batch, text)); diff != "" {
				t.Errorf("the same node answers otherwise: %s", diff)
			}
			if diff := cmp.Diff(first, record(t, newUsage(t, log, nil), batch, text)); diff != "" {
				t.Errorf("another node answers otherwise: %s", diff)
			}
			if log.position != events || first.Accepted != 40_000 || first.RejectedCount != 1 {
				t.Errorf("the log moved from %d to %d, or the first answer is wrong: %+v", events, log.position, first)
			}
			wantUses(t, log, 40_000)
		})
	}
}

func TestABatchIdWithOtherBytesIsRefused(t *testing.T) {
	log := newMemLog()
	record(t, newUsage(t, log, nil), "b1", lines("a", 3))
	for _, u := range []*ingest.Usage{newUsage(t, log, nil)} {
		_, err := u.Record(t.Context(), order(), ingest.UploadRequest{Batch: "b1", Body: body(lines("b", 3))})
		if domain.CodeOf(err) != domain.Conflict {
			t.Errorf("got %v", err)
		}
	}
	// Another caller's batch of that name is another batch.
	if _, err := newUsage(t, log, nil).Record(t.Context(), orderOf("IBMid-2"), ingest.UploadRequest{Batch: "b1", Body: body(lines("b", 3))}); err != nil {
		t.Error(err)
	}
	if n := len(usesIn(t, log, "client")); n != 6 {
		t.Errorf("%d uses", n)
	}
}

// TestABatchIdWithOtherBytesIsRefusedByANodeThatHasNotSeenIt: the node's append is at a
// place where another event stands. Were the two ids the same, the server would take it
// for a repeat, and what was acknowledged would be lost.
func TestABatchIdWithOtherBytesIsRefusedByANodeThatHasNotSeenIt(t *testing.T) {
	log := newMemLog()
	a, b := newUsage(t, log, nil), newUsage(t, log, nil)
	record(t, b, "b0", lines("z", 1))
	record(t, a, "b1", lines("a", 3))
	_, err := b.Record(t.Context(), order(), ingest.UploadRequest{Batch: "b1", Body: body(lines("b", 3))})
	if domain.CodeOf(err) != domain.Conflict {
		t.Errorf("got %v", err)
	}
}

// TestAnUploadThatBreaksAnywhereIsMendedByARetry breaks the n-th append in every way
// and sends the same bytes again, to the same node and to a fresh one.
func TestAnUploadThatBreaksAnywhereIsMendedByARetry(t *testing.T) {
	t.Cleanup(func() { goleak.VerifyNone(t, goleak.IgnoreCurrent()) })
	text := lines("a", 36_000)
	faults := map[string]fault{"not stored": lost, "stored but not answered": stored, "refused": refused}
	for name, f := range faults {
		for n := 1; n <= 3; n++ {
			for _, restart := range []bool{false, true} {
				t.Run(fmt.Sprintf("%s/append=%d/restart=%v", name, n, restart), func(t *testing.T) {
					log := newMemLog()
					log.fault = func(_ string, at int) fault {
						if at == n {
							return f
						}
						return fine
					}
					u := newUsage(t, log, nil)
					_, err := u.Record(t.Context(), order(), ingest.UploadRequest{Batch: "b", Body: body(text)})
					if domain.CodeOf(err) != domain.Unavailable {
						t.Fatalf("got %v, want unavailable", err)
					}
					if restart {
						u = newUsage(t, log, nil)
					}
					res := record(t, u, "b", text)
					if res.Accepted != 36_000 || res.Repeated != 0 {
						t.Errorf("got %+v", res)
					}
					wantUses(t, log, 36_000)
				})
			}
		}
	}
}

// TestABatchThatWasCutOtherwiseGoesOnInTheMiddleOfAChunk begins with what another
// version, which cuts smaller chunks, stored before it stopped.
func TestABatchThatWasCutOtherwiseGoesOnInTheMiddleOfAChunk(t *testing.T) {
	whole := newMemLog()
	text := lines("a", 300)
	record(t, newUsage(t, whole, nil), "b", text)
	var stream string
	for s := range whole.streams {
		stream = s
	}
	rec, err := eventlog.Decode(whole.streams[stream][0])
	if err != nil {
		t.Fatal(err)
	}
	part := rec.Event.(domain.UsageRecorded)
	uses, err := usagebatch.Decode(part.Batch.Columns)
	if err != nil {
		t.Fatal(err)
	}
	if part.Batch.Columns, err = usagebatch.Encode(uses[:100]); err != nil {
		t.Fatal(err)
	}
	part.Batch.Lines, part.Batch.Count, part.Batch.Last = 100, 100, false
	event, err := eventlog.Propose(domain.DeriveID("test"), part, rec.Meta)
	if err != nil {
		t.Fatal(err)
	}
	log := newMemLog()
	if _, err := log.Append(t.Context(), stream, eventlog.NoStream(), event); err != nil {
		t.Fatal(err)
	}
	if res := record(t, newUsage(t, log, nil), "b", text); res.Accepted != 300 || res.Repeated != 0 {
		t.Errorf("got %+v", res)
	}
	wantUses(t, log, 300)
}

func TestTwoNodesMayWriteOneSlotAndEvenOneBatch(t *testing.T) {
	log := newMemLog()
	nodes := []*ingest.Usage{newUsage(t, log, nil), newUsage(t, log, nil)}
	text := lines("a", 30_000)
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for {
				_, err := nodes[i%2].Record(t.Context(), order(), ingest.UploadRequest{Batch: "b", Body: body(text)})
				if domain.CodeOf(err) == domain.Unavailable && err != nil {
					continue
				}
				if err != nil {
					t.Error(err)
				}
				break
			}
			own := lines(fmt.Sprint("own", i), 100)
			if _, err := nodes[i%2].Record(t.Context(), order(), ingest.UploadRequest{Body: body(own)}); err != nil && domain.CodeOf(err) != domain.Unavailable {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	n := 0
	for _, u := range usesIn(t, log, "client") {
		if strings.HasPrefix(u.ID, "a-") {
			n++
		}
	}
	if n != 30_000 {
		t.Errorf("%d uses of the common batch", n)
	}
}

// TestAnyHistoryOfUploadsIsExact sends random batches with random faults and retries
// to two nodes, one of which restarts at times, while the table follows now and then.
func TestAnyHistoryOfUploadsIsExact(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		log := newMemLog()
		known := &table{log: log, class: "client"}
		with := func(c *ingest.UsageConfig) { c.Known = known; c.Logger = testLogger(t) }
		nodes := []*ingest.Usage{newUsage(t, log, with), newUsage(t, log, with)}
		sent := map[string]bool{}
		for range rapid.IntRange(1, 6).Draw(rt, "batches") {
			batch := fmt.Sprint("b", rapid.IntRange(0, 1000).Draw(rt, "batch"))
			from, n := rapid.IntRange(0, 40).Draw(rt, "from"), rapid.IntRange(1, 40).Draw(rt, "n")
			var text strings.Builder
			for i := from; i < from+n; i++ {
				fmt.Fprintf(&text, "{\"id\":\"u%d\",\"time\":\"2026-04-30T10:00:00Z\"}\n", i)
			}
			for try := 0; ; try++ {
				f := fault(rapid.IntRange(0, 3).Draw(rt, "fault"))
				log.fault = func(string, int) fault { return f }
				i := rapid.IntRange(0, 1).Draw(rt, "node")
				if rapid.Bool().Draw(rt, "restart") {
					nodes[i] = newUsage(t, log, with)
				}
				if rapid.Bool().Draw(rt, "project") {
					known.project()
				}
				_, err := nodes[i].Record(t.Context(), order(), ingest.UploadRequest{Batch: batch, Body: body(text.String())})
				code := domain.CodeOf(err)
				if err == nil {
					for i := from; i < from+n; i++ {
						sent[fmt.Sprint("u", i)] = true
					}
				}
				if err == nil || code == domain.Conflict {
					break
				}
				if code != domain.Unavailable || try > 50 {
					rt.Fatalf("try %d: %v", try, err)
				}
			}
			got := map[string]bool{}
			for _, u := range usesIn(t, log, "client") {
				got[u.ID] = true
			}
			for id := range sent {
				if !got[id] {
					rt.Fatalf("%s was acknowledged and is lost", id)
				}
			}
		}
	})
}

func TestKnownIdsAreRepeatedAcrossBatchesRestartsAndLag(t *testing.T) {
	log := newMemLog()
	known := &table{log: log, class: "client"}
	with := func(c *ingest.UsageConfig) { c.Known = known }
	u := newUsage(t, log, with)
	record(t, u, "b1", lines("a", 500))
	for name, step := range map[string]func(){
		"the table lags":                  func() {},
		"after a restart, the table lags": func() { u = newUsage(t, log, with) },
		"the table has caught up":         known.project,
		"after a restart":                 func() { u = newUsage(t, log, with) },
		"the table was rebuilt and lags":  func() { known.upTo = 0 },
	} {
		step()
		res := record(t, u, "", `{"id":"x`+name+`","time":"2026-04-30T10:00:00Z"}`+"\n"+lines("a", 500))
		if res.Repeated != 500 || res.Accepted != 1 {
			t.Errorf("%s: got %+v", name, res)
		}
	}
	res := record(t, u, "", lines("a", 500)+lines("b", 2)+lines("b", 2))
	if res.Repeated != 502 || res.Accepted != 2 {
		t.Errorf("twice in one upload: got %+v", res)
	}
	res = record(t, u, "whole", lines("a", 500))
	if res.Repeated != 500 || res.Accepted != 0 {
		t.Errorf("nothing new: got %+v", res)
	}
}

func TestBodiesAreUnpackedAndDamagedOnesRefusedWhole(t *testing.T) {
	text := lines("a", 30_000)
	var zipped bytes.Buffer
	g := gzip.NewWriter(&zipped)
	if _, err := g.Write([]byte(text)); err != nil {
		t.Fatal(err)
	}
	if err := g.Close(); err != nil {
		t.Fatal(err)
	}
	z, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	packed := z.EncodeAll([]byte(text), nil)
	bomb := bytes.Repeat(z.EncodeAll(make([]byte, 1<<20), nil), ingest.UploadPlainBytesMax>>20+1)
	tests := []struct {
		name, encoding string
		body           []byte
		code           domain.Code
	}{
		{name: "gzip", encoding: "gzip", body: zipped.Bytes()},
		{name: "zstd", encoding: "ZSTD", body: packed},
		{name: "identity", encoding: "identity", body: []byte(text)},
		{name: "gzip cut off", encoding: "gzip", body: zipped.Bytes()[:zipped.Len()-1], code: domain.Invalid},
		{name: "zstd cut off", encoding: "zstd", body: packed[:len(packed)-1], code: domain.Invalid},
		{name: "zstd that is none", encoding: "zstd", body: []byte(text), code: domain.Invalid},
		{name: "unknown", encoding: "br", body: []byte(text), code: domain.Invalid},
		{name: "too large", body: make([]byte, ingest.UploadBytesMax+1), code: domain.TooLarge},
		{name: "too large when unpacked", encoding: "zstd", body: bomb, code: domain.TooLarge},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			log := newMemLog()
			dir := t.TempDir()
			u := newUsage(t, log, func(c *ingest.UsageConfig) { c.SpoolDir = dir })
			res, err := u.Record(t.Context(), order(), ingest.UploadRequest{Encoding: tt.encoding, Body: bytes.NewReader(tt.body)})
			if tt.code == "" {
				if err != nil || res.Accepted != 30_000 {
					t.Errorf("got %+v, %v", res, err)
				}
			} else if domain.CodeOf(err) != tt.code || log.appends > 0 {
				t.Errorf("got %v after %d appends", err, log.appends)
			}
			if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
				t.Errorf("the spool holds %v, %v", left, err)
			}
		})
	}
}

func TestTooManyBytesInFlightAreUnavailable(t *testing.T) {
	u := newUsage(t, newMemLog(), func(c *ingest.UsageConfig) { c.InFlightBytesMax = 1000 })
	_, err := u.Record(t.Context(), order(), ingest.UploadRequest{Body: body(lines("a", 100))})
	if domain.CodeOf(err) != domain.Unavailable {
		t.Errorf("got %v", err)
	}
	record(t, u, "", lines("a", 2)) // The budget was given back.
}

func TestABodyThatBreaksOffStoresNothing(t *testing.T) {
	log := newMemLog()
	_, err := newUsage(t, log, nil).Record(t.Context(), order(), ingest.UploadRequest{Body: &brokenReader{left: lines("a", 10)}})
	if domain.CodeOf(err) != domain.Invalid || log.appends > 0 {
		t.Errorf("got %v, %d appends", err, log.appends)
	}
}

type brokenReader struct{ left string }

func (r *brokenReader) Read(p []byte) (int, error) {
	n := copy(p, r.left)
	r.left = r.left[n:]
	if n == 0 {
		return 0, errors.New("connection reset")
	}
	return n, nil
}

func TestManySmallUploadsShareAppends(t *testing.T) {
	t.Cleanup(func() { goleak.VerifyNone(t, goleak.IgnoreCurrent()) })
	log := newMemLog()
	gate := make(chan struct{})
	var once sync.Once
	log.fault = func(string, int) fault { once.Do(func() { <-gate }); return fine }
	u := newUsage(t, log, func(c *ingest.UsageConfig) { c.Workers = 64 })
	var wg, started sync.WaitGroup
	for i := range 64 {
		started.Add(1)
		wg.Go(func() {
			started.Done()
			if _, err := u.Record(context.Background(), order(), ingest.UploadRequest{Body: body(lines(fmt.Sprint("p", i), 5))}); err != nil {
				t.Error(err)
			}
		})
	}
	started.Wait()
	close(gate)
	wg.Wait()
	if n := len(usesIn(t, log, "client")); n != 320 {
		t.Errorf("%d uses", n)
	}
}

func TestOldHistoryOfASlotIsNotReadAndABatchIsForgottenAfterSevenDays(t *testing.T) {
	log := newMemLog()
	now := usageNow
	log.now = func() time.Time { return now }
	node := func() *ingest.Usage {
		u := newUsage(t, log, func(c *ingest.UsageConfig) { c.Now = func() time.Time { return now } })
		ingest.KeepBatches(u, 1)
		return u
	}
	record(t, node(), "b1", lines("a", 1))
	now = now.Add(6 * 24 * time.Hour)
	_, err := node().Record(t.Context(), order(), ingest.UploadRequest{Batch: "b1", Body: body(lines("b", 1))})
	if domain.CodeOf(err) != domain.Conflict {
		t.Errorf("after six days: %v", err)
	}
	record(t, node(), "b2", lines("c", 1))
	now = now.Add(2 * 24 * time.Hour)
	record(t, node(), "b1", lines("b", 1))
	if n := len(usesIn(t, log, "client")); n != 3 {
		t.Errorf("%d uses", n)
	}
}

func TestAClockThatJumpsForgetsNoneOfTheNewestBatches(t *testing.T) {
	log := newMemLog()
	now := usageNow
	log.now = func() time.Time { return now }
	with := func(c *ingest.UsageConfig) { c.Now = func() time.Time { return now } }
	u := newUsage(t, log, with)
	first := record(t, u, "b1", lines("a", 3))
	for i, jump := range []time.Duration{40 * 24 * time.Hour, -60 * 24 * time.Hour, 400 * 24 * time.Hour} {
		now = now.Add(jump)
		record(t, u, fmt.Sprint("other", i), lines(fmt.Sprint("o", i), 1)) // It also makes the node forget what is old.
		for name, node := range map[string]*ingest.Usage{"the same node": u, "another": newUsage(t, log, with)} {
			if diff := cmp.Diff(first, record(t, node, "b1", lines("a", 3))); diff != "" {
				t.Errorf("%s, clock moved by %s: %s", name, jump, diff)
			}
			_, err := node.Record(t.Context(), order(), ingest.UploadRequest{Batch: "b1", Body: body(lines("b", 1))})
			if domain.CodeOf(err) != domain.Conflict {
				t.Errorf("%s, clock moved by %s: other bytes: %v", name, jump, err)
			}
		}
	}
	if n := len(usesIn(t, log, "client")); n != 3+3 {
		t.Errorf("%d uses, want 6", n)
	}
}

func TestLargeRecordsAreCutIntoEventsThatFit(t *testing.T) {
	log := newMemLog()
	var text strings.Builder
	noise := uint64(1)
	for i := range 60 {
		fmt.Fprintf(&text, `{"id":"a-%d","time":"2026-04-30T10:00:00Z"`, i)
		for k := range 3 {
			fmt.Fprintf(&text, `,"l%d":"`, k)
			for range 3000 {
				noise = noise*6364136223846793005 + 1442695040888963407
				fmt.Fprintf(&text, "%016x", noise)
			}
			text.WriteString(`"`)
		}
		text.WriteString("}\n")
	}
	record(t, newUsage(t, log, nil), "b", text.String())
	wantUses(t, log, 60)
}

func TestAnEmptyUploadLeavesNothing(t *testing.T) {
	log := newMemLog()
	for _, text := range []string{"", "\n\n", "bad\nbad"} {
		res := record(t, newUsage(t, log, nil), "", text)
		if res.Accepted != 0 || res.Position != 0 || log.appends != 0 {
			t.Errorf("%q: got %+v", text, res)
		}
	}
}

func TestOnlyThoseWithTheRightMayIngest(t *testing.T) {
	for _, role := range []domain.Role{domain.RoleAdministrator, domain.RoleIngester, domain.RoleViewer, domain.RoleAuditor, domain.RoleVerifier} {
		log := newMemLog()
		o := ingest.Order{Caller: auth.NewCaller(domain.Initiator{IAMID: "x", Account: mine}, auth.FixedStandings{mine: {Roles: []domain.Role{role}}})}
		res, err := newUsage(t, log, nil).Record(t.Context(), o, ingest.UploadRequest{Body: body(lines("a", 1))})
		want := uint64(0)
		if role == domain.RoleAdministrator || role == domain.RoleIngester {
			want = 1
		}
		if err != nil || res.Accepted != want {
			t.Errorf("%s: %+v, %v", role, res, err)
		}
	}
}

func TestABatchNameThatIsNoneIsRefused(t *testing.T) {
	for _, name := range []string{"a b", strings.Repeat("x", 129), "ü"} {
		_, err := newUsage(t, newMemLog(), nil).Record(t.Context(), order(), ingest.UploadRequest{Batch: name, Body: body("")})
		if domain.CodeOf(err) != domain.Invalid {
			t.Errorf("%q: %v", name, err)
		}
	}
}

func TestALogWithoutAnswerIsUnavailableAndNothingElse(t *testing.T) {
	log := newMemLog()
	log.fault = func(string, int) fault { return lost }
	_, err := newUsage(t, log, nil).Record(t.Context(), order(), ingest.UploadRequest{Body: body(lines("a", 1))})
	if domain.CodeOf(err) != domain.Unavailable || !errors.Is(err, eventlog.ErrUnavailable) {
		t.Errorf("got %v", err)
	}
}
