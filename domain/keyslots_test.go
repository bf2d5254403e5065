package domain_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"example.com/keytrail/domain"
)

// slotsOf folds the events that cmds cause.
func slotsOf(tb testing.TB, cmds ...domain.KeySlotCommand) domain.KeySlots {
	tb.Helper()
	var s domain.KeySlots
	for _, cmd := range cmds {
		events, err := s.Decide(cmd)
		if err != nil {
			tb.Fatalf("given %+v: %v", cmd, err)
		}
		for _, e := range events {
			s = s.Evolve(domain.Recorded{Event: e})
		}
	}
	return s
}

func takeSlot(id domain.KeyID, limit int, existing ...domain.KeyID) domain.TakeKeySlot {
	return domain.TakeKeySlot{Account: "acct1", IAMID: "User-1", KeyID: id, Kind: domain.KindUser, Limit: limit, Existing: existing}
}

func followSlot(id, predecessor domain.KeyID) domain.TakeKeySlot {
	c := takeSlot(id, 2)
	c.Predecessor = predecessor
	return c
}

func classicSlot(id domain.KeyID) domain.TakeKeySlot {
	c := takeSlot(id, domain.ClassicKeysMax)
	c.Kind = domain.KindClassic
	return c
}

func freeSlot(id domain.KeyID) domain.FreeKeySlot {
	return domain.FreeKeySlot{Account: "acct1", IAMID: "User-1", KeyID: id, Limit: 2}
}

func TestSlotRules(t *testing.T) {
	t.Parallel()
	taken, freed, adopted := domain.TypeKeySlotTaken, domain.TypeKeySlotFreed, domain.TypeKeySlotsAdopted
	near, reached := domain.TypeKeyLimitNeared, domain.TypeKeyLimitReached
	many := make([]domain.KeyID, 5001)
	for i := range many {
		many[i] = domain.KeyID(fmt.Sprint("old-", i))
	}
	cmds := func(c ...domain.KeySlotCommand) []domain.KeySlotCommand { return c }
	two := cmds(takeSlot("a", 2), takeSlot("b", 2))
	for _, tt := range []struct {
		name  string
		given []domain.KeySlotCommand
		when  domain.KeySlotCommand
		want  []string
		code  string
	}{
		{name: "a slot is taken", when: takeSlot("a", 20), want: []string{taken}},
		{name: "it is taken once", given: cmds(takeSlot("a", 20)), when: takeSlot("a", 20)},
		{name: "the last one reaches the limit, and nears it", given: cmds(takeSlot("a", 2)), when: takeSlot("b", 2), want: []string{taken, near, reached}},
		{name: "there is no more", given: two, when: takeSlot("c", 2), code: "key_limit_reached"},
		{name: "a raised limit gives room", given: two, when: takeSlot("c", 20), want: []string{taken}},
		{name: "a lowered limit takes none away, and gives none", given: cmds(takeSlot("a", 9), takeSlot("b", 9)), when: takeSlot("c", 1), code: "key_limit_reached"},
		{name: "a slot is freed", given: two, when: freeSlot("a"), want: []string{freed}},
		{name: "and freed once", given: append(slices.Clone(two), freeSlot("a")), when: freeSlot("a")},
		{name: "what was never taken is not freed", when: freeSlot("a")},
		{name: "the limit is told again when it is reached again", given: append(slices.Clone(two), freeSlot("a")), when: takeSlot("c", 2), want: []string{taken, near, reached}},
		{name: "keys from before count", when: takeSlot("a", 2, "x"), want: []string{adopted, taken, near, reached}},
		{name: "keys from before may be all", when: takeSlot("a", 1, "x"), code: "key_limit_reached"},
		{name: "a key that is not counted is freed with the others counted", when: domain.FreeKeySlot{KeyID: "z", Existing: []domain.KeyID{"x"}}, want: []string{adopted}},
		{name: "very many from before come in pieces", when: takeSlot("a", 9000, many...), want: []string{adopted}},
		{name: "and the slot is taken after the last", given: cmds(takeSlot("a", 9000, many...)), when: takeSlot("a", 9000, many...), want: []string{adopted, taken}},
		{name: "a successor is outside the limit", given: two, when: followSlot("c", "a"), want: []string{taken}},
		{name: "a key has one successor", given: append(slices.Clone(two), followSlot("c", "a")), when: followSlot("d", "a"), code: "already_rotated"},
		{name: "a successor has none while it is outside", given: append(slices.Clone(two), followSlot("c", "a")), when: followSlot("d", "c"), code: "rotation_under_way"},
		{name: "and one when it is in", given: append(slices.Clone(two), followSlot("c", "a"), freeSlot("a")), when: followSlot("d", "c"), want: []string{taken}},
		{name: "what has no slot has no successor", given: two, when: followSlot("c", "z"), code: "key_not_found"},
		{name: "a successor that took the place counts", given: append(slices.Clone(two), followSlot("c", "a"), freeSlot("a")), when: takeSlot("d", 2), code: "key_limit_reached"},
		{name: "a successor that ended first leaves room for another", given: append(slices.Clone(two), followSlot("c", "a"), freeSlot("c")), when: followSlot("d", "a"), want: []string{taken}},
		{name: "a classic key is no warning", when: classicSlot("a"), want: []string{taken}},
		{name: "there is one classic key", given: cmds(classicSlot("a")), when: classicSlot("b"), code: "classic_key_exists"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			events, err := slotsOf(t, tt.given...).Decide(tt.when)
			var got []string
			for _, e := range events {
				got = append(got, e.Type())
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("events (-want +got):\n%s", diff)
			}
			if code := messageCode(err); code != tt.code {
				t.Errorf("refused with %q, want %q: %v", code, tt.code, err)
			}
		})
	}
}

func messageCode(err error) string {
	if e, ok := err.(*domain.Error); ok { //nolint:errorlint // The rules wrap nothing.
		return e.MessageCode
	}
	return ""
}

// TestSlotsAreAValueThatCountsRight: whatever the history, the table holds what a plain one
// would, and an older value stays as it was.
func TestSlotsAreAValueThatCountsRight(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		var s domain.KeySlots
		plain := map[domain.KeyID]domain.KeyID{} // Predecessors.
		for range rapid.IntRange(0, 300).Draw(t, "steps") {
			id := domain.KeyID(fmt.Sprint("k", rapid.IntRange(0, 40).Draw(t, "key")))
			var cmd domain.KeySlotCommand = takeSlot(id, 30)
			switch rapid.IntRange(0, 3).Draw(t, "act") {
			case 0:
				cmd = freeSlot(id)
			case 1:
				cmd = followSlot(id, domain.KeyID(fmt.Sprint("k", rapid.IntRange(0, 40).Draw(t, "old"))))
			}
			events, _ := s.Decide(cmd)
			before, used := s, s.Used()
			for _, e := range events {
				s = s.Evolve(domain.Recorded{Event: e})
				if e, ok := e.(domain.KeySlotTaken); ok {
					plain[e.KeyID] = e.Predecessor
				}
				if e, ok := e.(domain.KeySlotFreed); ok {
					delete(plain, e.KeyID)
					for next, of := range plain {
						if of == e.KeyID {
							plain[next] = ""
						}
					}
				}
			}
			counted := 0
			for id, of := range plain {
				slot, ok := s.Slot(id)
				if !ok || slot.Predecessor != of {
					t.Fatalf("%s: %+v %t, want predecessor %q", id, slot, ok, of)
				}
				if of == "" {
					counted++
				}
			}
			if s.Used() != counted || len(slices.Collect(s.All())) != len(plain) || counted > 30 {
				t.Fatalf("used %d, all %d; want %d and %d", s.Used(), len(slices.Collect(s.All())), counted, len(plain))
			}
			if before.Used() != used {
				t.Fatal("an older value was changed")
			}
		}
	})
}

func TestAChosenValueIsOneKeysForEver(t *testing.T) {
	t.Parallel()
	var v domain.ReservedValue
	step := func(events []domain.Event) {
		for _, e := range events {
			v = v.Evolve(domain.Recorded{Event: e})
		}
	}
	events, err := v.Reserve("acct1", "a")
	step(events)
	if _, other := v.Reserve("acct2", "b"); err != nil || messageCode(other) != "duplicate_value" {
		t.Errorf("reserved %v, then another's: %v", err, other)
	}
	if again, err := v.Reserve("acct1", "a"); again != nil || err != nil {
		t.Errorf("again: %v, %v", again, err)
	}
	step(v.Release("acct2", "b"))
	if v.Key() != "a" {
		t.Error("released by who has it not")
	}
	step(v.Release("acct1", "a"))
	if _, err := v.Reserve("acct2", "b"); err != nil {
		t.Errorf("of a key that was never made: %v", err)
	}
}

func TestWhatAChosenValueMayBe(t *testing.T) {
	t.Parallel()
	good := "an own value: 32 characters long"
	for _, tt := range []struct{ name, value, code string }{
		{"32 characters", good, ""},
		{"31 characters", good[1:], "invalid_apikey_length"},
		{"512 characters", strings.Repeat("x", 512), ""},
		{"513 characters", strings.Repeat("x", 513), "invalid_apikey_length"},
		{"nothing", "", "invalid_apikey_length"},
		{"a line end", good + "\n", "invalid_apikey"},
		{"letters that no header carries", good + "é", "invalid_apikey"},
		{"a space at the end", good + " ", "invalid_apikey"},
		{"one of keytrail's", "kt_" + strings.Repeat("a", 49), "invalid_apikey"},
		{"a token", "eyJ" + strings.Repeat("a.", 2) + strings.Repeat("b", 32), "invalid_apikey"},
	} {
		err := domain.CheckChosenValue(tt.value)
		if messageCode(err) != tt.code {
			t.Errorf("%s: %q, want %q", tt.name, messageCode(err), tt.code)
		}
		if err != nil && tt.value != "" && strings.Contains(err.Error(), tt.value) {
			t.Errorf("%s: the refusal tells the value", tt.name)
		}
	}
}

func TestLimitsOfAnAccount(t *testing.T) {
	t.Parallel()
	account := domain.FoldAccount([]domain.Recorded{{Event: domain.AccountCreated{Account: "acct1", Owner: "User-1"}}})
	for _, tt := range []struct {
		name   string
		limits domain.AccountLimits
		events int
		code   string
	}{
		{"a limit for all", domain.AccountLimits{KeysPerIdentity: 30}, 1, ""},
		{"a limit for one", domain.AccountLimits{Identities: map[domain.IAMID]int{"User-1": 1}}, 1, ""},
		{"what is so already", domain.AccountLimits{}, 0, ""},
		{"too few", domain.AccountLimits{KeysPerIdentity: -1}, 0, "invalid_limit"},
		{"too many", domain.AccountLimits{KeysPerIdentity: domain.KeyLimitMax + 1}, 0, "invalid_limit"},
		{"none for one", domain.AccountLimits{Identities: map[domain.IAMID]int{"User-1": 0}}, 0, "invalid_limit"},
		{"nobody", domain.AccountLimits{Identities: map[domain.IAMID]int{"a b": 1}}, 0, "invalid_iam_id"},
	} {
		events, err := account.Decide(domain.SetAccountLimits{Limits: tt.limits})
		if len(events) != tt.events || messageCode(err) != tt.code {
			t.Errorf("%s: %d events, %v", tt.name, len(events), err)
		}
		if len(events) == 1 {
			after := account.Evolve(domain.Recorded{Event: events[0]}).Limits()
			if diff := cmp.Diff(tt.limits, after); diff != "" {
				t.Errorf("%s: %s", tt.name, diff)
			}
		}
	}
	l := domain.AccountLimits{KeysPerIdentity: 30, Identities: map[domain.IAMID]int{"User-1": 5}}
	if l.Keys("User-1") != 5 || l.Keys("User-2") != 30 || (domain.AccountLimits{}).Keys("User-1") != domain.KeyLimitDefault {
		t.Error("the limits are not those that were set")
	}
}
