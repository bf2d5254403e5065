package usagebatch

import (
	"encoding/binary"
	"fmt"
	"math"
	"time"

	"example.com/keytrail/domain"
)

// Decode returns the uses that data holds, in their order. It keeps nothing of
// data. The strings of all uses share memory, and uses with equal labels share one
// map: callers MUST NOT change Labels, and clone what they keep for long.
//
// Bytes that are not exactly one batch give [ErrMalformed]; no input makes it
// allocate more than the bounds of this package allow.
func (c *Codec) Decode(data []byte) ([]domain.Use, error) {
	body, err := c.unpack(data)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	r := reader{rest: body}
	n, err := r.uvarint()
	if err != nil {
		return nil, fmt.Errorf("%w: count: %w", ErrMalformed, err)
	}
	if n > UsesMax {
		return nil, fmt.Errorf("%w: %d uses", ErrMalformed, n)
	}
	uses := make([]domain.Use, n)
	for i := range columns {
		col, err := r.bytes()
		if err != nil {
			return nil, fmt.Errorf("%w: column %d: %w", ErrMalformed, i+1, err)
		}
		d := reader{rest: col}
		if err := d.column(i+1, uses); err != nil {
			return nil, fmt.Errorf("%w: column %d: %w", ErrMalformed, i+1, err)
		}
		if d.rest != "" {
			return nil, fmt.Errorf("%w: column %d: %d bytes too many", ErrMalformed, i+1, len(d.rest))
		}
	}
	if r.rest != "" {
		return nil, fmt.Errorf("%w: %d bytes after the last column", ErrMalformed, len(r.rest))
	}
	return uses, nil
}

// unpack returns the body, as a string so that values can share it.
func (c *Codec) unpack(data []byte) (string, error) {
	if len(data) == 0 || data[0] != Version {
		return "", fmt.Errorf("not version %d", Version)
	}
	size, n := binary.Uvarint(data[1:])
	if n <= 0 || size > BodyBytesMax {
		return "", fmt.Errorf("length of the body is not 0…%d", BodyBytesMax)
	}
	buf, ok := c.scratches.Get().(*[]byte)
	if !ok {
		buf = new([]byte)
	}
	defer c.scratches.Put(buf)
	if uint64(cap(*buf)) < size {
		*buf = make([]byte, 0, size)
	}
	body, err := c.unzip.DecodeAll(data[1+n:], (*buf)[:0:size])
	if err != nil {
		return "", fmt.Errorf("decompress: %w", err)
	}
	if uint64(len(body)) != size {
		return "", fmt.Errorf("body of %d bytes, %d announced", len(body), size)
	}
	return string(body), nil
}

// reader takes values off the front of rest.
type reader struct{ rest string }

func (r *reader) uvarint() (uint64, error) {
	if r.rest != "" && r.rest[0] < 0x80 {
		v := uint64(r.rest[0])
		r.rest = r.rest[1:]
		return v, nil
	}
	var v uint64
	for i := range min(len(r.rest), binary.MaxVarintLen64) {
		b := r.rest[i]
		if i == binary.MaxVarintLen64-1 && b > 1 {
			return 0, fmt.Errorf("number overflows")
		}
		v |= uint64(b&0x7f) << (7 * i)
		if b < 0x80 {
			r.rest = r.rest[i+1:]
			return v, nil
		}
	}
	return 0, fmt.Errorf("number is cut off")
}

func (r *reader) bytes() (string, error) {
	n, err := r.uvarint()
	if err != nil {
		return "", err
	}
	if n > uint64(len(r.rest)) {
		return "", fmt.Errorf("%d bytes announced, %d left", n, len(r.rest))
	}
	s := r.rest[:n]
	r.rest = r.rest[n:]
	return s, nil
}

// column decodes column no (from 1) into uses. Length 0 means all empty, but a
// time column: a use has a time, and 0 is one.
func (r *reader) column(no int, uses []domain.Use) error {
	if r.rest == "" && no != 2 {
		return nil
	}
	switch no {
	case 1:
		return r.texts(uses, func(u *domain.Use, s string) { u.ID = s })
	case 2:
		return r.times(uses)
	case 3:
		return r.strings(uses, func(u *domain.Use, s string) { u.Account = domain.AccountID(s) })
	case 4:
		return r.strings(uses, func(u *domain.Use, s string) { u.KeyID = domain.KeyID(s) })
	case 5:
		return r.strings(uses, func(u *domain.Use, s string) { u.KeyFingerprint = s })
	case 6:
		return r.strings(uses, func(u *domain.Use, s string) { u.IAMID = domain.IAMID(s) })
	case 7:
		return r.strings(uses, func(u *domain.Use, s string) { u.Action = s })
	case 8:
		return r.strings(uses, func(u *domain.Use, s string) { u.Access = domain.Access(s) })
	case 9:
		return r.strings(uses, func(u *domain.Use, s string) { u.Outcome = domain.Outcome(s) })
	case 10:
		return r.ints(uses, setStatus)
	case 11:
		return r.strings(uses, func(u *domain.Use, s string) { u.ErrorCode = s })
	case 12:
		return r.strings(uses, func(u *domain.Use, s string) { u.Source = s })
	case 13:
		return r.strings(uses, func(u *domain.Use, s string) { u.UserAgent = s })
	case 14:
		return r.strings(uses, func(u *domain.Use, s string) { u.Region = s })
	case 15:
		return r.strings(uses, func(u *domain.Use, s string) { u.Target = s })
	default:
		return r.lateColumn(no, uses)
	}
}

// lateColumn decodes columns 16 to 21.
func (r *reader) lateColumn(no int, uses []domain.Use) error {
	switch no {
	case 16:
		return r.texts(uses, func(u *domain.Use, s string) { u.RequestID = s })
	case 17:
		return r.ints(uses, func(u *domain.Use, v uint64) error { return set32(&u.LatencyMS, v) })
	case 18:
		return r.ints(uses, func(u *domain.Use, v uint64) error { u.Bytes = v; return nil })
	case 19:
		return r.strings(uses, func(u *domain.Use, s string) { u.Country = s })
	case 20:
		return r.ints(uses, func(u *domain.Use, v uint64) error { return set32(&u.ASN, v) })
	default:
		return r.labels(uses)
	}
}

func setStatus(u *domain.Use, v uint64) error {
	s := unzigzag(v)
	if s < math.MinInt32 || s > math.MaxInt32 {
		return fmt.Errorf("status %d", s)
	}
	u.Status = int(s)
	return nil
}

func set32(to *uint32, v uint64) error {
	if v > math.MaxUint32 {
		return fmt.Errorf("%d does not fit 32 bits", v)
	}
	*to = uint32(v)
	return nil
}

func (r *reader) texts(uses []domain.Use, set func(*domain.Use, string)) error {
	heads := *r
	uuids := 0
	for range uses {
		n, err := r.uvarint()
		if err != nil {
			return err
		}
		if n == 0 {
			uuids++
		}
	}
	if uuids*16 > len(r.rest) {
		return fmt.Errorf("%d UUIDs in %d bytes", uuids, len(r.rest))
	}
	ids, err := r.uuids(heads, uuids, len(uses))
	if err != nil {
		return err
	}
	for i := range uses {
		n, err := heads.uvarint()
		switch {
		case err != nil:
			return err
		case n == 0:
			set(&uses[i], ids[:36])
			ids, r.rest = ids[36:], r.rest[16:]
		default:
			set(&uses[i], r.rest[:n-1])
			r.rest = r.rest[n-1:]
		}
	}
	return nil
}

// uuids checks that the payloads that heads announces are there and returns the
// text of all UUIDs among them.
func (r *reader) uuids(heads reader, n, uses int) (string, error) {
	text := make([]byte, 0, n*36)
	payload := r.rest
	for range uses {
		size, err := heads.uvarint()
		if err != nil {
			return "", err
		}
		take := uint64(16)
		if size > 0 {
			take = size - 1
		}
		if take > uint64(len(payload)) {
			return "", fmt.Errorf("text of %d bytes, %d left", take, len(payload))
		}
		if size == 0 {
			text = uuidText(text, []byte(payload[:16]))
		}
		payload = payload[take:]
	}
	return string(text), nil
}

func (r *reader) times(uses []domain.Use) error {
	zero := r.rest == ""
	var ms int64
	for i := range uses {
		if !zero {
			v, err := r.uvarint()
			if err != nil {
				return err
			}
			d := unzigzag(v)
			if d > timeMSMax-timeMSMin || d < timeMSMin-timeMSMax {
				return fmt.Errorf("time step of %d ms", d)
			}
			ms += d
		}
		if ms < timeMSMin || ms > timeMSMax {
			return fmt.Errorf("time of %d ms", ms)
		}
		uses[i].Time = time.UnixMilli(ms).UTC()
	}
	return nil
}

// list reads a counted list of strings, at most most of them.
func (r *reader) list(most int) ([]string, error) {
	n, err := r.uvarint()
	if err != nil {
		return nil, err
	}
	if n > uint64(most) || n > uint64(len(r.rest)) { //nolint:gosec // A limit of ours.
		return nil, fmt.Errorf("list of %d strings", n)
	}
	list := make([]string, n)
	for i := range list {
		if list[i], err = r.bytes(); err != nil {
			return nil, err
		}
	}
	return list, nil
}

func (r *reader) strings(uses []domain.Use, set func(*domain.Use, string)) error {
	dict, err := r.list(len(uses))
	if err != nil {
		return err
	}
	width := 0
	switch {
	case len(dict) == 0:
		return fmt.Errorf("empty dictionary")
	case len(dict) > 1<<8:
		width = 2
	case len(dict) > 1:
		width = 1
	}
	if len(r.rest) < width*len(uses) {
		return fmt.Errorf("%d bytes of index for %d uses", len(r.rest), len(uses))
	}
	for i := range uses {
		x := 0
		switch width {
		case 1:
			x = int(r.rest[i])
		case 2:
			x = int(r.rest[2*i]) | int(r.rest[2*i+1])<<8
		}
		if x >= len(dict) {
			return fmt.Errorf("index %d in a dictionary of %d", x, len(dict))
		}
		set(&uses[i], dict[x])
	}
	r.rest = r.rest[width*len(uses):]
	return nil
}

func (r *reader) ints(uses []domain.Use, set func(*domain.Use, uint64) error) error {
	for i := range uses {
		v, err := r.uvarint()
		if err != nil {
			return err
		}
		if err := set(&uses[i], v); err != nil {
			return err
		}
	}
	return nil
}

func (r *reader) labels(uses []domain.Use) error {
	keys, err := r.list(labelPairsMax)
	if err != nil {
		return err
	}
	vals, err := r.list(labelPairsMax)
	if err != nil {
		return err
	}
	n, err := r.uvarint()
	if err != nil {
		return err
	}
	if n > uint64(len(uses)) {
		return fmt.Errorf("%d label sets for %d uses", n, len(uses))
	}
	sets := make([]map[string]string, n+1)
	pairs := 0
	for i := range n {
		if sets[i+1], err = r.labelSet(keys, vals); err != nil {
			return err
		}
		if pairs += len(sets[i+1]); pairs > labelPairsMax {
			return fmt.Errorf("more than %d labels", labelPairsMax)
		}
	}
	for i := range uses {
		x, err := r.uvarint()
		if err != nil {
			return err
		}
		if x > n {
			return fmt.Errorf("label set %d of %d", x, n)
		}
		uses[i].Labels = sets[x]
	}
	return nil
}

func (r *reader) labelSet(keys, vals []string) (map[string]string, error) {
	n, err := r.uvarint()
	if err != nil {
		return nil, err
	}
	if n == 0 || n > LabelsMax {
		return nil, fmt.Errorf("label set of %d", n)
	}
	set := make(map[string]string, n)
	last := ""
	for i := range n {
		k, err := r.uvarint()
		if err != nil {
			return nil, err
		}
		v, err := r.uvarint()
		if err != nil {
			return nil, err
		}
		if k >= uint64(len(keys)) || v >= uint64(len(vals)) {
			return nil, fmt.Errorf("label %d=%d of %d keys and %d values", k, v, len(keys), len(vals))
		}
		if i > 0 && keys[k] <= last {
			return nil, fmt.Errorf("label keys out of order")
		}
		last = keys[k]
		set[last] = vals[v]
	}
	return set, nil
}
