package query

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"hash"
	"time"

	"example.com/keytrail/domain"
)

// cursorMACBytes is the length of a cursor's authenticator.
const cursorMACBytes = 16

// cursor says where a page ended. Callers see it sealed and opaque.
type cursor struct {
	// Question is the hash of the parameters that the first page was asked with.
	Question []byte `json:"q"`
	// Generation names the tables that the first page was read from: later pages are
	// read from the same, or not at all.
	Generation string `json:"g"`
	// Pin is the log position of the first page.
	Pin uint64 `json:"p"`
	// Now is the time of the first page in milliseconds, for its relative times.
	Now int64 `json:"n"`
	// Time (milliseconds), Position, Index and ID are those of the last record shown,
	// as far as the list's order uses them.
	Time     int64  `json:"t"`
	Position uint64 `json:"o,omitempty"`
	Index    uint32 `json:"i,omitempty"`
	ID       string `json:"d,omitempty"`
}

func (c cursor) now() time.Time { return time.UnixMilli(c.Now).UTC() }

// cursorCodec seals cursors, so that a pin or a place that we did not give is seen.
type cursorCodec struct{ key [sha256.Size]byte }

func (k cursorCodec) mac(body []byte) []byte {
	m := hmac.New(sha256.New, k.key[:])
	m.Write(body)
	return m.Sum(nil)[:cursorMACBytes]
}

// seal returns v, a struct of numbers and short texts, as an opaque text.
func (k cursorCodec) seal(v any) (string, error) {
	body, err := json.Marshal(v)
	if err != nil {
		return "", fmt.Errorf("seal cursor: %w", err)
	}
	return base64.RawURLEncoding.EncodeToString(append(k.mac(body), body...)), nil
}

// unseal reads into dst what seal made of a value of its type, and reports whether
// text is that.
func (k cursorCodec) unseal(text string, dst any) bool {
	sealed, err := base64.RawURLEncoding.Strict().DecodeString(text)
	if err != nil || len(sealed) <= cursorMACBytes {
		return false
	}
	mac, body := sealed[:cursorMACBytes], sealed[cursorMACBytes:]
	return hmac.Equal(mac, k.mac(body)) && json.Unmarshal(body, dst) == nil
}

// open reads a cursor that was given for the same question.
func (k cursorCodec) open(text string, question []byte) (cursor, error) {
	var c cursor
	if !k.unseal(text, &c) {
		return c, badCursor("is not a cursor of ours")
	}
	if !hmac.Equal(c.Question, question) {
		return c, badCursor("was given for other parameters; send the same ones with every page")
	}
	return c, nil
}

// errGenerationGone says that the tables of a cursor are no more.
func errGenerationGone(field string) error {
	return domain.Errorf(domain.Conflict, "was given for tables that are no more, since they were made anew; begin again without it").
		WithField(field).WithMessageCode("generation_gone")
}

func badCursor(message string) error {
	return domain.Errorf(domain.Invalid, "%s", message).WithField("cursor").WithMessageCode("invalid_cursor")
}

// questionOf hashes what a list was asked, each part with its length.
func questionOf(parts ...string) []byte {
	h := sha256.New()
	for _, p := range parts {
		writePart(h, p)
	}
	return h.Sum(nil)[:cursorMACBytes]
}

// writePart feeds a hash, whose Write never fails.
func writePart(h hash.Hash, part string) {
	var n [8]byte
	binary.BigEndian.PutUint64(n[:], uint64(len(part)))
	h.Write(n[:])
	h.Write([]byte(part))
}
