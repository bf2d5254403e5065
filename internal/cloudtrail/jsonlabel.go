package cloudtrail

import (
	"bytes"
	"slices"
	"strings"

	"github.com/go-json-experiment/json/jsontext"
)

// removed stands where a secret was.
const removed = "[removed]"

// jsonLabel returns v as bounded JSON text without the values of secrets, "" for
// null and nothing.
func jsonLabel(v jsontext.Value) string {
	if v.Kind() != '{' && v.Kind() != '[' {
		if v == nil || v.Kind() == 'n' {
			return ""
		}
		// A bare text has no name that would tell a secret; it is kept as it is.
		return string(v)
	}
	out := []byte(v)
	if mayHoldSecret(v) {
		out = withoutSecrets(v)
	}
	if len(out) > LabelBytesMax {
		return oversize(out)
	}
	return string(out)
}

// secretNames are what the name of a member contains, in lower case, when its value
// is a secret; "secretid" and "secretarn" name one and stay.
func secretNames() []string {
	return []string{
		"password", "passwd", "passphrase", "secretaccesskey", "secretkey", "clientsecret", "sharedsecret", "secretstring", "secretbinary",
		"sessiontoken", "securitytoken", "accesstoken", "refreshtoken", "idtoken", "authtoken", "bearertoken", "oauthtoken",
		"privatekey", "keymaterial", "plaintext", "samlassertion", "webidentitytoken", "authorization", "apikeyvalue", "x-amz-signature",
	}
}

// mayHoldSecret is quick and errs on the safe side: an escape may hide a name.
func mayHoldSecret(v []byte) bool {
	if bytes.Contains(v, []byte(`\u`)) {
		return true
	}
	low := bytes.ToLower(v)
	for _, part := range []string{"passw", "passphrase", "secret", "token", "private", "material", "plaintext", "assertion", "authorization", "apikeyvalue", "x-amz-sig"} {
		if bytes.Contains(low, []byte(part)) {
			return true
		}
	}
	return false
}

func isSecretName(name string) bool {
	name = strings.NewReplacer("_", "", " ", "").Replace(strings.ToLower(name))
	return slices.ContainsFunc(secretNames(), func(s string) bool { return strings.Contains(name, s) })
}

// withoutSecrets copies v, which is valid, value by value.
func withoutSecrets(v jsontext.Value) []byte {
	var out bytes.Buffer
	enc := jsontext.NewEncoder(&out)
	if err := copyValue(jsontext.NewDecoder(bytes.NewReader(v)), enc, false); err != nil {
		// It was parsed before, so this cannot be; and a secret must not slip through.
		return []byte(`"` + removed + `"`)
	}
	return bytes.TrimSpace(out.Bytes())
}

func copyValue(d *jsontext.Decoder, e *jsontext.Encoder, secret bool) error {
	switch k := d.PeekKind(); {
	case k == '{':
		return copyObject(d, e, secret)
	case k == '[':
		return copyArray(d, e, secret)
	case secret && k == '"':
		t, err := d.ReadToken()
		if err != nil {
			return err //nolint:wrapcheck // Not shown to anybody.
		}
		s := t.String()
		if strings.Trim(s, "*") != "" {
			s = removed // AWS masks with asterisks; that it did is kept.
		}
		return e.WriteToken(jsontext.String(s)) //nolint:wrapcheck // As above.
	case secret && k == '0':
		if err := d.SkipValue(); err != nil {
			return err //nolint:wrapcheck // As above.
		}
		return e.WriteToken(jsontext.String(removed)) //nolint:wrapcheck // As above.
	}
	v, err := d.ReadValue()
	if err != nil {
		return err //nolint:wrapcheck // As above.
	}
	return e.WriteValue(v) //nolint:wrapcheck // As above.
}

func copyObject(d *jsontext.Decoder, e *jsontext.Encoder, secret bool) error {
	if err := copyToken(d, e); err != nil {
		return err
	}
	for d.PeekKind() != '}' {
		name, err := d.ReadToken()
		if err != nil {
			return err //nolint:wrapcheck // As above.
		}
		s := name.String()
		if err := e.WriteToken(jsontext.String(s)); err != nil {
			return err //nolint:wrapcheck // As above.
		}
		if err := copyValue(d, e, secret || isSecretName(s)); err != nil {
			return err
		}
	}
	return copyToken(d, e)
}

func copyArray(d *jsontext.Decoder, e *jsontext.Encoder, secret bool) error {
	if err := copyToken(d, e); err != nil {
		return err
	}
	for d.PeekKind() != ']' {
		if err := copyValue(d, e, secret); err != nil {
			return err
		}
	}
	return copyToken(d, e)
}

func copyToken(d *jsontext.Decoder, e *jsontext.Encoder) error {
	t, err := d.ReadToken()
	if err != nil {
		return err //nolint:wrapcheck // Not shown to anybody.
	}
	return e.WriteToken(t) //nolint:wrapcheck // As above.
}
