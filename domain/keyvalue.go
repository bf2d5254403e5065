package domain

import "bytes"

// KeyValuePrefix begins the value of every key that keytrail makes. Package keystore makes
// and checks values; here only their look matters.
const KeyValuePrefix = "kt_"

// keyValueDigitsMin is how many letters and digits after the prefix make a text look like a
// key value, whole or cut short: a value has 49.
const keyValueDigitsMin = 20

// redactKeyValues returns b with all that looks like a key value struck out, in place and
// at the same length. People paste secrets where a name, an id or a comment belongs; the
// log must not keep them, whatever field they came in.
func redactKeyValues(b []byte) []byte {
	for from := 0; ; {
		i := bytes.Index(b[from:], []byte(KeyValuePrefix))
		if i < 0 {
			return b
		}
		start := from + i + len(KeyValuePrefix)
		end := start
		for end < len(b) && isBase62(b[end]) {
			end++
		}
		if end-start >= keyValueDigitsMin {
			for j := start; j < end; j++ {
				b[j] = '*'
			}
		}
		from = end
	}
}

// RedactKeyValues returns s with all that looks like a key value struck out: what is shown
// to people of bytes that did not come through this package's codec.
func RedactKeyValues(s []byte) []byte { return redactKeyValues(bytes.Clone(s)) }

// LooksLikeKeyValue reports whether s holds a text that the log would strike out.
func LooksLikeKeyValue(s string) bool {
	return !bytes.Equal(redactKeyValues([]byte(s)), []byte(s))
}

func isBase62(c byte) bool {
	return c >= '0' && c <= '9' || c >= 'A' && c <= 'Z' || c >= 'a' && c <= 'z'
}
