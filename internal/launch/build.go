package launch

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// Build builds the keytrail program of the module that the working folder is in, with more
// arguments for 'go build' where there are any, in a temporary folder. Who is done with the
// binary calls remove.
func Build(ctx context.Context, args ...string) (binary string, remove func() error, err error) {
	dir, err := os.MkdirTemp("", "keytrail-binary-")
	if err != nil {
		return "", nil, fmt.Errorf("build keytrail: %w", err)
	}
	binary = filepath.Join(dir, "keytrail")
	args = append(append([]string{"build", "-o", binary}, args...), "example.com/keytrail/cmd/keytrail")
	if out, err := exec.CommandContext(ctx, "go", args...).CombinedOutput(); err != nil { //nolint:gosec // A test's own words.
		return "", nil, errors.Join(fmt.Errorf("build keytrail: %w\n%s", err, out), os.RemoveAll(dir))
	}
	return binary, func() error { return os.RemoveAll(dir) }, nil
}
