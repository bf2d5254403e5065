package torture_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"
	"time"
)

const (
	// stepsPerEpisode keeps the log of an episode short: every step reads all of it.
	stepsPerEpisode = 12
	stepsShort      = 4
	// tableEvery is after how many episodes the table is printed on the way.
	tableEvery = 10
)

// TestNothingAcknowledgedIsLostOrDoubledUnderFaults runs episodes until enough processes
// were killed (KEYTRAIL_TORTURE_KILLS; 0 for the short form), and prints what was tried.
//
// KEYTRAIL_TORTURE_SEED repeats a run, KEYTRAIL_TORTURE_EPISODE one episode of it;
// KEYTRAIL_TORTURE_ONLY limits it to arrangements and faults whose names hold that text.
// What the machine does in between is not repeated: a failure that needs the same moment
// may take several runs.
func TestNothingAcknowledgedIsLostOrDoubledUnderFaults(t *testing.T) {
	if testing.Short() {
		t.Skip("starts the whole program; run without -short")
	}
	kills := int(setting(t, "KEYTRAIL_TORTURE_KILLS", 0))
	seed := uint64(setting(t, "KEYTRAIL_TORTURE_SEED", time.Now().UnixNano()))
	t.Logf("KEYTRAIL_TORTURE_SEED=%d", seed)
	total := newTable()
	if only := setting(t, "KEYTRAIL_TORTURE_EPISODE", -1); only >= 0 {
		pick(seed, int(only)).run(t, seed, int(only), stepsPerEpisode, false, total)
	} else {
		t.Run("all", func(t *testing.T) { torture(t, seed, kills, total) }) // Returns when those in parallel have ended, too.
	}
	total.print(t, seed)
}

// torture runs rounds of episodes, two at a time, until enough processes were killed. The
// short form is one episode of each arrangement.
func torture(t *testing.T, seed uint64, kills int, total *table) {
	t.Helper()
	if kills == 0 {
		for n, a := range distinct(arrangements()) {
			t.Run("arrangement="+a.name, func(t *testing.T) {
				t.Parallel()
				a.run(t, seed, n, stepsShort, true, total)
			})
		}
		return
	}
	for number := 0; total.killed() < kills && !t.Failed(); number += 2 {
		if number%tableEvery == 0 && number > 0 {
			total.print(t, seed) // A run of hours that is cut off has proved something, too.
		}
		t.Run(fmt.Sprintf("round=%d", number/2), func(t *testing.T) {
			for n := number; n < number+2; n++ {
				t.Run(fmt.Sprintf("episode=%d", n), func(t *testing.T) {
					t.Parallel()
					pick(seed, n).run(t, seed, n, stepsPerEpisode, false, total)
				})
			}
		})
	}
}

// distinct leaves one of each arrangement.
func distinct(all []arrangement) []arrangement {
	return slices.CompactFunc(all, func(a, b arrangement) bool { return a.name == b.name })
}

// pick draws the arrangement of an episode.
func pick(seed uint64, number int) arrangement {
	all := arrangements()
	return all[rand.New(rand.NewPCG(seed, uint64(number)^1<<63)).IntN(len(all))]
}

// arrangements lists all that there are, each as often as it is to be drawn.
func arrangements() []arrangement {
	only := os.Getenv("KEYTRAIL_TORTURE_ONLY")
	var out []arrangement
	for _, a := range []arrangement{one(), one(), disks(), several()} {
		if !strings.Contains(a.name, only) {
			a.faults = slices.DeleteFunc(a.faults, func(f fault) bool { return !strings.Contains(f.name, only) })
		}
		if len(a.faults) > 0 {
			out = append(out, a)
		}
	}
	return out
}
