package detect

import (
	"encoding/json"
	"fmt"
	"iter"
	"slices"
	"time"

	"example.com/keytrail/domain"
)

// Evaluate returns the findings of r over records, which may come in any order and
// from any source: those that r does not read or whose filter does not match are left
// out. The findings are ordered by group and time. See the package comment for what
// a finding is.
func (r *Rule) Evaluate(records []Record) ([]domain.Finding, error) {
	items := make([]item, 0, len(records))
	for i := range records {
		if r.match(&records[i]) {
			items = append(items, r.itemOf(records[i]))
		}
	}
	slices.SortFunc(items, compareItems)
	return r.evaluate(func(yield func(item, error) bool) {
		for _, it := range items {
			if !yield(it, nil) {
				return
			}
		}
	}, func(Group, time.Time) bool { return true })
}

// match reports whether r looks at rec at all.
func (r *Rule) match(rec *Record) bool {
	filter, ok := r.sources[rec.Source]
	return ok && !rec.Group.IsZero() && filter.match(rec)
}

// evaluate streams items, ordered by group, time, position and index, and returns the
// findings of the spans that keep wants. It holds one window of items at a time.
func (r *Rule) evaluate(items iter.Seq2[item, error], keep func(Group, time.Time) bool) ([]domain.Finding, error) {
	var out []domain.Finding
	var run *groupRun
	end := func() error {
		if run == nil {
			return nil
		}
		found, err := run.close()
		out = append(out, found...)
		return err
	}
	for it, err := range items {
		if err != nil {
			return nil, err
		}
		if run == nil || run.group != it.group {
			if err := end(); err != nil {
				return nil, err
			}
			run = newGroupRun(r, it.group, keep)
		}
		if err := run.add(it); err != nil {
			return nil, err
		}
	}
	return out, end()
}

// groupRun walks the items of one group in order.
type groupRun struct {
	rule  *Rule
	group Group
	keep  func(Group, time.Time) bool
	// recent holds the items of the widest window; base is the number of the first.
	recent  []recentItem
	base    int
	windows []windowRun
	// current is the case that the last trigger belongs to; cases numbers it.
	current *caseRun
	cases   int
	found   []domain.Finding
}

type recentItem struct {
	item
	// in is the number of the last case that has the item as evidence.
	in int
}

// windowRun is one window that ends with the newest item.
type windowRun struct {
	Window
	from   int // Number of its first item.
	values map[string]int
}

func newGroupRun(r *Rule, g Group, keep func(Group, time.Time) bool) *groupRun {
	run := &groupRun{rule: r, group: g, keep: keep}
	for _, w := range r.windows {
		run.windows = append(run.windows, windowRun{Window: w, values: map[string]int{}})
	}
	return run
}

func (g *groupRun) at(n int) *recentItem { return &g.recent[n-g.base] }

// add takes the next item and judges whether it is a trigger.
func (g *groupRun) add(it item) error {
	g.recent = append(g.recent, recentItem{item: it})
	n := g.base + len(g.recent) - 1
	from, oldest := -1, n
	for i := range g.windows {
		w := &g.windows[i]
		g.slide(w, n)
		oldest = min(oldest, w.from)
		if g.size(w, n) >= w.Threshold && (from < 0 || w.from < from) {
			from = w.from
		}
	}
	if from >= 0 {
		if err := g.trigger(from, n); err != nil {
			return err
		}
	}
	if drop := oldest - g.base; drop > 64 && drop > len(g.recent)/2 {
		g.recent = append(g.recent[:0], g.recent[drop:]...)
		g.base = oldest
	}
	return nil
}

// slide moves w on so that it ends with item n.
func (g *groupRun) slide(w *windowRun, n int) {
	newest := g.at(n)
	if g.rule.shape == Distinct && newest.value != "" {
		w.values[newest.value]++
	}
	for newest.time.Sub(g.at(w.from).time) > w.Within {
		if v := g.at(w.from).value; g.rule.shape == Distinct && v != "" {
			w.values[v]--
			if w.values[v] == 0 {
				delete(w.values, v)
			}
		}
		w.from++
	}
}

// size is what w is measured by.
func (g *groupRun) size(w *windowRun, n int) int {
	if g.rule.shape == Distinct {
		return len(w.values)
	}
	return n - w.from + 1
}

// trigger takes item n, whose widest met window begins at from.
func (g *groupRun) trigger(from, n int) error {
	at := g.at(n).time
	c := g.current
	if c == nil || !c.span.Equal(at.Truncate(g.rule.span)) || at.Sub(c.last) > g.rule.join {
		if err := g.closeCase(); err != nil {
			return err
		}
		g.cases++
		c = newCase(at.Truncate(g.rule.span), g.at(from).item, n)
		g.current = c
	}
	// Items from c.solid up to the last trigger are evidence already, without a hole.
	if from > c.lastNumber+1 {
		c.solid, c.lastNumber = from, from-1
	}
	g.take(from, min(c.solid, n+1))
	g.take(c.lastNumber+1, n+1)
	c.solid, c.lastNumber, c.last = min(c.solid, from), n, at
	for i := range g.windows {
		c.measure(i, g.windows[i].Window, g.size(&g.windows[i], n))
	}
	return nil
}

// take makes the items from a to before b evidence of the current case.
func (g *groupRun) take(a, b int) {
	for n := a; n < b; n++ {
		if it := g.at(n); it.in != g.cases {
			it.in = g.cases
			g.current.take(it.item)
		}
	}
}

func (g *groupRun) closeCase() error {
	c := g.current
	g.current = nil
	if c == nil || !g.keep(g.group, c.span) {
		return nil
	}
	f, err := g.rule.finding(g.group, c)
	if err != nil {
		return err
	}
	g.found = append(g.found, f)
	return nil
}

func (g *groupRun) close() ([]domain.Finding, error) {
	err := g.closeCase()
	return g.found, err
}

// caseRun gathers the evidence of one finding.
type caseRun struct {
	span    time.Time
	opening item
	// last is the time of the last trigger and lastNumber its number.
	last              time.Time
	lastNumber, solid int
	first             time.Time
	since             time.Time
	count, failed     uint64
	values            map[string]struct{}
	evidence          []domain.Evidence
	peak              int
	peakWindow        int
	peakOf            Window
}

// newCase opens a case with item n as its first trigger; no evidence is taken yet.
func newCase(span time.Time, opening item, n int) *caseRun {
	return &caseRun{
		span: span, opening: opening, last: opening.time, first: opening.time, since: opening.since,
		solid: n + 1, lastNumber: n, values: map[string]struct{}{}, peakWindow: -1,
	}
}

func (c *caseRun) take(it item) {
	c.count++
	if it.failed {
		c.failed++
	}
	if it.value != "" {
		c.values[it.value] = struct{}{}
	}
	if it.time.Before(c.first) {
		c.first = it.time
	}
	e := evidenceOf(it)
	at, _ := slices.BinarySearchFunc(c.evidence, e, domain.CompareEvidence)
	if at >= domain.EvidenceMax {
		return
	}
	if len(c.evidence) == domain.EvidenceMax {
		c.evidence = c.evidence[:domain.EvidenceMax-1]
	}
	c.evidence = slices.Insert(c.evidence, at, e)
}

// measure remembers the first window that was met by the most of its threshold.
func (c *caseRun) measure(i int, w Window, size int) {
	if size < w.Threshold {
		return
	}
	if c.peakWindow < 0 || size*c.peakOf.Threshold > c.peak*w.Threshold {
		c.peak, c.peakWindow, c.peakOf = size, i, w
	}
}

func evidenceOf(it item) domain.Evidence {
	return domain.Evidence{EventID: it.id, Position: it.position, Index: it.index, Time: it.time, Action: it.action}
}

// finding makes the finding of a closed case.
func (r *Rule) finding(g Group, c *caseRun) (domain.Finding, error) {
	key, err := dedupeKey(g, c.span)
	if err != nil {
		return domain.Finding{}, fmt.Errorf("rule %s: %w", r.ID, err)
	}
	reason, err := r.explain(c)
	if err != nil {
		return domain.Finding{}, fmt.Errorf("rule %s: %w", r.ID, err)
	}
	return domain.Finding{
		ID:   domain.FindingID(r.ID, r.Version, key, evidenceOf(c.opening)),
		Rule: r.ID, RuleVersion: r.Version, Level: r.Severity, Technique: r.technique(),
		Account: g.Account, KeyID: g.Key, IAMID: g.Identity,
		Title: r.Title, Reason: reason, Advice: r.Advice, DedupeKey: key,
		FirstSeen: c.first, LastSeen: c.last, Count: c.count, Evidence: c.evidence, Status: domain.FindingOpen,
	}, nil
}

// dedupeKey spells group and span without ambiguity, as a JSON array.
func dedupeKey(g Group, span time.Time) (string, error) {
	b, err := json.Marshal([]string{string(g.Account), string(g.Key), string(g.Identity), span.UTC().Format(time.RFC3339)})
	if err != nil {
		return "", fmt.Errorf("dedupe key: %w", err)
	}
	return string(b), nil
}
