package domain

import "strings"

// SeverityOf returns the severity of an activity by its action and its status: where
// the two differ, the higher wins (events.md). It does not know about locks: see
// [ActivityOf].
func SeverityOf(action string, status int) Severity {
	return worse(severityOfStatus(status), severityOfVerb(lastPart(action)))
}

func severityOfStatus(status int) Severity {
	switch status {
	case 401, 403, 503, 507:
		return SeverityCritical
	case 400, 409, 424, 500, 502, 504, 505:
		return SeverityWarning
	}
	return SeverityNormal
}

func severityOfVerb(verb string) Severity {
	switch verb {
	case "update", "lock", "unlock", "disable", "enable", "expire", "set", "confirm", "acknowledge", "suppress", "resolve", "reopen", "reveal":
		return SeverityWarning
	case "delete", "purge", "rotate", "leak", "revoke":
		return SeverityCritical
	}
	return SeverityNormal
}

func worse(a, b Severity) Severity {
	if severityRank(b) > severityRank(a) {
		return b
	}
	return a
}

func severityRank(s Severity) int {
	switch s {
	case SeverityCritical:
		return 2
	case SeverityWarning:
		return 1
	case SeverityNormal:
		return 0
	}
	return 0
}

// lastPart returns the verb of "service.objectType.verb".
func lastPart(action string) string {
	return action[strings.LastIndexByte(action, '.')+1:]
}
