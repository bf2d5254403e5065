package eventlog_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"example.com/keytrail/internal/embedded/eventstore"
	"example.com/keytrail/internal/eventlog"
)

// The same log is reached by a socket, by an address and by discovery.
func TestConnectionStringsReachTheStore(t *testing.T) {
	s, err := eventstore.Open(eventstore.Config{Dir: t.TempDir(), Listen: "127.0.0.1:0", Logger: testLogger(t)})
	if err != nil {
		t.Fatal(err)
	}
	defer stopServer(t, s)
	for i, connection := range []string{"esdb://" + s.Address() + "?tls=false", "esdb+discover://" + s.Address() + "?tls=false"} {
		l, err := eventlog.Open(t.Context(), eventlog.Config{Connection: connection, Logger: testLogger(t)})
		if err != nil {
			t.Fatalf("%s: %v", connection, err)
		}
		appendMany(t, l, "kt.a", 3)
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
