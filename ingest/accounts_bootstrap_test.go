package ingest_test

import (
	"context"
	"crypto/rand"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"example.com/keytrail/domain"
	"example.com/keytrail/ingest"
	"example.com/keytrail/internal/eventlog"
	"example.com/keytrail/internal/keystore"
)

var errCrash = errors.New("crash")

// crashLog fails the append with that number, before or after it is stored.
type crashLog struct {
	*eventlog.Log
	at     int
	stored bool
	calls  int
}

func (l *crashLog) Append(ctx context.Context, stream string, exp eventlog.Expected, events ...eventlog.Proposed) (eventlog.Appended, error) {
	l.calls++
	if l.calls != l.at {
		return l.Log.Append(ctx, stream, exp, events...)
	}
	if l.stored {
		if _, err := l.Log.Append(ctx, stream, exp, events...); err != nil {
			return eventlog.Appended{}, err
		}
	}
	return eventlog.Appended{}, errCrash
}

// TestAFirstStartThatCrashesAnywhereIsHealedByTheNext: whatever was done before the
// crash, after the next start the key in admin.key works, and it is the only one.
func TestAFirstStartThatCrashesAnywhereIsHealedByTheNext(t *testing.T) {
	t.Parallel()
	none := func(string, []byte) (bool, error) { return false, errCrash }
	late := func(path string, data []byte) (bool, error) {
		if _, err := keystore.CreateFile(path, data); err != nil {
			return false, err
		}
		return false, errCrash
	}
	tests := []struct {
		name       string
		createFile func(string, []byte) (bool, error)
		append     int
		stored     bool
		garbage    bool // A torn admin.key lies there from before.
	}{
		{name: "before admin.key is written", createFile: none},
		{name: "after admin.key is written", createFile: late},
		{name: "before the account is stored", createFile: keystore.CreateFile, append: 1},
		{name: "after the account is stored", createFile: keystore.CreateFile, append: 1, stored: true},
		{name: "before the key is stored", createFile: keystore.CreateFile, append: 2},
		{name: "after the key is stored", createFile: keystore.CreateFile, append: 2, stored: true},
		{name: "a torn admin.key", createFile: keystore.CreateFile, append: 1, garbage: true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			log, dir := openLog(t), t.TempDir()
			if tt.garbage {
				if err := os.WriteFile(filepath.Join(dir, "admin.key"), []byte("kt_torn"), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			store, err := keystore.Open(t.Context(), dir, "", testLogger(t))
			if err != nil {
				t.Fatal(err)
			}
			_, err = ingest.Bootstrap(t.Context(), ingest.BootstrapConfig{
				Dir: dir, Log: &crashLog{Log: log, at: tt.append, stored: tt.stored}, Store: store, Now: time.Now, Random: rand.Reader,
				Logger: testLogger(t), CreateFile: tt.createFile,
			})
			if !errors.Is(err, errCrash) {
				t.Fatalf("first start: %v, want the crash", err)
			}
			n := startNode(t, log, dir)
			n.must(200, n.call(n.admin, "GET", "/v1/apikeys", nil))
			if got := len(n.events(domain.AccountStreams)) + len(n.events(domain.KeyStreams)); got != 2 {
				t.Errorf("%d events, want one account and one key", got)
			}
			if !keystore.IsKeyValue(n.admin) {
				t.Error("admin.key holds no key value")
			}
		})
	}
}

func TestALaterStartMakesNothing(t *testing.T) {
	t.Parallel()
	log, dir := openLog(t), t.TempDir()
	first := startNode(t, log, dir)
	first.stop()
	st, err := os.Stat(filepath.Join(dir, "admin.key"))
	if err != nil || st.Mode().Perm() != 0o600 {
		t.Fatalf("admin.key: %v %v", st, err)
	}
	if err := os.Remove(filepath.Join(dir, "admin.key")); err != nil { // The operator has put it elsewhere.
		t.Fatal(err)
	}
	store, err := keystore.Open(t.Context(), dir, "", testLogger(t))
	if err != nil {
		t.Fatal(err)
	}
	b, err := ingest.Bootstrap(t.Context(), ingest.BootstrapConfig{
		Dir: dir, Log: log, Store: store, Now: time.Now, Random: rand.Reader, Logger: testLogger(t), CreateFile: keystore.CreateFile,
	})
	if err != nil || b.KeyFile != "" || b.Account != first.boot.Account {
		t.Errorf("second start: %+v, %v", b, err)
	}
	if _, err := os.Stat(filepath.Join(dir, "admin.key")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("admin.key came back: %v", err)
	}
}

func TestALogOfAnotherKeyStoreIsRefused(t *testing.T) {
	t.Parallel()
	log := openLog(t)
	startNode(t, log, t.TempDir())
	dir := t.TempDir()
	store, err := keystore.Open(t.Context(), dir, "", testLogger(t))
	if err != nil {
		t.Fatal(err)
	}
	_, err = ingest.Bootstrap(t.Context(), ingest.BootstrapConfig{
		Dir: dir, Log: log, Store: store, Now: time.Now, Random: rand.Reader, Logger: testLogger(t), CreateFile: keystore.CreateFile,
	})
	if !errors.Is(err, ingest.ErrForeignLog) || !strings.Contains(err.Error(), "key store") {
		t.Errorf("err = %v, want ErrForeignLog", err)
	}
}
