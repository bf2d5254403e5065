package domain

import (
	"encoding/json"
	"slices"
	"strings"
	"unicode/utf8"
)

// Bounds of the grants of one identity in one account.
const (
	grantsMax         = 100
	grantPatternsMax  = 200
	patternBytesMax   = 512
	grantsBytesMax    = 256 << 10
	messageCodeGrants = "invalid_grants"
)

// Grant lets an identity do actions on resources, both patterns in which * stands for any
// text. Without resources it is for all.
type Grant struct {
	Actions   []string `json:"actions" description:"Patterns: * stands for any text."`
	Resources []string `json:"resources,omitempty" description:"Patterns: * stands for any text. None: all resources."`
}

// Grants are what an identity may do in one account. No grants at all mean that what it does
// is not checked.
type Grants []Grant

// Allows reports whether g lets action be done on target, or there are no grants. A pattern
// matches the whole text, letter by letter; what was not named ("") is matched by * only.
func (g Grants) Allows(action, target string) bool {
	if len(g) == 0 {
		return true
	}
	for _, grant := range g {
		if anyMatches(grant.Actions, action) && (len(grant.Resources) == 0 || anyMatches(grant.Resources, target)) {
			return true
		}
	}
	return false
}

// MatchesAction reports whether pattern, one of a grant's actions, is for action.
func MatchesAction(pattern, action string) bool { return matchWildcard(pattern, action) }

func anyMatches(patterns []string, s string) bool {
	return slices.ContainsFunc(patterns, func(p string) bool { return matchWildcard(p, s) })
}

// matchWildcard reports whether s is what pattern says, in which * stands for any text. It
// costs at most the product of their lengths, and no memory.
func matchWildcard(pattern, s string) bool {
	p, i := 0, 0
	star, from := -1, 0 // The last * in pattern, and where in s what follows it was tried.
	for i < len(s) {
		switch {
		case p < len(pattern) && pattern[p] == '*':
			star, from = p, i
			p++
		case p < len(pattern) && pattern[p] == s[i]:
			p++
			i++
		case star >= 0:
			from++
			p, i = star+1, from
		default:
			return false
		}
	}
	return strings.Trim(pattern[p:], "*") == ""
}

// GrantsSet records all that an identity may do in an account from now on.
type GrantsSet struct {
	Account AccountID `json:"account_id"`
	IAMID   IAMID     `json:"iam_id"`
	Old     Grants    `json:"old,omitempty"`
	New     Grants    `json:"new,omitempty"`
}

// TypeGrantsSet is the stored name of [GrantsSet].
const TypeGrantsSet = "account.grants-set.v1"

// Type implements [Event].
func (GrantsSet) Type() string { return TypeGrantsSet }

// Member implements [MemberEvent].
func (e GrantsSet) Member() IAMID { return e.IAMID }

func (GrantsSet) isEvent()        {}
func (GrantsSet) isAccountEvent() {}
func (GrantsSet) isMemberEvent()  {}

// SetGrants sets all that a user or a service ID may do in the account.
type SetGrants struct {
	IAMID  IAMID
	Grants Grants
}

func (SetGrants) isAccountCommand() {}
func (SetGrants) isMemberCommand()  {}

// Grants returns what the identity id may do in the account.
func (a Account) Grants(id IAMID) Grants {
	g, _ := a.grants.get(id)
	return g
}

func (a Account) setGrants(c SetGrants) ([]Event, error) {
	grants, err := c.Grants.checked()
	if err != nil {
		return nil, err
	}
	_, member := a.Member(c.IAMID)
	_, service := ServiceIDOf(c.IAMID)
	switch {
	case !a.Exists():
		return nil, errNoAccount()
	case !member && !service:
		return nil, errNoMember()
	case grants.text() == a.Grants(c.IAMID).text():
		return nil, nil
	}
	return []Event{GrantsSet{Account: a.id, IAMID: c.IAMID, Old: a.Grants(c.IAMID), New: grants}}, nil
}

// checked returns g with its patterns sorted, each once, or why it is not well formed.
func (g Grants) checked() (Grants, error) {
	if len(g) > grantsMax {
		return nil, Errorf(Invalid, "has more than %d entries in one account", grantsMax).WithField("grants").WithMessageCode("too_many")
	}
	var out Grants
	for _, grant := range g {
		if len(grant.Actions) == 0 {
			return nil, Errorf(Invalid, "must name at least one").WithField("actions").WithMessageCode(messageCodeGrants)
		}
		actions, err := checkPatterns("actions", grant.Actions)
		if err != nil {
			return nil, err
		}
		resources, err := checkPatterns("resources", grant.Resources)
		if err != nil {
			return nil, err
		}
		out = append(out, Grant{Actions: actions, Resources: resources})
	}
	if len(out.text()) > grantsBytesMax {
		return nil, Errorf(Invalid, "are larger than %d bytes in one account", grantsBytesMax).WithField("grants").WithMessageCode("too_long")
	}
	return out, nil
}

func checkPatterns(field string, patterns []string) ([]string, error) {
	if len(patterns) > grantPatternsMax {
		return nil, Errorf(Invalid, "has more than %d patterns", grantPatternsMax).WithField(field).WithMessageCode("too_many")
	}
	for _, p := range patterns {
		if p == "" || len(p) > patternBytesMax || !utf8.ValidString(p) || strings.ContainsFunc(p, func(r rune) bool { return r < ' ' || r == 0x7f }) {
			return nil, Errorf(Invalid, "must be patterns of 1 to %d bytes of text", patternBytesMax).WithField(field).WithMessageCode(messageCodeGrants)
		}
		if err := checkText(field, p, patternBytesMax); err != nil {
			return nil, err
		}
	}
	return slices.Compact(slices.Sorted(slices.Values(patterns))), nil
}

// text returns g as JSON, "" for none.
func (g Grants) text() string {
	if len(g) == 0 {
		return ""
	}
	b, err := json.Marshal(g)
	if err != nil {
		panic(err) // Texts always marshal.
	}
	return string(b)
}
