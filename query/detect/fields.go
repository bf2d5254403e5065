package detect

import (
	"fmt"
	"strconv"
	"strings"
)

// field is one thing that a rule's filter can name: where a record in memory has it,
// and by which expression the table of a source does.
type field struct {
	number bool
	get    func(*Record) string
	// expr is constant SQL over the source's table; with key it takes that as its one
	// argument.
	expr string
	key  string
}

// args are the arguments of the placeholders in f's expression.
func (f field) args() []any {
	if f.key == "" {
		return nil
	}
	return []any{f.key}
}

// useOutcome is the outcome of a use, which [Record.outcome] repeats in memory: what
// the source said, else what follows from the status and the error code.
// The same holds for an action that nobody named.
const (
	useOutcome = "multiIf(outcome != '', outcome, status >= 400 OR error_code != '', 'failure', 'success')"
	useAction  = "if(action = '', 'iam-identity.user-apikey.use', action)"
)

// labelPrefix opens the names of the free fields that a source gave.
const labelPrefix = "labels."

// fieldOf returns the field that name means in source. Names are those of the CADF
// record (and of search) where CADF has one.
func fieldOf(source Source, name string) (field, error) {
	if key, ok := strings.CutPrefix(name, labelPrefix); ok && key != "" && source == Usage {
		return field{get: func(r *Record) string { return r.Labels[key] }, expr: "labels[?]", key: key}, nil
	}
	get, column := accessor(name), columns(source)[name]
	if get == nil {
		return field{}, fmt.Errorf("there is no field %q", name)
	}
	if column == "" {
		return field{}, fmt.Errorf("the source %s has no field %q", source, name)
	}
	return field{number: name == "reason.reasonCode", get: get, expr: column}, nil
}

func accessor(name string) func(*Record) string {
	switch name {
	case "action":
		return (*Record).action
	case "access":
		return func(r *Record) string { return r.Access }
	case "outcome":
		return (*Record).outcome
	case "reason.reasonCode":
		return func(r *Record) string { return strconv.Itoa(r.Status) }
	case "reason.reasonForFailure":
		return func(r *Record) string { return r.Error }
	case "initiator.id":
		return func(r *Record) string { return string(r.Group.Identity) }
	case "initiator.credential.id":
		return func(r *Record) string { return string(r.Group.Key) }
	case "initiator.credential.type":
		return func(r *Record) string { return r.CredentialType }
	case "initiator.host.address":
		return func(r *Record) string { return r.Address }
	case "initiator.host.agent":
		return func(r *Record) string { return r.Agent }
	case "target.id":
		return func(r *Record) string { return r.Target }
	case "region":
		return func(r *Record) string { return r.Region }
	case "key.status":
		return func(r *Record) string { return r.KeyStatus }
	}
	return nil
}

// columns gives, by a field's name, the column of source's table.
func columns(source Source) map[string]string {
	switch source {
	case Usage:
		return map[string]string{
			"action": useAction, "access": "access", "outcome": useOutcome,
			"reason.reasonCode": "status", "reason.reasonForFailure": "error_code",
			"initiator.id": "iam_id", "initiator.credential.id": "key_id",
			"initiator.host.address": "source", "initiator.host.agent": "user_agent",
			"target.id": "target", "region": "region",
		}
	case Violations:
		return map[string]string{
			"action": "action", "outcome": "outcome", "initiator.id": "iam_id", "initiator.credential.id": "key_id",
			"initiator.host.address": "source", "initiator.host.agent": "user_agent", "key.status": "status",
		}
	case Activity:
		return map[string]string{ //nolint:gosec // Names of columns, no credentials.
			"action": "action", "outcome": "outcome",
			"reason.reasonCode": "reason_code", "reason.reasonForFailure": "reason",
			"initiator.id": "initiator_id", "initiator.credential.id": "credential_id", "initiator.credential.type": "credential_type",
			"initiator.host.address": "source", "initiator.host.agent": "user_agent", "target.id": "target_id",
		}
	}
	return nil
}
