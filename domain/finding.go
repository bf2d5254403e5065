package domain

import (
	"cmp"
	"slices"
)

// SameCase reports whether f and candidate tell of the same thing: they have the same
// id, or the same rule in the same version made both for the same dedupe key and
// their times overlap. Late records can move the first evidence of a finding that is
// computed anew, and so its id; its dedupe key and the overlap stay.
func (f Finding) SameCase(candidate Finding) bool {
	if f.ID == candidate.ID {
		return true
	}
	return f.Rule == candidate.Rule && f.RuleVersion == candidate.RuleVersion && f.DedupeKey == candidate.DedupeKey &&
		!f.LastSeen.Before(candidate.FirstSeen) && !candidate.LastSeen.Before(f.FirstSeen)
}

// Extend returns f with what candidate adds to it, and whether it adds anything. It
// never takes back: the id, the rule, the status and listed evidence stay, the count
// does not fall and the times only widen, also where candidate was computed from
// records of which some were retracted since. The reason follows candidate only where
// candidate covers all of f.
func (f Finding) Extend(candidate Finding) (Finding, bool) {
	out := f
	out.Evidence = mergeEvidence(f.Evidence, candidate.Evidence)
	out.Count = max(f.Count, candidate.Count, uint64(len(out.Evidence)))
	if candidate.FirstSeen.Before(f.FirstSeen) {
		out.FirstSeen = candidate.FirstSeen
	}
	if candidate.LastSeen.After(f.LastSeen) {
		out.LastSeen = candidate.LastSeen
	}
	changed := out.Count != f.Count || len(out.Evidence) != len(f.Evidence) ||
		!out.FirstSeen.Equal(f.FirstSeen) || !out.LastSeen.Equal(f.LastSeen)
	if !changed {
		return f, false
	}
	if candidate.Count >= f.Count {
		out.Reason = candidate.Reason
	}
	return out, true
}

// CompareEvidence orders evidence by time, then by position and index in the log.
func CompareEvidence(a, b Evidence) int {
	return cmp.Or(a.Time.Compare(b.Time), cmp.Compare(a.Position, b.Position), cmp.Compare(a.Index, b.Index))
}

// mergeEvidence returns old with the first of more that are not in it, at most
// [EvidenceMax] in all, in time order. Nothing of old is left out.
func mergeEvidence(old, more []Evidence) []Evidence {
	type place struct {
		position uint64
		index    uint32
	}
	known := make(map[place]bool, len(old))
	for _, e := range old {
		known[place{e.Position, e.Index}] = true
	}
	out := slices.Clone(old)
	for _, e := range more {
		if len(out) >= EvidenceMax {
			break
		}
		if !known[place{e.Position, e.Index}] {
			out = append(out, e)
		}
	}
	slices.SortStableFunc(out, CompareEvidence)
	return out
}
