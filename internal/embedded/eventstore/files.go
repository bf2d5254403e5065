package eventstore

import (
	"errors"
	"fmt"
	"io"
	"os"
)

// Files is what the journal asks of a file system. The default is the operating
// system's; tests put faults here.
type Files interface {
	// Open opens the file at path for reading and writing. With create it makes a
	// new one, mode 0600, and fails if there is one already.
	Open(path string, create bool) (File, error)
	// Remove deletes the file at path.
	Remove(path string) error
	// SyncFolder makes the names in dir durable.
	SyncFolder(dir string) error
}

// File is one file of the journal.
type File interface {
	io.ReaderAt
	io.WriterAt
	io.Closer
	// Sync returns nil when all that was written is durable. After an error nothing
	// is known about what was written since the last nil: the system may have
	// dropped it and would report success next time.
	Sync() error
	// Size returns the length of the file.
	Size() (int64, error)
}

// osFiles is the operating system's file system.
type osFiles struct{}

var _ Files = osFiles{}

// Open implements [Files].
func (osFiles) Open(path string, create bool) (File, error) {
	flag := os.O_RDWR
	if create {
		flag |= os.O_CREATE | os.O_EXCL
	}
	f, err := os.OpenFile(path, flag, 0o600)
	if err != nil {
		return nil, err
	}
	return osFile{f}, nil
}

// Remove implements [Files].
func (osFiles) Remove(path string) error { return os.Remove(path) }

// SyncFolder implements [Files].
func (osFiles) SyncFolder(dir string) error { return syncFolder(dir) }

// osFile is a file of the operating system.
type osFile struct{ *os.File }

// Sync implements [File]. The file's length does not change once it is made, so
// its data is all there is to make durable.
func (f osFile) Sync() error { return datasync(f.File) }

// Size implements [File].
func (f osFile) Size() (int64, error) {
	info, err := f.Stat()
	if err != nil {
		return 0, err
	}
	return info.Size(), nil
}

// syncFolder makes the names of new files in dir durable.
func syncFolder(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("open data folder: %w", err)
	}
	if err := f.Sync(); err != nil {
		return errors.Join(fmt.Errorf("sync data folder: %w", err), f.Close())
	}
	return f.Close()
}
