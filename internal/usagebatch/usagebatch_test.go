package usagebatch_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/klauspost/compress/zstd"
	"pgregory.net/rapid"

	"example.com/keytrail/domain"
	"example.com/keytrail/internal/usagebatch"
)

// anyUse draws uses from small sets, so that dictionaries see repeats, and from
// everything, so that they see surprises.
func anyUse() *rapid.Generator[domain.Use] {
	text := rapid.OneOf(rapid.SampledFrom([]string{"", "a", "b", "GET", "x\x00y", "\xff\xfe"}), rapid.String())
	id := rapid.OneOf(text, rapid.Custom(func(t *rapid.T) string {
		return domain.DeriveID("test", rapid.String().Draw(t, "seed")).String()
	}), rapid.Just("0123456789-abcdef-0123456789-abcdef-"), rapid.Just("3F2504E0-4F89-41D3-9A0C-0305E82C3301"))
	return rapid.Custom(func(t *rapid.T) domain.Use {
		u := domain.Use{
			ID:   id.Draw(t, "id"),
			Time: time.UnixMilli(rapid.Int64Range(-62135596800000, 253402300799999).Draw(t, "time")).UTC(),

			Account: domain.AccountID(text.Draw(t, "account")), KeyID: domain.KeyID(text.Draw(t, "key")),
			KeyFingerprint: text.Draw(t, "fingerprint"), IAMID: domain.IAMID(text.Draw(t, "iam")),
			Action: text.Draw(t, "action"), Access: domain.Access(text.Draw(t, "access")),
			Outcome: domain.Outcome(text.Draw(t, "outcome")), Status: int(rapid.Int32().Draw(t, "status")),
			ErrorCode: text.Draw(t, "error"), Source: text.Draw(t, "source"), UserAgent: text.Draw(t, "agent"),
			Region: text.Draw(t, "region"), Target: text.Draw(t, "target"), RequestID: id.Draw(t, "request"),
			LatencyMS: rapid.Uint32().Draw(t, "latency"), Bytes: rapid.Uint64().Draw(t, "bytes"),
			Country: text.Draw(t, "country"), ASN: rapid.Uint32().Draw(t, "asn"),
		}
		if l := rapid.MapOfN(text, text, 0, 5).Draw(t, "labels"); len(l) > 0 {
			u.Labels = l
		}
		return u
	})
}

func TestWhatIsEncodedIsDecodedInOrder(t *testing.T) {
	c := newCodec(t)
	rapid.Check(t, func(t *rapid.T) {
		uses := rapid.SliceOfN(anyUse(), 0, 40).Draw(t, "uses")
		data, err := c.Encode(uses)
		if err != nil {
			t.Fatalf("encode: %v", err)
		}
		got, err := c.Decode(data)
		if err != nil {
			t.Fatalf("decode: %v", err)
		}
		if diff := cmp.Diff(uses, got); len(uses) > 0 && diff != "" {
			t.Fatalf("round trip (-want +got):\n%s", diff)
		}
		again, err := usagebatch.Encode(got)
		if err != nil || !bytes.Equal(data, again) {
			t.Fatalf("a second encoder gives other bytes for the same uses: %v", err)
		}
	})
}

func TestDictionariesOfEverySizeKeepTheirIndexes(t *testing.T) {
	c := newCodec(t)
	for _, n := range []int{1, 2, 255, 256, 257, 70, 20000, usagebatch.UsesMax} {
		t.Run(fmt.Sprintf("distinct=%d", n), func(t *testing.T) {
			uses := make([]domain.Use, max(n, 300))
			for i := range uses {
				uses[i].Time = time.UnixMilli(int64(i)).UTC()
				uses[i].Target = fmt.Sprint("target-", i%n)
				uses[i].Labels = map[string]string{"n": fmt.Sprint(i % n)}
			}
			data, err := c.Encode(uses)
			if err != nil {
				t.Fatal(err)
			}
			got, err := c.Decode(data)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(uses, got); diff != "" {
				t.Fatal(diff[:min(len(diff), 2000)])
			}
		})
	}
}

// TestStoredBytesOfVersion1AreStillRead holds the reader to bytes that were written
// once. KEYTRAIL_GOLDEN=write makes the file for a new version.
func TestStoredBytesOfVersion1AreStillRead(t *testing.T) {
	path := filepath.Join("testdata", "v1.batch")
	want := sample(50, 7)
	if os.Getenv("KEYTRAIL_GOLDEN") == "write" {
		data, err := usagebatch.Encode(want)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	got, err := usagebatch.Decode(data)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Fatal(diff)
	}
}

func TestEncodeRefusesWhatItWouldLose(t *testing.T) {
	labels := make(map[string]string)
	for i := range usagebatch.LabelsMax + 1 {
		labels[fmt.Sprint(i)] = "x"
	}
	big := make([]domain.Use, 70)
	for i := range big {
		big[i].Target = fmt.Sprint(i) + strings.Repeat("x", 256<<10)
	}
	tests := []struct {
		name     string
		uses     []domain.Use
		tooLarge bool
	}{
		{name: "a time finer than a millisecond", uses: []domain.Use{{Time: time.Unix(0, 1)}}},
		{name: "a year beyond 9999", uses: []domain.Use{{Time: time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC)}}},
		{name: "the last possible time", uses: []domain.Use{{Time: time.Unix(math.MaxInt64, 0)}}},
		{name: "too many uses", uses: make([]domain.Use, usagebatch.UsesMax+1), tooLarge: true},
		{name: "too many labels", uses: []domain.Use{{Labels: labels}}, tooLarge: true},
		{name: "too many bytes", uses: big, tooLarge: true},
	}
	c := newCodec(t)
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := c.Encode(tt.uses)
			if err == nil || errors.Is(err, usagebatch.ErrTooLarge) != tt.tooLarge {
				t.Errorf("got error %v, want too large: %v", err, tt.tooLarge)
			}
		})
	}
}

func TestDecodeRefusesEveryDamage(t *testing.T) {
	c := newCodec(t)
	data, err := c.Encode(sample(40, 1))
	if err != nil {
		t.Fatal(err)
	}
	for i := range data {
		if _, err := c.Decode(data[:i]); !errors.Is(err, usagebatch.ErrMalformed) {
			t.Fatalf("cut to %d of %d bytes: %v", i, len(data), err)
		}
		bad := bytes.Clone(data)
		bad[i] ^= 0x10
		if _, err := c.Decode(bad); err == nil {
			// The frame header has bits without meaning; whatever they are, the uses
			// must be the same.
			got, _ := c.Decode(bad)
			if diff := cmp.Diff(sample(40, 1), got); diff != "" {
				t.Fatalf("byte %d damaged, decoded to other uses", i)
			}
		}
	}
	if _, err := c.Decode(append(bytes.Clone(data), 0)); !errors.Is(err, usagebatch.ErrMalformed) {
		t.Errorf("a trailing byte: %v", err)
	}
}

func TestDecodeOfHostileSizesAllocatesLittle(t *testing.T) {
	c := newCodec(t)
	tests := []struct {
		name string
		body []byte
	}{
		{name: "more uses than a batch may have", body: binary.AppendUvarint(nil, usagebatch.UsesMax+1)},
		{name: "a column longer than the body", body: append(binary.AppendUvarint(nil, 1), binary.AppendUvarint(nil, math.MaxUint64)...)},
		{name: "a dictionary larger than its column", body: columns(1, map[int][]byte{7: {0xff, 0xff, 0x03}})},
		{name: "an empty dictionary", body: columns(1, map[int][]byte{7: {0x00}})},
		{name: "an index beyond its dictionary", body: columns(1, map[int][]byte{7: {2, 1, 'a', 1, 'b', 9}})},
		{name: "a label list of billions", body: columns(1, map[int][]byte{21: {0xff, 0xff, 0xff, 0xff, 0x0f}})},
		{name: "a label set with a key twice", body: columns(1, map[int][]byte{21: {1, 1, 'k', 1, 1, 'v', 1, 2, 0, 0, 0, 0, 1}})},
		{name: "a time that overflows", body: columns(1, map[int][]byte{2: binary.AppendUvarint(nil, math.MaxUint64)})},
		{name: "an overlong number", body: columns(1, map[int][]byte{17: bytes.Repeat([]byte{0xff}, 11)})},
		{name: "a text longer than its payload", body: columns(1, map[int][]byte{1: {0x7f, 'a'}})},
		{name: "a UUID that is not there", body: columns(1, map[int][]byte{1: {0}})},
		{name: "a status beyond 32 bits", body: columns(1, map[int][]byte{10: binary.AppendUvarint(nil, 1<<40)})},
		{name: "a column with bytes left over", body: columns(1, map[int][]byte{17: {1, 1}})},
		{name: "no columns", body: []byte{1}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := c.Decode(pack(t, tt.body)); !errors.Is(err, usagebatch.ErrMalformed) {
				t.Errorf("got %v, want a malformed batch", err)
			}
		})
	}
	t.Run("a body that expands a thousandfold", func(t *testing.T) {
		bomb := pack(t, make([]byte, usagebatch.BodyBytesMax+1))
		if _, err := c.Decode(bomb); !errors.Is(err, usagebatch.ErrMalformed) {
			t.Errorf("got %v, want a malformed batch", err)
		}
		lying := append(binary.AppendUvarint([]byte{usagebatch.Version}, 8), bomb[5:]...)
		if _, err := c.Decode(lying); !errors.Is(err, usagebatch.ErrMalformed) {
			t.Errorf("got %v, want a malformed batch", err)
		}
	})
}

// columns builds a body of n uses whose columns are empty but the given ones.
func columns(n uint64, set map[int][]byte) []byte {
	b := binary.AppendUvarint(nil, n)
	for i := 1; i <= 21; i++ {
		col, ok := set[i]
		if !ok && i == 2 {
			col = make([]byte, n)
		}
		b = binary.AppendUvarint(b, uint64(len(col)))
		b = append(b, col...)
	}
	return b
}

func pack(tb testing.TB, body []byte) []byte {
	tb.Helper()
	w, err := zstd.NewWriter(nil)
	if err != nil {
		tb.Fatal(err)
	}
	return w.EncodeAll(body, binary.AppendUvarint([]byte{usagebatch.Version}, uint64(len(body))))
}

func FuzzDecode(f *testing.F) {
	c, err := usagebatch.New()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(columns(1, nil))
	f.Add(columns(2, map[int][]byte{1: {0, 3, 'a', 'b'}, 21: {1, 1, 'k', 1, 1, 'v', 1, 1, 0, 0, 0, 1}}))
	f.Fuzz(func(t *testing.T, body []byte) {
		uses, err := c.Decode(pack(t, body))
		if err != nil {
			if !errors.Is(err, usagebatch.ErrMalformed) {
				t.Fatalf("error of another kind: %v", err)
			}
			return
		}
		data, err := c.Encode(uses)
		if err != nil {
			t.Fatalf("what was decoded cannot be encoded: %v", err)
		}
		got, err := c.Decode(data)
		if err != nil || !cmp.Equal(uses, got) {
			t.Fatalf("second round differs: %v\n%s", err, cmp.Diff(uses, got))
		}
	})
}

func newCodec(tb testing.TB) *usagebatch.Codec {
	tb.Helper()
	c, err := usagebatch.New()
	if err != nil {
		tb.Fatal(err)
	}
	return c
}

// sample returns n uses as a busy service makes them.
func sample(n int, seed uint64) []domain.Use {
	r := rand.New(rand.NewPCG(seed, seed))
	uses := make([]domain.Use, n)
	at := time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)
	for i := range uses {
		at = at.Add(time.Duration(r.IntN(200)) * time.Millisecond)
		uses[i] = domain.Use{
			ID: domain.DeriveID("sample", fmt.Sprint(seed, i)).String(), Time: at,
			Account: domain.AccountID(fmt.Sprint("acc-", r.IntN(5))), KeyID: domain.KeyID(fmt.Sprint("ApiKey-", r.IntN(200))),
			IAMID: domain.IAMID(fmt.Sprint("IBMid-", r.IntN(100))), Action: fmt.Sprint("storage.object.", r.IntN(30)),
			Access: domain.AccessRead, Outcome: domain.OutcomeSuccess, Status: 200,
			Source: fmt.Sprintf("10.%d.%d.7", r.IntN(4), r.IntN(50)), UserAgent: fmt.Sprint("sdk/", r.IntN(8)), Region: "eu-de",
			Target: fmt.Sprint("crn:v1:bucket:", r.IntN(2000)), RequestID: domain.DeriveID("request", fmt.Sprint(seed, i)).String(),
			LatencyMS: uint32(r.IntN(400)), Bytes: uint64(r.IntN(1 << 20)),
		}
		if i%50 == 0 {
			uses[i].Labels = map[string]string{"env": "prod", "team": fmt.Sprint(r.IntN(4))}
		}
	}
	return uses
}

// go test -run '^$' -bench . -count 6 ./internal/usagebatch | benchstat -
func BenchmarkEncode(b *testing.B) {
	c := newCodec(b)
	uses := sample(16384, 1)
	b.Run("uses=16384", func(b *testing.B) {
		b.ReportAllocs()
		size := 0
		for b.Loop() {
			data, err := c.Encode(uses)
			if err != nil {
				b.Fatal(err)
			}
			size = len(data)
		}
		b.ReportMetric(float64(b.N)*float64(len(uses))/b.Elapsed().Seconds(), "uses/s")
		b.ReportMetric(float64(size)/float64(len(uses)), "bytes/use")
	})
}

func BenchmarkDecode(b *testing.B) {
	c := newCodec(b)
	uses := sample(16384, 1)
	data, err := c.Encode(uses)
	if err != nil {
		b.Fatal(err)
	}
	b.Run("uses=16384", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := c.Decode(data); err != nil {
				b.Fatal(err)
			}
		}
		b.ReportMetric(float64(b.N)*float64(len(uses))/b.Elapsed().Seconds(), "uses/s")
	})
}
