package domain

import "strings"

// checkTag returns nil if ifMatch, as a header has it, takes the version with tag of what.
func checkTag(ifMatch, tag, what string) error {
	switch {
	case ifMatch == "":
		return errNoTag()
	case !matchesTag(ifMatch, tag):
		return errStaleTag(what)
	}
	return nil
}

func errNoTag() *Error {
	return Errorf(Invalid, "the header is required: the entity tag that was read, or *").
		WithField("If-Match").WithMessageCode("missing_if_match")
}

func errStaleTag(what string) *Error {
	return Errorf(Conflict, "the entity tag is stale: the %s was changed since it was read", what).
		WithField("If-Match").WithMessageCode("stale_entity_tag")
}

// matchesTag reports whether ifMatch, as a header has it, takes the version with tag.
func matchesTag(ifMatch, tag string) bool { return ifMatch == "*" || strings.Trim(ifMatch, `"`) == tag }
