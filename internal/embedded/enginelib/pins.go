package enginelib

import (
	"fmt"
	"runtime"
)

// Version is the libchdb that this program was made for.
const Version = "26.7.3-stable.1"

// pin says what the package of one version and platform must be.
type pin struct {
	pkg string
	// integrity is the packed file's SHA-512, as npm writes it.
	integrity   string
	packedBytes int64
	// sha256 is the unpacked library's digest, in hex.
	sha256       string
	libraryBytes int64
}

// pinFor gives the pin of a version on this platform. Platforms are entered when
// their package is published in the pinned version and was tried.
func pinFor(version, goos, goarch string) (pin, error) {
	if version == Version && goos == "linux" && goarch == "amd64" {
		return pin{
			pkg:          "@chdb/lib-linux-x64-gnu",
			integrity:    "sha512-XP97mMqnc5tZpKQywR8N7cLTsHNiTmHr30pC5mzo3jWmukjKn2IBa60c2B/gWUNcuFjOMjWoorQICCqBVj5wpw==",
			packedBytes:  177_817_999,
			sha256:       "36ad4e999882821ef13cf2d0f52c93f48e6ee1b4498b35a201c23ce4b8d15bf5",
			libraryBytes: 566_330_096,
		}, nil
	}
	return pin{}, fmt.Errorf("no libchdb %s is known for %s on %s: get one yourself and name it with --engine-library", version, goos, goarch)
}

func pinHere(version string) (pin, error) { return pinFor(version, runtime.GOOS, runtime.GOARCH) }
