package main

import (
	"errors"
	"net/http"

	"example.com/keytrail/internal/client"
)

// whatNext says what people can do about an answer of the server, "" where its own words
// are enough.
func whatNext(err error) string {
	e, ok := errors.AsType[*client.Error](err)
	if !ok {
		return ""
	}
	switch e.MessageCode {
	case "stale_entity_tag":
		return "somebody changed it meanwhile: look at it again with 'get' or 'show', or give --if-match '*'"
	case "locked_key":
		return "unlock it first: 'keytrail keys unlock KEY-ID', 'keytrail serviceids unlock SERVICE-ID'"
	case "key_limit_reached":
		return "delete a key that nobody uses ('keytrail reports inactive'), or raise the limit: 'keytrail limits set'"
	}
	switch e.Status {
	case http.StatusUnauthorized:
		return "the key in --key-file is not good for this server, or no longer: see 'keytrail keys list' of an administrator"
	case http.StatusForbidden:
		return "ask one of 'keytrail users list --search role:Administrator', or see your roles: 'keytrail accounts list'"
	case http.StatusNotFound:
		return "'list' shows what there is; things of accounts that you are not in look as if they were not there"
	case http.StatusServiceUnavailable:
		return "it may pass by itself: try again, and look at /readyz"
	}
	return ""
}
