//go:build unix

package main

import (
	"fmt"
	"os"
	"syscall"
)

// ownPrivate refuses a folder that somebody else owns or may enter: sockets in it would
// be theirs to take. Other users' temporary folders are the reason.
func ownPrivate(dir string) error {
	info, err := os.Lstat(dir)
	if err != nil {
		return fmt.Errorf("look at folder for sockets: %w", err)
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok || !info.IsDir() || int(st.Uid) != os.Getuid() || info.Mode().Perm()&0o077 != 0 {
		return fmt.Errorf("folder %s for sockets is not this user's alone: remove it, or name another with XDG_RUNTIME_DIR", dir)
	}
	return nil
}
