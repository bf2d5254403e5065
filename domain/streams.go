package domain

import (
	"fmt"
	"strings"
)

// Prefixes of stream names. Evidence begins with [EvidencePrefix], machinery with
// [MachineryPrefix]; nothing else on a shared cluster is ours.
const (
	EvidencePrefix  = "kt."
	MachineryPrefix = "ktx."

	AccountStreams   = "kt.account-"
	ServiceIDStreams = "kt.serviceid-"
	KeyStreams       = "kt.apikey-"
	KeySlotStreams   = "kt.keyslots-"
	KeyValueStreams  = "kt.keyvalue-"
	UsageStreams     = "kt.usage-"
	RefusedStreams   = "kt.refused-"
	AccessStreams    = "kt.access-"
	FindingStreams   = "kt.finding-"
	SessionStreams   = "kt.session-"
	ReportStreams    = "kt.report-"

	// HorizonStream holds what was sealed of usage streams, LegalHoldStream the legal
	// holds and the cuts.
	HorizonStream   = "kt.horizon"
	LegalHoldStream = "kt.legalholds"
)

// UsageSlots is the number of slots that usage of one class is spread over.
const UsageSlots = 64

// AccountStream returns the stream of account id.
func AccountStream(id AccountID) string { return AccountStreams + string(id) }

// ServiceIDStream returns the stream of the service ID with that identifier.
func ServiceIDStream(id string) string { return ServiceIDStreams + id }

// KeyStream returns the stream of a key made here, whose id is unique everywhere.
func KeyStream(id KeyID) string { return KeyStreams + string(id) }

// ExternalKeyStream returns the stream of an external key. The account is part of
// the name, length-prefixed, since the id was given by others: one tenant's import
// must not reach another tenant's key.
func ExternalKeyStream(account AccountID, id KeyID) string {
	return fmt.Sprintf("%sx%d.%s.%s", KeyStreams, len(account), account, id)
}

// SessionStream returns the stream of session id.
func SessionStream(id string) string { return SessionStreams + id }

// KeySlotStream returns the stream of the slots of an identity in an account, for keys of
// that kind: classic keys have one of their own. The account is length-prefixed.
func KeySlotStream(account AccountID, iam IAMID, kind KeyKind) string {
	pool := ""
	if kind == KindClassic {
		pool = "classic."
	}
	return fmt.Sprintf("%s%s%d.%s.%s", KeySlotStreams, pool, len(account), account, iam)
}

// KeyValueStream returns the stream of a value that a caller chose, of which fingerprint is
// the keyed one.
func KeyValueStream(fingerprint string) string { return KeyValueStreams + fingerprint }

// ReportStream returns the stream of the reports of account id.
func ReportStream(id AccountID) string { return ReportStreams + string(id) }

// UsageSlotStream returns the stream of slot (0…63) of a class of usage.
func UsageSlotStream(class string, slot int) string {
	return fmt.Sprintf("%s%s-%02d", UsageStreams, class, slot)
}

// UsageWriterStream returns the stream in which one writer records the uses of a
// class that it saw itself.
func UsageWriterStream(class, writer string) string {
	return UsageStreams + class + "-v" + writer
}

// RefusedStream returns the stream of commands refused by writer.
func RefusedStream(writer string) string { return RefusedStreams + writer }

// AccessStream returns the stream of audit reads and exports served by writer.
func AccessStream(writer string) string { return AccessStreams + writer }

// FindingStream returns the stream of finding id.
func FindingStream(id EventID) string { return FindingStreams + id.String() }

// IsEvidence reports whether the stream holds evidence.
func IsEvidence(stream string) bool { return strings.HasPrefix(stream, EvidencePrefix) }
