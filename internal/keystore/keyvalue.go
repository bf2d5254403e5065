package keystore

import (
	"fmt"
	"hash/crc32"
	"io"
	"math/big"
	"strings"

	"example.com/keytrail/domain"
)

// KeyPrefix begins every key value that keytrail makes.
const KeyPrefix = domain.KeyValuePrefix

const (
	base62Digits  = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
	keyBytes      = 32
	bodyDigits    = 43 // 62^43 > 2^256.
	checkDigits   = 6  // 62^6 > 2^32.
	keyValueBytes = len(KeyPrefix) + bodyDigits + checkDigits
)

// NewKeyValue returns a new key value from 32 bytes of random. It fails only where
// random does.
func NewKeyValue(random io.Reader) (Secret, error) {
	var b [keyBytes]byte
	if _, err := io.ReadFull(random, b[:]); err != nil {
		return Secret{}, fmt.Errorf("read random bytes: %w", err)
	}
	body := KeyPrefix + base62(new(big.Int).SetBytes(b[:]), bodyDigits)
	return NewSecret(body + checksum(body)), nil
}

// IsKeyValue reports whether s has the form of a key value that keytrail made, with
// the right checksum. It does not say that the key exists.
func IsKeyValue(s string) bool {
	if len(s) != keyValueBytes || !strings.HasPrefix(s, KeyPrefix) {
		return false
	}
	body := s[:len(s)-checkDigits]
	for i := len(KeyPrefix); i < len(body); i++ {
		if strings.IndexByte(base62Digits, body[i]) < 0 {
			return false
		}
	}
	return checksum(body) == s[len(s)-checkDigits:]
}

func checksum(body string) string {
	return base62(big.NewInt(int64(crc32.ChecksumIEEE([]byte(body)))), checkDigits)
}

// base62 returns n in base 62, padded with zeros to width digits.
func base62(n *big.Int, width int) string {
	out := make([]byte, width)
	base, digit, rest := big.NewInt(int64(len(base62Digits))), new(big.Int), new(big.Int).Set(n)
	for i := width - 1; i >= 0; i-- {
		rest.DivMod(rest, base, digit)
		out[i] = base62Digits[digit.Int64()]
	}
	return string(out)
}
