package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
)

// nodeLifecycle runs the life of a key through IBM's Node SDK, which the lock file in
// module pins. It returns what it says.
func nodeLifecycle(ctx context.Context, module string, env []string) (string, error) {
	var said []byte
	for _, line := range [][]string{{"npm", "ci", "--silent"}, {"node", "lifecycle.mjs"}} {
		cmd := exec.CommandContext(ctx, line[0], line[1:]...) //nolint:gosec // Our own words.
		cmd.Dir = module
		cmd.Env = append(os.Environ(), env...)
		var err error
		if said, err = cmd.CombinedOutput(); err != nil {
			return "", fmt.Errorf("IBM's Node SDK: %s: %w\n%s", line[0], err, said)
		}
	}
	return string(said), nil
}
