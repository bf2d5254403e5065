package enginelib

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

const (
	libraryName = "libchdb.so"
	markerName  = "verified.json"
	lockName    = "fetch.lock"
	pollEvery   = 200 * time.Millisecond
)

// Config says what to fetch and where to keep it. The zero Config fetches
// [Version] into the user's cache folder.
type Config struct {
	// CacheDir is where versions are kept; empty: keytrail/engine in the user's
	// cache folder.
	CacheDir string
	// Version of libchdb; empty means [Version]. Only versions whose digests are
	// known to this program can be had.
	Version string
	// NPM is the npm program; empty means the one on the path.
	NPM string
	// Progress, if set, is told now and then how many bytes of how many have
	// come, from another goroutine than Ensure's; never after Ensure returned.
	Progress func(done, total int64)
}

// marker is what was found when a library was last read whole.
type marker struct {
	SHA256 string `json:"sha256"`
	Bytes  int64  `json:"bytes"`
}

// Ensure returns the path of the library, fetching it if the cache has none that
// was verified. It may be called by several processes at once: one fetches, the
// others wait. A library in the cache is not read again, only its size is
// compared with the record of its verification.
func Ensure(ctx context.Context, cfg Config) (string, error) {
	if cfg.Version == "" {
		cfg.Version = Version
	}
	want, err := pinHere(cfg.Version)
	if err != nil {
		return "", fmt.Errorf("engine library: %w", err)
	}
	path, err := ensure(ctx, cfg, want)
	if err != nil {
		return "", fmt.Errorf("engine library: %w", err)
	}
	return path, nil
}

func ensure(ctx context.Context, cfg Config, want pin) (string, error) {
	dir, err := versionDir(cfg)
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, libraryName)
	if verified(dir, want) {
		return path, nil
	}
	if err := os.MkdirAll(filepath.Dir(dir), 0o750); err != nil {
		return "", fmt.Errorf("make cache folder: %w", err)
	}
	unlock, err := lock(ctx, filepath.Join(filepath.Dir(dir), lockName))
	if err != nil {
		return "", err
	}
	defer unlock()
	if verified(dir, want) { // Another process was first.
		return path, nil
	}
	if err := adopt(dir, want); err == nil {
		return path, nil
	} else if !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	if err := fetch(ctx, cfg, want, dir); err != nil {
		return "", fmt.Errorf("%w; or put %s at %s, or name one with --engine-library", err, libraryName, path)
	}
	return path, nil
}

func versionDir(cfg Config) (string, error) {
	base := cfg.CacheDir
	if base == "" {
		cache, err := os.UserCacheDir()
		if err != nil {
			return "", fmt.Errorf("no cache folder: %w; name one", err)
		}
		base = filepath.Join(cache, "keytrail", "engine")
	}
	dir, err := filepath.Abs(filepath.Join(base, cfg.Version))
	if err != nil {
		return "", fmt.Errorf("cache folder: %w", err)
	}
	return dir, nil
}

// verified reports whether dir holds a library that was once read whole and found
// right, and has still the same size.
func verified(dir string, want pin) bool {
	text, err := os.ReadFile(filepath.Join(dir, markerName))
	if err != nil {
		return false
	}
	var m marker
	if err := json.Unmarshal(text, &m); err != nil || m.SHA256 != want.sha256 {
		return false
	}
	info, err := os.Stat(filepath.Join(dir, libraryName))
	return err == nil && info.Size() == m.Bytes && info.Mode().IsRegular()
}

// adopt verifies a library that somebody put in place by hand. One that is wrong
// stays for its owner to take away.
func adopt(dir string, want pin) error {
	path := filepath.Join(dir, libraryName)
	file, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("look for a library: %w", err)
	}
	defer func() { _ = file.Close() }() // Only read.
	sum := sha256.New()
	n, err := io.Copy(sum, file)
	if err != nil {
		return fmt.Errorf("read %s: %w", path, err)
	}
	if got := hex.EncodeToString(sum.Sum(nil)); got != want.sha256 {
		return fmt.Errorf("%s is damaged or not the version this program needs (SHA-256 %s, want %s): remove it and start again", path, got, want.sha256)
	}
	return writeMarker(dir, marker{SHA256: want.sha256, Bytes: n})
}

func writeMarker(dir string, m marker) error {
	text, err := json.Marshal(m)
	if err != nil {
		return fmt.Errorf("record verification: %w", err)
	}
	if err := os.WriteFile(filepath.Join(dir, markerName), text, 0o600); err != nil {
		return fmt.Errorf("record verification: %w", err)
	}
	return nil
}

// lock waits for the cache folder's lock. The system frees it if we die.
func lock(ctx context.Context, path string) (unlock func(), err error) {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open lock: %w", err)
	}
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for {
		err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			return func() { _ = file.Close() }, nil // Closing frees it; nothing was written.
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, errors.Join(fmt.Errorf("lock cache folder: %w", err), file.Close())
		}
		select {
		case <-ctx.Done():
			return nil, errors.Join(fmt.Errorf("wait for another process to fetch: %w", ctx.Err()), file.Close())
		case <-tick.C:
		}
	}
}
