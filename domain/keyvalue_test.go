package domain //nolint:testpackage // What strikes values out is not exported.

import (
	"encoding/json"
	"strings"
	"testing"
)

func TestNoEncodedEventHoldsAKeyValue(t *testing.T) {
	const secret = "kt_MDhCr2ypmhU0TPYYjNum39vcjmnplKvBfr5LEeU8iot0tklAbc"
	data, _, err := EncodeEvent(CommandRefused{
		Action: "a", Target: secret, TargetName: "name " + secret + ".", Reason: secret[:30] + " cut short",
		Request: json.RawMessage(`{"note":"` + secret + `"}`),
	})
	if err != nil {
		t.Fatal(err)
	}
	meta, err := EncodeMetadata(Metadata{CorrelationID: secret, Initiator: Initiator{Agent: "curl " + secret}})
	if err != nil {
		t.Fatal(err)
	}
	for what, b := range map[string][]byte{"event": data, "metadata": meta} {
		if strings.Contains(string(b), secret[5:20]) {
			t.Errorf("the %s holds the secret: %s", what, b)
		}
		if !json.Valid(b) {
			t.Errorf("the %s is no JSON any more: %s", what, b)
		}
	}
}

func TestRedactionLeavesOtherTextAlone(t *testing.T) {
	for _, s := range []string{"", "kt_", "kt_short", "ApiKey-0b24cafe", "AKIAIOSFODNN7EXAMPLE", "kt_nineteen0characters", "market_place kt_-x"} {
		if s == "kt_nineteen0characters" {
			s = s[:len(KeyValuePrefix)+keyValueDigitsMin-1]
		}
		if got := string(redactKeyValues([]byte(s))); got != s || LooksLikeKeyValue(s) {
			t.Errorf("redacted %q to %q", s, got)
		}
	}
	if !LooksLikeKeyValue("x kt_" + strings.Repeat("a", keyValueDigitsMin)) {
		t.Error("twenty digits after the prefix do not look like a key value")
	}
}
