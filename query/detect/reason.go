package detect

import (
	"fmt"
	"strings"
	"text/template"
	"time"
)

// facts are what a reason can say: the numbers of one finding.
type facts struct {
	// Count is how many records there are, Failed how many of them did not succeed and
	// Values how many distinct values of the counted field they have.
	Count, Failed uint64
	Values        int
	// Peak is the most that one window held, as against its Threshold Within a time.
	Peak, Threshold int
	Within          string
	// First, Last and Span say when; Since, since when the key was as it was.
	First, Last, Span, Since string
	// Actions are the first few distinct actions of the listed evidence.
	Actions string
	// Param holds the parameters.
	Param map[string]any
}

// Succeeded returns how many records succeeded.
func (f facts) Succeeded() uint64 { return f.Count - f.Failed }

// actionsMax bounds the actions that a reason names.
const actionsMax = 5

// reasonInto compiles the reason and tries it once, so that it cannot fail later.
func (f ruleFile) reasonInto(r *Rule) error {
	t, err := template.New("reason").Option("missingkey=error").Funcs(template.FuncMap{"plural": plural}).Parse(f.Reason)
	if err != nil {
		return fmt.Errorf("reason: %w", err)
	}
	r.reason = t
	_, err = r.spell(facts{Count: 2, Param: r.parameters})
	return err
}

// explain spells the reason of a closed case.
func (r *Rule) explain(c *caseRun) (string, error) {
	seen := map[string]bool{}
	var actions []string
	for _, e := range c.evidence {
		if e.Action != "" && !seen[e.Action] {
			seen[e.Action] = true
			actions = append(actions, e.Action)
		}
	}
	if len(actions) > actionsMax {
		actions = append(actions[:actionsMax], "and more")
	}
	return r.spell(facts{
		Count: c.count, Failed: c.failed, Values: len(c.values),
		Peak: c.peak, Threshold: c.peakOf.Threshold, Within: short(c.peakOf.Within),
		First: moment(c.first), Last: moment(c.last), Span: short(c.last.Sub(c.first)), Since: moment(c.since),
		Actions: strings.Join(actions, ", "), Param: r.parameters,
	})
}

func (r *Rule) spell(f facts) (string, error) {
	var b strings.Builder
	if err := r.reason.Execute(&b, f); err != nil {
		return "", fmt.Errorf("reason: %w", err)
	}
	return strings.Join(strings.Fields(b.String()), " "), nil
}

// moment spells a time to the second.
func moment(t time.Time) string {
	if t.IsZero() {
		return "an unknown time"
	}
	return t.UTC().Format("2006-01-02 15:04:05") + " UTC"
}

// short spells a duration without units that are zero: 10m, not 10m0s.
func short(d time.Duration) string {
	s := d.Round(time.Millisecond).String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

// plural returns one where n is 1, else many, behind the number.
func plural(n any, one, many string) string {
	if s := fmt.Sprint(n); s == "1" {
		return s + " " + one
	}
	return fmt.Sprint(n) + " " + many
}
