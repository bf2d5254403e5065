package detect

import (
	"errors"
	"fmt"
	"strconv"
	"time"

	"example.com/keytrail/domain"
)

// ruleTest is a test inside a rule file: records and how many findings they give.
type ruleTest struct {
	Name    string       `yaml:"name"`
	Records []testRecord `yaml:"records"`
	// Findings is how many findings there must be and Counts, if given, how much
	// evidence each has, in order.
	Findings int      `yaml:"findings"`
	Counts   []uint64 `yaml:"counts"`
	// Reason, if given, is the first finding's.
	Reason string `yaml:"reason"`
}

// testRecord stands for Repeat records (1 if none is said), Every apart from At on.
// Each takes the next of Actions, if there are any.
type testRecord struct {
	At       string            `yaml:"at"`
	Repeat   int               `yaml:"repeat"`
	Every    string            `yaml:"every"`
	Source   string            `yaml:"source"`
	Account  string            `yaml:"account"`
	Key      string            `yaml:"key"`
	Identity string            `yaml:"identity"`
	Action   string            `yaml:"action"`
	Actions  []string          `yaml:"actions"`
	Access   string            `yaml:"access"`
	Outcome  string            `yaml:"outcome"`
	Status   int               `yaml:"status"`
	Error    string            `yaml:"error"`
	Address  string            `yaml:"address"`
	Agent    string            `yaml:"agent"`
	Target   string            `yaml:"target"`
	Cred     string            `yaml:"credential_type"`
	Labels   map[string]string `yaml:"labels"`
	State    string            `yaml:"key_status"`
}

// testEpoch is the time that a test's records count from.
func testEpoch() time.Time { return time.Date(2026, 1, 15, 9, 0, 0, 0, time.UTC) }

// repeatMax bounds what one line of a test stands for.
const repeatMax = 10_000

// Test runs the tests that the rule's file holds and returns all that fail, joined. A
// rule must have one that fires and one that stays quiet.
func (r *Rule) Test() error {
	var errs []error
	var fires, quiet bool
	for _, t := range r.tests {
		fires, quiet = fires || t.Findings > 0, quiet || t.Findings == 0
		if err := t.run(r); err != nil {
			errs = append(errs, fmt.Errorf("rule %s: test %q: %w", r.ID, t.Name, err))
		}
	}
	if !fires || !quiet {
		errs = append(errs, fmt.Errorf("rule %s: a rule has a test that fires and one that stays quiet", r.ID))
	}
	return errors.Join(errs...)
}

func (t ruleTest) run(r *Rule) error {
	var records []Record
	for i, line := range t.Records {
		more, err := line.records(uint64(i) + 1)
		if err != nil {
			return fmt.Errorf("record %d: %w", i+1, err)
		}
		records = append(records, more...)
	}
	found, err := r.Evaluate(records)
	if err != nil {
		return err
	}
	counts := make([]uint64, len(found))
	for i, f := range found {
		counts[i] = f.Count
	}
	if len(found) != t.Findings || t.Counts != nil && fmt.Sprint(counts) != fmt.Sprint(t.Counts) {
		return fmt.Errorf("got %d findings with %v records, want %d with %v", len(found), counts, t.Findings, t.Counts)
	}
	if t.Reason != "" && (len(found) == 0 || found[0].Reason != t.Reason) {
		return fmt.Errorf("the first reason of %d is not the wanted one: %s", len(found), reasonOf(found))
	}
	return nil
}

func reasonOf(found []domain.Finding) string {
	if len(found) == 0 {
		return ""
	}
	return found[0].Reason
}

func (l testRecord) records(position uint64) ([]Record, error) {
	at, err1 := durationOr(l.At, 0)
	every, err2 := durationOr(l.Every, time.Second)
	if err := errors.Join(err1, err2); err != nil {
		return nil, err
	}
	if l.Repeat < 0 || l.Repeat > repeatMax {
		return nil, fmt.Errorf("repeat: %d is not 0 to %d", l.Repeat, repeatMax)
	}
	out := make([]Record, max(1, l.Repeat, len(l.Actions)))
	for i := range out {
		rec := l.record()
		rec.ID = strconv.FormatUint(position, 10) + "-" + strconv.Itoa(i)
		rec.Position, rec.Index = position, uint32(i)
		rec.Time = testEpoch().Add(at + time.Duration(i)*every)
		if len(l.Actions) > 0 {
			rec.Action = l.Actions[i%len(l.Actions)]
		}
		if rec.KeyStatus != "" {
			rec.KeySince = testEpoch().Add(-time.Hour)
		}
		out[i] = rec
	}
	return out, nil
}

func (l testRecord) record() Record {
	def := func(s, other string) string {
		if s == "" {
			return other
		}
		return s
	}
	return Record{
		Source: Source(def(l.Source, string(Usage))),
		Group: Group{
			Account: domain.AccountID(def(l.Account, "account")), Key: domain.KeyID(l.Key), Identity: domain.IAMID(l.Identity),
		},
		Action: l.Action, Access: l.Access, Outcome: def(l.Outcome, string(domain.OutcomeSuccess)), Status: l.Status, Error: l.Error,
		Address: l.Address, Agent: l.Agent, Target: l.Target, CredentialType: l.Cred, Labels: l.Labels, KeyStatus: l.State,
	}
}

func durationOr(text string, other time.Duration) (time.Duration, error) {
	if text == "" {
		return other, nil
	}
	d, err := time.ParseDuration(text)
	if err != nil {
		return 0, fmt.Errorf("duration: %w", err)
	}
	return d, nil
}
