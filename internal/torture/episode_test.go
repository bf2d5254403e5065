package torture_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"example.com/keytrail/internal/client"
	"example.com/keytrail/internal/faults"
)

// recoverMax is how long, after a fault is lifted, it may take until each kind of write is
// acknowledged again.
const recoverMax = 90 * time.Second

// fault is one thing that can go wrong.
type fault struct {
	name  string
	kills int // Processes that it kills.
	odds  int // How often it is drawn, beside others; 0 is 1.
	// slow faults are not drawn in the short form.
	slow bool
	// do makes the fault and lifts it. Writers are at work meanwhile.
	do func(ctx context.Context, e *episode) error
}

// arrangement is a way to run keytrail, and what can go wrong with it.
type arrangement struct {
	name   string
	build  func(ctx context.Context, s *site) error
	faults []fault
}

// episode is one run of one arrangement.
type episode struct {
	*site
	t     *testing.T
	rng   *rand.Rand
	book  *book
	w     *writers
	where string // Seed, episode and step, for whoever must find the failure again.
	total *table
}

// between draws a duration.
func (e *episode) between(low, high time.Duration) time.Duration {
	return low + time.Duration(e.rng.Int64N(int64(high-low)))
}

// run carries out the steps that the episode's random numbers draw.
func (a arrangement) run(t *testing.T, seed uint64, number, steps int, short bool, total *table) {
	t.Helper()
	where := fmt.Sprintf("KEYTRAIL_TORTURE_SEED=%d episode %d (%s)", seed, number, a.name)
	s, err := newSite()
	if err != nil {
		t.Fatal(err)
	}
	e := &episode{site: s, t: t, rng: rand.New(rand.NewPCG(seed, uint64(number))), book: newBook(), where: where, total: total}
	defer e.finish()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	if err := a.build(ctx, s); errors.Is(err, faults.ErrUnsupported) {
		total.untried(a.name, err)
		t.Skipf("NOT TRIED HERE: %s: %v", a.name, err)
	} else if err != nil {
		t.Fatalf("%s: start: %v", where, err)
	}
	e.w = &writers{book: e.book, nodes: e.clients}
	if err := e.w.whoAmI(ctx); err != nil {
		t.Fatalf("%s: %v", where, err)
	}
	var wg sync.WaitGroup
	for i, work := range e.w.all() {
		rng := rand.New(rand.NewPCG(seed, uint64(number)<<8|uint64(i)))
		wg.Go(func() { work(ctx, rng) })
	}
	deck := a.deck(short)
	for n := range steps {
		if !e.step(ctx, n, deck[e.rng.IntN(len(deck))]) {
			break
		}
	}
	cancel()
	wg.Wait()
	if !t.Failed() {
		e.close(steps)
	}
}

// deck is the faults of an arrangement, each as often as its odds.
func (a arrangement) deck(short bool) []fault {
	var deck []fault
	for _, f := range a.faults {
		if short && f.slow {
			continue
		}
		for range max(f.odds, 1) {
			deck = append(deck, f)
		}
	}
	return deck
}

// clients are the nodes that writers may use.
func (e *episode) clients() []*client.Client {
	var out []*client.Client
	for _, n := range e.nodes {
		if !n.worker {
			out = append(out, n.api)
		}
	}
	return out
}

// node draws a node.
func (e *episode) node() *node { return e.nodes[e.rng.IntN(len(e.nodes))] }

// step lets the writers work, makes one fault, and checks everything.
func (e *episode) step(ctx context.Context, n int, f fault) bool {
	e.t.Helper()
	where := fmt.Sprintf("%s step %d (%s)", e.where, n, f.name)
	e.log.note("%s", where)
	before := e.book.snapshot()
	pause(e.between(30*time.Millisecond, 400*time.Millisecond))
	if err := f.do(ctx, e); errors.Is(err, faults.ErrUnsupported) {
		e.total.untried(f.name, err)
		e.t.Logf("NOT TRIED HERE: %s: %v", f.name, err)
		return true
	} else if err != nil {
		e.t.Errorf("%s: %v", where, err)
		return false
	}
	lifted := time.Now()
	e.log.note("lifted")
	rctx, cancel := context.WithTimeout(ctx, recoverMax)
	defer cancel()
	if err := e.book.awaitMore(rctx, e.book.snapshot().acks, command, use, imp, login); err != nil {
		e.t.Errorf("%s: no recovery within %v: %v; answers so far: %v", where, recoverMax, err, e.book.snapshot().answers)
		return false
	}
	recovered := time.Since(lifted)
	e.t.Logf("%s: writes again after %v", where, recovered.Round(time.Millisecond))
	return e.check(ctx, where, f, before)
}

// check judges, and enters the step into the table.
func (e *episode) check(ctx context.Context, where string, f fault, before snapshot) bool {
	e.t.Helper()
	e.w.gentle.Store(true)
	defer e.w.gentle.Store(false)
	v, err := judge(ctx, e.nodes[0].past(), e.book)
	if err != nil {
		e.t.Errorf("%s: check: %v", where, err)
		return false
	}
	v.faults = append(v.faults, e.book.strangeAnswers()...)
	now := e.book.snapshot()
	c := counts{steps: 1, lost: len(v.lost), doubled: len(v.doubled), unknown: unanswered(now) - unanswered(before)}
	for k, n := range now.acks {
		c.acked += n - before.acks[k]
	}
	e.total.enter(f.name, f.kills, c)
	e.t.Logf("%s: %d records, verified in %v, exported in %v", where, v.records, v.verify.Round(time.Millisecond), v.export.Round(time.Millisecond))
	if !v.ok() {
		e.t.Errorf("%s: %v", where, v)
		return false
	}
	return true
}

// unanswered counts the requests without an answer, or with one that leaves it open.
func unanswered(s snapshot) int {
	n := 0
	for status, times := range s.answers {
		if open(status) {
			n += times
		}
	}
	return n
}

// close ends the episode in good order: every batch was insisted on, so every record is
// acknowledged and all are there.
func (e *episode) close(steps int) {
	e.t.Helper()
	before := e.book.snapshot()
	if !e.check(e.t.Context(), e.where+" at its end", fault{name: "end of an episode"}, before) {
		return
	}
	for id, w := range before.writes {
		if !w.acked && (w.kind == use || w.kind == imp) {
			e.t.Errorf("%s: %s %s was never acknowledged", e.where, w.kind, id)
		}
	}
	acked := 0
	for _, n := range before.acks {
		acked += n
	}
	e.t.Logf("%s: %d steps, %v acknowledged, answers by status %v", e.where, steps, before.acks, before.answers)
	if acked < 10*steps {
		e.t.Errorf("%s: %d writes in %d steps are too few to prove anything", e.where, acked, steps)
	}
}

// finish stops all processes. The data of a failed episode stay.
func (e *episode) finish() {
	e.t.Helper()
	var kept string
	var err error
	if e.t.Failed() {
		kept, err = e.keep()
	}
	if err := errors.Join(err, e.site.close()); err != nil {
		e.t.Errorf("%s: %v", e.where, err)
	}
	if e.t.Failed() {
		e.t.Errorf("%s: data and log.txt stay in %s %s; odd answers: %v", e.where, e.dir, kept, e.book.texts)
		return
	}
	if setting(e.t, "KEYTRAIL_TORTURE_KEEP", 0) != 0 {
		e.t.Logf("%s: log.txt stays in %s", e.where, e.dir)
		return
	}
	if err := e.remove(); err != nil {
		e.t.Errorf("%s: %v", e.where, err)
	}
}

// table adds up what all episodes did.
type table struct {
	mu    sync.Mutex // Guards all below.
	rows  map[string]*counts
	kills int
	calls int               // System calls that were made to fail or wait.
	parts int               // Sectors that were torn.
	not   map[string]string // What this machine cannot do.
}

func newTable() *table { return &table{rows: map[string]*counts{}, not: map[string]string{}} }

func (t *table) enter(name string, kills int, c counts) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.rows[name] == nil {
		t.rows[name] = &counts{}
	}
	t.rows[name].add(c)
	t.kills += kills * c.steps
}

func (t *table) spoilt(calls int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.calls += calls
}

func (t *table) torn(sectors int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.parts += sectors
}

func (t *table) untried(name string, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.not[name] = err.Error()
}

// killed is how many processes were killed so far.
func (t *table) killed() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.kills
}

// String is the table in Markdown.
func (t *table) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	var b strings.Builder
	b.WriteString("| fault | tried | writes acknowledged | requests without an answer, or 5xx | lost | doubled |\n|---|---:|---:|---:|---:|---:|\n")
	row := func(name string, c counts) {
		fmt.Fprintf(&b, "| %s | %d | %d | %d | %d | %d |\n", name, c.steps, c.acked, c.unknown, c.lost, c.doubled)
	}
	var all counts
	names := make([]string, 0, len(t.rows))
	for name := range t.rows {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		row(name, *t.rows[name])
		all.add(*t.rows[name])
	}
	row("all", all)
	fmt.Fprintf(&b, "\n%d processes killed, %d system calls made to fail or wait, %d sectors torn.\n", t.kills, t.calls, t.parts)
	for name, why := range t.not {
		fmt.Fprintf(&b, "\nNOT TRIED: %s: %s\n", name, why)
	}
	return b.String()
}
