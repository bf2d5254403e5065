package domain

import (
	"fmt"
	"strings"
	"time"
	"unicode/utf8"
)

func checkName(s string) error {
	if strings.TrimSpace(s) == "" {
		return Errorf(Invalid, "is required and must not be empty").WithField("name").WithMessageCode("missing_name")
	}
	return checkText("name", s, KeyNameBytesMax)
}

func checkDescription(s string) error {
	return checkText("description", s, KeyDescriptionBytesMax)
}

// checkText refuses what could not be shown or stored as it came.
func checkText(field, s string, bytesMax int) error {
	switch {
	case len(s) > bytesMax:
		return Errorf(Invalid, "is longer than %d bytes", bytesMax).WithField(field).WithMessageCode("too_long")
	case !utf8.ValidString(s) || strings.ContainsRune(s, 0):
		return Errorf(Invalid, "is not text").WithField(field).WithMessageCode("invalid_text")
	case LooksLikeKeyValue(s):
		return Errorf(Invalid, "holds what looks like the value of a key").WithField(field).WithMessageCode("holds_secret")
	}
	return nil
}

func checkLeakAction(a LeakAction) error {
	switch a {
	case LeakNone, LeakDisable, LeakDelete:
		return nil
	}
	return Errorf(Invalid, "must be none, disable or delete").
		WithField("action_when_leaked").WithMessageCode("invalid_action_when_leaked")
}

// futureExpiry reads an expiry that must lie after now; "" means never.
func futureExpiry(s string, now time.Time) (*time.Time, error) {
	if s == "" {
		return nil, nil
	}
	t, err := ParseExpiry(s)
	if err != nil {
		return nil, err
	}
	if !t.After(now) {
		return nil, Errorf(Invalid, "lies in the past").WithField("expires_at").WithMessageCode("expires_at_in_past")
	}
	return &t, nil
}

func errSessions() *Error {
	return Errorf(Invalid, "only user keys can have sessions").
		WithField("support_sessions").WithMessageCode("sessions_need_user_key")
}

func errNoKey() *Error {
	return Errorf(NotFound, "no such API key").WithMessageCode("key_not_found")
}

// MessageCodeLocked marks refusals because the target is locked.
const MessageCodeLocked = "locked_key"

// MessageCodeExternal marks refusals because another system owns the key.
const MessageCodeExternal = "external_key"

func errLocked(s KeyState) *Error {
	return Errorf(Conflict, "key %s is locked; unlock it first", s.ID).WithMessageCode(MessageCodeLocked)
}

func errExternal(s KeyState, v Verb) *Error {
	return Errorf(Conflict, "key %s belongs to another system and can only be changed there%s", s.ID, upstreamAdvice(s, v)).
		WithMessageCode(MessageCodeExternal)
}

// upstreamAdvice returns the command that does v where the key lives, if we know it.
func upstreamAdvice(s KeyState, v Verb) string {
	if s.Source != "aws" {
		return ""
	}
	command := map[Verb]string{
		VerbDisable: "update-access-key --status Inactive --access-key-id ",
		VerbEnable:  "update-access-key --status Active --access-key-id ",
		VerbDelete:  "delete-access-key --access-key-id ",
	}[v]
	if command == "" {
		return ""
	}
	advice := fmt.Sprintf(": aws iam %s%s", command, s.ID)
	if s.Name != "" {
		advice += " --user-name " + s.Name
	}
	return advice
}
