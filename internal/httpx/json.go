package httpx

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/gin-gonic/gin"

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
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.UseNumber()
	if err := walkValue(dec, 0); err != nil {
		return err
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return errNotJSON()
	}
	return nil
}

func walkValue(dec *json.Decoder, depth int) error {
	if depth > jsonDepthMax {
		return domain.Errorf(domain.Invalid, "the body nests deeper than %d", jsonDepthMax).WithMessageCode("too_deep")
	}
	tok, err := dec.Token()
	if err != nil {
		return errNotJSON()
	}
	delim, ok := tok.(json.Delim)
	if !ok {
		return nil
	}
	seen := map[string]bool{}
	for dec.More() {
		if delim == '{' {
			name, err := dec.Token()
			if err != nil {
				return errNotJSON()
			}
			text := fmt.Sprint(name)
			folded := strings.ToLower(text)
			if seen[folded] {
				return domain.Errorf(domain.Invalid, "is given twice").WithField(text).WithMessageCode("duplicate_field")
			}
			seen[folded] = true
		}
		if err := walkValue(dec, depth+1); err != nil {
			return err
		}
	}
	if _, err := dec.Token(); err != nil {
		return errNotJSON()
	}
	return nil
}
