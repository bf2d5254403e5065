package usagebatch

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"slices"

	"example.com/keytrail/domain"
)

// Encode returns the stored form of uses. It keeps nothing of them. Times must be
// whole milliseconds, in any zone; empty and nil Labels are the same. It returns
// [ErrTooLarge] where the uses do not fit one batch.
func (c *Codec) Encode(uses []domain.Use) ([]byte, error) {
	if len(uses) > UsesMax {
		return nil, fmt.Errorf("%d uses: %w", len(uses), ErrTooLarge)
	}
	e, ok := c.encoders.Get().(*encoder)
	if !ok {
		e = newEncoder()
	}
	defer c.encoders.Put(e)
	if err := e.encode(uses); err != nil {
		return nil, err
	}
	if len(e.body) > BodyBytesMax {
		return nil, fmt.Errorf("%d bytes: %w", len(e.body), ErrTooLarge)
	}
	out := make([]byte, 0, len(e.body)/3+64)
	out = append(out, Version)
	out = binary.AppendUvarint(out, uint64(len(e.body)))
	return c.zip.EncodeAll(e.body, out), nil
}

// encoder holds the buffers of one encoding. One goroutine at a time uses it.
type encoder struct {
	body []byte
	col  []byte
	// payload is the second half of a column of texts.
	payload []byte
	hex     [256]byte // Values of the lower-case hexadecimal digits.
	dict    dictionary
	keys    dictionary
	vals    dictionary
	sets    dictionary
	pair    []string // Label keys of one use, sorted.
	set     []byte   // One label set as stored.
}

func newEncoder() *encoder {
	e := &encoder{dict: newDictionary(), keys: newDictionary(), vals: newDictionary(), sets: newDictionary()}
	for i := range e.hex {
		e.hex[i] = notHex
	}
	for i, c := range "0123456789abcdef" {
		e.hex[c] = byte(i) //nolint:gosec // 0 to 15.
	}
	return e
}

func (e *encoder) encode(uses []domain.Use) error {
	e.body = binary.AppendUvarint(e.body[:0], uint64(len(uses)))
	e.texts(uses, func(u *domain.Use) string { return u.ID })
	if err := e.times(uses); err != nil {
		return err
	}
	e.strings(uses, func(u *domain.Use) string { return string(u.Account) })
	e.strings(uses, func(u *domain.Use) string { return string(u.KeyID) })
	e.strings(uses, func(u *domain.Use) string { return u.KeyFingerprint })
	e.strings(uses, func(u *domain.Use) string { return string(u.IAMID) })
	e.strings(uses, func(u *domain.Use) string { return u.Action })
	e.strings(uses, func(u *domain.Use) string { return string(u.Access) })
	e.strings(uses, func(u *domain.Use) string { return string(u.Outcome) })
	e.ints(uses, func(u *domain.Use) uint64 { return zigzag(int64(u.Status)) })
	e.strings(uses, func(u *domain.Use) string { return u.ErrorCode })
	e.strings(uses, func(u *domain.Use) string { return u.Source })
	e.strings(uses, func(u *domain.Use) string { return u.UserAgent })
	e.strings(uses, func(u *domain.Use) string { return u.Region })
	e.strings(uses, func(u *domain.Use) string { return u.Target })
	e.texts(uses, func(u *domain.Use) string { return u.RequestID })
	e.ints(uses, func(u *domain.Use) uint64 { return uint64(u.LatencyMS) })
	e.ints(uses, func(u *domain.Use) uint64 { return u.Bytes })
	e.strings(uses, func(u *domain.Use) string { return u.Country })
	e.ints(uses, func(u *domain.Use) uint64 { return uint64(u.ASN) })
	return e.labels(uses)
}

// flush ends the column that was built in e.col.
func (e *encoder) flush() {
	e.body = binary.AppendUvarint(e.body, uint64(len(e.col)))
	e.body = append(e.body, e.col...)
	e.col = e.col[:0]
}

func (e *encoder) texts(uses []domain.Use, of func(*domain.Use) string) {
	some := false
	e.payload = e.payload[:0]
	for i := range uses {
		s := of(&uses[i])
		some = some || s != ""
		if len(s) == uuidBytes && e.appendUUID(s) {
			e.col = append(e.col, 0)
			continue
		}
		e.col = binary.AppendUvarint(e.col, uint64(len(s))+1)
		e.payload = append(e.payload, s...)
	}
	if !some {
		e.col = e.col[:0]
	}
	e.col = append(e.col, e.payload...)
	e.flush()
}

func (e *encoder) times(uses []domain.Use) error {
	var last int64
	var some bool
	for i := range uses {
		ms, err := timeMS(uses[i].Time)
		if err != nil {
			return fmt.Errorf("use %d: %w", i, err)
		}
		some = some || ms != 0
		e.col = binary.AppendUvarint(e.col, zigzag(ms-last))
		last = ms
	}
	if !some {
		e.col = e.col[:0]
	}
	e.flush()
	return nil
}

func (e *encoder) strings(uses []domain.Use, of func(*domain.Use) string) {
	d := &e.dict
	d.reset()
	for i := range uses {
		d.add(of(&uses[i]))
	}
	if len(d.strings) == 0 || len(d.strings) == 1 && d.strings[0] == "" {
		e.flush()
		return
	}
	e.col = d.appendStrings(e.col)
	switch n := len(d.strings); {
	case n == 1:
	case n <= 1<<8:
		for _, x := range d.index {
			e.col = append(e.col, byte(x)) //nolint:gosec // There are at most 256.
		}
	default:
		for _, x := range d.index {
			e.col = append(e.col, byte(x), byte(x>>8)) //nolint:gosec // There are at most 65,536.
		}
	}
	e.flush()
}

func (e *encoder) ints(uses []domain.Use, of func(*domain.Use) uint64) {
	some := false
	for i := range uses {
		v := of(&uses[i])
		some = some || v != 0
		e.col = binary.AppendUvarint(e.col, v)
	}
	if !some {
		e.col = e.col[:0]
	}
	e.flush()
}

func (e *encoder) labels(uses []domain.Use) error {
	e.keys.reset()
	e.vals.reset()
	e.sets.reset()
	pairs := 0
	for i := range uses {
		l := uses[i].Labels
		if len(l) > LabelsMax {
			return fmt.Errorf("use %d has %d labels, at most %d: %w", i, len(l), LabelsMax, ErrTooLarge)
		}
		known := len(e.sets.strings)
		e.sets.add(e.labelSet(l))
		if len(e.sets.strings) > known {
			pairs += len(l)
		}
	}
	if pairs > labelPairsMax {
		return fmt.Errorf("%d distinct labels: %w", pairs, ErrTooLarge)
	}
	if pairs == 0 {
		e.flush()
		return nil
	}
	e.col = e.keys.appendStrings(e.col)
	e.col = e.vals.appendStrings(e.col)
	e.appendSets()
	e.flush()
	return nil
}

// appendSets writes the distinct sets but the empty one, then each use's set.
func (e *encoder) appendSets() {
	empty := slices.Index(e.sets.strings, "")
	n := len(e.sets.strings)
	if empty >= 0 {
		n--
	}
	e.col = binary.AppendUvarint(e.col, uint64(n)) //nolint:gosec // A length.
	for _, s := range e.sets.strings {
		e.col = append(e.col, s...)
	}
	for _, x := range e.sets.index {
		stored := uint64(x) + 1
		switch {
		case int(x) == empty:
			stored = 0
		case empty >= 0 && int(x) > empty:
			stored--
		}
		e.col = binary.AppendUvarint(e.col, stored)
	}
}

// labelSet returns l as it is stored, "" without labels.
func (e *encoder) labelSet(l map[string]string) string {
	if len(l) == 0 {
		return ""
	}
	e.pair = e.pair[:0]
	for k := range l {
		e.pair = append(e.pair, k)
	}
	slices.Sort(e.pair)
	e.set = binary.AppendUvarint(e.set[:0], uint64(len(l)))
	for _, k := range e.pair {
		e.set = binary.AppendUvarint(e.set, uint64(e.keys.add(k)))
		e.set = binary.AppendUvarint(e.set, uint64(e.vals.add(l[k])))
	}
	if i, ok := e.sets.seen[string(e.set)]; ok {
		return e.sets.strings[i]
	}
	return string(e.set)
}

// dictionary numbers distinct strings in order of first appearance.
type dictionary struct {
	seen    map[string]uint32
	strings []string
	index   []uint32 // One for each string added.
	last    string
	lastNo  uint32
}

func newDictionary() dictionary { return dictionary{seen: make(map[string]uint32)} }

// reset forgets everything, so that no string of a caller is kept alive.
func (d *dictionary) reset() {
	clear(d.seen)
	clear(d.strings)
	d.strings, d.index, d.last, d.lastNo = d.strings[:0], d.index[:0], "", 0
}

func (d *dictionary) add(s string) uint32 {
	if s == d.last && len(d.strings) > 0 {
		d.index = append(d.index, d.lastNo)
		return d.lastNo
	}
	n, ok := d.seen[s]
	if !ok {
		n = uint32(len(d.strings)) //nolint:gosec // Bounded by UsesMax × LabelsMax.
		d.seen[s] = n
		d.strings = append(d.strings, s)
	}
	d.last, d.lastNo = s, n
	d.index = append(d.index, n)
	return n
}

func (d *dictionary) appendStrings(b []byte) []byte {
	b = binary.AppendUvarint(b, uint64(len(d.strings)))
	for _, s := range d.strings {
		b = binary.AppendUvarint(b, uint64(len(s)))
		b = append(b, s...)
	}
	return b
}

func zigzag(v int64) uint64 { return uint64(v<<1) ^ uint64(v>>63) } //nolint:gosec // Folding the sign is the point.

func unzigzag(v uint64) int64 { return int64(v>>1) ^ -int64(v&1) }

// uuidBytes is the length of a UUID's canonical form.
const uuidBytes = 36

// appendUUID appends the 16 bytes that s spells to the payload and returns true,
// if s, of 36 bytes, is a UUID in lower-case canonical form.
func (e *encoder) appendUUID(s string) bool {
	if s[8] != '-' || s[13] != '-' || s[18] != '-' || s[23] != '-' {
		return false
	}
	var id [16]byte
	var seen byte
	for i, at := range [16]int{0, 2, 4, 6, 9, 11, 14, 16, 19, 21, 24, 26, 28, 30, 32, 34} {
		hi, lo := e.hex[s[at]], e.hex[s[at+1]]
		seen |= hi | lo
		id[i] = hi<<4 | lo
	}
	if seen&notHex != 0 {
		return false
	}
	e.payload = append(e.payload, id[:]...)
	return true
}

// notHex marks, in encoder.hex, what is no lower-case hexadecimal digit.
const notHex = 0x80

// uuidText appends the canonical form of 16 bytes.
func uuidText(b, id []byte) []byte {
	for i, n := range [...]int{4, 2, 2, 2, 6} {
		if i > 0 {
			b = append(b, '-')
		}
		b = hex.AppendEncode(b, id[:n])
		id = id[n:]
	}
	return b
}
