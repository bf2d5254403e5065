package eventlog_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"testing"
	"time"

	api "github.com/EventStore/EventStore-Client-Go/v4/protos/streams"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"example.com/keytrail/internal/embedded/eventstore"
	"example.com/keytrail/internal/eventlog"
)

// The same log is reached by a socket, by an address and by discovery.
func TestConnectionStringsReachTheStore(t *testing.T) {
	s, err := eventstore.Open(eventstore.Config{Dir: t.TempDir(), Listen: "127.0.0.1:0", Insecure: true, Logger: testLogger(t)})
	if err != nil {
		t.Fatal(err)
	}
	defer stopServer(t, s)
	for i, connection := range []string{"esdb://" + s.Address() + "?tls=false", "esdb+discover://" + s.Address() + "?tls=false"} {
		l, err := eventlog.Open(t.Context(), eventlog.Config{Connection: connection, Logger: testLogger(t)})
		if err != nil {
			t.Fatalf("%s: %v", connection, err)
		}
		appendMany(t, l, 3)
		if got := stored(t, l, "kt.a"); got != 3*(i+1) {
			t.Errorf("%s: %d events are stored, want %d", connection, got, 3*(i+1))
		}
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	}
}

// What was never sent is not in doubt.
func TestAppendWithoutConnectionIsUnavailableAndNotInDoubt(t *testing.T) {
	s := startServer(t, eventstore.Config{})
	p := startProxy(t, s.Address())
	l := behind(t, p, eventlog.Config{AppendTimeout: 200 * time.Millisecond})
	p.set(false, true)
	p.cut()
	for { // The first may have been under way when the connection went.
		_, err := l.Append(t.Context(), "kt.a", eventlog.NoStream(), benchEvents(1, 1)...)
		if !errors.Is(err, eventlog.ErrUnavailable) {
			t.Fatalf("got %v, want %v", err, eventlog.ErrUnavailable)
		}
		if !errors.Is(err, eventlog.ErrOutcomeUnknown) {
			break
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := l.Append(ctx, "kt.a", eventlog.NoStream(), benchEvents(1, 1)...); !errors.Is(err, context.Canceled) {
		t.Errorf("append of a caller that is gone: got %v", err)
	}
}

// follower is a cluster node that sends writers to its leader.
type follower struct {
	api.UnimplementedStreamsServer

	host, port string
}

func (follower) Read(*api.ReadReq, api.Streams_ReadServer) error { return nil }

func (f follower) Append(in api.Streams_AppendServer) error {
	in.SetTrailer(metadata.Pairs("exception", "not-leader", "leader-endpoint-host", f.host, "leader-endpoint-port", f.port))
	return status.Error(codes.NotFound, "Leader info available")
}

// serveFollower serves a follower of leader until the test ends.
func serveFollower(t *testing.T, leader string) string {
	t.Helper()
	host, port, err := net.SplitHostPort(leader)
	if err != nil {
		t.Fatal(err)
	}
	var lc net.ListenConfig
	l, err := lc.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	g := grpc.NewServer()
	api.RegisterStreamsServer(g, follower{host: host, port: port})
	served := make(chan error, 1)
	go func() { served <- g.Serve(l) }()
	t.Cleanup(func() {
		g.Stop()
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
	return l.Addr().String()
}

// A follower's refusal leads to the leader, for many writers at once.
func TestAppendFollowsTheLeader(t *testing.T) {
	leader, err := eventstore.Open(eventstore.Config{Dir: t.TempDir(), Listen: "127.0.0.1:0", Insecure: true, Logger: testLogger(t)})
	if err != nil {
		t.Fatal(err)
	}
	defer stopServer(t, leader)
	l, err := eventlog.Open(t.Context(), eventlog.Config{Connection: "esdb://" + serveFollower(t, leader.Address()) + "?tls=false", Logger: testLogger(t)})
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for i := range 16 {
		wg.Go(func() {
			stream := fmt.Sprintf("kt.a-%d", i)
			if _, err := l.Append(t.Context(), stream, eventlog.NoStream(), benchEvents(uint64(i+1), 1)...); err != nil {
				t.Errorf("append: %v", err)
			}
		})
	}
	wg.Wait()
	if err := l.Close(); err != nil {
		t.Error(err)
	}
}
