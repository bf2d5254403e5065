package eventstore

import (
	"errors"
	"fmt"
	"log/slog"
	"time"
)

const (
	// defaultAppendBytesMax is EventStoreDB's own default.
	defaultAppendBytesMax = 1 << 20
	// appendBytesCeiling keeps an append below the protocol's message size.
	appendBytesCeiling = 16 << 20
	// socketPathBytesMax leaves room under the kernel's 107 bytes.
	socketPathBytesMax = 100
)

// ErrCorrupt is in the chain of every error that says that stored bytes are not what was
// written.
var ErrCorrupt = errCorrupt

// Config says where the log is kept and where it is served.
type Config struct {
	// Dir is the data folder. It is made if missing, with mode 0700, and held by
	// one process at a time.
	Dir string
	// Socket is the unix socket to serve on. Its folder is made with mode 0700.
	Socket string
	// Listen is a TCP address to serve on instead. It needs a certificate and users,
	// or Insecure.
	Listen string
	// CertFile and KeyFile are the certificate of Listen, PEM.
	CertFile, KeyFile string
	// UsersFile names who may call Listen: lines of name:hash or name:hash:group,group,
	// the hash bcrypt or argon2id. Members of $admins, and the user admin, may do
	// everything; others what the $acl of a stream lets them, and where there is none,
	// everything but streams that begin with $ and the whole log.
	UsersFile string
	// Insecure serves Listen without transport security and without users. Only for an
	// address that no other machine can reach.
	Insecure bool
	// MaxAppendBytes bounds the events of one append. Default 1 MiB.
	MaxAppendBytes int
	// Clock gives the time of an append. Default time.Now.
	Clock func() time.Time
	// ScavengeEvery is how often events that limits hide are removed. Default an hour;
	// below 0 never by itself.
	ScavengeEvery time.Duration
	// Files is the file system of the journal. Default the operating system's.
	Files Files
	// Logger receives the server's messages. Required.
	Logger *slog.Logger

	bounds bounds // Other than default in tests.
}

func (c *Config) setDefaults() {
	if c.MaxAppendBytes == 0 {
		c.MaxAppendBytes = defaultAppendBytesMax
	}
	if c.Clock == nil {
		c.Clock = time.Now
	}
	if c.ScavengeEvery == 0 {
		c.ScavengeEvery = time.Hour
	}
	if c.Files == nil {
		c.Files = osFiles{}
	}
	c.bounds.setDefaults()
}

// Validate reports everything that is wrong with c, joined.
func (c Config) Validate() error {
	var errs []error
	if c.Dir == "" {
		errs = append(errs, errors.New("event store: a data folder is required"))
	}
	switch {
	case c.Socket == "" && c.Listen == "":
		errs = append(errs, errors.New("event store: a socket or a listen address is required"))
	case c.Socket != "" && c.Listen != "":
		errs = append(errs, errors.New("event store: a socket and a listen address exclude each other"))
	case len(c.Socket) > socketPathBytesMax:
		errs = append(errs, fmt.Errorf("event store: the socket path has %d bytes, the system takes %d: choose a shorter runtime folder (for example under /run or /tmp): %s",
			len(c.Socket), socketPathBytesMax, c.Socket))
	}
	errs = append(errs, c.validateAddress()...)
	if c.MaxAppendBytes < 0 || c.MaxAppendBytes > appendBytesCeiling {
		errs = append(errs, fmt.Errorf("event store: an append limit of %d bytes is not between 1 and %d", c.MaxAppendBytes, appendBytesCeiling))
	}
	if c.Logger == nil {
		errs = append(errs, errors.New("event store: a logger is required"))
	}
	return errors.Join(errs...)
}
