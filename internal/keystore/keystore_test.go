package keystore_test

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"example.com/keytrail/internal/keystore"
)

func discard() *slog.Logger { return slog.New(slog.DiscardHandler) }

func open(t *testing.T, dir, master string) *keystore.Store {
	t.Helper()
	s, err := keystore.Open(t.Context(), dir, master, discard())
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestAReopenedStoreIsTheSame(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	first, second := open(t, dir, ""), open(t, dir, "")
	sum := sha256.Sum256([]byte("secret"))
	if !first.Fresh() || second.Fresh() {
		t.Errorf("fresh: %t then %t", first.Fresh(), second.Fresh())
	}
	if first.Fingerprint(sum) != second.Fingerprint(sum) || first.InstallationID() != second.InstallationID() || !first.SigningKey().Equal(second.SigningKey()) {
		t.Error("the reopened store is another")
	}
	other := open(t, t.TempDir(), "")
	if first.Fingerprint(sum) == other.Fingerprint(sum) || first.InstallationID() == other.InstallationID() {
		t.Error("two stores share their secrets")
	}
	for _, name := range []string{"keystore", "master.key"} {
		st, err := os.Stat(filepath.Join(dir, name))
		if err != nil || st.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v; want mode 0600", name, st, err)
		}
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 2 {
		t.Errorf("left behind: %v, %v", entries, err)
	}
}

func TestFingerprintNamesItsAlgorithmAndHidesTheSecret(t *testing.T) {
	t.Parallel()
	s := open(t, t.TempDir(), "")
	secret := keystore.NewSecret("a secret")
	got := s.FingerprintSecret(secret)
	sum := sha256.Sum256([]byte("a secret"))
	if !strings.HasPrefix(got, "hmac-sha256:") || len(got) != 12+64 || got != s.Fingerprint(sum) {
		t.Errorf("fingerprint %q", got)
	}
	if strings.Contains(got, hex.EncodeToString(sum[:])) {
		t.Error("the fingerprint is the bare hash: whoever has the secret's hash could find it")
	}
}

// TestAWrongOrMissingMasterKeyIsOneClearError, and never a new key store.
func TestAWrongOrMissingMasterKeyIsOneClearError(t *testing.T) {
	t.Parallel()
	write := func(t *testing.T, content string) string {
		t.Helper()
		path := filepath.Join(t.TempDir(), "m")
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	good := strings.Repeat("k", 32)
	flip := func(t *testing.T, dir string) {
		t.Helper()
		path := filepath.Join(dir, "keystore")
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		i := bytes.Index(data, []byte(`"sealed": "`)) + len(`"sealed": "`) + 5
		if data[i]++; data[i] > 'Z' || data[i] < 'A' {
			data[i] = 'A' // Another digit of base64, whatever stood there.
		}
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	tests := []struct {
		name   string
		damage func(t *testing.T, dir string)
		master func(t *testing.T) string
		is     error
		says   string
	}{
		{name: "another master key", master: func(t *testing.T) string { t.Helper(); return write(t, strings.Repeat("x", 32)) }, is: keystore.ErrWrongMasterKey},
		{name: "the file was changed", damage: flip, master: func(t *testing.T) string { t.Helper(); return write(t, good) }, is: keystore.ErrWrongMasterKey},
		{name: "no master key named", master: func(*testing.T) string { return "" }, says: "--master-key-file"},
		{name: "a master key too short", master: func(t *testing.T) string { t.Helper(); return write(t, "short") }, says: "at least 32"},
		{name: "a master key file that is not there", master: func(*testing.T) string { return "/nonexistent/master" }, is: os.ErrNotExist},
		{name: "a torn file", damage: func(t *testing.T, dir string) {
			t.Helper()
			if err := os.Truncate(filepath.Join(dir, "keystore"), 10); err != nil {
				t.Fatal(err)
			}
		}, master: func(t *testing.T) string { t.Helper(); return write(t, good) }, says: "damaged"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			before := open(t, dir, write(t, good+"\n")) // A line end does not matter.
			if tt.damage != nil {
				tt.damage(t, dir)
			}
			_, err := keystore.Open(t.Context(), dir, tt.master(t), discard())
			if err == nil || (tt.is != nil && !errors.Is(err, tt.is)) || !strings.Contains(err.Error(), tt.says) {
				t.Fatalf("err = %v, want %v %q", err, tt.is, tt.says)
			}
			if strings.Contains(err.Error(), good) {
				t.Errorf("the error tells the master key: %v", err)
			}
			if _, err := os.Stat(filepath.Join(dir, "master.key")); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("a new master key was made: %v", err)
			}
			if tt.damage == nil && open(t, dir, write(t, good)).InstallationID() != before.InstallationID() {
				t.Error("the key store was made anew")
			}
		})
	}
}

func TestAFailedWriteLeavesTheOldFile(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, "f")
	if err := keystore.WriteFile(path, []byte("old")); err != nil {
		t.Fatal(err)
	}
	if err := keystore.WriteFile(filepath.Join(dir, "none", "f"), []byte("new")); err == nil {
		t.Error("a write into a folder that is not there succeeded")
	}
	if err := os.Mkdir(filepath.Join(dir, "d"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := keystore.WriteFile(filepath.Join(dir, "d"), []byte("new")); err == nil {
		t.Error("a folder was replaced by a file")
	}
	data, err := os.ReadFile(path)
	entries, dirErr := os.ReadDir(dir)
	if err != nil || dirErr != nil || string(data) != "old" || len(entries) != 2 {
		t.Errorf("%q, %v, %v, %v", data, err, entries, dirErr)
	}
}

// TestASecretIsNeverPrinted by any of the ways in which Go prints.
func TestASecretIsNeverPrinted(t *testing.T) {
	t.Parallel()
	const text = "kt_verysecret"
	s := keystore.NewSecret(text)
	store := open(t, t.TempDir(), "")
	seed := fmt.Sprintf("%x", store.SigningKey().Seed())
	var logged bytes.Buffer
	for _, h := range []slog.Handler{slog.NewTextHandler(&logged, nil), slog.NewJSONHandler(&logged, nil)} {
		slog.New(h).InfoContext(t.Context(), "m", slog.Any("a", s), slog.Any("b", struct{ S keystore.Secret }{s}), slog.Any("c", store))
	}
	encoded, err := json.Marshal(map[string]any{"s": s, "p": &s, "in": struct{ S keystore.Secret }{s}})
	if err != nil {
		t.Fatal(err)
	}
	wrapped := fmt.Errorf("with %v", s)
	shown := []string{logged.String(), string(encoded), wrapped.Error()}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
		shown = append(shown, fmt.Sprintf(verb, s), fmt.Sprintf(verb, &s), fmt.Sprintf(verb, struct{ S keystore.Secret }{s}), fmt.Sprintf(verb, []keystore.Secret{s}))
	}
	shown = append(shown, fmt.Sprintf("%v %+v %#v %s", store, store, store, store))
	for _, out := range shown {
		for _, secret := range []string{text, hex.EncodeToString([]byte(text)), seed} {
			if strings.Contains(out, secret) {
				t.Errorf("shown: %s", out)
			}
		}
	}
	if s.Reveal() != text || s.Empty() || !(keystore.Secret{}).Empty() {
		t.Error("the secret itself is lost")
	}
}

func TestKeyValuesCarryPrefixAndChecksum(t *testing.T) {
	t.Parallel()
	zero, err := keystore.NewKeyValue(bytes.NewReader(make([]byte, 32)))
	if err != nil {
		t.Fatal(err)
	}
	// Fixed for ever: scanners know this form. Computed with zlib of another language.
	if got, want := zero.Reveal(), "kt_"+strings.Repeat("0", 43)+"3lOleF"; got != want {
		t.Errorf("value of zero bytes is %s, want %s", got, want)
	}
	seen := map[string]bool{}
	for range 100 {
		v, err := keystore.NewKeyValue(rand.Reader)
		if err != nil || len(v.Reveal()) != 52 || !keystore.IsKeyValue(v.Reveal()) || seen[v.Reveal()] {
			t.Fatalf("value %q, %v", v.Reveal(), err)
		}
		seen[v.Reveal()] = true
	}
	if _, err := keystore.NewKeyValue(bytes.NewReader(make([]byte, 31))); err == nil {
		t.Error("a key was made of too little randomness")
	}
}

// TestAnyChangedCharacterIsSeen by the checksum: CRC-32 finds every error burst that
// short.
func TestAnyChangedCharacterIsSeen(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		v, err := keystore.NewKeyValue(bytes.NewReader(rapid.SliceOfN(rapid.Byte(), 32, 32).Draw(t, "random")))
		if err != nil {
			t.Fatal(err)
		}
		b := []byte(v.Reveal())
		i := rapid.IntRange(0, len(b)-1).Draw(t, "at")
		c := rapid.Byte().Draw(t, "char")
		if c == b[i] {
			return
		}
		b[i] = c
		if keystore.IsKeyValue(string(b)) {
			t.Fatalf("%s passes with a changed character at %d", b, i)
		}
	})
}

// FuzzIsKeyValue: no text crashes the check.
func FuzzIsKeyValue(f *testing.F) {
	f.Add("kt_")
	f.Add(strings.Repeat("0", 52))
	f.Fuzz(func(t *testing.T, s string) {
		if keystore.IsKeyValue(s) && (len(s) != 52 || !strings.HasPrefix(s, keystore.KeyPrefix)) {
			t.Errorf("%q passes", s)
		}
	})
}
