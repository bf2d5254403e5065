package keystore

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"errors"
	"fmt"
)

const (
	formatName     = "keytrail-keystore-1"
	masterBytesMin = 32
)

// ErrWrongMasterKey says that the key store was sealed under another master key, or
// that its bytes were changed: the two cannot be told apart.
var ErrWrongMasterKey = errors.New("the master key is not the one that the key store was sealed with, or the file was changed")

func cipherFor(master, salt []byte) (cipher.AEAD, error) {
	key, err := hkdf.Key(sha256.New, master, salt, formatName, 32)
	if err != nil {
		return nil, fmt.Errorf("derive key: %w", err)
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, fmt.Errorf("make cipher: %w", err)
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		return nil, fmt.Errorf("make cipher: %w", err)
	}
	return aead, nil
}

// trim drops the line end that editors and shells leave.
func trim(b []byte) []byte { return bytes.TrimSpace(b) }
