package keystore

import (
	"context"
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
)

const (
	fileName       = "keystore"
	masterFileName = "master.key"
	pepperBytes    = 32
)

// FingerprintPrefix begins every fingerprint: it names the algorithm.
const FingerprintPrefix = "hmac-sha256:"

// Store is an opened key store. It is safe for concurrent use: nothing in it changes but
// the kept values, each of which is a file of its own.
type Store struct {
	dir     string
	pepper  []byte
	values  []byte // Master key of kept values.
	signing ed25519.PrivateKey
	id      string
	fresh   bool
}

// content is what the file seals.
type content struct {
	Pepper  []byte `json:"pepper"`
	Signing []byte `json:"signing_seed"` // Ed25519 seed.
	// ID is the installation's. The name is of the time when it was also its only writer's.
	ID string `json:"writer_id"`
}

// Open returns the key store of the data folder dir, made at first use. masterKeyFile
// names the file with the master key; where it is "", DIR/master.key is used, and made
// with a warning if there is no key store yet. A key store is never made anew over an
// old one: without its master key, or with another, Open fails and says so. Of several
// processes that make it at once one does, and the others open what that one made.
func Open(ctx context.Context, dir, masterKeyFile string, log *slog.Logger) (*Store, error) {
	path := filepath.Join(dir, fileName)
	sealed, err := os.ReadFile(path)
	exists := err == nil
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("read key store: %w", err)
	}
	master, err := masterKey(ctx, dir, masterKeyFile, exists, log)
	if err != nil {
		return nil, err
	}
	if exists {
		var c content
		if err := unseal(sealed, master, &c); err != nil {
			return nil, fmt.Errorf("open key store %s: %w", path, err)
		}
		return newStore(dir, c, false)
	}
	c := newContent()
	out, err := seal(c, master)
	if err != nil {
		return nil, fmt.Errorf("seal key store: %w", err)
	}
	made, err := CreateFile(path, out)
	if err != nil {
		return nil, fmt.Errorf("write key store: %w", err)
	}
	if !made { // Another process was faster.
		return Open(ctx, dir, masterKeyFile, log)
	}
	return newStore(dir, c, true)
}

func newContent() content {
	c := content{Pepper: make([]byte, pepperBytes), Signing: make([]byte, ed25519.SeedSize)}
	var id [8]byte
	for _, b := range [][]byte{c.Pepper, c.Signing, id[:]} {
		rand.Read(b) // Never returns an error; it ends the process.
	}
	c.ID = hex.EncodeToString(id[:])
	return c
}

func newStore(dir string, c content, fresh bool) (*Store, error) {
	if len(c.Pepper) != pepperBytes || len(c.Signing) != ed25519.SeedSize || c.ID == "" {
		return nil, errors.New("key store is damaged: its content is not complete")
	}
	values, err := valuesKey(c.Pepper)
	if err != nil {
		return nil, err
	}
	return &Store{dir: dir, pepper: c.Pepper, values: values, signing: ed25519.NewKeyFromSeed(c.Signing), id: c.ID, fresh: fresh}, nil
}

// Fresh reports whether this Open made the key store.
func (s *Store) Fresh() bool { return s.fresh }

// InstallationID names the installation: all nodes that share this key store. What the
// first start makes is named after it. It is no node's name: see [NodeID].
func (s *Store) InstallationID() string { return s.id }

// SigningKey returns the key that signs tokens. The caller must not change it.
func (s *Store) SigningKey() ed25519.PrivateKey { return s.signing }

// Fingerprint returns "hmac-sha256:<hex>": HMAC under the pepper of a secret's
// SHA-256. Without the pepper nobody can tell which secret it is of.
func (s *Store) Fingerprint(secretSHA256 [sha256.Size]byte) string {
	mac := hmac.New(sha256.New, s.pepper)
	mac.Write(secretSHA256[:])
	return FingerprintPrefix + hex.EncodeToString(mac.Sum(nil))
}

// FingerprintSecret returns the fingerprint of a secret itself.
func (s *Store) FingerprintSecret(secret Secret) string {
	return s.Fingerprint(sha256.Sum256([]byte(secret.Reveal())))
}

// String implements [fmt.Stringer]: a store shows nothing.
func (s *Store) String() string { return "keystore " + redacted }

// GoString implements [fmt.GoStringer]: a store shows nothing.
func (s *Store) GoString() string { return s.String() }

// LogValue implements [slog.LogValuer]: a store shows nothing.
func (s *Store) LogValue() slog.Value { return slog.StringValue(s.String()) }

// masterKey reads the master key, or makes one where that is allowed.
func masterKey(ctx context.Context, dir, file string, storeExists bool, log *slog.Logger) ([]byte, error) {
	path, given := file, file != ""
	if !given {
		path = filepath.Join(dir, masterFileName)
	}
	raw, err := os.ReadFile(path)
	switch {
	case err == nil:
		return checkMaster(ctx, path, raw, given, log)
	case given || !errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("read master key: %w", err)
	case storeExists:
		return nil, fmt.Errorf("the key store in %s is sealed, but %s is missing: restore it, or name its master key with --master-key-file", dir, path)
	}
	var b [32]byte
	rand.Read(b[:])
	raw = append(base64.StdEncoding.AppendEncode(nil, b[:]), '\n')
	made, err := CreateFile(path, raw)
	if err != nil {
		return nil, fmt.Errorf("write master key: %w", err)
	}
	if !made { // Another process was faster.
		return masterKey(ctx, dir, file, storeExists, log)
	}
	log.WarnContext(ctx, "made a master key in the data folder; for protection keep one elsewhere and name it with --master-key-file",
		slog.String("path", path))
	return checkMaster(ctx, path, raw, true, log)
}

func checkMaster(ctx context.Context, path string, raw []byte, given bool, log *slog.Logger) ([]byte, error) {
	raw = trim(raw)
	if len(raw) < masterBytesMin {
		return nil, fmt.Errorf("the master key in %s has %d bytes; at least %d are needed", path, len(raw), masterBytesMin)
	}
	st, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("stat master key: %w", err)
	}
	if st.Mode().Perm()&0o077 != 0 {
		log.WarnContext(ctx, "others can read the master key", slog.String("path", path), slog.String("mode", st.Mode().Perm().String()))
	}
	if !given {
		log.WarnContext(ctx, "the master key lies beside the data that it protects", slog.String("path", path))
	}
	return raw, nil
}

// sealedFile is the form of the file on disk.
type sealedFile struct {
	Format string `json:"format"`
	Salt   []byte `json:"salt"`
	Nonce  []byte `json:"nonce"`
	Sealed []byte `json:"sealed"`
}

func seal(c content, master []byte) ([]byte, error) {
	plain, err := json.Marshal(c)
	if err != nil {
		return nil, fmt.Errorf("encode content: %w", err)
	}
	f := sealedFile{Format: formatName, Salt: make([]byte, 32)}
	rand.Read(f.Salt)
	aead, err := cipherFor(master, f.Salt)
	if err != nil {
		return nil, err
	}
	f.Nonce = make([]byte, aead.NonceSize())
	rand.Read(f.Nonce)
	f.Sealed = aead.Seal(nil, f.Nonce, plain, []byte(f.Format))
	out, err := json.MarshalIndent(f, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("encode file: %w", err)
	}
	return append(out, '\n'), nil
}

func unseal(data, master []byte, c *content) error {
	var f sealedFile
	if err := json.Unmarshal(data, &f); err != nil {
		return fmt.Errorf("the file is damaged: %w", err)
	}
	if f.Format != formatName {
		return fmt.Errorf("format %q is not known to this version", f.Format)
	}
	aead, err := cipherFor(master, f.Salt)
	if err != nil {
		return err
	}
	if len(f.Nonce) != aead.NonceSize() {
		return errors.New("the file is damaged: its nonce has the wrong length")
	}
	plain, err := aead.Open(nil, f.Nonce, f.Sealed, []byte(f.Format))
	if err != nil {
		return ErrWrongMasterKey
	}
	if err := json.Unmarshal(plain, c); err != nil {
		return fmt.Errorf("the content is damaged: %w", err)
	}
	return nil
}
