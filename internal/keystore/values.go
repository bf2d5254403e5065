package keystore

import (
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

const (
	valuesFolder    = "values"
	valueFormatName = "keytrail-value-1"
)

// ErrNoValue says that no value is kept under that id.
var ErrNoValue = errors.New("no value is kept under this id")

// sealedValue is the form of a file in DIR/values.
type sealedValue struct {
	Format string `json:"format"`
	Nonce  []byte `json:"nonce"`
	Sealed []byte `json:"sealed"`
}

// KeepValue keeps value, sealed, so that it can be read again under id: see the package
// comment. When it returns nil it is durable. An older value under id is replaced.
func (s *Store) KeepValue(id string, value Secret) error {
	aead, err := cipherFor(s.values, []byte(valueFormatName))
	if err != nil {
		return err
	}
	f := sealedValue{Format: valueFormatName, Nonce: make([]byte, aead.NonceSize())}
	rand.Read(f.Nonce)
	f.Sealed = aead.Seal(nil, f.Nonce, []byte(value.Reveal()), valueContext(id))
	data, err := json.Marshal(f)
	if err != nil {
		return fmt.Errorf("encode sealed value: %w", err)
	}
	if err := s.makeValuesFolder(); err != nil {
		return err
	}
	return WriteFile(s.valuePath(id), append(data, '\n'))
}

// KeptValue returns the value that is kept under id, or [ErrNoValue].
func (s *Store) KeptValue(id string) (Secret, error) {
	data, err := os.ReadFile(s.valuePath(id))
	if errors.Is(err, fs.ErrNotExist) {
		return Secret{}, ErrNoValue
	}
	if err != nil {
		return Secret{}, fmt.Errorf("read kept value: %w", err)
	}
	var f sealedValue
	if err := json.Unmarshal(data, &f); err != nil {
		return Secret{}, fmt.Errorf("kept value is damaged: %w", err)
	}
	aead, err := cipherFor(s.values, []byte(valueFormatName))
	if err != nil {
		return Secret{}, err
	}
	if f.Format != valueFormatName || len(f.Nonce) != aead.NonceSize() {
		return Secret{}, fmt.Errorf("kept value is damaged, or of format %q", f.Format)
	}
	plain, err := aead.Open(nil, f.Nonce, f.Sealed, valueContext(id))
	if err != nil {
		return Secret{}, fmt.Errorf("kept value was changed, or is another's: %w", err)
	}
	return NewSecret(string(plain)), nil
}

// DropValue ends what is kept under id, for good when it returns nil. Where nothing is
// kept it does nothing.
func (s *Store) DropValue(id string) error {
	err := os.Remove(s.valuePath(id))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("remove kept value: %w", err)
	}
	return syncDir(filepath.Join(s.dir, valuesFolder))
}

func (s *Store) makeValuesFolder() error {
	err := os.Mkdir(filepath.Join(s.dir, valuesFolder), 0o700)
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("make folder of kept values: %w", err)
	}
	return syncDir(s.dir)
}

// valuePath is where the value of id is kept: no id becomes a path.
func (s *Store) valuePath(id string) string {
	sum := sha256.Sum256([]byte(id))
	return filepath.Join(s.dir, valuesFolder, hex.EncodeToString(sum[:16]))
}

// valueContext binds a sealed value to its id: one file cannot stand in for another.
func valueContext(id string) []byte { return []byte(valueFormatName + "\x00" + id) }

// valuesKey is the master key of kept values.
func valuesKey(pepper []byte) ([]byte, error) {
	key, err := hkdf.Key(sha256.New, pepper, nil, valueFormatName, 32)
	if err != nil {
		return nil, fmt.Errorf("derive key of kept values: %w", err)
	}
	return key, nil
}
