package keystore_test

import (
	"bytes"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"testing"

	"example.com/keytrail/internal/keystore"
)

func openStore(t *testing.T, dir string) *keystore.Store {
	t.Helper()
	s, err := keystore.Open(t.Context(), dir, "", slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// TestAKeptValueIsReadAgainAndNoFileShowsIt: after another start too, and by its id alone.
func TestAKeptValueIsReadAgainAndNoFileShowsIt(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	const value = "a value that is to be read again"
	if err := openStore(t, dir).KeepValue("ApiKey-1", keystore.NewSecret(value)); err != nil {
		t.Fatal(err)
	}
	s := openStore(t, dir) // Another node, or another start.
	got, err := s.KeptValue("ApiKey-1")
	if err != nil || got.Reveal() != value {
		t.Errorf("read %v: %v", got.Reveal() == value, err)
	}
	if _, err := s.KeptValue("ApiKey-2"); !errors.Is(err, keystore.ErrNoValue) {
		t.Errorf("another id: %v", err)
	}
	files, err := filepath.Glob(filepath.Join(dir, "values", "*"))
	if err != nil || len(files) != 1 {
		t.Fatalf("files %v: %v", files, err)
	}
	data, err := os.ReadFile(files[0])
	if err != nil || bytes.Contains(data, []byte(value)) {
		t.Errorf("the file shows the value: %v", err)
	}
	if st, err := os.Stat(files[0]); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("mode %v: %v", st.Mode(), err)
	}
	for range 2 { // The second time there is nothing.
		if err := s.DropValue("ApiKey-1"); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := s.KeptValue("ApiKey-1"); !errors.Is(err, keystore.ErrNoValue) {
		t.Errorf("dropped: %v", err)
	}
}

// TestAKeptValueOfAnotherIDOrStoreIsRefused: a file that was moved or changed gives nothing.
func TestAKeptValueOfAnotherIDOrStoreIsRefused(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := openStore(t, dir)
	for _, id := range []string{"a", "b"} {
		if err := s.KeepValue(id, keystore.NewSecret("value of "+id)); err != nil {
			t.Fatal(err)
		}
	}
	files, err := filepath.Glob(filepath.Join(dir, "values", "*"))
	if err != nil || len(files) != 2 {
		t.Fatalf("files %v: %v", files, err)
	}
	data, err := os.ReadFile(files[0])
	if err != nil {
		t.Fatal(err)
	}
	for name, bad := range map[string][]byte{
		"another's": data, "torn": data[:len(data)/2], "nothing": nil, "another format": bytes.Replace(data, []byte("value-1"), []byte("value-9"), 1),
	} {
		if err := os.WriteFile(files[1], bad, 0o600); err != nil {
			t.Fatal(err)
		}
		a, errA := s.KeptValue("a")
		b, errB := s.KeptValue("b")
		if errA == nil && errB == nil {
			t.Errorf("%s: both are read: %v %v", name, a, b)
		}
	}
}
