package httpx

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"

	"github.com/gin-gonic/gin"
	"github.com/go-json-experiment/json/jsontext"

	"example.com/keytrail/domain"
)

// jsonDepthMax bounds how deep a body may nest.
const jsonDepthMax = 32

// BindJSON reads the body as exactly one JSON value into dst. What is wrong comes back
// as [domain.Invalid] with the field named, or [domain.TooLarge]. See the package
// comment for how strict it is.
func BindJSON(c *gin.Context, dst any) error {
	data, err := io.ReadAll(c.Request.Body)
	if tooLarge, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return domain.Errorf(domain.TooLarge, "the body is larger than %d bytes", tooLarge.Limit).WithMessageCode("body_too_large")
	}
	if err != nil {
		return fmt.Errorf("%w: %w", domain.Errorf(domain.Invalid, "the body broke off").WithMessageCode("body_broken"), err)
	}
	return DecodeJSON(data, dst)
}

// DecodeJSON reads data like [BindJSON].
func DecodeJSON(data []byte, dst any) error {
	if len(bytes.TrimSpace(data)) == 0 {
		return domain.Errorf(domain.Invalid, "the body is empty; JSON is expected").WithMessageCode("empty_body")
	}
	if err := checkDuplicates(data); err != nil {
		return err
	}
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	if err := dec.Decode(dst); err != nil {
		return wordJSON(err)
	}
	return nil
}

// wordJSON turns encoding/json's error into ours.
func wordJSON(err error) error {
	if wrong, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
		e := domain.Errorf(domain.Invalid, "must not be a JSON %s", wrong.Value).WithMessageCode("wrong_type")
		return e.WithField(wrong.Field)
	}
	if own, ok := errors.AsType[*domain.Error](err); ok {
		return own
	}
	if name, ok := strings.CutPrefix(err.Error(), "json: unknown field "); ok {
		// The library has no type for this error.
		return domain.Errorf(domain.Invalid, "is not a field of this call").
			WithField(strings.Trim(name, `"`)).WithMessageCode("unknown_field")
	}
	return errNotJSON()
}

func errNotJSON() *domain.Error {
	return domain.Errorf(domain.Invalid, "the body is not one JSON value").WithMessageCode("invalid_json")
}

// checkDuplicates refuses objects that name a field twice, in any letter case (since
// encoding/json ignores case), values nested too deep, and anything after the value.
func checkDuplicates(data []byte) error {
	// What encoding/json takes it must take, too; the names are compared here.
	dec := jsontext.NewDecoder(bytes.NewBuffer(data), jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true))
	if err := walkValue(dec, 0); err != nil {
		return err
	}
	if _, err := dec.ReadToken(); !errors.Is(err, io.EOF) {
		return errNotJSON()
	}
	return nil
}

func walkValue(dec *jsontext.Decoder, depth int) error {
	if depth > jsonDepthMax {
		return domain.Errorf(domain.Invalid, "the body nests deeper than %d", jsonDepthMax).WithMessageCode("too_deep")
	}
	tok, err := dec.ReadToken()
	if err != nil {
		return errNotJSON()
	}
	switch tok.Kind() {
	case '{':
		return walkObject(dec, depth)
	case '[':
		for dec.PeekKind() != ']' {
			if err := walkValue(dec, depth+1); err != nil {
				return err
			}
		}
		return skipToken(dec)
	}
	return nil
}

func walkObject(dec *jsontext.Decoder, depth int) error {
	var seen names
	for dec.PeekKind() != '}' {
		name, err := dec.ReadToken()
		if err != nil {
			return errNotJSON()
		}
		if text := name.String(); !seen.add(strings.ToLower(text)) {
			return domain.Errorf(domain.Invalid, "is given twice").WithField(text).WithMessageCode("duplicate_field")
		}
		if err := walkValue(dec, depth+1); err != nil {
			return err
		}
	}
	return skipToken(dec)
}

func skipToken(dec *jsontext.Decoder) error {
	if _, err := dec.ReadToken(); err != nil {
		return errNotJSON()
	}
	return nil
}

// names is a set that costs nothing while it is small.
type names struct {
	few  [8]string
	n    int
	many map[string]struct{} // All of them, once few is full.
}

// add returns false if name is in the set already.
func (s *names) add(name string) bool {
	if s.many != nil {
		_, known := s.many[name]
		s.many[name] = struct{}{}
		return !known
	}
	if slices.Contains(s.few[:s.n], name) {
		return false
	}
	if s.n < len(s.few) {
		s.few[s.n] = name
		s.n++
		return true
	}
	s.many = map[string]struct{}{name: {}}
	for _, known := range s.few {
		s.many[known] = struct{}{}
	}
	return true
}
