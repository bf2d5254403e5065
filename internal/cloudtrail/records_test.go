package cloudtrail_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/google/go-cmp/cmp"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"

	"example.com/keytrail/internal/cloudtrail"
)

// read returns every record as text and every malformed one as its message.
func read(r io.Reader) (got []string, fatal error) {
	for raw, err := range cloudtrail.Records(r) {
		var bad *cloudtrail.Malformed
		switch {
		case errors.As(err, &bad):
			got = append(got, "! "+bad.Error())
		case err != nil:
			return got, err
		default:
			got = append(got, fmt.Sprint(raw.Ordinal, " ", string(raw.JSON)))
		}
	}
	return got, nil
}

func TestEveryEnvelopeGivesItsRecords(t *testing.T) {
	three := []string{`1 {"a":1}`, `2 {"b":2}`, `3 {"c":3}`}
	tests := []struct {
		name string
		in   string
		want []string
	}{
		{name: "nothing", in: " \n"},
		{name: "records on one line", in: `{"Records":[{"a":1},{"b":2},{"c":3}]}`, want: three},
		{name: "records, pretty", in: "{\n  \"Records\": [\n {\"a\":\n1}, {\"b\":2},\n{\"c\":3}\n]\n}\n", want: three},
		{name: "records after other members", in: "{\n\"version\":1,\"Records\":[{\"a\":1},{\"b\":2},{\"c\":3}]}", want: three},
		{name: "an envelope a line", in: `{"Records":[{"a":1},{"b":2}]}` + "\n" + `{"Records":[{"c":3}]}`, want: three},
		{name: "envelopes joined", in: `{"Records":[{"a":1},{"b":2}]}{"Records":[{"c":3}]}`, want: three},
		{name: "an array", in: ` [{"a":1}, {"b":2}, {"c":3}]`, want: three},
		{name: "one a line", in: "{\"a\":1}\n{\"b\":2}\r\n\n{\"c\":3}", want: three},
		{name: "one a line, a later line an envelope", in: "{\"a\":1}\n{\"Records\":[{\"b\":2},{\"c\":3}]}", want: three},
		{name: "one object", in: "{\n\"a\" : 1\n}", want: []string{`1 {"a":1}`}},
		{name: "pretty objects after each other", in: "{\n\"a\":1}\n{\n\"b\":2}\n{\"c\":3}", want: three},
		{name: "a byte order mark", in: "\ufeff{\"a\":1}", want: []string{`1 {"a":1}`}},
		{name: "an empty envelope", in: `{"Records":[]}`},
		{name: "a record about records", in: `{"a":"\"Records\""}`, want: []string{`1 {"a":"\"Records\""}`}},
	}
	for _, tt := range tests {
		for pack, in := range packings(t, tt.in) {
			t.Run(tt.name+"/"+pack, func(t *testing.T) {
				got, err := read(iotest.OneByteReader(bytes.NewReader(in)))
				if err != nil {
					t.Fatal(err)
				}
				if diff := cmp.Diff(tt.want, got); diff != "" {
					t.Error(diff)
				}
			})
		}
	}
}

func TestMalformedRecordsAreCountedAndTheRestIsRead(t *testing.T) {
	long := strings.Repeat("x", cloudtrail.RecordBytesMax)
	tests := []struct {
		name string
		in   string
		want []string
	}{
		{name: "a bad line", in: "{\"a\":1}\n{\"b\":}\n{\"c\":3}", want: []string{`1 {"a":1}`, "! record 2: not valid JSON after byte 5", `3 {"c":3}`}},
		{name: "a bad first line", in: "{bad}\n{\"c\":3}", want: []string{"! record 1: not valid JSON after byte 1", `2 {"c":3}`}},
		{name: "text", in: "hello\n{\"c\":3}", want: []string{"! record 1: not valid JSON after byte 0", `2 {"c":3}`}},
		{name: "two values on a line", in: "{\"a\":1}\n{}{}\n", want: []string{`1 {"a":1}`, "! record 2: more than one value on the line"}},
		{name: "no object", in: `[{"a":1},7,{"c":3}]`, want: []string{`1 {"a":1}`, "! record 2: not a JSON object", `3 {"c":3}`}},
		{name: "a member twice", in: "{\"a\":1}\n{\"b\":1,\"b\":2}\n", want: []string{`1 {"a":1}`, "! record 2: a member occurs twice"}},
		{name: "a line too long", in: "{\"a\":1}\n{\"b\":\"" + long + "\"}\n{\"c\":3}", want: []string{`1 {"a":1}`, "! record 2: line of more than 1048576 bytes", `3 {"c":3}`}},
		{name: "a record too long in an array", in: `[{"a":1},{"b":"` + long + `"},{"c":3}]`, want: []string{`1 {"a":1}`, "! record 2: 1048584 bytes, at most 1048576", `3 {"c":3}`}},
		{name: "a record without end", in: `[{"a":1},{"b":"` + strings.Repeat(long, 9), want: []string{`1 {"a":1}`, "! record 2 and all after it: record of more than 1048576 bytes"}},
		{name: "an array cut off", in: `[{"a":1},{"b":`, want: []string{`1 {"a":1}`, "! record 2 and all after it: cut off"}},
		{name: "an envelope cut off", in: `{"Records":[{"a":1}`, want: []string{`1 {"a":1}`, "! record 2 and all after it: cut off"}},
		{name: "an envelope broken on its line", in: "{\"a\":1}\n{\"Records\":[{\"b\":2},\n{\"c\":3}", want: []string{`1 {"a":1}`, `2 {"b":2}`, "! record 3: cut off", `4 {"c":3}`}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := read(strings.NewReader(tt.in))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Error(diff[:min(len(diff), 1000)])
			}
		})
	}
}

func TestAFaultOfTheSourceIsNoMalformedRecord(t *testing.T) {
	fault := errors.New("disk gone")
	for _, in := range []string{"{\"a\":1}\n", `[{"a":1},`, `{"Records":[{"a":1},`} {
		got, err := read(io.MultiReader(strings.NewReader(in), iotest.ErrReader(fault)))
		if !errors.Is(err, fault) {
			t.Errorf("%s: got %v, %v", in, got, err)
		}
	}
	zipped := packings(t, strings.Repeat("{\"a\":1}\n", 1000))["gzip"]
	if got, err := read(bytes.NewReader(zipped[:len(zipped)-4])); err == nil {
		t.Errorf("a gzip cut off is read as whole: %d records", len(got))
	}
}

func FuzzRecords(f *testing.F) {
	for _, in := range []string{`{"Records":[{"a":1}]}`, "[{},1]", "{\"a\":1}\n{bad\n", "\x1f\x8b", "\x28\xb5\x2f\xfd", "\ufeff"} {
		f.Add([]byte(in))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		n := uint64(0)
		for raw, err := range cloudtrail.Records(bytes.NewReader(in)) {
			var bad *cloudtrail.Malformed
			if err != nil && !errors.As(err, &bad) {
				continue
			}
			n++
			if err == nil && (raw.Ordinal != n || !jsontext.Value(raw.JSON).IsValid() || bytes.ContainsAny(raw.JSON, "\n")) {
				t.Fatalf("record %d: %d %q", n, raw.Ordinal, raw.JSON)
			}
			if bad != nil && bad.Ordinal != n {
				t.Fatalf("malformed record %d is numbered %d", n, bad.Ordinal)
			}
			if _, err := (cloudtrail.Parser{Default: "x"}).Parse(raw.JSON); err == nil && raw.JSON == nil {
				t.Fatal("nothing was parsed as a record")
			}
		}
	})
}

func packings(tb testing.TB, in string) map[string][]byte {
	tb.Helper()
	var g bytes.Buffer
	w := gzip.NewWriter(&g)
	if _, err := io.WriteString(w, in); err != nil {
		tb.Fatal(err)
	}
	if err := w.Close(); err != nil {
		tb.Fatal(err)
	}
	z, err := zstd.NewWriter(nil)
	if err != nil {
		tb.Fatal(err)
	}
	return map[string][]byte{"plain": []byte(in), "gzip": g.Bytes(), "zstd": z.EncodeAll([]byte(in), nil), "zstd of gzip": z.EncodeAll(g.Bytes(), nil)}
}
