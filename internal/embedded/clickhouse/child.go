package clickhouse

import (
	"context"
	"debug/elf"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"syscall"
	"time"
)

const (
	lockFile      = "engine.lock"
	stopWord      = "stop\n"
	headerTimeout = 10 * time.Second
	lockEvery     = 50 * time.Millisecond
	lockTries     = 60
)

// childConfig is what the parent tells the child in its arguments.
type childConfig struct {
	dir, library, socket string
	connections          int
	allowUnconfined      bool
	// Set for the second stage: the file descriptors that the first made.
	stage2           bool
	socketFD, lockFD int
	confined         bool
}

// report is the one line that the child writes to its standard output.
type report struct {
	Ready bool   `json:"ready,omitempty"`
	Kind  string `json:"kind,omitempty"`
	Text  string `json:"text,omitempty"`
}

// kinds of failure that the parent turns back into this package's errors.
func kinds() map[string]error {
	return map[string]error{"library": ErrLibrary, "in_use": ErrInUse, "unconfined": ErrUnconfined}
}

// RunChild is the child's main function: the program calls it with the arguments
// after [Subcommand] and exits with what it returns. It runs in two stages. The
// first takes the data folder's lock, binds the socket, confines its thread and
// executes the program again, since only then is every thread of the process,
// the Go runtime's too, born confined. The second forbids sockets and programs
// altogether, loads the library and serves.
//
// Standard input is the parent's leash: the child ends when it closes, and stops
// in good order when it reads "stop". Standard output carries one line of JSON
// that says ready, or why not.
func RunChild(args []string) int {
	cfg, err := parseChildArgs(args)
	if err == nil {
		signal.Ignore(syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGPIPE) // The parent decides.
		if cfg.stage2 {
			err = serveChild(cfg)
		} else {
			err = prepareChild(cfg)
		}
	}
	if err == nil {
		return 0
	}
	out := report{Text: err.Error()}
	for kind, sentinel := range kinds() {
		if errors.Is(err, sentinel) {
			out.Kind = kind
		}
	}
	if err := json.NewEncoder(os.Stdout).Encode(out); err != nil {
		return 2
	}
	return 1
}

func parseChildArgs(args []string) (childConfig, error) {
	var cfg childConfig
	set := flag.NewFlagSet(Subcommand, flag.ContinueOnError)
	set.StringVar(&cfg.dir, "dir", "", "data folder")
	set.StringVar(&cfg.library, "library", "", "path of libchdb")
	set.StringVar(&cfg.socket, "socket", "", "path of the socket to make")
	set.IntVar(&cfg.connections, "connections", defaultConnections, "statements at once")
	set.BoolVar(&cfg.allowUnconfined, "allow-unconfined", false, "start without confinement if need be")
	set.BoolVar(&cfg.stage2, "stage2", false, "second stage")
	set.IntVar(&cfg.socketFD, "socket-fd", -1, "bound socket")
	set.IntVar(&cfg.lockFD, "lock-fd", -1, "held lock")
	set.BoolVar(&cfg.confined, "confined", false, "the first stage confined the process")
	if err := set.Parse(args); err != nil {
		return cfg, fmt.Errorf("engine arguments: %w", err)
	}
	return cfg, nil
}

// prepareChild is the first stage. It returns only on failure.
func prepareChild(cfg childConfig) error {
	if err := checkLibrary(cfg.library); err != nil {
		return err
	}
	lockFD, err := lock(filepath.Join(cfg.dir, lockFile))
	if err != nil {
		return err
	}
	socketFD, err := bind(cfg.socket)
	if err != nil {
		return err
	}
	if err := os.Chdir(cfg.dir); err != nil {
		return fmt.Errorf("enter data folder: %w", err)
	}
	program, err := thisProgram()
	if err != nil {
		return err
	}
	runtime.LockOSThread() // The confinement is this thread's until the exec.
	confined, err := confineThread(cfg, program)
	if err != nil {
		return err
	}
	args := []string{
		os.Args[0], Subcommand, "-stage2", "-dir", cfg.dir, "-library", cfg.library,
		"-connections", fmt.Sprint(cfg.connections), "-socket-fd", fmt.Sprint(socketFD),
		"-lock-fd", fmt.Sprint(lockFD), fmt.Sprintf("-confined=%t", confined),
	}
	err = syscall.Exec(program, args, []string{"TZ=UTC", "LC_ALL=C.UTF-8"}) //nolint:gosec // This very program.
	return fmt.Errorf("run the second stage: %w", err)
}

// lock takes the folder for this process, and the one that it becomes, until it
// ends however it ends. A child whose parent was killed may need a moment to go.
func lock(path string) (int, error) {
	fd, err := syscall.Open(path, syscall.O_RDWR|syscall.O_CREAT, 0o600)
	if err != nil {
		return -1, fmt.Errorf("open %s: %w", path, err)
	}
	tick := time.NewTicker(lockEvery)
	defer tick.Stop()
	for tries := lockTries; ; tries-- {
		err := syscall.Flock(fd, syscall.LOCK_EX|syscall.LOCK_NB)
		switch {
		case err == nil:
			return fd, nil
		case !errors.Is(err, syscall.EWOULDBLOCK):
			return -1, fmt.Errorf("lock %s: %w", path, err)
		case tries == 0:
			return -1, fmt.Errorf("%w: %s", ErrInUse, filepath.Dir(path))
		}
		<-tick.C
	}
}

// bind makes the socket without listening on it: until the engine is up, clients
// are refused. What an earlier child left is removed; the lock says that it is
// gone.
func bind(path string) (int, error) {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return -1, fmt.Errorf("remove old socket: %w", err)
	}
	fd, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_STREAM, 0)
	if err != nil {
		return -1, fmt.Errorf("make socket: %w", err)
	}
	if err := syscall.Bind(fd, &syscall.SockaddrUnix{Name: path}); err != nil {
		return -1, fmt.Errorf("bind %s: %w", path, err)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		return -1, fmt.Errorf("close the socket to others: %w", err)
	}
	return fd, nil
}

// serveChild is the second stage.
func serveChild(cfg childConfig) error {
	if err := sealProcess(cfg); err != nil {
		return err
	}
	syscall.CloseOnExec(cfg.lockFD)
	lib, err := openLibrary(cfg.library, cfg.dir)
	if err != nil {
		return err
	}
	sessions, err := newPool(lib, cfg.connections)
	if err != nil {
		return err
	}
	logger := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelInfo}))
	damage := make(chan error, 1)
	h, err := newHandler(sessions, logger, damage)
	if err != nil {
		return err
	}
	if err := syscall.Listen(cfg.socketFD, syscall.SOMAXCONN); err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	file := os.NewFile(uintptr(cfg.socketFD), "socket")
	listener, err := net.FileListener(file)
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	if err := file.Close(); err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	return serve(listener, h, cfg.dir, damage, logger)
}

// serve answers until the parent says stop, or is gone, or a part is damaged that a new
// start may mend.
func serve(listener net.Listener, h http.Handler, dir string, damage <-chan error, logger *slog.Logger) error {
	server := &http.Server{Handler: h, ReadHeaderTimeout: headerTimeout}
	failed := make(chan error, 1)
	go func() { failed <- server.Serve(listener) }()
	stopped := make(chan bool, 1)
	go func() { stopped <- toldToStop(os.Stdin) }()
	if err := json.NewEncoder(os.Stdout).Encode(report{Ready: true}); err != nil {
		return fmt.Errorf("report: %w", err)
	}
	go heal(server, dir, damage, logger)
	select {
	case err := <-failed:
		return fmt.Errorf("serve: %w", err)
	case asked := <-stopped:
		if !asked {
			os.Exit(3) // Nobody is there to answer or to report to.
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), defaultStopTimeout)
	defer cancel()
	if err := server.Shutdown(ctx); err != nil {
		return fmt.Errorf("shut down: %w", err)
	}
	// The engine is left as it is: what it acknowledged is stored, and its own
	// shutdown is not reliable.
	return nil
}

// heal ends the process for a damaged part, at most once in a while.
func heal(server *http.Server, dir string, damage <-chan error, logger *slog.Logger) {
	ctx := context.Background() // It ends with the process.
	for err := range damage {
		due, markErr := mayHeal(dir, time.Now())
		if markErr != nil {
			logger.ErrorContext(ctx, "damaged_part", slog.Any("error", errors.Join(err, markErr)))
			continue
		}
		if !due {
			logger.ErrorContext(ctx, "damaged_part_stays", slog.Any("error", err))
			continue
		}
		logger.ErrorContext(ctx, "damaged_part_new_start", slog.Any("error", err))
		ctx, cancel := context.WithTimeout(ctx, healGrace)
		_ = server.Shutdown(ctx) // Whoever is not served by then repeats itself.
		cancel()
		os.Exit(4)
	}
}

// toldToStop waits for the parent's word; false when the leash broke.
func toldToStop(leash io.Reader) bool {
	word := make([]byte, len(stopWord))
	_, err := io.ReadFull(leash, word)
	return err == nil && string(word) == stopWord
}

// checkLibrary says in our words what the loader would say in its own, or not
// survive: a file cut short would kill the process on its first page.
func checkLibrary(path string) error {
	const todo = "fetch it again or give another with --engine-library"
	file, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("%w: %w; %s", ErrLibrary, err, todo)
	}
	defer func() { _ = file.Close() }() // Only read.
	if runtime.GOOS != "linux" {
		return nil
	}
	info, err := file.Stat()
	if err != nil {
		return fmt.Errorf("%w: %w", ErrLibrary, err)
	}
	header, err := elf.NewFile(file)
	if err != nil {
		return fmt.Errorf("%w: %s is no shared library: %w; %s", ErrLibrary, path, err, todo)
	}
	if want := machine(); header.Machine != want {
		return fmt.Errorf("%w: %s is for %s, this machine is %s; %s", ErrLibrary, path, header.Machine, want, todo)
	}
	for _, p := range header.Progs {
		if p.Off+p.Filesz > uint64(info.Size()) { //nolint:gosec // A size.
			return fmt.Errorf("%w: %s is cut short at %d bytes; %s", ErrLibrary, path, info.Size(), todo)
		}
	}
	return nil
}

func machine() elf.Machine {
	if runtime.GOARCH == "arm64" {
		return elf.EM_AARCH64
	}
	return elf.EM_X86_64
}
