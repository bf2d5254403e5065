package faults

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// ballast is the file that takes the room away.
const ballast = ".ballast"

// Disk is one small file system.
type Disk struct {
	Path      string // Where it is mounted; the folder must exist, or lie in an earlier disk.
	SizeBytes int64
}

// Disks are small file systems of memory, in a mount namespace of their own: they need
// no rights of the system's administrator, nobody else sees them, and they are gone with
// the process that holds them.
type Disks struct {
	cmd   *exec.Cmd
	leash io.WriteCloser
}

// NewDisks mounts disks in order. Where the system allows no user namespaces the error is
// [ErrUnsupported]. They stay until Close, whatever becomes of ctx.
func NewDisks(ctx context.Context, disks ...Disk) (*Disks, error) {
	var script strings.Builder
	script.WriteString("set -e\n")
	for _, d := range disks {
		fmt.Fprintf(&script, "mkdir -p '%s'\nmount -t tmpfs -o size=%d,mode=0700 keytrail '%s'\n", d.Path, d.SizeBytes, d.Path)
	}
	script.WriteString("echo mounted\nread -r _ || true\n")                                                                                // Until the leash is let go.
	cmd := exec.CommandContext(context.WithoutCancel(ctx), "unshare", "--user", "--map-root-user", "--mount", "sh", "-c", script.String()) //nolint:gosec // A test's own folders.
	leash, err := cmd.StdinPipe()
	if err != nil {
		return nil, fmt.Errorf("disks: %w", err)
	}
	var said strings.Builder
	cmd.Stderr = &said
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, fmt.Errorf("disks: %w", err)
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("%w: unshare: %w", ErrUnsupported, err)
	}
	line, err := bufio.NewReader(stdout).ReadString('\n')
	if line != "mounted\n" {
		return nil, fmt.Errorf("%w: no file system can be mounted in a user namespace: %w: %s", ErrUnsupported, errors.Join(err, cmd.Wait()), said.String())
	}
	return &Disks{cmd: cmd, leash: leash}, nil
}

// Wrap is what a command line must begin with to see the disks.
func (d *Disks) Wrap() []string {
	return []string{"nsenter", "--preserve-credentials", "--user", "--mount", "--target", strconv.Itoa(d.cmd.Process.Pid)}
}

// Path is where a process outside finds the file that those inside call path.
func (d *Disks) Path(path string) string {
	return filepath.Join("/proc", strconv.Itoa(d.cmd.Process.Pid), "root", path)
}

// Fill leaves so many bytes free on the disk that is mounted at path, and none more.
func (d *Disks) Fill(path string, leaveBytes int64) error {
	name := filepath.Join(d.Path(path), ballast)
	f, err := os.OpenFile(name, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return fmt.Errorf("fill disk: %w", err)
	}
	// Others write at the same time: what they take is not there for the ballast.
	room := make([]byte, 64<<10)
	for {
		if _, err = f.Write(room); err != nil {
			break
		}
	}
	if !errors.Is(err, syscall.ENOSPC) {
		return errors.Join(fmt.Errorf("fill disk: %w", err), f.Close())
	}
	size, err := f.Seek(0, io.SeekEnd)
	if err == nil {
		err = f.Truncate(max(size-leaveBytes, 0))
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("fill disk: %w", err)
	}
	return nil
}

// Empty gives all the room back that Fill took.
func (d *Disks) Empty(path string) error {
	if err := os.Remove(filepath.Join(d.Path(path), ballast)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("empty disk: %w", err)
	}
	return nil
}

// Close unmounts everything, once no process that uses the disks is left.
func (d *Disks) Close() error {
	err := errors.Join(d.leash.Close(), d.cmd.Wait())
	if err != nil {
		return fmt.Errorf("close disks: %w", err)
	}
	return nil
}
