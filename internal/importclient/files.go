package importclient

import (
	"bufio"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
)

// file is one source of records.
type file struct {
	path  string
	size  int64
	stdin bool
}

// find returns the files that paths name, each once, in order. A path that names
// nothing is an error: an import of nothing must not look like success.
func find(paths []string) ([]file, error) {
	var out []file
	seen := make(map[string]bool)
	add := func(f file) {
		if !seen[f.path] {
			seen[f.path] = true
			out = append(out, f)
		}
	}
	for _, p := range paths {
		if p == "-" {
			add(file{path: "standard input", stdin: true})
			continue
		}
		found, err := findOne(p)
		if err != nil {
			return nil, err
		}
		for _, f := range found {
			add(f)
		}
	}
	return out, nil
}

func findOne(path string) ([]file, error) {
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		matches, globErr := filepath.Glob(path)
		if globErr != nil || len(matches) == 0 {
			return nil, fmt.Errorf("import: %w", err)
		}
		var out []file
		for _, m := range matches {
			found, err := findOne(m)
			if err != nil {
				return nil, err
			}
			out = append(out, found...)
		}
		return out, nil
	}
	if err != nil {
		return nil, fmt.Errorf("import: %w", err)
	}
	if !info.IsDir() {
		return []file{{path: path, size: info.Size()}}, nil
	}
	return walk(path)
}

func walk(dir string) ([]file, error) {
	var out []file
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !isLog(d.Name()) {
			return err
		}
		info, err := os.Stat(path)
		if err != nil {
			return err //nolint:wrapcheck // It names the file.
		}
		if info.Mode().IsRegular() {
			out = append(out, file{path: path, size: info.Size()})
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("import: search %s: %w", dir, err)
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("import: folder %s holds no *.json, *.jsonl, *.ndjson or *.log file, packed or not", dir)
	}
	return out, nil
}

func isLog(name string) bool {
	name = strings.ToLower(name)
	name = strings.TrimSuffix(strings.TrimSuffix(name, ".gz"), ".zst")
	return slices.Contains([]string{".json", ".jsonl", ".ndjson", ".log"}, filepath.Ext(name))
}

func hashFile(path string) (sum string, err error) {
	f, err := os.Open(path)
	if err != nil {
		return "", fmt.Errorf("import: %w", err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", fmt.Errorf("import: hash %s: %w", path, err)
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// resume is the file that remembers which files were imported whole. It is a list, so
// that a crash costs at most its last line.
type resume struct {
	server string
	file   *os.File // nil: nothing is remembered.

	mu   sync.Mutex // Guards done and writes.
	done map[string]bool
}

type resumeLine struct {
	Server string `json:"server"`
	SHA256 string `json:"sha256"`
	Path   string `json:"path"`
}

func openResume(path, server string) (*resume, error) {
	r := &resume{server: server, done: make(map[string]bool)}
	if path == "" {
		return r, nil
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR|os.O_APPEND, 0o600)
	if err != nil {
		return nil, fmt.Errorf("import: open resume file: %w", err)
	}
	for in := bufio.NewScanner(f); in.Scan(); {
		var l resumeLine
		if json.Unmarshal(in.Bytes(), &l) == nil && l.Server == server {
			r.done[l.SHA256] = true
		}
	}
	r.file = f
	return r, nil
}

func (r *resume) enabled() bool { return r.file != nil }

func (r *resume) has(sum string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.done[sum]
}

func (r *resume) add(sum, path string) error {
	if r.file == nil || sum == "" {
		return nil
	}
	b, err := json.Marshal(resumeLine{Server: r.server, SHA256: sum, Path: path})
	if err != nil {
		return fmt.Errorf("encode resume line: %w", err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.done[sum] = true
	if _, err := r.file.Write(append([]byte{'\n'}, append(b, '\n')...)); err != nil {
		return fmt.Errorf("write resume file: %w", err)
	}
	return nil
}

func (r *resume) close() error {
	if r.file == nil {
		return nil
	}
	if err := errors.Join(r.file.Sync(), r.file.Close()); err != nil {
		return fmt.Errorf("close resume file: %w", err)
	}
	return nil
}
