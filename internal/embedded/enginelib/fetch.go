package enginelib

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
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

// npmTextMax bounds what of npm's complaints goes into an error.
const npmTextMax = 600

// fetch packs the pinned package, checks it, unpacks the library and puts it in
// place in one step.
func fetch(ctx context.Context, cfg Config, want pin, dir string) (err error) {
	work, err := os.MkdirTemp(filepath.Dir(dir), "fetch-")
	if err != nil {
		return fmt.Errorf("make working folder: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(work)) }()
	packed, err := download(ctx, cfg, want, work)
	if err != nil {
		return err
	}
	if err := checkIntegrity(packed, want); err != nil {
		return err
	}
	ready := filepath.Join(work, "ready")
	if err := os.Mkdir(ready, 0o750); err != nil {
		return fmt.Errorf("make working folder: %w", err)
	}
	got, err := unpack(ctx, packed, filepath.Join(ready, libraryName), want)
	if err != nil {
		return err
	}
	if err := writeMarker(ready, got); err != nil {
		return err
	}
	if err := os.RemoveAll(dir); err != nil {
		return fmt.Errorf("remove the old library: %w", err)
	}
	if err := os.Rename(ready, dir); err != nil {
		return fmt.Errorf("put the library in place: %w", err)
	}
	return nil
}

// download has npm write the packed file into work and returns its path. npm gets
// a cache of its own there, whose growth is the progress.
func download(ctx context.Context, cfg Config, want pin, work string) (string, error) {
	program := cfg.NPM
	if program == "" {
		program = "npm"
	}
	program, err := exec.LookPath(program)
	if err != nil {
		return "", fmt.Errorf("npm is needed to fetch it and was not found (%w): install Node.js with npm", err)
	}
	cmd := exec.CommandContext(ctx, program, "pack", want.pkg+"@"+cfg.Version, //nolint:gosec // The pinned package.
		"--pack-destination", work, "--cache", filepath.Join(work, "cache"),
		"--ignore-scripts", "--no-audit", "--no-fund", "--no-update-notifier", "--loglevel", "error")
	cmd.Dir = work
	cmd.WaitDelay = 5 * time.Second // What npm started may hold its output open.
	var complaints bytes.Buffer
	cmd.Stderr = &complaints
	stop := watch(work, want.packedBytes, cfg.Progress)
	err = cmd.Run()
	stop()
	if err != nil {
		text := strings.TrimSpace(complaints.String())
		return "", fmt.Errorf("npm could not fetch %s@%s (is this machine offline, or the registry not set up?): %w: %s", want.pkg, cfg.Version, err, text[:min(len(text), npmTextMax)])
	}
	found, err := filepath.Glob(filepath.Join(work, "*.tgz"))
	if err != nil || len(found) != 1 {
		return "", fmt.Errorf("npm left %d packed files instead of one", len(found))
	}
	return found[0], nil
}

// watch reports the size of the files under work until the returned function is
// called, which waits for the last report.
func watch(work string, total int64, progress func(done, total int64)) (stop func()) {
	if progress == nil {
		return func() {}
	}
	ended := make(chan struct{})
	var watching sync.WaitGroup
	watching.Go(func() {
		tick := time.NewTicker(pollEvery)
		defer tick.Stop()
		for {
			select {
			case <-ended:
				return
			case <-tick.C:
				progress(min(sizeOf(work), total), total)
			}
		}
	})
	return func() {
		close(ended)
		watching.Wait()
	}
}

// sizeOf adds up what is there; files come and go while it looks.
func sizeOf(dir string) (bytes int64) {
	_ = filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			if info, err := d.Info(); err == nil {
				bytes += info.Size()
			}
		}
		return nil
	})
	return bytes
}

func checkIntegrity(packed string, want pin) error {
	file, err := os.Open(packed)
	if err != nil {
		return fmt.Errorf("open the packed file: %w", err)
	}
	defer func() { _ = file.Close() }() // Only read.
	sum := sha512.New()
	if _, err := io.Copy(sum, file); err != nil {
		return fmt.Errorf("read the packed file: %w", err)
	}
	if got := "sha512-" + base64.StdEncoding.EncodeToString(sum.Sum(nil)); got != want.integrity {
		return fmt.Errorf("what npm fetched is not the pinned %s: integrity %s, want %s", want.pkg, got, want.integrity)
	}
	return nil
}

// unpack writes the library out of the packed file to path, durably.
func unpack(ctx context.Context, packed, path string, want pin) (m marker, err error) {
	file, err := os.Open(packed)
	if err != nil {
		return m, fmt.Errorf("open the packed file: %w", err)
	}
	defer func() { _ = file.Close() }() // Only read.
	plain, err := gzip.NewReader(file)
	if err != nil {
		return m, fmt.Errorf("unpack: %w", err)
	}
	entries := tar.NewReader(plain)
	for {
		header, err := entries.Next()
		if err != nil {
			return m, fmt.Errorf("unpack: no %s found: %w", libraryName, err)
		}
		if err := ctx.Err(); err != nil {
			return m, fmt.Errorf("unpack: %w", err)
		}
		if header.Name == "package/"+libraryName && header.Typeflag == tar.TypeReg {
			break
		}
	}
	m, err = writeLibrary(entries, path, want.libraryBytes)
	if err == nil && m.SHA256 != want.sha256 {
		err = fmt.Errorf("unpack: the library's SHA-256 is %s, want %s", m.SHA256, want.sha256)
	}
	return m, err
}

func writeLibrary(r io.Reader, path string, bytesMax int64) (m marker, err error) {
	out, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return m, fmt.Errorf("unpack: %w", err)
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	sum := sha256.New()
	n, err := io.Copy(io.MultiWriter(out, sum), io.LimitReader(r, bytesMax+1))
	if err != nil {
		return m, fmt.Errorf("unpack: %w", err)
	}
	if err := out.Sync(); err != nil {
		return m, fmt.Errorf("unpack: %w", err)
	}
	return marker{SHA256: hex.EncodeToString(sum.Sum(nil)), Bytes: n}, nil
}
