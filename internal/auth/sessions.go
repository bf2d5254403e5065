package auth

import (
	"container/heap"
	"slices"
	"strings"
	"time"

	"example.com/keytrail/domain"
)

// sessionKept is how long a session is known after it is over: longer than any access token
// lives. A session that is not known is not revoked, or has no token that is still good.
const sessionKept = 2 * time.Hour

// sessions are those of the log that are not over, or not for long: what time it is they
// take from the log, whatever this machine's clock says. The directory's mutex guards them.
type sessions struct {
	byID map[string]sessionEntry
	of   map[domain.IAMID]map[string]struct{}
	ends endings
	now  time.Time // When the newest event arrived at the log that the subscription delivered.
}

type sessionEntry struct {
	state    domain.SessionState
	revision uint64
	seen     time.Time // The log's time when the newest event was seen.
}

// forgettable returns from when on nobody needs to know of the session.
func (e sessionEntry) forgettable() time.Time {
	if e.state.Over {
		return e.seen.Add(sessionKept)
	}
	return e.state.EndsAt.Add(sessionKept)
}

func newSessions() sessions {
	return sessions{byID: map[string]sessionEntry{}, of: map[domain.IAMID]map[string]struct{}{}}
}

// apply keeps the state of the newest revision: each event carries it whole.
func (s *sessions) apply(rec domain.Recorded) {
	e, ok := rec.Event.(domain.SessionEvent)
	if !ok {
		return
	}
	state := e.State()
	old, known := s.byID[state.ID]
	if known && rec.Revision <= old.revision {
		return
	}
	entry := sessionEntry{state: state, revision: rec.Revision, seen: s.now}
	s.byID[state.ID] = entry
	if !known || state.Over { // A later ending than the one in the heap is seen when that comes.
		heap.Push(&s.ends, ending{at: entry.forgettable(), id: state.ID})
	}
	if s.of[state.IAMID] == nil {
		s.of[state.IAMID] = map[string]struct{}{}
	}
	s.of[state.IAMID][state.ID] = struct{}{}
}

// advance takes the log's time from an event that was delivered and forgets what is over.
func (s *sessions) advance(to time.Time) {
	if to.After(s.now) {
		s.now = to
	}
	for len(s.ends) > 0 && s.ends[0].at.Before(s.now) {
		next, _ := heap.Pop(&s.ends).(ending)
		entry, known := s.byID[next.id]
		if !known {
			continue // Over before its time, and forgotten then.
		}
		if at := entry.forgettable(); !at.Before(s.now) {
			heap.Push(&s.ends, ending{at: at, id: next.id})
			continue
		}
		delete(s.byID, next.id)
		if delete(s.of[entry.state.IAMID], next.id); len(s.of[entry.state.IAMID]) == 0 {
			delete(s.of, entry.state.IAMID)
		}
	}
}

// ending says when a session is to be looked at.
type ending struct {
	at time.Time
	id string
}

// endings is a heap, the earliest first.
type endings []ending

var _ heap.Interface = (*endings)(nil)

// Len implements [heap.Interface].
func (e *endings) Len() int { return len(*e) }

// Less implements [heap.Interface].
func (e *endings) Less(i, j int) bool { return (*e)[i].at.Before((*e)[j].at) }

// Swap implements [heap.Interface].
func (e *endings) Swap(i, j int) { (*e)[i], (*e)[j] = (*e)[j], (*e)[i] }

// Push implements [heap.Interface].
func (e *endings) Push(x any) {
	v, _ := x.(ending)
	*e = append(*e, v)
}

// Pop implements [heap.Interface].
func (e *endings) Pop() any {
	last := len(*e) - 1
	v := (*e)[last]
	*e = (*e)[:last]
	return v
}

// Session returns the newest known state of a session, of one that is over perhaps none.
func (d *Directory) Session(id string) (domain.SessionState, bool) {
	d.mu.RLock()
	defer d.mu.RUnlock()
	e, ok := d.sessions.byID[id]
	return e.state, ok
}

// SessionsOf returns the sessions of an identity that are not over at t, the oldest first.
func (d *Directory) SessionsOf(iam domain.IAMID, t time.Time) []domain.SessionState {
	d.mu.RLock()
	defer d.mu.RUnlock()
	var out []domain.SessionState
	for id := range d.sessions.of[iam] {
		if s := d.sessions.byID[id].state; !s.Ended(t) {
			out = append(out, s)
		}
	}
	slices.SortFunc(out, oldestFirst)
	return out
}

// SessionsIn returns the sessions of an account that are not over at t, the oldest first.
func (d *Directory) SessionsIn(account domain.AccountID, t time.Time) []domain.SessionState {
	d.mu.RLock()
	defer d.mu.RUnlock()
	var out []domain.SessionState
	for _, e := range d.sessions.byID {
		if e.state.Account == account && !e.state.Ended(t) {
			out = append(out, e.state)
		}
	}
	slices.SortFunc(out, oldestFirst)
	return out
}

func oldestFirst(a, b domain.SessionState) int {
	if c := a.CreatedAt.Compare(b.CreatedAt); c != 0 {
		return c
	}
	return strings.Compare(a.ID, b.ID)
}

// checkSession returns nil unless the session is known to be over. Whoever asks holds a
// token of it, which is not good for longer than it.
func (d *Directory) checkSession(id string) error {
	if id == "" {
		return nil
	}
	d.mu.RLock()
	defer d.mu.RUnlock()
	if d.closed[domain.SessionStream(id)] {
		return domain.Errorf(domain.Unavailable, "the history of this session cannot be read").WithMessageCode("session_closed")
	}
	if d.sessions.byID[id].state.Over {
		return refused(domain.MessageCodeSessionRevoked, "the session was revoked")
	}
	return nil
}
