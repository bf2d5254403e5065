package ingest_test

import (
	"bytes"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"pgregory.net/rapid"

	"example.com/keytrail/ingest"
)

// FuzzUsageBody holds the intake to its word on any bytes: every line is a use, a
// refusal or blank, what is accepted is in the log, and no answer quotes the input.
func FuzzUsageBody(f *testing.F) {
	f.Add([]byte(lines("a", 2)))
	f.Add([]byte("{\"time\":\"2026-01-01T00:00:00Z\",\"labels\":{\"\\u0061\":[1,{\"b\":null}]}}\n\n[]\n{\"time\":"))
	f.Add([]byte("{\"time\":\"2026-01-01T00:00:00+0000\",\"key_id\":\"kt_x\",\"a\":\"\xff\"}"))
	f.Fuzz(func(t *testing.T, in []byte) { checkBody(t, in) })
}

// TestAnyBodyIsTakenAtItsWord is the same on random damage to good lines: the fuzzer
// has to instrument a whole database engine before it starts.
func TestAnyBodyIsTakenAtItsWord(t *testing.T) {
	pieces := []string{
		`{`, `}`, `"`, `,`, `:`, `\`, `\u0061`, `\ud800`, "\n", "\r", "\x00", "\xff", `null`, `[]`, `1e9`, `-0`, `"labels":{`, `"time":`,
		`"2026-01-01T00:00:00Z"`, `"key_hash":"00"`, `"bytes":1.0`, `kt_x`, " ",
	}
	rapid.Check(t, func(rt *rapid.T) {
		in := []byte(lines("a", rapid.IntRange(0, 3).Draw(rt, "lines")))
		for range rapid.IntRange(1, 4).Draw(rt, "faults") {
			from := rapid.IntRange(0, len(in)).Draw(rt, "from")
			to := rapid.IntRange(from, min(len(in), from+8)).Draw(rt, "to")
			piece := rapid.SampledFrom(pieces).Draw(rt, "piece")
			in = slices.Concat(in[:from], []byte(piece), in[to:])
		}
		checkBody(t, in)
		if t.Failed() {
			rt.Fatalf("on %q", in)
		}
	})
}

func checkBody(t *testing.T, in []byte) {
	t.Helper()
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
}
