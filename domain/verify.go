package domain

import "strings"

// VerifyCode says what a key that was shown is worth, or why nothing.
type VerifyCode string

// The codes of a verification, in the order in which they win over each other: whoever may
// not know a key learns nothing else, and a key that is worth nothing is not asked further.
const (
	// VerifyNotFound: no key has that value, or none that the caller may know of.
	VerifyNotFound VerifyCode = "NOT_FOUND"
	VerifyDeleted  VerifyCode = "DELETED"
	VerifyDisabled VerifyCode = "DISABLED"
	VerifyExpired  VerifyCode = "EXPIRED"
	// VerifyIdentityInvalid: the identity that the key acts as is no more.
	VerifyIdentityInvalid VerifyCode = "IDENTITY_INVALID"
	// VerifyIPRefused: it was shown from an address that its account or its user does not allow.
	VerifyIPRefused VerifyCode = "IP_REFUSED"
	// VerifyCrossAccountRefused: it is of another account than its target, which keeps those out.
	VerifyCrossAccountRefused VerifyCode = "CROSS_ACCOUNT_REFUSED"
	// VerifyForbidden: its identity may not do this to that.
	VerifyForbidden VerifyCode = "FORBIDDEN"
	VerifyValid     VerifyCode = "VALID"
)

// What refused questions whether a key or a token is valid are called.
const (
	ActionKeyVerify       = "iam-identity.apikey.verify"
	ActionTokenIntrospect = "iam-identity.token.introspect"
)

// CheckUseText says what is wrong with a text that is to be recorded with a use: field names
// it to whoever sent it.
func CheckUseText(field, s string, bytesMax int) error { return checkText(field, s, bytesMax) }

// ActionAccessEval is IBM's name of the decision whether an identity of another account is
// let in.
const ActionAccessEval = "iam-access-management.account-settings.eval"

// Names under which a use that is such a decision says what was decided.
const (
	LabelDecision = "decision"
	LabelEnforced = "isEnforced"
)

// AccessQuestion is what a key is to be used for, and what is known of where.
type AccessQuestion struct {
	Key            KeyState
	Action, Target string
	// Where is the account of the target: the key's own, unless the target names another.
	Where Account
	// Known says that the key's identity is anything there.
	Known bool
}

// Crossing is the decision of an account whether an identity of another one is let in.
type Crossing struct {
	Account AccountID
	Permit  bool
	// Enforced is false where a denial is only recorded.
	Enforced bool
}

// Decision returns the word of IBM's records.
func (c Crossing) Decision() string {
	if c.Permit {
		return "Permit"
	}
	return "Deny"
}

// Refused reports whether the identity is kept out.
func (c Crossing) Refused() bool { return !c.Permit && c.Enforced }

// Decide says whether a valid key may be used so, and why not: [VerifyValid],
// [VerifyCrossAccountRefused] or [VerifyForbidden]. Where the target is in another account
// than the key it also says what that account decided, unless the identity is nobody there.
func (q AccessQuestion) Decide() (code VerifyCode, reason string, crossing *Crossing) {
	if own := q.Where.ID() == q.Key.Account; !own {
		if !q.Known {
			return VerifyForbidden, "the key's identity is nobody in the account of the target", nil
		}
		crossing = &Crossing{Account: q.Where.ID()}
		crossing.Permit, crossing.Enforced = q.Where.AccessSettings().Of(q.Key.IAMID).Permits(q.Where.ID(), q.Key.Account)
		if crossing.Refused() {
			return VerifyCrossAccountRefused, "the account of the target does not let identities of the key's account in", crossing
		}
	}
	if (q.Action != "" || q.Target != "") && !q.Where.Grants(q.Key.IAMID).Allows(q.Action, q.Target) {
		return VerifyForbidden, "the key's identity has grants, and none is for this", crossing
	}
	return VerifyValid, "", crossing
}

// AccountOfCRN returns the account that a cloud resource name is scoped to, "" where it is
// scoped to none or is no such name.
func AccountOfCRN(crn string) AccountID {
	parts := strings.SplitN(crn, ":", 8)
	if len(parts) < 8 || parts[0] != "crn" {
		return ""
	}
	account, _ := strings.CutPrefix(parts[6], "a/")
	if account == parts[6] || !ValidID(account) {
		return ""
	}
	return AccountID(account)
}
