package ingest_test

import (
	"bytes"
	"strings"
	"testing"
	"unicode/utf8"

	"example.com/keytrail/ingest"
)

// FuzzUsageBody holds the intake to its word on any bytes: every line is a use, a
// refusal or blank, what is accepted is in the log, and no answer quotes the input.
func FuzzUsageBody(f *testing.F) {
	f.Add([]byte(lines("a", 2)))
	f.Add([]byte("{\"time\":\"2026-01-01T00:00:00Z\",\"labels\":{\"\\u0061\":[1,{\"b\":null}]}}\n\n[]\n{\"time\":"))
	f.Add([]byte("{\"time\":\"2026-01-01T00:00:00+0000\",\"key_id\":\"kt_x\",\"a\":\"\xff\"}"))
	f.Fuzz(func(t *testing.T, in []byte) {
		log := newMemLog()
		res, err := newUsage(t, log, nil).Record(t.Context(), order(), ingest.UploadRequest{Body: bytes.NewReader(in)})
		if err != nil {
			t.Fatal(err)
		}
		want := uint64(0)
		for line := range bytes.SplitSeq(in, []byte("\n")) {
			if len(bytes.TrimSpace(line)) > 0 {
				want++
			}
		}
		uses := usesIn(t, log, "client")
		if res.Accepted+res.RejectedCount != want || uint64(len(uses)) != res.Accepted {
			t.Fatalf("%d lines: %d accepted, %d rejected, %d in the log", want, res.Accepted, res.RejectedCount, len(uses))
		}
		for _, u := range uses {
			if u.Account != mine || u.ID == "" || u.Time.IsZero() || !utf8.ValidString(u.Action+u.Target+u.ID) {
				t.Fatalf("recorded %+v", u)
			}
		}
		for _, r := range res.Rejected {
			if strings.Contains(r.Error, "kt_x") {
				t.Fatalf("line %d: %s", r.Line, r.Error)
			}
		}
	})
}
