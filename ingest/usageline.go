package ingest

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"example.com/keytrail/domain"
	"example.com/keytrail/internal/keystore"
	"example.com/keytrail/internal/usagebatch"
)

// Bounds of one use.
const (
	// UsageLineBytesMax bounds one line of an upload of uses.
	UsageLineBytesMax = 256 << 10

	useTextBytesMax  = 256      // Of ids, actions, addresses and the like.
	useLongBytesMax  = 4 << 10  // Of user agents and targets.
	useLabelNameMax  = 128      // Bytes.
	useLabelBytesMax = 64 << 10 // Of one label's value.
	useYearMin       = 1970
	useYearMax       = 2261
	internedMax      = 8192
	internedBytesMax = 512
)

// lineUse is one line, before it is known whose it is.
type lineUse struct {
	use     domain.Use
	hash    [sha256.Size]byte
	hasHash bool
}

// lineParser reads lines. It is used by one goroutine at a time.
type lineParser struct {
	dec  *jsontext.Decoder
	in   *bytes.Reader
	same map[string]string // Texts seen before, to keep one copy of each.
	out  lineUse
}

func newLineParser() *lineParser {
	in := bytes.NewReader(nil)
	return &lineParser{dec: jsontext.NewDecoder(in), in: in, same: make(map[string]string)}
}

// parse reads one use, which is valid until the next call. Its errors never quote the
// line, nor the name of a field that is not ours: either may be a secret.
func (p *lineParser) parse(line []byte) (*lineUse, error) {
	p.in.Reset(line)
	p.dec.Reset(p.in)
	p.out = lineUse{}
	if p.dec.PeekKind() != '{' {
		return nil, errors.New("not a JSON object")
	}
	if _, err := p.dec.ReadToken(); err != nil {
		return nil, jsonReason(err)
	}
	for p.dec.PeekKind() != '}' {
		v, err := p.dec.ReadValue()
		if err != nil {
			return nil, jsonReason(err)
		}
		name := p.intern(v)
		if v, err = p.dec.ReadValue(); err != nil {
			return nil, jsonReason(err)
		}
		if v.Kind() == 'n' {
			continue
		}
		if err := p.field(name, v); err != nil {
			return nil, err
		}
	}
	if _, err := p.dec.ReadToken(); err != nil {
		return nil, jsonReason(err)
	}
	if _, err := p.dec.ReadToken(); !errors.Is(err, io.EOF) {
		return nil, errors.New("more than one value on the line")
	}
	return &p.out, p.finish()
}

// jsonReason says what is wrong with JSON, without any of it.
func jsonReason(err error) error {
	if errors.Is(err, jsontext.ErrDuplicateName) {
		return errors.New("a field occurs twice")
	}
	if s, ok := errors.AsType[*jsontext.SyntacticError](err); ok {
		return fmt.Errorf("not valid JSON after byte %d", s.ByteOffset)
	}
	return errors.New("not a whole JSON object")
}

// finish checks what no single field can know.
func (p *lineParser) finish() error {
	u := &p.out.use
	switch {
	case u.Time.IsZero():
		return errors.New("time: is required")
	case p.out.hasHash && u.KeyID != "":
		return errors.New("key_hash: give key_id or key_hash, not both")
	}
	if u.Outcome == "" {
		// Nothing said means that nothing went wrong.
		if u.Outcome = domain.OutcomeSuccess; u.Status >= 400 {
			u.Outcome = domain.OutcomeFailure
		}
	}
	return nil
}

func (p *lineParser) field(name string, v jsontext.Value) error {
	u := &p.out.use
	switch name {
	case "id":
		return p.unique(name, v, &u.ID)
	case "time":
		return p.time(v)
	case "key_id":
		return p.keyID(v)
	case "key_hash":
		return p.keyHash(v)
	case "account_id":
		return p.account(v)
	case "iam_id":
		return p.text(name, v, (*string)(&u.IAMID), useTextBytesMax)
	case "action":
		return p.text(name, v, &u.Action, useTextBytesMax)
	case "access":
		return p.oneOf(name, v, (*string)(&u.Access), string(domain.AccessRead), string(domain.AccessWrite))
	case "outcome":
		return p.oneOf(name, v, (*string)(&u.Outcome), string(domain.OutcomeSuccess), string(domain.OutcomeFailure), string(domain.OutcomePending))
	case "status":
		n, err := p.number(name, v, 999)
		u.Status = int(n) //nolint:gosec // At most 999.
		return err
	case "error_code":
		return p.text(name, v, &u.ErrorCode, useTextBytesMax)
	case "source_ip":
		return p.text(name, v, &u.Source, useTextBytesMax)
	case "user_agent":
		return p.text(name, v, &u.UserAgent, useLongBytesMax)
	case "region":
		return p.text(name, v, &u.Region, useTextBytesMax)
	case "target":
		return p.text(name, v, &u.Target, useLongBytesMax)
	}
	return p.lateField(name, v)
}

func (p *lineParser) lateField(name string, v jsontext.Value) error {
	u := &p.out.use
	switch name {
	case "request_id":
		return p.unique(name, v, &u.RequestID)
	case "latency_ms":
		n, err := p.number(name, v, math.MaxUint32)
		u.LatencyMS = uint32(n) //nolint:gosec // Bounded above.
		return err
	case "bytes":
		n, err := p.number(name, v, math.MaxUint64)
		u.Bytes = n
		return err
	case "labels":
		return p.labels(v)
	}
	return p.label(name, v)
}

// text reads a string of at most most bytes, without secrets.
func (p *lineParser) text(name string, v jsontext.Value, to *string, most int) error {
	if v.Kind() != '"' {
		return fmt.Errorf("%s: must be a string", name)
	}
	return p.keep(name, p.intern(v), to, most)
}

// unique is text for what does not occur again.
func (p *lineParser) unique(name string, v jsontext.Value, to *string) error {
	if v.Kind() != '"' {
		return fmt.Errorf("%s: must be a string", name)
	}
	return p.keep(name, unquote(v), to, useTextBytesMax)
}

func (p *lineParser) keep(name, s string, to *string, most int) error {
	if len(s) > most {
		return fmt.Errorf("%s: has %d bytes, at most %d", name, len(s), most)
	}
	if holdsSecret(s) {
		return fmt.Errorf("%s: holds the value of an API key", name)
	}
	*to = s
	return nil
}

func (p *lineParser) oneOf(name string, v jsontext.Value, to *string, allowed ...string) error {
	if err := p.text(name, v, to, useTextBytesMax); err != nil {
		return err
	}
	if slices.Contains(allowed, *to) {
		return nil
	}
	return fmt.Errorf("%s: must be one of %s", name, strings.Join(allowed, ", "))
}

func (p *lineParser) number(name string, v jsontext.Value, most uint64) (uint64, error) {
	n, err := strconv.ParseUint(string(v), 10, 64)
	if v.Kind() != '0' || err != nil || n > most {
		return 0, fmt.Errorf("%s: must be a whole number from 0 to %d", name, most)
	}
	return n, nil
}

// time reads a time and keeps its milliseconds.
func (p *lineParser) time(v jsontext.Value) error {
	if v.Kind() == '"' && len(v) > 2 {
		s := string(v[1 : len(v)-1])
		for _, layout := range []string{time.RFC3339, "2006-01-02T15:04:05Z0700"} {
			t, err := time.Parse(layout, s)
			if err != nil {
				continue
			}
			if t = t.UTC().Truncate(time.Millisecond); t.Year() < useYearMin || t.Year() > useYearMax {
				return fmt.Errorf("time: must lie between %d and %d", useYearMin, useYearMax)
			}
			p.out.use.Time = t
			return nil
		}
	}
	return errors.New("time: must be a time such as 2026-01-31T23:59:59.123Z")
}

func (p *lineParser) keyID(v jsontext.Value) error {
	if v.Kind() != '"' {
		return errors.New("key_id: must be a string")
	}
	s := p.intern(v)
	switch {
	case strings.HasPrefix(s, keystore.KeyPrefix) || holdsSecret(s):
		return errors.New("key_id: is the value of a key, not its id; send key_hash, the hex SHA-256 of the value, instead")
	case s != "" && !domain.ValidID(s):
		return errors.New("key_id: is not a key id: 1 to 128 letters, digits and -_.:@")
	}
	p.out.use.KeyID = domain.KeyID(s)
	return nil
}

func (p *lineParser) keyHash(v jsontext.Value) error {
	var n int
	var err error
	if len(v) == 2*sha256.Size+2 {
		n, err = hex.Decode(p.out.hash[:], v[1:len(v)-1])
	}
	if v.Kind() != '"' || n != sha256.Size || err != nil {
		return errors.New("key_hash: must be the hex SHA-256 of the key's value")
	}
	p.out.hasHash = true
	return nil
}

func (p *lineParser) account(v jsontext.Value) error {
	s := ""
	if v.Kind() == '"' {
		s = p.intern(v)
	}
	if !domain.ValidID(s) || len(s) > 64 || holdsSecret(s) {
		return errors.New("account_id: is not an account id")
	}
	p.out.use.Account = domain.AccountID(s)
	return nil
}

func (p *lineParser) labels(v jsontext.Value) error {
	if v.Kind() != '{' {
		return errors.New("labels: must be an object")
	}
	d := jsontext.NewDecoder(bytes.NewReader(v))
	if _, err := d.ReadToken(); err != nil {
		return jsonReason(err)
	}
	for d.PeekKind() != '}' {
		n, err := d.ReadValue()
		if err != nil {
			return jsonReason(err)
		}
		name := p.intern(n)
		value, err := d.ReadValue()
		if err != nil {
			return jsonReason(err)
		}
		if value.Kind() == 'n' {
			continue
		}
		if err := p.label(name, value); err != nil {
			return err
		}
	}
	return nil
}

// label keeps a field that is not ours; what is no string is kept as JSON text.
func (p *lineParser) label(name string, v jsontext.Value) error {
	u := &p.out.use
	var value string
	if v.Kind() == '"' {
		value = p.intern(v)
	} else {
		c := v.Clone()
		if err := c.Compact(); err != nil {
			return jsonReason(err)
		}
		value = string(c)
	}
	_, twice := u.Labels[name]
	switch {
	case len(name) > useLabelNameMax || name == "":
		return fmt.Errorf("labels: a name must have 1 to %d bytes", useLabelNameMax)
	case len(value) > useLabelBytesMax:
		return fmt.Errorf("labels: a value has %d bytes, at most %d", len(value), useLabelBytesMax)
	case strings.HasPrefix(name, domain.LabelsReserved):
		return fmt.Errorf("labels: names that begin with %s are keytrail's own", domain.LabelsReserved)
	case holdsSecret(name) || holdsSecret(value) || v.Kind() != '"' && escapedSecret(v):
		return errors.New("labels: one holds the value of an API key")
	case twice:
		return errors.New("labels: a label is given twice, as a field and in labels")
	case len(u.Labels) >= usagebatch.LabelsMax:
		return fmt.Errorf("labels: at most %d", usagebatch.LabelsMax)
	}
	if u.Labels == nil {
		u.Labels = make(map[string]string, 4)
	}
	u.Labels[name] = value
	return nil
}

// intern returns the text of a JSON string. Short texts come back as one copy, since
// most occur again and again.
func (p *lineParser) intern(v jsontext.Value) string {
	if bytes.IndexByte(v, '\\') >= 0 {
		return unquote(v)
	}
	text := v[1 : len(v)-1]
	if s, ok := p.same[string(text)]; ok {
		return s
	}
	s := string(text)
	if len(s) <= internedBytesMax {
		if len(p.same) >= internedMax {
			clear(p.same)
		}
		p.same[s] = s
	}
	return s
}

func unquote(v jsontext.Value) string {
	if bytes.IndexByte(v, '\\') < 0 {
		return string(v[1 : len(v)-1])
	}
	b, err := jsontext.AppendUnquote(nil, v)
	if err != nil {
		return "" // The decoder has checked it: this cannot be.
	}
	return string(b)
}

// keyValueBytes is the length of a key value that keytrail makes.
const keyValueBytes = len(keystore.KeyPrefix) + 43 + 6

// holdsSecret reports whether s holds the value of a key that keytrail made: its
// prefix, and a checksum that is right.
func holdsSecret(s string) bool { _, _, ok := findSecret(s); return ok }

func findSecret(s string) (from, to int, ok bool) {
	for at := 0; ; {
		i := strings.Index(s[at:], keystore.KeyPrefix)
		if i < 0 {
			return 0, 0, false
		}
		from := at + i
		if to := from + keyValueBytes; to <= len(s) && keystore.IsKeyValue(s[from:to]) {
			return from, to, true
		}
		at = from + 1
	}
}

// escapedSecret looks into the strings of JSON text, where escapes may hide one.
func escapedSecret(v jsontext.Value) bool {
	if bytes.IndexByte(v, '\\') < 0 {
		return false
	}
	d := jsontext.NewDecoder(bytes.NewReader(v))
	for {
		t, err := d.ReadToken()
		if err != nil {
			return false // The end, since v is valid.
		}
		if t.Kind() == '"' && holdsSecret(t.String()) {
			return true
		}
	}
}

// withoutSecrets returns s with the values of keys taken out.
func withoutSecrets(s string) string {
	for {
		from, to, ok := findSecret(s)
		if !ok {
			return s
		}
		s = s[:from] + "[removed]" + s[to:]
	}
}
