package projections //nolint:testpackage // What the sink remembers is not exported.

import (
	"fmt"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"example.com/keytrail/domain"
)

// TestAKeyThatMayHaveBeenInvalidIsAlwaysAskedFor: whatever blocks this runner judges,
// fails to judge, judges twice or leaves to others, a changed key that ever had an end is
// among those that the tables are asked for; and a key that had none is asked for once.
func TestAKeyThatMayHaveBeenInvalidIsAlwaysAskedFor(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		var sound soundKeys
		exists, suspect := map[KeyRef]bool{}, map[KeyRef]bool{} // What the tables hold.
		asked := map[KeyRef]bool{}                              // Since the last gap.
		for block := uint64(1); block <= uint64(rapid.IntRange(1, 40).Draw(t, "blocks")); block++ {
			j := Judgement{Block: block, Changed: map[KeyRef]KeyChange{}}
			for range rapid.IntRange(0, 4).Draw(t, "changes") {
				k := KeyRef{Account: "a", Key: domain.KeyID(fmt.Sprint(rapid.IntRange(0, 5).Draw(t, "key")))}
				c := j.Changed[k]
				c.Made = c.Made || !exists[k]
				c.Ends = c.Ends || rapid.IntRange(0, 5).Draw(t, "ends") == 0
				j.Changed[k], exists[k], suspect[k] = c, true, suspect[k] || c.Ends
			}
			if rapid.IntRange(0, 6).Draw(t, "by another") == 0 {
				clear(asked)
				continue
			}
			for range rapid.IntRange(1, 2).Draw(t, "attempts") {
				doubtful := sound.doubtful(j)
				if !slices.IsSortedFunc(doubtful, compareKeys) {
					t.Fatalf("%v is not in order", doubtful)
				}
				var found []KeyRef
				for k := range j.Changed {
					in := slices.Contains(doubtful, k)
					if suspect[k] && !in {
						t.Fatalf("block %d: key %s was invalid and is not asked for", block, k.Key)
					}
					if in && suspect[k] {
						found = append(found, k)
					}
					if in && !suspect[k] && asked[k] {
						t.Fatalf("block %d: key %s is asked for again", block, k.Key)
					}
				}
				if rapid.IntRange(0, 4).Draw(t, "fails") == 0 {
					continue // Nothing is known of it; it may be tried again.
				}
				sound.judged(j, found)
				for k := range j.Changed {
					asked[k] = !suspect[k]
				}
				if rapid.Bool().Draw(t, "once more") {
					clear(asked) // A block that is judged again begins anew.
				} else {
					break
				}
			}
			if sound.block != block {
				clear(asked) // Given up: another completes it.
			}
		}
	})
}

func TestSoundKeysAreBounded(t *testing.T) {
	t.Parallel()
	var sound soundKeys
	for block := uint64(1); block <= 5; block++ {
		j := Judgement{Block: block, Changed: map[KeyRef]KeyChange{}}
		for i := range soundKeysMax / 3 {
			j.Changed[KeyRef{Account: "a", Key: domain.KeyID(fmt.Sprint(block, "-", i))}] = KeyChange{Made: true}
		}
		sound.judged(j, nil)
		if len(sound.keys) > soundKeysMax {
			t.Fatalf("%d keys are remembered, at most %d may be", len(sound.keys), soundKeysMax)
		}
	}
}
