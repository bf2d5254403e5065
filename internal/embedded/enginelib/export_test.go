package enginelib

import "context"

// Pin exports pin for tests that stand in for npm.
type Pin struct {
	Package, Integrity string
	PackedBytes        int64
	SHA256             string
	LibraryBytes       int64
}

// EnsurePinned is Ensure with a pin of the test's own.
func EnsurePinned(ctx context.Context, cfg Config, p Pin) (string, error) {
	return ensure(ctx, cfg, pin{pkg: p.Package, integrity: p.Integrity, packedBytes: p.PackedBytes, sha256: p.SHA256, libraryBytes: p.LibraryBytes})
}

// Known reports whether a version can be had on a platform.
func Known(version, goos, goarch string) error {
	_, err := pinFor(version, goos, goarch)
	return err
}
