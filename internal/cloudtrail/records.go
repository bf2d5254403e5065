package cloudtrail

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"iter"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
)

// RecordBytesMax bounds one record. AWS stays below 256 KiB.
const RecordBytesMax = 1 << 20

const peekBytes = 64 << 10

// Raw is one record as its source holds it.
type Raw struct {
	// Ordinal counts the records of the source from 1, malformed ones too.
	Ordinal uint64
	// JSON is one valid JSON object without line breaks. Its receiver owns it.
	JSON []byte
}

// Malformed says that one record of a source cannot be read.
type Malformed struct { //nolint:errname // First of all a finding that is counted and shown.
	Ordinal uint64
	Reason  string
	// Rest says that nothing after this record can be read either: the source's
	// envelope is broken or cut off.
	Rest bool
}

// Error implements error.
func (m *Malformed) Error() string {
	if m.Rest {
		return fmt.Sprintf("record %d and all after it: %s", m.Ordinal, m.Reason)
	}
	return fmt.Sprintf("record %d: %s", m.Ordinal, m.Reason)
}

// Records returns the records of r one by one, whatever holds them: {"Records":[…]},
// an array, one object a line, one object, several of these one after another, and
// gzip or zstd of any. It holds one record in memory.
//
// A record that cannot be read comes as a [*Malformed] and the next one follows,
// unless Rest is set. An error of r itself ends the sequence.
func Records(r io.Reader) iter.Seq2[Raw, error] {
	return func(yield func(Raw, error) bool) {
		s := scan{yield: yield}
		in, closer, err := unpack(r)
		if err != nil {
			yield(Raw{}, err)
			return
		}
		defer closer()
		lines, err := inLines(in)
		switch {
		case err != nil:
			yield(Raw{}, err)
		case lines:
			s.lines(in)
		default:
			s.stream(in)
		}
	}
}

// unpack undoes at most two layers of compression and skips a byte order mark.
func unpack(r io.Reader) (*bufio.Reader, func(), error) {
	closer := func() {}
	in := bufio.NewReaderSize(r, peekBytes)
	for range 2 {
		head, err := in.Peek(4)
		if err != nil && !errors.Is(err, io.EOF) {
			return nil, nil, fmt.Errorf("read: %w", err)
		}
		switch {
		case bytes.HasPrefix(head, []byte{0x1f, 0x8b}):
			z, err := gzip.NewReader(in)
			if err != nil {
				return nil, nil, fmt.Errorf("read gzip: %w", err)
			}
			in = bufio.NewReaderSize(z, peekBytes)
		case bytes.HasPrefix(head, []byte{0x28, 0xb5, 0x2f, 0xfd}):
			z, err := zstd.NewReader(in, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(64<<20))
			if err != nil {
				return nil, nil, fmt.Errorf("read zstd: %w", err)
			}
			outer := closer
			closer = func() { z.Close(); outer() }
			in = bufio.NewReaderSize(z, peekBytes)
		}
	}
	if head, err := in.Peek(3); err == nil && string(head) == "\ufeff" {
		if _, err := in.Discard(3); err != nil {
			return nil, nil, fmt.Errorf("read: %w", err)
		}
	}
	return in, closer, nil
}

// inLines reports whether the source holds one value a line. It does unless it
// begins with an array, with an envelope, or with an object that does not end on its
// first line.
func inLines(in *bufio.Reader) (bool, error) {
	head, err := in.Peek(peekBytes)
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, bufio.ErrBufferFull) {
		return false, fmt.Errorf("read: %w", err)
	}
	head = bytes.TrimLeft(head, " \t\r\n")
	if len(head) == 0 || head[0] == '[' {
		return false, nil
	}
	if head[0] != '{' {
		return true, nil
	}
	if name := bytes.TrimLeft(head[1:], " \t\r\n"); bytes.HasPrefix(name, []byte(`"Records"`)) {
		return false, nil
	}
	line, _, whole := bytes.Cut(head, []byte("\n"))
	line = bytes.TrimRight(line, " \t\r")
	return !whole || len(line) > 1 && line[len(line)-1] == '}', nil
}

// scan gives out records and counts them.
type scan struct {
	yield   func(Raw, error) bool
	ordinal uint64
}

func (s *scan) bad(rest bool, format string, args ...any) bool {
	s.ordinal++
	return s.yield(Raw{}, &Malformed{Ordinal: s.ordinal, Reason: fmt.Sprintf(format, args...), Rest: rest})
}

// value gives out one JSON value, a record if all is well.
func (s *scan) value(v jsontext.Value) bool {
	if v.Kind() != '{' {
		return s.bad(false, "not a JSON object")
	}
	if len(v) > RecordBytesMax {
		return s.bad(false, "%d bytes, at most %d", len(v), RecordBytesMax)
	}
	v = v.Clone()
	if bytes.ContainsAny(v, "\r\n") {
		if err := v.Compact(); err != nil {
			return s.bad(false, "%s", reason(err))
		}
	}
	s.ordinal++
	return s.yield(Raw{Ordinal: s.ordinal, JSON: v}, nil)
}

// lines reads one value a line; a bad line costs one record.
func (s *scan) lines(in *bufio.Reader) {
	var line []byte
	var tooLong bool
	for {
		part, err := in.ReadSlice('\n')
		if len(line)+len(part) > RecordBytesMax+2 {
			tooLong = true
		} else {
			line = append(line, part...)
		}
		if errors.Is(err, bufio.ErrBufferFull) {
			continue
		}
		if err != nil && !errors.Is(err, io.EOF) {
			s.yield(Raw{}, fmt.Errorf("read after record %d: %w", s.ordinal, err))
			return
		}
		if !s.line(bytes.TrimSpace(line), tooLong) || err != nil {
			return
		}
		line, tooLong = line[:0], false
	}
}

func (s *scan) line(line []byte, tooLong bool) bool {
	switch {
	case tooLong:
		return s.bad(false, "line of more than %d bytes", RecordBytesMax)
	case len(line) == 0:
		return true
	case bytes.Contains(line, []byte(`"Records"`)):
		// An envelope, or a record that talks of one.
		return s.values(jsontext.NewDecoder(bytes.NewReader(line)), func() {}, false)
	}
	v := jsontext.Value(line)
	if !v.IsValid() {
		return s.bad(false, "%s", reason(firstError(line)))
	}
	return s.value(v)
}

// firstError returns what is wrong with a line that is not one JSON value.
func firstError(line []byte) error {
	d := jsontext.NewDecoder(bytes.NewReader(line))
	if _, err := d.ReadValue(); err != nil {
		return err
	}
	return errors.New("more than one value on the line")
}

// stream reads values that follow each other, envelopes among them.
func (s *scan) stream(in io.Reader) {
	m := &meter{r: in}
	s.values(jsontext.NewDecoder(m), func() { m.n = 0 }, true)
}

// values reads all values of d. mark is called before each record. rest says that a
// broken value makes everything after it unreadable.
func (s *scan) values(d *jsontext.Decoder, mark func(), rest bool) bool {
	for {
		mark()
		var ok bool
		var err error
		switch d.PeekKind() {
		case '[':
			ok, err = s.array(d, mark)
		case '{':
			ok, err = s.object(d, mark)
		default:
			var v jsontext.Value
			if v, err = d.ReadValue(); errors.Is(err, io.EOF) {
				return true
			}
			ok = err == nil && s.value(v)
		}
		if err != nil {
			return s.broken(err, rest)
		}
		if !ok {
			return false
		}
	}
}

// broken reports an error of the decoder: the source's own, or of its bytes.
func (s *scan) broken(err error, rest bool) bool {
	var syntax *jsontext.SyntacticError
	if errors.As(err, &syntax) || errors.Is(err, errRecordTooLarge) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF) {
		return s.bad(rest, "%s", reason(err))
	}
	s.yield(Raw{}, fmt.Errorf("read after record %d: %w", s.ordinal, err))
	return false
}

func (s *scan) array(d *jsontext.Decoder, mark func()) (bool, error) {
	if _, err := d.ReadToken(); err != nil {
		return false, err
	}
	for d.PeekKind() != ']' {
		mark()
		v, err := d.ReadValue()
		if err != nil {
			return false, err
		}
		if !s.value(v) {
			return false, nil
		}
	}
	_, err := d.ReadToken()
	return true, err
}

// object reads one object: an envelope if it has an array of Records, else a record.
func (s *scan) object(d *jsontext.Decoder, mark func()) (bool, error) {
	if _, err := d.ReadToken(); err != nil {
		return false, err
	}
	record := []byte{'{'}
	envelope := false
	for d.PeekKind() != '}' {
		name, err := d.ReadValue()
		if err != nil {
			return false, err
		}
		name = name.Clone() // The decoder's buffer moves on with the next call.
		if string(name) == `"Records"` && d.PeekKind() == '[' {
			envelope = true
			if ok, err := s.array(d, mark); !ok {
				return false, err
			}
			continue
		}
		if len(record) > 1 {
			record = append(record, ',')
		}
		record = append(append(record, name...), ':')
		v, err := d.ReadValue()
		if err != nil {
			return false, err
		}
		record = append(record, v...)
	}
	if _, err := d.ReadToken(); err != nil {
		return false, err
	}
	return envelope || s.value(append(record, '}')), nil
}

// reason is err without any of the record's own text, which may hold secrets.
func reason(err error) string {
	var syntax *jsontext.SyntacticError
	switch {
	case errors.Is(err, errRecordTooLarge):
		return errRecordTooLarge.Error()
	case errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, io.EOF):
		return "cut off"
	case errors.Is(err, jsontext.ErrDuplicateName):
		return "a member occurs twice"
	case errors.As(err, &syntax):
		return fmt.Sprintf("not valid JSON after byte %d", syntax.ByteOffset)
	}
	return "more than one value on the line"
}

var errRecordTooLarge = fmt.Errorf("record of more than %d bytes", RecordBytesMax)

// meter ends a source whose single record grows without bound.
type meter struct {
	r io.Reader
	n int // Bytes read since the last record.
}

// Read implements io.Reader. A decoder reads ahead, so the bound is not exact here;
// scan.value is.
func (m *meter) Read(p []byte) (int, error) {
	if m.n > 4*RecordBytesMax {
		return 0, errRecordTooLarge
	}
	n, err := m.r.Read(p)
	m.n += n
	return n, err
}
