package domain

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
