//go:build !linux

package eventstore

import "os"

func datasync(f *os.File) error { return f.Sync() }
