package domain

import (
	"strconv"
	"time"
)

// FindingLevel is how bad a finding is.
type FindingLevel string

// The levels of finding, from least to worst.
const (
	LevelLow      FindingLevel = "low"
	LevelMedium   FindingLevel = "medium"
	LevelHigh     FindingLevel = "high"
	LevelCritical FindingLevel = "critical"
)

// FindingStatus is where triage of a finding stands.
type FindingStatus string

// The statuses of a finding.
const (
	FindingOpen FindingStatus = "open"
)

// EvidenceMax bounds the evidence listed in a finding; Finding.Count says how much
// there is in all.
const EvidenceMax = 100

// Evidence points at one record that a finding rests on: a use (its id, the position
// of its batch and its place in it) or an event of the log (its id and position).
type Evidence struct {
	EventID  string    `json:"event_id"`
	Position uint64    `json:"position"`
	Index    uint32    `json:"index,omitempty"`
	Time     time.Time `json:"time"`
	Action   string    `json:"action,omitempty"`
}

// Finding is a suspicion about a key, with its reasons.
type Finding struct {
	ID          EventID       `json:"id"`
	Rule        string        `json:"rule_id"`
	RuleVersion int           `json:"rule_version"`
	Level       FindingLevel  `json:"severity"`
	Technique   string        `json:"technique,omitempty"` // MITRE ATT&CK, "T1078.004".
	Account     AccountID     `json:"account_id"`
	KeyID       KeyID         `json:"key_id,omitempty"`
	IAMID       IAMID         `json:"iam_id,omitempty"`
	Title       string        `json:"title"`
	Reason      string        `json:"reason"` // One sentence with the numbers.
	Advice      string        `json:"advice,omitempty"`
	DedupeKey   string        `json:"dedupe_key"`
	FirstSeen   time.Time     `json:"first_seen"` // Event time of the first evidence.
	LastSeen    time.Time     `json:"last_seen"`
	Count       uint64        `json:"count"`    // Records that it rests on, listed or not.
	Evidence    []Evidence    `json:"evidence"` // The first [EvidenceMax], in time order.
	Status      FindingStatus `json:"status"`
}

// FindingID returns the id of the finding that rule, in that version, makes for
// dedupeKey with its first evidence. The same set of records always gives the same id.
func FindingID(rule string, version int, dedupeKey string, first Evidence) EventID {
	return DeriveID("finding", rule, strconv.Itoa(version), dedupeKey, first.EventID)
}

// FindingOpened records a new finding.
type FindingOpened struct {
	After Finding `json:"after"`
}

// FindingExtended records that more evidence, late or new, belongs to a finding. Its
// id never changes.
type FindingExtended struct {
	After Finding `json:"after"`
}

// Stored names of the finding events.
const (
	TypeFindingOpened   = "finding.opened.v1"
	TypeFindingExtended = "finding.extended.v1"
)

// Type implements [Event].
func (FindingOpened) Type() string { return TypeFindingOpened }

// Type implements [Event].
func (FindingExtended) Type() string { return TypeFindingExtended }

func (FindingOpened) isEvent()   {}
func (FindingExtended) isEvent() {}

func (FindingOpened) isFindingEvent()   {}
func (FindingExtended) isFindingEvent() {}
