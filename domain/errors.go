package domain

import (
	"errors"
	"fmt"
)

// Code is the class of a refusal. One place, internal/httpx, maps it to a status.
type Code string

// The classes of refusal.
const (
	Invalid            Code = "invalid"             // 400: the command is not well formed.
	Unauthenticated    Code = "unauthenticated"     // 401: nobody knows who asks.
	Forbidden          Code = "forbidden"           // 403: known, but without the right.
	NotFound           Code = "not_found"           // 404: no such thing, or another tenant's.
	Conflict           Code = "conflict"            // 409: the state does not allow it.
	PreconditionFailed Code = "precondition_failed" // 412: the entity tag is stale.
	TooLarge           Code = "too_large"           // 413: over a stated bound.
	Unavailable        Code = "unavailable"         // 503: try again.
	Internal           Code = "internal"            // 500: a fault of ours.
)

// Error is a refusal that may be shown to the caller. Message never holds a secret
// nor internal detail; Field names the part of the input that is wrong, if one is.
type Error struct {
	Code    Code
	Message string
	// MessageCode is a stable identifier for programs, such as "locked_key".
	MessageCode string
	Field       string
}

// Error implements error.
func (e *Error) Error() string {
	if e.Field != "" {
		return e.Field + ": " + e.Message
	}
	return e.Message
}

// Errorf returns an [Error] with code and a formatted message.
func Errorf(code Code, format string, args ...any) *Error {
	return &Error{Code: code, Message: fmt.Sprintf(format, args...)}
}

// WithField returns e naming the wrong input field.
func (e *Error) WithField(name string) *Error {
	c := *e
	c.Field = name
	return &c
}

// WithMessageCode returns e with a stable identifier for programs.
func (e *Error) WithMessageCode(code string) *Error {
	c := *e
	c.MessageCode = code
	return &c
}

// CodeOf returns the code of the first [Error] in err's tree, [Internal] where there is none.
func CodeOf(err error) Code {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Code
	}
	return Internal
}
