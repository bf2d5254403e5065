package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/crypto/bcrypt"

	"example.com/keytrail/internal/embedded/eventstore"
)

// suiteModule is whose tests are run.
const suiteModule = "github.com/kurrent-io/KurrentDB-Client-Go"

// closeMax bounds how long a server may take to end.
const closeMax = 10 * time.Second

// certificates returns the folder of the certificates that come with the suite, after
// fetching the module if it is not there.
func certificates(ctx context.Context, module string) (string, error) {
	list := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Dir}}", suiteModule)
	if err := inModule(list, module); err != nil {
		return "", err
	}
	out, err := list.Output()
	if err == nil && len(bytes.TrimSpace(out)) == 0 {
		get := exec.CommandContext(ctx, "go", "mod", "download", suiteModule)
		if err := inModule(get, module); err != nil {
			return "", err
		}
		if said, err := get.CombinedOutput(); err != nil {
			return "", fmt.Errorf("fetch the suite: %w: %s", err, said)
		}
		list = exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Dir}}", suiteModule)
		if err := inModule(list, module); err != nil {
			return "", err
		}
		out, err = list.Output()
	}
	if err != nil {
		return "", fmt.Errorf("find the suite: %w", err)
	}
	return filepath.Join(strings.TrimSpace(string(out)), "certs"), nil
}

// inModule makes cmd run in the module's folder.
func inModule(cmd *exec.Cmd, module string) error {
	if _, err := os.Stat(filepath.Join(module, "go.mod")); err != nil {
		return fmt.Errorf("the suite is run from the root of the repository: %w", err)
	}
	cmd.Dir = module
	cmd.Env = append(os.Environ(), "GOWORK=off")
	return nil
}

// servers are the stores under test, each with a folder of its own.
type servers struct {
	folder string
	open   []*eventstore.Server
}

// serve starts a store on each address that the suite knows.
func serve(ctx context.Context, certs string) (_ *servers, err error) {
	s := &servers{}
	if s.folder, err = os.MkdirTemp("", "kt-clientsuite-"); err != nil {
		return nil, fmt.Errorf("make folder: %w", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.close(context.WithoutCancel(ctx)))
		}
	}()
	users := filepath.Join(s.folder, "users")
	hash, err := bcrypt.GenerateFromPassword([]byte("changeit"), bcrypt.MinCost) // What the suite logs in with.
	if err != nil {
		return nil, fmt.Errorf("make users file: %w", err)
	}
	if err := os.WriteFile(users, []byte("admin:"+string(hash)+"\n"), 0o600); err != nil {
		return nil, fmt.Errorf("make users file: %w", err)
	}
	for port, node := range map[string]string{"2114": "", "2115": "node1", "2111": "node1", "2112": "node2", "2113": "node3"} {
		cfg := eventstore.Config{Dir: filepath.Join(s.folder, port), Listen: "127.0.0.1:" + port, Logger: slog.New(slog.DiscardHandler)}
		if node == "" {
			cfg.Insecure = true
		} else {
			cfg.CertFile, cfg.KeyFile, cfg.UsersFile = filepath.Join(certs, node, "node.crt"), filepath.Join(certs, node, "node.key"), users
		}
		srv, err := eventstore.Open(cfg)
		if err != nil {
			return nil, fmt.Errorf("%w (the suite's addresses are fixed: nothing else may use ports 2111 to 2115)", err)
		}
		s.open = append(s.open, srv)
	}
	return s, nil
}

func (s *servers) close(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, closeMax)
	defer cancel()
	var errs []error
	for _, srv := range s.open {
		errs = append(errs, srv.Close(ctx))
	}
	return errors.Join(append(errs, os.RemoveAll(s.folder))...)
}
