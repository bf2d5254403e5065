package keystore

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// WriteFile writes data to path with mode 0600, whole or not at all: to a temporary
// file beside it, synced, renamed over path, and the folder synced. When it returns nil
// the file is there after a crash.
func WriteFile(path string, data []byte) error {
	dir := filepath.Dir(path)
	f, err := os.CreateTemp(dir, "."+filepath.Base(path)+"-*") // Mode 0600.
	if err != nil {
		return fmt.Errorf("create temporary file: %w", err)
	}
	if err := writeSynced(f, data); err != nil {
		return errors.Join(fmt.Errorf("write %s: %w", f.Name(), err), os.Remove(f.Name()))
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return errors.Join(fmt.Errorf("rename to %s: %w", path, err), os.Remove(f.Name()))
	}
	return syncDir(dir)
}

// CreateFile writes data to path like [WriteFile], unless there is a file: then it changes
// nothing and made is false. Of several that create one file at once exactly one does, on a
// shared folder too; the file is never seen in part.
func CreateFile(path string, data []byte) (made bool, err error) {
	dir := filepath.Dir(path)
	f, err := os.CreateTemp(dir, "."+filepath.Base(path)+"-*") // Mode 0600.
	if err != nil {
		return false, fmt.Errorf("create temporary file: %w", err)
	}
	if err = writeSynced(f, data); err == nil {
		err = os.Link(f.Name(), path) // Unlike a rename it never replaces.
	}
	made = err == nil
	if errors.Is(err, fs.ErrExist) {
		err = nil
	}
	if err != nil {
		err = fmt.Errorf("create %s: %w", path, err)
	}
	if err := errors.Join(err, os.Remove(f.Name())); err != nil {
		return made, err
	}
	return made, syncDir(dir)
}

// writeSynced writes, syncs and, whatever happens, closes f.
func writeSynced(f *os.File, data []byte) error {
	_, err := f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("open folder: %w", err)
	}
	return errors.Join(d.Sync(), d.Close())
}
