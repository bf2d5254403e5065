package enginelib_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"go.uber.org/goleak"

	"example.com/keytrail/internal/embedded/enginelib"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const version = "1.2.3"

// registry is a stand-in for npm: a script that copies a packed file, counts its
// calls, and complains if it is told to.
type registry struct {
	npm, calls string
	pin        enginelib.Pin
}

// newRegistry packs library the way npm does. script runs before the file is
// copied.
func newRegistry(t *testing.T, library []byte, script string) registry {
	t.Helper()
	dir := t.TempDir()
	packed := pack(t, map[string][]byte{"package/package.json": []byte("{}"), "package/libchdb.so": library})
	source := filepath.Join(dir, "source.bin")
	if err := os.WriteFile(source, packed, 0o600); err != nil {
		t.Fatal(err)
	}
	r := registry{npm: filepath.Join(dir, "npm"), calls: filepath.Join(dir, "calls")}
	text := fmt.Sprintf("#!/bin/sh\necho \"$@\" >> %q\n%s\nwhile [ $# -gt 0 ]; do [ \"$1\" = --pack-destination ] && dest=$2; shift; done\ncp %q \"$dest/the-package.tgz\"\n", r.calls, script, source)
	if err := os.WriteFile(r.npm, []byte(text), 0o755); err != nil {
		t.Fatal(err)
	}
	sum512, sum256 := sha512.Sum512(packed), sha256.Sum256(library)
	r.pin = enginelib.Pin{
		Package: "@x/lib", Integrity: "sha512-" + base64.StdEncoding.EncodeToString(sum512[:]), PackedBytes: int64(len(packed)),
		SHA256: hex.EncodeToString(sum256[:]), LibraryBytes: int64(len(library)),
	}
	return r
}

func pack(t *testing.T, files map[string][]byte) []byte {
	t.Helper()
	var out bytes.Buffer
	z := gzip.NewWriter(&out)
	w := tar.NewWriter(z)
	for name, content := range files {
		if err := w.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(content)), Typeflag: tar.TypeReg}); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(content); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(w.Close(), z.Close()); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func (r registry) callCount(t *testing.T) int {
	t.Helper()
	text, err := os.ReadFile(r.calls)
	if errors.Is(err, os.ErrNotExist) {
		return 0
	}
	if err != nil {
		t.Fatal(err)
	}
	return strings.Count(string(text), "\n")
}

func TestTheLibraryIsFetchedOnceCheckedAndKept(t *testing.T) {
	library := bytes.Repeat([]byte("library "), 10_000)
	r := newRegistry(t, library, "")
	cfg := enginelib.Config{CacheDir: filepath.Join(t.TempDir(), "deep", "cache"), Version: version, NPM: r.npm}
	for range 3 {
		path, err := enginelib.EnsurePinned(t.Context(), cfg, r.pin)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, library) {
			t.Fatalf("%d bytes, %v", len(got), err)
		}
	}
	if n := r.callCount(t); n != 1 {
		t.Errorf("npm ran %d times, want once", n)
	}
	text, err := os.ReadFile(r.calls)
	if err != nil || !strings.HasPrefix(string(text), "pack @x/lib@1.2.3 ") || !strings.Contains(string(text), "--ignore-scripts") {
		t.Errorf("npm was asked %q, %v", text, err)
	}
	entries, err := os.ReadDir(cfg.CacheDir)
	if err != nil || len(entries) != 2 { // The version and the lock.
		t.Errorf("the cache holds %v, %v", entries, err)
	}
}

func TestAChangedCacheIsNotedAndMended(t *testing.T) {
	library := []byte("the library")
	tests := []struct {
		name      string
		damage    func(path string) error
		wantCalls int
		wantErr   string
	}{
		{name: "cut short", damage: func(path string) error { return os.Truncate(path, 3) }, wantCalls: 1, wantErr: "remove it"},
		{name: "library gone", damage: os.Remove, wantCalls: 2},
		{name: "record gone", damage: func(path string) error { return os.Remove(filepath.Join(filepath.Dir(path), "verified.json")) }, wantCalls: 1},
		{name: "record of another library", damage: func(path string) error {
			return os.WriteFile(filepath.Join(filepath.Dir(path), "verified.json"), []byte(`{"sha256":"00","bytes":11}`), 0o600)
		}, wantCalls: 1},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := newRegistry(t, library, "")
			cfg := enginelib.Config{CacheDir: t.TempDir(), Version: version, NPM: r.npm}
			path, err := enginelib.EnsurePinned(t.Context(), cfg, r.pin)
			if err != nil {
				t.Fatal(err)
			}
			if err := tt.damage(path); err != nil {
				t.Fatal(err)
			}
			_, err = enginelib.EnsurePinned(t.Context(), cfg, r.pin)
			if (err == nil) != (tt.wantErr == "") || err != nil && !strings.Contains(err.Error(), tt.wantErr) {
				t.Errorf("got %v, want %q", err, tt.wantErr)
			}
			if n := r.callCount(t); n != tt.wantCalls {
				t.Errorf("npm ran %d times, want %d", n, tt.wantCalls)
			}
			if got, err := os.ReadFile(path); tt.wantErr == "" && (err != nil || !bytes.Equal(got, library)) {
				t.Errorf("the cache holds %q, %v", got, err)
			}
		})
	}
}

func TestAnythingButThePinnedPackageIsRefused(t *testing.T) {
	library := []byte("the library")
	tests := []struct {
		name   string
		change func(*enginelib.Pin)
		want   string
	}{
		{"other package", func(p *enginelib.Pin) { p.Integrity = "sha512-AAAA" }, "not the pinned"},
		{"other library in it", func(p *enginelib.Pin) { p.SHA256 = "00" }, "SHA-256"},
		{"longer than pinned", func(p *enginelib.Pin) { p.LibraryBytes = 3 }, "SHA-256"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := newRegistry(t, library, "")
			tt.change(&r.pin)
			cfg := enginelib.Config{CacheDir: t.TempDir(), Version: version, NPM: r.npm}
			path, err := enginelib.EnsurePinned(t.Context(), cfg, r.pin)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %q, %v; want an error with %q", path, err, tt.want)
			}
			entries, err := os.ReadDir(cfg.CacheDir)
			if err != nil || len(entries) != 1 { // The lock.
				t.Errorf("left behind: %v, %v", entries, err)
			}
		})
	}
}

func TestAFetchThatCannotWorkSaysWhatToDo(t *testing.T) {
	r := newRegistry(t, []byte("x"), "echo 'npm error network getaddrinfo ENOTFOUND' >&2; exit 1")
	tests := []struct{ name, npm, want string }{
		{"no npm", filepath.Join(t.TempDir(), "npm"), "install Node.js"},
		{"offline", r.npm, "ENOTFOUND"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			cfg := enginelib.Config{CacheDir: t.TempDir(), Version: version, NPM: tt.npm}
			_, err := enginelib.EnsurePinned(t.Context(), cfg, r.pin)
			place := filepath.Join(cfg.CacheDir, version, "libchdb.so")
			for _, want := range []string{tt.want, place, "--engine-library"} {
				if err == nil || !strings.Contains(err.Error(), want) {
					t.Errorf("%v does not say %q", err, want)
				}
			}
			// Doing what it says works.
			if err := os.MkdirAll(filepath.Dir(place), 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(place, []byte("x"), 0o600); err != nil {
				t.Fatal(err)
			}
			if path, err := enginelib.EnsurePinned(t.Context(), cfg, r.pin); err != nil || path != place {
				t.Errorf("with a library put there: %q, %v", path, err)
			}
		})
	}
}

func TestManyAtOnceFetchOnce(t *testing.T) {
	r := newRegistry(t, []byte("x"), "sleep 0.3")
	cfg := enginelib.Config{CacheDir: t.TempDir(), Version: version, NPM: r.npm}
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			if _, err := enginelib.EnsurePinned(t.Context(), cfg, r.pin); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if n := r.callCount(t); n != 1 {
		t.Errorf("npm ran %d times, want once", n)
	}
}

func TestProgressIsToldAndACancelledFetchLeavesNothing(t *testing.T) {
	r := newRegistry(t, bytes.Repeat([]byte("x"), 1000), "while [ $# -gt 0 ]; do [ \"$1\" = --pack-destination ] && dest=$2; shift; done\nhead -c 500 /dev/zero > $dest/part; exec sleep 60")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	cfg := enginelib.Config{CacheDir: t.TempDir(), Version: version, NPM: r.npm}
	cfg.Progress = func(done, total int64) {
		if total != r.pin.PackedBytes || done > total {
			t.Errorf("progress %d of %d", done, total)
		}
		if done > 0 {
			cancel()
		}
	}
	if _, err := enginelib.EnsurePinned(ctx, cfg, r.pin); err == nil {
		t.Error("a cancelled fetch succeeded")
	}
	entries, err := os.ReadDir(cfg.CacheDir)
	if err != nil || len(entries) != 1 {
		t.Errorf("left behind: %v, %v", entries, err)
	}
}

func TestOnlyTriedPlatformsAndVersionsAreKnown(t *testing.T) {
	if err := enginelib.Known(enginelib.Version, "linux", "amd64"); err != nil {
		t.Error(err)
	}
	for _, v := range [][3]string{{"0.0.1", "linux", "amd64"}, {enginelib.Version, "plan9", "amd64"}} {
		if err := enginelib.Known(v[0], v[1], v[2]); err == nil || !strings.Contains(err.Error(), "--engine-library") {
			t.Errorf("%v: %v", v, err)
		}
	}
}
