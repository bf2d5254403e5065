package query

import (
	"errors"
	"net/url"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/gin-gonic/gin"

	"example.com/keytrail/domain"
)

// textBytesMax bounds a text parameter that declares no bound of its own.
const textBytesMax = 512

// bind fills the struct that dst points to from the query and the path of c, by its
// fields' tags: `query` or `path` names the parameter; `default`, `minimum`, `maximum`,
// `enum`, `maxLength`, `required` bound it. The same tags make the API's description.
// All that is wrong is returned at once, each error naming its parameter.
func bind(c *gin.Context, dst any) error {
	values, err := url.ParseQuery(c.Request.URL.RawQuery)
	if err != nil {
		return domain.Errorf(domain.Invalid, "the query string is malformed").WithMessageCode("invalid_query")
	}
	b := binder{c: c, values: values, known: map[string]bool{}}
	b.fields(reflect.ValueOf(dst).Elem())
	for name, all := range values {
		switch {
		case !b.known[name]:
			b.refuse(name, "unknown_parameter", "is not a parameter of this call")
		case len(all) > 1:
			b.refuse(name, "duplicate_parameter", "is given more than once")
		}
	}
	slices.SortFunc(b.errs, func(x, y error) int { return strings.Compare(x.Error(), y.Error()) })
	return errors.Join(b.errs...)
}

type binder struct {
	c      *gin.Context
	values url.Values
	known  map[string]bool
	errs   []error
}

func (b *binder) refuse(name, code, format string, args ...any) {
	b.errs = append(b.errs, domain.Errorf(domain.Invalid, format, args...).WithField(name).WithMessageCode(code))
}

func (b *binder) fields(v reflect.Value) {
	for i := range v.NumField() {
		f := v.Type().Field(i)
		if f.Anonymous {
			b.fields(v.Field(i))
			continue
		}
		if name := f.Tag.Get("path"); name != "" {
			b.set(v.Field(i), f, name, b.c.Param(name))
			continue
		}
		name := f.Tag.Get("query")
		if name == "" {
			continue
		}
		b.known[name] = true
		text := b.values.Get(name)
		if text == "" {
			text = f.Tag.Get("default")
		}
		if text == "" {
			if f.Tag.Get("required") == "true" {
				b.refuse(name, "missing_parameter", "is required")
			}
			continue
		}
		b.set(v.Field(i), f, name, text)
	}
}

func (b *binder) set(v reflect.Value, f reflect.StructField, name, text string) {
	switch v.Kind() {
	case reflect.String:
		b.setText(v, f, name, text)
	case reflect.Int:
		n, err := strconv.Atoi(text)
		low, high := tagInt(f, "minimum"), tagInt(f, "maximum")
		if err != nil || n < low || n > high {
			b.refuse(name, "out_of_bounds", "must be a whole number from %d to %d", low, high)
			return
		}
		v.SetInt(int64(n))
	case reflect.Bool:
		if text != "true" && text != "false" {
			b.refuse(name, "not_boolean", "must be true or false")
			return
		}
		v.SetBool(text == "true")
	default:
		panic("query: parameter " + name + " has a type that bind does not know")
	}
}

func (b *binder) setText(v reflect.Value, f reflect.StructField, name, text string) {
	bytesMax := textBytesMax
	if f.Tag.Get("maxLength") != "" {
		bytesMax = tagInt(f, "maxLength")
	}
	switch enum := f.Tag.Get("enum"); {
	case len(text) > bytesMax:
		b.refuse(name, "too_long", "must be at most %d bytes", bytesMax)
	case !utf8.ValidString(text) || strings.ContainsRune(text, 0):
		b.refuse(name, "not_text", "must be text in UTF-8")
	case enum != "" && !slices.Contains(strings.Split(enum, ","), text):
		b.refuse(name, "unknown_value", "must be one of %s", strings.ReplaceAll(enum, ",", ", "))
	default:
		v.SetString(text)
	}
}

// tagInt reads a number that this program's own tag must hold.
func tagInt(f reflect.StructField, tag string) int {
	n, err := strconv.Atoi(f.Tag.Get(tag))
	if err != nil {
		panic("query: field " + f.Name + " has no number in its tag " + tag)
	}
	return n
}
