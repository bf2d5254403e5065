package eventstore

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/EventStore/EventStore-Client-Go/v4/protos/gossip"
	"github.com/EventStore/EventStore-Client-Go/v4/protos/serverfeatures"
	api "github.com/EventStore/EventStore-Client-Go/v4/protos/streams"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/status"
)

// messageBytesMax is EventStoreDB's bound on one message.
const messageBytesMax = 17 << 20

// Server is a running event store. It is safe for concurrent use.
type Server struct {
	cfg      Config
	lock     *folderLock
	store    *store
	listener net.Listener
	grpc     *grpc.Server
	served   chan error    // The result of Serve.
	closing  chan struct{} // Ends subscriptions.
	close    sync.Once
	closeErr error
}

// Open takes the data folder, opens or makes the log in it and serves it. It
// fails with one clear error if the folder is in use, the file is damaged or
// newer than this program, or the address cannot be served on.
func Open(cfg Config) (*Server, error) {
	cfg.setDefaults()
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	s := &Server{cfg: cfg, served: make(chan error, 1), closing: make(chan struct{})}
	if err := s.open(context.Background()); err != nil {
		return nil, errors.Join(err, s.abandon())
	}
	return s, nil
}

func (s *Server) open(ctx context.Context) error {
	options, users, err := s.cfg.secured()
	if err != nil {
		return err
	}
	if err := os.MkdirAll(s.cfg.Dir, 0o700); err != nil {
		return fmt.Errorf("make data folder: %w", err)
	}
	if s.lock, err = lockFolder(s.cfg.Dir); err != nil {
		return err
	}
	if s.store, err = openStore(ctx, s.cfg); err != nil {
		return err
	}
	if s.listener, err = listen(ctx, s.cfg); err != nil {
		return err
	}
	st := &streams{
		writer: s.store.writer, reader: s.store.reader, recent: s.store.recent,
		appendBytesMax: s.cfg.MaxAppendBytes, clock: s.cfg.Clock, closing: s.closing,
	}
	if users != nil {
		st.access = &access{logins: newLogins(users), reader: s.store.reader}
	}
	s.grpc = s.newGRPC(st, options)
	s.store.start(ctx)
	go func() { s.served <- s.grpc.Serve(s.listener) }()
	return nil
}

func (s *Server) newGRPC(st *streams, more []grpc.ServerOption) *grpc.Server {
	g := grpc.NewServer(append(more,
		grpc.ForceServerCodecV2(codec{encoding.GetCodecV2("proto")}),
		grpc.MaxRecvMsgSize(messageBytesMax), grpc.MaxSendMsgSize(messageBytesMax),
		grpc.ReadBufferSize(128<<10), grpc.WriteBufferSize(128<<10),
		grpc.InitialWindowSize(1<<20), grpc.InitialConnWindowSize(4<<20),
		grpc.UnknownServiceHandler(refuse),
		grpc.NumStreamWorkers(32),  // Growing a new stack for every append costs a tenth of it.
		grpc.WaitForHandlers(true), // The writer stops only after the last of them.
		// The client pings every 10 s, idle or not; gRPC's default would cut it off.
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 5 * time.Second, PermitWithoutStream: true}),
	)...)
	api.RegisterStreamsServer(g, st)
	serverfeatures.RegisterServerFeaturesServer(g, features{})
	gossip.RegisterGossipServer(g, members{addr: s.listener.Addr(), clock: s.cfg.Clock})
	return g
}

// refuse answers what this server does not have.
func refuse(_ any, stream grpc.ServerStream) error {
	method, _ := grpc.MethodFromServerStream(stream)
	return status.Errorf(codes.Unimplemented, "the embedded event store has no %s (persistent subscriptions, projections and users are EventStoreDB's): use EventStoreDB", method)
}

// listen opens the address. The folder lock is held, so a socket that nobody
// answers on was left behind by a process that died.
func listen(ctx context.Context, cfg Config) (net.Listener, error) {
	var lc net.ListenConfig
	if cfg.Socket == "" {
		l, err := lc.Listen(ctx, "tcp", cfg.Listen)
		if err != nil {
			return nil, fmt.Errorf("serve event store: %w", err)
		}
		return l, nil
	}
	if err := os.MkdirAll(filepath.Dir(cfg.Socket), 0o700); err != nil {
		return nil, fmt.Errorf("make socket folder: %w", err)
	}
	if err := removeStale(ctx, cfg.Socket); err != nil {
		return nil, err
	}
	l, err := lc.Listen(ctx, "unix", cfg.Socket)
	if err != nil {
		return nil, fmt.Errorf("serve event store: %w", err)
	}
	if err := os.Chmod(cfg.Socket, 0o600); err != nil {
		return nil, errors.Join(fmt.Errorf("protect socket: %w", err), l.Close())
	}
	return l, nil
}

func removeStale(ctx context.Context, path string) error {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("look at socket: %w", err)
	}
	if info.Mode().Type() != fs.ModeSocket {
		return fmt.Errorf("serve event store: %s exists and is not a socket", path)
	}
	var d net.Dialer
	if c, err := d.DialContext(ctx, "unix", path); err == nil {
		return errors.Join(fmt.Errorf("serve event store: another process serves on %s", path), c.Close())
	}
	if err := os.Remove(path); err != nil {
		return fmt.Errorf("remove stale socket: %w", err)
	}
	return nil
}

// Address returns where the server is reached: the socket's path, or host:port.
func (s *Server) Address() string { return s.listener.Addr().String() }

// Close ends subscriptions, finishes the calls in flight (or cuts them off when
// ctx ends), and closes the log. When it returns, every goroutine has ended and
// the folder is free. Calling it again returns the same.
func (s *Server) Close(ctx context.Context) error {
	s.close.Do(func() { s.closeErr = s.shutdown(ctx) })
	return s.closeErr
}

func (s *Server) shutdown(ctx context.Context) error {
	close(s.closing)
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		s.grpc.GracefulStop()
	}()
	select {
	case <-stopped:
	case <-ctx.Done():
		s.grpc.Stop()
		<-stopped
	}
	var errs []error
	if err := <-s.served; err != nil && !errors.Is(err, grpc.ErrServerStopped) {
		errs = append(errs, fmt.Errorf("serve event store: %w", err))
	}
	errs = append(errs, s.store.close(ctx), s.lock.release())
	s.cfg.Logger.LogAttrs(ctx, slog.LevelInfo, "event store closed", slog.String("address", s.Address()))
	return errors.Join(errs...)
}

// abandon undoes a start that did not succeed.
func (s *Server) abandon() error {
	var errs []error
	if s.listener != nil {
		errs = append(errs, s.listener.Close())
	}
	if s.store != nil {
		errs = append(errs, s.store.abandon(context.Background()))
	}
	if s.lock != nil {
		errs = append(errs, s.lock.release())
	}
	return errors.Join(errs...)
}
