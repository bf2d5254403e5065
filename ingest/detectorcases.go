package ingest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"

	"example.com/keytrail/domain"
	"example.com/keytrail/internal/eventlog"
)

const (
	// caseStreams begin the names of the streams that say which findings a rule made for
	// one dedupe key.
	caseStreams = domain.MachineryPrefix + "case-"

	typeCaseClaimed = "finding.case.claimed.v1"

	// caseClaimsKept is how many claims of a case the log keeps: the newest says all.
	caseClaimsKept = 4
)

// caseClaims is the body of a claim: every finding of one rule, in one version, for one
// dedupe key, with the time that it is about. It is appended at the exact revision before
// a finding is opened, or comes to be about more: so whoever opens one has seen all others,
// and a finding is never opened for what another one is about already.
type caseClaims struct {
	Rule      string        `json:"rule_id"`
	Version   int           `json:"rule_version"`
	DedupeKey string        `json:"dedupe_key"`
	Findings  []caseFinding `json:"findings"` // In the order of their claims.
}

// caseFinding is one finding of a case. What its own stream holds is never about more.
type caseFinding struct {
	ID        domain.EventID `json:"id"`
	FirstSeen time.Time      `json:"first_seen"`
	LastSeen  time.Time      `json:"last_seen"`
}

func caseStream(f domain.Finding) string {
	return caseStreams + domain.DeriveID("finding-case", f.Rule, strconv.Itoa(f.RuleVersion), f.DedupeKey).String()
}

// take adds what candidate is about, and returns the finding that it belongs to and whether
// the claims are others now.
func (c *caseClaims) take(candidate domain.Finding) (domain.EventID, bool) {
	var own *caseFinding
	for i := range c.Findings {
		f := &c.Findings[i]
		known := domain.Finding{ID: f.ID, Rule: c.Rule, RuleVersion: c.Version, DedupeKey: c.DedupeKey, FirstSeen: f.FirstSeen, LastSeen: f.LastSeen}
		if !known.SameCase(candidate) {
			continue
		}
		if own == nil || f.FirstSeen.Before(own.FirstSeen) || f.FirstSeen.Equal(own.FirstSeen) && f.ID.String() < own.ID.String() {
			own = f
		}
	}
	if own == nil {
		c.Findings = append(c.Findings, caseFinding{ID: candidate.ID, FirstSeen: candidate.FirstSeen, LastSeen: candidate.LastSeen})
		return candidate.ID, true
	}
	before := *own
	if candidate.FirstSeen.Before(own.FirstSeen) {
		own.FirstSeen = candidate.FirstSeen
	}
	if candidate.LastSeen.After(own.LastSeen) {
		own.LastSeen = candidate.LastSeen
	}
	return own.ID, *own != before
}

// claimsOf returns the claims that the findings of the book amount to: for a case of which
// the log holds none yet.
func (b *findingBook) claimsOf(candidate domain.Finding) caseClaims {
	c := caseClaims{Rule: candidate.Rule, Version: candidate.RuleVersion, DedupeKey: candidate.DedupeKey}
	for _, k := range b.byCase[findingCase{candidate.Rule, candidate.RuleVersion, candidate.DedupeKey}] {
		c.Findings = append(c.Findings, caseFinding{ID: k.state.ID, FirstSeen: k.state.FirstSeen, LastSeen: k.state.LastSeen})
	}
	return c
}

// claim returns the id of the finding that candidate belongs to, or is to open: durable in
// the log before it returns, and the same for every detector from then on.
func (r *detectorRun) claim(ctx context.Context, candidate domain.Finding) (domain.EventID, error) {
	stream := caseStream(candidate)
	for range detectorTries {
		raw, ok, err := r.cfg.Log.Last(ctx, stream)
		if err != nil {
			return domain.EventID{}, fmt.Errorf("read %s: %w", stream, err)
		}
		claims, exp := r.book.claimsOf(candidate), eventlog.NoStream()
		if ok {
			claims, exp = caseClaims{}, eventlog.Exactly(raw.Revision)
			if err := json.Unmarshal(raw.Data, &claims); err != nil {
				return domain.EventID{}, fmt.Errorf("read %s@%d: %w", stream, raw.Revision, err)
			}
		}
		id, changed := claims.take(candidate)
		if !changed {
			return id, nil
		}
		err = r.appendClaims(ctx, stream, exp, claims)
		if err == nil {
			return id, nil
		}
		if !errors.As(err, new(*eventlog.WrongRevision)) {
			return domain.EventID{}, fmt.Errorf("claim in %s: %w", stream, err)
		}
	}
	return domain.EventID{}, fmt.Errorf("claim in %s: other writers were faster each time", stream)
}

func (r *detectorRun) appendClaims(ctx context.Context, stream string, exp eventlog.Expected, claims caseClaims) error {
	if exp == eventlog.NoStream() {
		if err := r.cfg.Log.SetMaxCount(ctx, stream, caseClaimsKept); err != nil {
			return fmt.Errorf("bound the claims: %w", err)
		}
	}
	data, err := json.Marshal(claims)
	if err != nil {
		return fmt.Errorf("encode claims: %w", err)
	}
	_, err = r.cfg.Log.Append(ctx, stream, exp, eventlog.Proposed{
		ID:   domain.DeriveID(typeCaseClaimed, stream, exp.String(), string(data)),
		Type: typeCaseClaimed, JSON: true, Data: data, Meta: []byte("{}"),
	})
	return err //nolint:wrapcheck // claim names the stream.
}
