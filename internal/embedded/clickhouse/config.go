package clickhouse

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"time"
)

// Subcommand is the hidden first argument under which the program must call
// [RunChild].
const Subcommand = "clickhouse-engine"

const (
	// socketPathMax is the room for a path in a unix socket address, with its
	// closing zero byte, on the systems we know.
	socketPathMax = 103

	defaultConnections  = 8
	defaultStartTimeout = 2 * time.Minute
	defaultPingEvery    = 2 * time.Second
	defaultPingTimeout  = 10 * time.Second
	defaultStopTimeout  = 10 * time.Second
)

var (
	// ErrLibrary says that the engine library is missing, damaged or for another
	// machine. The text says what to do.
	ErrLibrary = errors.New("engine library unusable")
	// ErrInUse says that another engine works in the data folder.
	ErrInUse = errors.New("data folder is in use by another engine")
	// ErrUnconfined says that this system cannot confine the child.
	ErrUnconfined = errors.New("the engine cannot be confined here")
)

// Config says how to run the engine.
type Config struct {
	// Dir is the data folder; made if it is missing. One engine at a time can
	// have it.
	Dir string
	// Library is the path of libchdb.
	Library string
	// RuntimeDir is where the socket goes; made with mode 0700 if it is missing.
	// It must be short. Empty: a folder of its own under the system's temporary
	// one, removed on Close.
	RuntimeDir string
	// Connections is how many statements run at once; 0 means 8. Further ones
	// wait.
	Connections int
	// AllowUnconfined starts the child even where the system cannot confine it.
	// Then whoever can send SQL can read this user's files.
	AllowUnconfined bool
	// Command is how to start the child; empty means this very program with
	// [Subcommand]. The child's own arguments are added.
	Command []string
	// PingEvery, PingTimeout: a child that does not answer a ping is killed and
	// started again. 0 means 2 s and 10 s.
	PingEvery, PingTimeout time.Duration
	// StartTimeout bounds the engine's start; 0 means 2 min.
	StartTimeout time.Duration
	// Logger gets starts, deaths and what the engine prints. It must be set.
	Logger *slog.Logger
}

// Validate reports everything that is wrong with c at once.
func (c Config) Validate() error {
	var errs []error
	if c.Dir == "" {
		errs = append(errs, errors.New("no data folder is given"))
	}
	if c.Library == "" {
		errs = append(errs, errors.New("no engine library is given"))
	}
	if c.Connections < 0 {
		errs = append(errs, fmt.Errorf("connections %d is negative", c.Connections))
	}
	if c.PingEvery < 0 || c.PingTimeout < 0 || c.StartTimeout < 0 {
		errs = append(errs, errors.New("a duration is negative"))
	}
	if c.Logger == nil {
		errs = append(errs, errors.New("no logger is given"))
	}
	return errors.Join(errs...)
}

func (c Config) withDefaults() (Config, error) {
	if c.Connections == 0 {
		c.Connections = defaultConnections
	}
	if c.PingEvery == 0 {
		c.PingEvery = defaultPingEvery
	}
	if c.PingTimeout == 0 {
		c.PingTimeout = defaultPingTimeout
	}
	if c.StartTimeout == 0 {
		c.StartTimeout = defaultStartTimeout
	}
	var err error
	if c.Dir, err = filepath.Abs(c.Dir); err != nil {
		return c, fmt.Errorf("data folder: %w", err)
	}
	if c.Library, err = filepath.Abs(c.Library); err != nil {
		return c, fmt.Errorf("engine library: %w", err)
	}
	if len(c.Command) == 0 {
		program, err := thisProgram()
		if err != nil {
			return c, err
		}
		c.Command = []string{program, Subcommand}
	}
	return c, nil
}

// thisProgram names the running binary itself, so that a child started after an
// upgrade on disk is still of the parent's version.
func thisProgram() (string, error) {
	if runtime.GOOS == "linux" {
		return "/proc/self/exe", nil
	}
	program, err := os.Executable()
	if err != nil {
		return "", fmt.Errorf("find this program: %w", err)
	}
	return program, nil
}
