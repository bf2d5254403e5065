package keystore

import (
	"fmt"
	"log/slog"
)

const redacted = "[redacted]"

// Secret is a text that must not be shown. Every way of printing, logging or encoding
// it gives "[redacted]"; only [Secret.Reveal] gives the text.
type Secret struct{ text string }

// NewSecret returns s as a secret.
func NewSecret(s string) Secret { return Secret{text: s} }

// Reveal returns the text. Each call is a place to review.
func (s Secret) Reveal() string { return s.text }

// Empty reports whether there is no text.
func (s Secret) Empty() bool { return s.text == "" }

// String implements [fmt.Stringer].
func (Secret) String() string { return redacted }

// GoString implements [fmt.GoStringer].
func (Secret) GoString() string { return redacted }

// Format implements [fmt.Formatter], for every verb.
func (Secret) Format(f fmt.State, _ rune) {
	if _, err := f.Write([]byte(redacted)); err != nil {
		return // fmt owns the writer and reports its error.
	}
}

// LogValue implements [slog.LogValuer].
func (Secret) LogValue() slog.Value { return slog.StringValue(redacted) }

// MarshalJSON implements [encoding/json.Marshaler].
func (Secret) MarshalJSON() ([]byte, error) { return []byte(`"` + redacted + `"`), nil }

// MarshalText implements [encoding.TextMarshaler].
func (Secret) MarshalText() ([]byte, error) { return []byte(redacted), nil }
