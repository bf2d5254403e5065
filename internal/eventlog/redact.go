package eventlog

import (
	"errors"
	"net/url"
)

// redactURL cuts the connection string, and with it a password, out of a parse
// error: url.Error quotes what it could not parse.
func redactURL(err error) error {
	var u *url.Error
	if errors.As(err, &u) {
		return u.Err
	}
	return err
}
