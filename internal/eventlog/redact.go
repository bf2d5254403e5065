package eventlog

import (
	"errors"
	"net/url"
)

// redactURL cuts the connection string, and with it a password, out of a parse
// error: url.Error quotes what it could not parse.
func redactURL(err error) error {
	if u, ok := errors.AsType[*url.Error](err); ok {
		return u.Err
	}
	return err
}
