package eventstore

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// folderLock holds a data folder for this process. The kernel lets go of it when
// the process ends, however it ends.
type folderLock struct{ f *os.File }

// lockFolder takes dir or says who has it.
func lockFolder(dir string) (*folderLock, error) {
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open lock of data folder: %w", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		defer f.Close() //nolint:errcheck // Nothing was written.
		if !errors.Is(err, unix.EWOULDBLOCK) {
			return nil, fmt.Errorf("lock data folder %s: %w", dir, err)
		}
		holder, readErr := io.ReadAll(io.LimitReader(f, 32))
		if readErr != nil || len(holder) == 0 {
			return nil, fmt.Errorf("data folder in use by another process: %s; stop it, or use another folder", dir)
		}
		return nil, fmt.Errorf("data folder in use by pid %s: %s; stop it, or use another folder", strings.TrimSpace(string(holder)), dir)
	}
	l := &folderLock{f: f}
	if err := l.sign(); err != nil {
		return nil, errors.Join(fmt.Errorf("write lock of data folder: %w", err), f.Close())
	}
	return l, nil
}

func (l *folderLock) sign() error {
	if err := l.f.Truncate(0); err != nil {
		return err
	}
	_, err := l.f.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0)
	return err
}

// release gives the folder back. The file stays: removing it would race with
// another process that has just opened it.
func (l *folderLock) release() error { return l.f.Close() }

// inUse reports whether a process holds dir.
func inUse(dir string) bool {
	f, err := os.Open(filepath.Join(dir, "lock"))
	if err != nil {
		return false
	}
	defer f.Close() //nolint:errcheck // Nothing was written.
	return errors.Is(unix.Flock(int(f.Fd()), unix.LOCK_SH|unix.LOCK_NB), unix.EWOULDBLOCK)
}
