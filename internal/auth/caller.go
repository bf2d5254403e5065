package auth

import (
	"maps"
	"slices"

	"github.com/gin-gonic/gin"

	"example.com/keytrail/domain"
)

// Standings says what identities are in accounts. [Directory] does.
type Standings interface {
	Standing(iam domain.IAMID, account domain.AccountID) domain.Standing
	AccountsOf(iam domain.IAMID) []domain.AccountID
}

// Caller is who sends a request. The zero Caller is a stranger everywhere.
type Caller struct {
	// Initiator is what events say about who gave a command.
	Initiator domain.Initiator
	standings Standings
}

// NewCaller returns a caller who is what standings says, where it is asked.
func NewCaller(who domain.Initiator, standings Standings) Caller {
	return Caller{Initiator: who, standings: standings}
}

// Standing returns what the caller is in account, now.
func (c Caller) Standing(account domain.AccountID) domain.Standing {
	if c.standings == nil {
		return domain.Standing{}
	}
	return c.standings.Standing(c.Initiator.IAMID, account)
}

// Can reports whether the caller holds right in account, now.
func (c Caller) Can(right domain.Right, account domain.AccountID) bool {
	return c.Standing(account).Can(right)
}

// Accounts returns the accounts in which the caller holds right, sorted. With
// [domain.RightRead] they are the scope of a query that names no account.
func (c Caller) Accounts(right domain.Right) []domain.AccountID {
	if c.standings == nil {
		return nil
	}
	var out []domain.AccountID
	for _, account := range c.standings.AccountsOf(c.Initiator.IAMID) {
		if c.Can(right, account) {
			out = append(out, account)
		}
	}
	return out
}

// Memberships returns the accounts in which the caller is anything, sorted.
func (c Caller) Memberships() []domain.AccountID {
	if c.standings == nil {
		return nil
	}
	return slices.Clone(c.standings.AccountsOf(c.Initiator.IAMID))
}

// FixedStandings is what one identity is, as a table: for callers that are not in the
// log, such as the system and tests.
type FixedStandings map[domain.AccountID]domain.Standing

// Standing implements [Standings].
func (f FixedStandings) Standing(_ domain.IAMID, account domain.AccountID) domain.Standing {
	return f[account]
}

// AccountsOf implements [Standings].
func (f FixedStandings) AccountsOf(domain.IAMID) []domain.AccountID {
	return slices.Sorted(maps.Keys(f))
}

var (
	_ Standings = (*Directory)(nil)
	_ Standings = FixedStandings(nil)
)

const callerKey = "keytrail.caller"

// WithCaller makes caller the one who sends the request c. The middleware does it.
func WithCaller(c *gin.Context, caller Caller) { c.Set(callerKey, caller) }

// CallerOf returns who sends the request c. Behind [Authenticator.Require] it is
// always somebody; elsewhere it is the zero Caller, who may do nothing.
func CallerOf(c *gin.Context) Caller {
	v, _ := c.Get(callerKey)
	caller, _ := v.(Caller)
	return caller
}
