package simulator_test

import (
	"bytes"
	"encoding/json"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/klauspost/compress/zstd"
	"go.uber.org/goleak"

	"example.com/keytrail/domain"
	"example.com/keytrail/internal/client"
	"example.com/keytrail/internal/cloudtrail"
	"example.com/keytrail/internal/simulator"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func config(seed uint64) simulator.Config {
	return simulator.Config{Seed: seed, End: time.Date(2026, 5, 4, 9, 30, 0, 0, time.UTC), Uses: 30_000}
}

func observed(t *testing.T, cfg simulator.Config) []cloudtrail.Observed {
	t.Helper()
	var out []cloudtrail.Observed
	for rec := range simulator.Generate(cfg) {
		o, err := cloudtrail.Parser{}.Parse(rec.JSON)
		if err != nil {
			t.Fatalf("%s: %v", rec.JSON, err)
		}
		out = append(out, o)
	}
	return out
}

func TestTheSameSeedGivesTheSameBytesAndAnotherOthers(t *testing.T) {
	all := func(cfg simulator.Config) []byte {
		var b bytes.Buffer
		for rec := range simulator.Generate(cfg) {
			b.Write(rec.JSON)
		}
		return b.Bytes()
	}
	first := all(config(1))
	if !bytes.Equal(first, all(config(1))) {
		t.Error("two runs with one seed differ")
	}
	if bytes.Equal(first, all(config(2))) {
		t.Error("the seed does not matter")
	}
	if diff := cmp.Diff(simulator.Attacks(config(1)), simulator.Attacks(config(1))); diff != "" {
		t.Error(diff)
	}
}

func TestTheMonthIsInOrderAndAboutAsLargeAsAsked(t *testing.T) {
	cfg := config(3)
	uses := observed(t, cfg)
	if n := len(uses); n < 25_000 || n > 36_000 {
		t.Errorf("%d records for %d asked", n, cfg.Uses)
	}
	ids := map[string]bool{}
	last := cfg.End.Add(-30 * 24 * time.Hour)
	for _, o := range uses {
		if o.Use.Time.Before(last) || !o.Use.Time.Before(cfg.End) || ids[o.Use.ID] {
			t.Fatalf("use %s at %s after %s, id twice: %v", o.Use.ID, o.Use.Time, last, ids[o.Use.ID])
		}
		last, ids[o.Use.ID] = o.Use.Time, true
	}
	if i := slices.IndexFunc(uses, func(o cloudtrail.Observed) bool { return !o.Use.Time.Before(cfg.End.Add(-24 * time.Hour)) }); i < 0 {
		t.Error("nothing happens on the last day")
	}
}

func TestHonestKeysAreUsedOnlyWhileTheyAreValidAndStayQuiet(t *testing.T) {
	cfg := config(4)
	thieves := map[string]bool{}
	state := map[domain.KeyID]domain.ObservedFact{}
	denied := map[domain.KeyID][]time.Time{}
	for _, o := range observed(t, cfg) {
		u := o.Use
		if strings.HasPrefix(u.Source, "192.0.2.") {
			thieves[u.Source] = true
			continue
		}
		if f := state[u.KeyID]; strings.HasPrefix(string(u.KeyID), "AKIA") && f != domain.ObservedCreated {
			t.Fatalf("key %s is used at %s while it is %q", u.KeyID, u.Time, f)
		}
		for _, f := range o.Facts {
			state[f.ID] = f.Fact
		}
		if u.Status == 403 {
			denied[u.KeyID] = append(denied[u.KeyID], u.Time)
		}
		if u.Action == "iam:CreateAccessKey" && u.Labels[cloudtrail.LabelFromConsole] != "true" {
			t.Errorf("%s makes a key without the console", u.IAMID)
		}
	}
	for key, at := range denied {
		for i := 14; i < len(at); i++ {
			if at[i].Sub(at[i-14]) <= 10*time.Minute {
				t.Errorf("honest key %s is refused 15 times within 10 minutes at %s", key, at[i])
			}
		}
	}
	if len(thieves) != 4 {
		t.Errorf("thieves come from %v, want four addresses", slices.Sorted(maps.Keys(thieves)))
	}
	count := map[domain.ObservedFact]int{}
	for _, f := range state {
		count[f]++
	}
	if count[domain.ObservedDeleted] < 2 || count[domain.ObservedDisabled] < 1 || count[domain.ObservedCreated] < 30 {
		t.Errorf("states at the end: %v", count)
	}
}

func TestTheAttacksAreWhatTheirRulesLookFor(t *testing.T) {
	cfg := config(5)
	uses := observed(t, cfg)
	attacks := simulator.Attacks(cfg)
	if len(attacks) != 4 {
		t.Fatalf("%d attacks", len(attacks))
	}
	var rules []string
	for _, a := range attacks {
		rules = append(rules, a.Rules...)
		n, denied, looks, actions := 0, 0, map[string]bool{}, map[string]bool{}
		for _, o := range uses {
			u := o.Use
			if u.KeyID != a.Key || u.Account != a.Account || u.Time.Before(a.At) || !strings.HasPrefix(u.Source, "192.0.2.") {
				continue
			}
			n++
			actions[u.Action] = true
			if u.Status == 403 {
				denied++
			}
			if u.Access == domain.AccessRead && u.Time.Before(a.At.Add(10*time.Second)) {
				looks[u.Action] = true
			}
		}
		switch {
		case n == 0:
			t.Errorf("%s: the key is not used", a.Title)
		case slices.Contains(a.Rules, "denied-burst") && (denied < 15 || len(looks) < 5):
			t.Errorf("%s: %d refused, %d looks", a.Title, denied, len(looks))
		case slices.Contains(a.Rules, "audit-tamper") && (!actions["cloudtrail:StopLogging"] || !actions["iam:CreateAccessKey"]):
			t.Errorf("%s: %v", a.Title, actions)
		}
	}
	slices.Sort(rules)
	want := []string{"audit-tamper", "denied-burst", "key-makes-keys", "key-use-after-delete", "key-use-after-disable", "recon-burst"}
	if diff := cmp.Diff(want, rules); diff != "" {
		t.Error(diff)
	}
}

func TestLoadSendsEveryRecordAndUsesItsOwnKeys(t *testing.T) {
	records, uses := 0, 0
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var body io.Reader = r.Body
		if r.Header.Get("Content-Encoding") == "zstd" {
			z, err := zstd.NewReader(r.Body)
			if err != nil {
				t.Error(err)
				return
			}
			defer z.Close()
			body = z
		}
		b, err := io.ReadAll(body)
		if err != nil {
			t.Error(err)
		}
		n := bytes.Count(b, []byte("\n"))
		answer := map[string]any{"accepted": n, "uses": n}
		switch r.URL.Path {
		case "/v1/imports/cloudtrail":
			records += n
		case "/v1/usage":
			uses += n
			if bytes.Contains(b, []byte("kt_")) {
				t.Error("a secret is sent as a use")
			}
		case "/v1/apikeys/details":
			answer = map[string]any{"iam_id": "IBMid-1", "account_id": "a"}
		case "/v1/apikeys":
			answer = map[string]any{"id": "ApiKey-1", "apikey": "kt_secret"}
		}
		if err := json.NewEncoder(w).Encode(answer); err != nil {
			t.Error(err)
		}
	}))
	defer srv.Close()
	c, err := client.New(client.Config{Server: srv.URL, Key: "k"})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	cfg := config(6)
	cfg.Uses = 3000
	sum, err := simulator.Load(t.Context(), simulator.LoadOptions{Client: c, Config: cfg, NativeKeys: 2, Now: func() time.Time { return cfg.End }})
	if err != nil {
		t.Fatal(err)
	}
	want := 0
	for range simulator.Generate(cfg) {
		want++
	}
	if records != want || sum.Uses != uint64(want) || uses != 40 || sum.NativeUses != 40 || len(sum.Native) != 2 || len(sum.Attacks) != 4 {
		t.Errorf("sent %d records of %d and %d uses: %+v", records, want, uses, sum)
	}
}
