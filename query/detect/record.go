package detect

import (
	"cmp"
	"time"

	"example.com/keytrail/domain"
)

// Source is a table that a rule reads.
type Source string

// The sources of records.
const (
	// Usage holds the uses of keys.
	Usage Source = "usage"
	// Violations holds the uses whose key was not valid at that moment.
	Violations Source = "violations"
	// Activity holds the commands that were given to keytrail itself. The key of such
	// a record is the one that the caller used, not the one the command was about.
	Activity Source = "activity"
)

// Group is what a rule watches: one key of one account in the hands of one identity.
// Where the source gave no key, it is the identity alone. The identity is always part
// of it, so that a source which masks its key ids does not turn its whole account into
// one key.
type Group struct {
	Account  domain.AccountID
	Key      domain.KeyID
	Identity domain.IAMID
}

// IsZero reports whether g names neither a key nor an identity. Such records are no
// matter for a rule about keys.
func (g Group) IsZero() bool { return g.Key == "" && g.Identity == "" }

func compareGroups(a, b Group) int {
	return cmp.Or(cmp.Compare(a.Account, b.Account), cmp.Compare(a.Key, b.Key), cmp.Compare(a.Identity, b.Identity))
}

// Record is one record of a source, in memory.
type Record struct {
	Source Source
	Group  Group
	// ID is the use's or the event's id; Position and Index are its place in the log.
	ID       string
	Position uint64
	Index    uint32
	Time     time.Time

	Action, Access, Outcome string
	// Status is the HTTP status, 0 if none was given; Error the source's own code, or
	// the reason of a refused command.
	Status int
	Error  string

	Address, Agent, Region, Target string
	// CredentialType is the kind of credential of a command, such as "apikey".
	CredentialType string
	Labels         map[string]string
	// KeyStatus is, for a violation, what the key was at that moment ("deleted",
	// "disabled", "expired", …), and KeySince since when.
	KeyStatus string
	KeySince  time.Time
}

// outcome is what the source said; for a use of which it said nothing, what follows
// from the rest.
func (r *Record) outcome() string {
	switch {
	case r.Outcome != "" || r.Source != Usage:
		return r.Outcome
	case r.Status >= 400 || r.Error != "":
		return string(domain.OutcomeFailure)
	}
	return string(domain.OutcomeSuccess)
}

// action is what the source said; for a use of which it said nothing, a use of a key.
func (r *Record) action() string {
	if r.Action == "" && r.Source == Usage {
		return "iam-identity.user-apikey.use"
	}
	return r.Action
}

// FromUse returns the record of u, which stands at position and index in the log.
func FromUse(u domain.Use, position uint64, index uint32) Record {
	return Record{
		Source: Usage, Group: Group{Account: u.Account, Key: u.KeyID, Identity: u.IAMID},
		ID: u.ID, Position: position, Index: index, Time: u.Time,
		Action: u.Action, Access: string(u.Access), Outcome: string(u.Outcome), Status: u.Status, Error: u.ErrorCode,
		Address: u.Source, Agent: u.UserAgent, Region: u.Region, Target: u.Target, Labels: u.Labels,
	}
}

// item is what evaluation needs of a record.
type item struct {
	group    Group
	id       string
	position uint64
	index    uint32
	time     time.Time
	action   string
	failed   bool
	// value is that of the field whose distinct values are counted.
	value string
	since time.Time
}

func (r *Rule) itemOf(rec Record) item {
	it := item{
		group: rec.Group, id: rec.ID, position: rec.Position, index: rec.Index, time: rec.Time,
		action: rec.action(), failed: rec.outcome() == string(domain.OutcomeFailure), since: rec.KeySince,
	}
	if f, ok := r.distinct[rec.Source]; ok {
		it.value = f.get(&rec)
	}
	return it
}

func compareItems(a, b item) int {
	return cmp.Or(compareGroups(a.group, b.group), a.time.Compare(b.time), cmp.Compare(a.position, b.position), cmp.Compare(a.index, b.index))
}
