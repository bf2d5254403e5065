package keystore_test

import (
	"crypto/sha256"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"example.com/keytrail/internal/keystore"
)

// TestNodesThatStartAtOnceShareOneKeyStore: whoever is late opens what another made.
func TestNodesThatStartAtOnceShareOneKeyStore(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	const nodes = 16
	var (
		wg    sync.WaitGroup
		begin = make(chan struct{})
		got   [nodes]*keystore.Store
		errs  [nodes]error
	)
	for i := range nodes {
		wg.Go(func() {
			<-begin
			got[i], errs[i] = keystore.Open(t.Context(), dir, "", discard())
		})
	}
	close(begin)
	wg.Wait()
	sum, fresh := sha256.Sum256([]byte("x")), 0
	for i, s := range got {
		if errs[i] != nil {
			t.Fatal(errs[i])
		}
		if s.Fresh() {
			fresh++
		}
		if s.Fingerprint(sum) != got[0].Fingerprint(sum) || s.InstallationID() != got[0].InstallationID() {
			t.Fatal("two nodes have different key stores")
		}
	}
	if fresh != 1 {
		t.Errorf("%d nodes made the key store, want one", fresh)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 2 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

func TestAFileIsMadeOnceAndNeverReplaced(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "f")
	for i, tt := range []struct {
		data string
		made bool
	}{{"first", true}, {"second", false}} {
		made, err := keystore.CreateFile(path, []byte(tt.data))
		if err != nil || made != tt.made {
			t.Errorf("call %d: made %t, %v", i, made, err)
		}
		if data, err := os.ReadFile(path); err != nil || string(data) != "first" {
			t.Errorf("call %d left %q, %v", i, data, err)
		}
	}
	if _, err := keystore.CreateFile(filepath.Join(path, "below a file"), nil); err == nil {
		t.Error("a file was made in a folder that is none")
	}
}

func TestANodeKeepsItsNameAndNoTwoShareOne(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	name := func(dir, first string) string {
		t.Helper()
		id, err := keystore.NodeID(dir, first)
		if err != nil {
			t.Fatal(err)
		}
		return id
	}
	first := name(dir, "")
	if again := name(dir, "other"); again != first {
		t.Errorf("named %q, then %q", first, again)
	}
	if other := name(t.TempDir(), ""); other == first {
		t.Error("two nodes have one name")
	}
	if old := name(t.TempDir(), "0123456789abcdef"); old != "0123456789abcdef" {
		t.Errorf("a node from before is now called %q", old)
	}
	damaged := t.TempDir()
	if err := os.WriteFile(filepath.Join(damaged, "node.id"), []byte("a b\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if id, err := keystore.NodeID(damaged, ""); err == nil {
		t.Errorf("a damaged name was read as %q", id)
	}
}
