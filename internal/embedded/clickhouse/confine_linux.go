package clickhouse

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"unsafe"

	ll "github.com/landlock-lsm/go-landlock/landlock/syscall"
	"golang.org/x/sys/unix"
)

// landlockMin is the first version that also covers truncation.
const landlockMin = 3

const (
	readFile = unix.LANDLOCK_ACCESS_FS_READ_FILE
	readExec = readFile | unix.LANDLOCK_ACCESS_FS_EXECUTE
	// readWrite is what the engine does in its data folder.
	readWrite = readFile | unix.LANDLOCK_ACCESS_FS_READ_DIR | unix.LANDLOCK_ACCESS_FS_WRITE_FILE |
		unix.LANDLOCK_ACCESS_FS_TRUNCATE | unix.LANDLOCK_ACCESS_FS_REFER |
		unix.LANDLOCK_ACCESS_FS_MAKE_DIR | unix.LANDLOCK_ACCESS_FS_MAKE_REG |
		unix.LANDLOCK_ACCESS_FS_REMOVE_DIR | unix.LANDLOCK_ACCESS_FS_REMOVE_FILE
)

// confineThread restricts the calling thread, and whatever it executes, by
// Landlock: the program, the library and the system libraries in use may be
// read, the data folder written, and nothing else opened. TCP, abstract sockets
// and signals to others are off where the kernel knows how. It reports whether
// it did.
func confineThread(cfg childConfig, program string) (bool, error) {
	abi, err := ll.LandlockGetABIVersion()
	if err != nil || abi < landlockMin {
		if cfg.allowUnconfined {
			return false, nil
		}
		return false, fmt.Errorf("%w: this kernel has no Landlock of version %d or later (found %d): enable it, or allow the engine to run unconfined and let no SQL in from outside", ErrUnconfined, landlockMin, max(abi, 0))
	}
	ruleset := ruleset(abi)
	fd, err := ll.LandlockCreateRuleset(&ruleset, 0)
	if err != nil {
		return false, fmt.Errorf("%w: create ruleset: %w", ErrUnconfined, err)
	}
	defer func() { _ = unix.Close(fd) }() // Nothing was written to it.
	if err := addRules(fd, cfg, program); err != nil {
		return false, err
	}
	if err := unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{}); err != nil {
		return false, fmt.Errorf("%w: forbid core files: %w", ErrUnconfined, err)
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return false, fmt.Errorf("%w: no_new_privs: %w", ErrUnconfined, err)
	}
	if err := ll.LandlockRestrictSelf(fd, 0); err != nil {
		return false, fmt.Errorf("%w: restrict: %w", ErrUnconfined, err)
	}
	return true, nil
}

// ruleset handles every right that the kernel's version knows.
func ruleset(abi int) ll.RulesetAttr {
	attr := ll.RulesetAttr{HandledAccessFS: unix.LANDLOCK_ACCESS_FS_TRUNCATE<<1 - 1}
	if abi >= 4 {
		attr.HandledAccessNet = unix.LANDLOCK_ACCESS_NET_BIND_TCP | unix.LANDLOCK_ACCESS_NET_CONNECT_TCP
	}
	if abi >= 5 {
		attr.HandledAccessFS |= unix.LANDLOCK_ACCESS_FS_IOCTL_DEV
	}
	if abi >= 6 {
		attr.Scoped = unix.LANDLOCK_SCOPE_ABSTRACT_UNIX_SOCKET | unix.LANDLOCK_SCOPE_SIGNAL
	}
	return attr
}

func addRules(ruleset int, cfg childConfig, program string) error {
	rules := map[string]uint64{program: readExec, cfg.library: readFile, cfg.dir: readWrite, "/dev/null": readFile | unix.LANDLOCK_ACCESS_FS_WRITE_FILE}
	for _, path := range []string{
		"/etc/ld.so.cache", "/dev/urandom",
		// How much memory and how many processors there are, and where the main
		// thread's stack is.
		"/proc/meminfo", "/proc/cpuinfo", "/proc/stat", "/sys/devices/system/cpu", "/sys/fs/cgroup", "/proc/self/maps",
	} {
		rules[path] = readFile
	}
	libraries, err := systemLibraries()
	if err != nil {
		return err
	}
	for _, path := range libraries {
		rules[path] = readExec
	}
	for path, access := range rules {
		if err := addRule(ruleset, path, access); err != nil {
			return fmt.Errorf("%w: rule for %s: %w", ErrUnconfined, path, err)
		}
	}
	return nil
}

// addRule grants access beneath path; a path that does not exist needs none.
func addRule(ruleset int, path string, access uint64) error {
	fd, err := unix.Open(path, unix.O_PATH|unix.O_CLOEXEC, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("open: %w", err)
	}
	defer func() { _ = unix.Close(fd) }() // A path handle.
	attr := ll.PathBeneathAttr{ParentFd: fd, AllowedAccess: access}
	if err := ll.LandlockAddPathBeneathRule(ruleset, &attr, 0); err != nil {
		return fmt.Errorf("add: %w", err)
	}
	return nil
}

// systemLibraries gives the loader and the folders of the libraries that this
// process uses, which are those that the engine needs too.
func systemLibraries() ([]string, error) {
	maps, err := os.Open("/proc/self/maps")
	if err != nil {
		return nil, fmt.Errorf("list loaded libraries: %w", err)
	}
	defer func() { _ = maps.Close() }() // Only read.
	seen := map[string]bool{}
	lines := bufio.NewScanner(maps)
	for lines.Scan() {
		_, path, ok := strings.Cut(lines.Text(), " /")
		if name := filepath.Base(path); ok && (strings.HasSuffix(name, ".so") || strings.Contains(name, ".so.")) {
			seen[filepath.Dir("/"+path)] = true
		}
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("list loaded libraries: %w", err)
	}
	var out []string
	for dir := range seen {
		out = append(out, dir)
	}
	return out, nil
}

// sealProcess forbids, for every thread of the process and for good, to make
// sockets of any kind, to execute programs, and to look into other processes.
// Landlock alone would leave UDP and the sockets of other services open.
func sealProcess(cfg childConfig) error {
	if !cfg.confined {
		return nil
	}
	filter := denyCalls()
	program := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]} //nolint:gosec // Some dozens.
	_, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_TSYNC, uintptr(unsafe.Pointer(&program)))
	if errno != 0 {
		return fmt.Errorf("%w: seccomp: %w", ErrUnconfined, errno)
	}
	return nil
}

// denyCalls is the seccomp program: calls of another architecture and the listed
// ones get EPERM, all others go on.
func denyCalls() []unix.SockFilter {
	const (
		load    = unix.BPF_LD | unix.BPF_W | unix.BPF_ABS
		ifEqual = unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K
		ifAbove = unix.BPF_JMP | unix.BPF_JGE | unix.BPF_K
		answer  = unix.BPF_RET | unix.BPF_K
		x32Bit  = 0x40000000
	)
	denied := []uint32{
		unix.SYS_SOCKET, unix.SYS_CONNECT, unix.SYS_BIND,
		unix.SYS_EXECVE, unix.SYS_EXECVEAT,
		unix.SYS_PTRACE, unix.SYS_PROCESS_VM_READV, unix.SYS_PROCESS_VM_WRITEV, unix.SYS_PIDFD_OPEN, unix.SYS_PIDFD_GETFD,
		unix.SYS_IO_URING_SETUP, unix.SYS_IO_URING_ENTER, unix.SYS_IO_URING_REGISTER,
		unix.SYS_OPEN_BY_HANDLE_AT, unix.SYS_MOUNT, unix.SYS_UMOUNT2, unix.SYS_PIVOT_ROOT, unix.SYS_CHROOT,
		unix.SYS_MOVE_MOUNT, unix.SYS_OPEN_TREE, unix.SYS_FSOPEN,
		unix.SYS_SETNS, unix.SYS_UNSHARE, unix.SYS_BPF, unix.SYS_PERF_EVENT_OPEN, unix.SYS_USERFAULTFD,
		unix.SYS_KEYCTL, unix.SYS_ADD_KEY, unix.SYS_REQUEST_KEY,
	}
	n := len(denied)
	filter := []unix.SockFilter{
		{Code: load, K: 4}, // The architecture.
		{Code: ifEqual, K: auditArch, Jf: uint8(n + 2)}, //nolint:gosec // Some dozens.
		{Code: load, K: 0},                       // The call's number.
		{Code: ifAbove, K: x32Bit, Jt: uint8(n)}, //nolint:gosec // Some dozens.
	}
	for i, call := range denied {
		filter = append(filter, unix.SockFilter{Code: ifEqual, K: call, Jt: uint8(n - 1 - i)}) //nolint:gosec // Some dozens.
	}
	// The last comparison falls through to "allow" when it does not match.
	filter[len(filter)-1].Jt, filter[len(filter)-1].Jf = 0, 1
	return append(filter,
		unix.SockFilter{Code: answer, K: unix.SECCOMP_RET_ERRNO | uint32(unix.EPERM)},
		unix.SockFilter{Code: answer, K: unix.SECCOMP_RET_ALLOW})
}
