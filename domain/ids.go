package domain

import (
	"crypto/sha1" //nolint:gosec // RFC 9562 defines UUIDv5 with SHA-1; it names things, it does not protect them.
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"strings"
)

// AccountID names an account: 1–64 characters of [ValidID]. Imported accounts keep
// the number that their source gave them.
type AccountID string

// KeyID names an API key. Keys made here are "ApiKey-<uuid>" and unique
// everywhere; external keys keep the identifier of their source (an AWS access key
// id, say) and are unique only within their account.
type KeyID string

// IAMID names an identity (user, service ID or system) across all accounts.
type IAMID string

// SystemIAMID is the identity of keytrail's own acts: expiry, purge, detection.
const SystemIAMID IAMID = "system"

// idBytesMax bounds every identifier that may become part of a stream name.
const idBytesMax = 128

// ValidID reports whether s can stand in a stream name: 1–128 bytes of letters,
// digits and "-_.:@".
func ValidID(s string) bool {
	if s == "" || len(s) > idBytesMax {
		return false
	}
	for i := range len(s) {
		c := s[i]
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', strings.IndexByte("-_.:@", c) >= 0:
		default:
			return false
		}
	}
	return true
}

// EventID is the UUID of an event. Ours are version 5, computed from what caused
// the event, so that a repeated append writes the same id.
type EventID [16]byte

// String returns the canonical lower-case form of id.
func (id EventID) String() string {
	var b [36]byte
	hex.Encode(b[:8], id[:4])
	hex.Encode(b[9:13], id[4:6])
	hex.Encode(b[14:18], id[6:8])
	hex.Encode(b[19:23], id[8:10])
	hex.Encode(b[24:], id[10:])
	b[8], b[13], b[18], b[23] = '-', '-', '-', '-'
	return string(b[:])
}

// MarshalText implements [encoding.TextMarshaler].
func (id EventID) MarshalText() ([]byte, error) { return []byte(id.String()), nil }

// UnmarshalText implements [encoding.TextUnmarshaler].
func (id *EventID) UnmarshalText(b []byte) error {
	v, err := ParseEventID(string(b))
	if err != nil {
		return err
	}
	*id = v
	return nil
}

// ParseEventID reads the canonical 36-character form of a UUID.
func ParseEventID(s string) (EventID, error) {
	var id EventID
	if len(s) != 36 || s[8] != '-' || s[13] != '-' || s[18] != '-' || s[23] != '-' {
		return id, fmt.Errorf("event id %q is not a UUID", s)
	}
	if _, err := hex.Decode(id[:], []byte(s[:8]+s[9:13]+s[14:18]+s[19:23]+s[24:])); err != nil {
		return id, fmt.Errorf("event id %q is not a UUID: %w", s, err)
	}
	return id, nil
}

// DeriveID returns the UUIDv5 (RFC 9562) of parts within the name space of kind.
// Every part is length-prefixed, so ("a-b","c") and ("a","b-c") differ.
func DeriveID(kind string, parts ...string) EventID {
	h := sha1.New() //nolint:gosec // see the import.
	h.Write([]byte("keytrail/"))
	writePart(h.Write, kind)
	for _, p := range parts {
		writePart(h.Write, p)
	}
	var id EventID
	copy(id[:], h.Sum(nil))
	id[6] = id[6]&0x0f | 0x50
	id[8] = id[8]&0x3f | 0x80
	return id
}

// writePart feeds one length-prefixed part to a hash, whose Write never fails.
func writePart(write func([]byte) (int, error), s string) {
	var n [8]byte
	binary.BigEndian.PutUint64(n[:], uint64(len(s)))
	for _, b := range [][]byte{n[:], []byte(s)} {
		if _, err := write(b); err != nil {
			panic(err) // hash.Hash.Write is documented never to return an error.
		}
	}
}
