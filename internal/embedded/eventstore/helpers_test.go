package eventstore_test

import (
	"context"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/EventStore/EventStore-Client-Go/v4/protos/shared"
	api "github.com/EventStore/EventStore-Client-Go/v4/protos/streams"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"example.com/keytrail/internal/embedded/eventstore"
)

// TestMain is also the process that the crash test kills.
func TestMain(m *testing.M) {
	if dir := os.Getenv(crashDir); dir != "" {
		fmt.Fprintln(os.Stderr, crashChild(dir, os.Getenv(crashSocket)))
		os.Exit(1)
	}
	// Each history runs against a server: a default that keeps the race detector's run short.
	// 'go test -rapid.checks=1000' looks longer.
	if err := flag.Set("rapid.checks", "25"); err != nil {
		panic(err)
	}
	goleak.VerifyTestMain(m)
}

func testLogger(tb testing.TB) *slog.Logger {
	tb.Helper()
	return slog.New(slog.NewTextHandler(tb.Output(), nil))
}

// shortDir returns a folder whose path leaves room for a socket.
func shortDir(tb testing.TB) string {
	tb.Helper()
	dir, err := os.MkdirTemp("", "kt")
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			tb.Error(err)
		}
	})
	return dir
}

// open serves dir until the test ends, or until the returned function is called.
func open(tb testing.TB, cfg eventstore.Config) (*eventstore.Server, func()) {
	tb.Helper()
	if cfg.Dir == "" {
		cfg.Dir = tb.TempDir()
	}
	if cfg.Socket == "" {
		cfg.Socket = filepath.Join(shortDir(tb), "s")
	}
	cfg.Logger = testLogger(tb)
	s, err := eventstore.Open(cfg)
	if err != nil {
		tb.Fatalf("open: %v", err)
	}
	stop := func() {
		tb.Helper()
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		if err := s.Close(ctx); err != nil {
			tb.Errorf("close: %v", err)
		}
	}
	tb.Cleanup(stop)
	return s, stop
}

// client speaks the protocol without the client's habits.
type client struct{ api.StreamsClient }

func dial(tb testing.TB, s *eventstore.Server) client {
	tb.Helper()
	return dialAddress(tb, "unix://"+s.Address())
}

func dialAddress(tb testing.TB, address string) client {
	tb.Helper()
	conn, err := grpc.NewClient(address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := conn.Close(); err != nil {
			tb.Error(err)
		}
	})
	return client{api.NewStreamsClient(conn)}
}

// Expected revisions, as the protocol has them.
const (
	anyRevision  = -2
	noStream     = -1
	streamExists = -4
)

// answer is what an append came to.
type answer struct {
	ok, wrong bool
	rev, pos  uint64
}

func uuidOf(n uint64) *shared.UUID {
	id := idOf(n)
	return &shared.UUID{Value: &shared.UUID_Structured_{Structured: &shared.UUID_Structured{
		MostSignificantBits:  int64(binary.BigEndian.Uint64(id[:8])),
		LeastSignificantBits: int64(binary.BigEndian.Uint64(id[8:])),
	}}}
}

func idOf(n uint64) (id [16]byte) {
	binary.BigEndian.PutUint64(id[:8], n)
	id[6], id[8] = 0x40, 0x80
	return id
}

func numberOf(id *shared.UUID) uint64 {
	return uint64(id.GetStructured().GetMostSignificantBits()) &^ 0xffff
}

// number makes event ids that survive the version bits.
func number(n int) uint64 { return uint64(n) << 16 }

func (c client) append(ctx context.Context, stream string, expect int64, typ string, data []byte, ids ...uint64) (answer, error) {
	up, err := c.Append(ctx)
	if err != nil {
		return answer{}, err
	}
	o := &api.AppendReq_Options{StreamIdentifier: &shared.StreamIdentifier{StreamName: []byte(stream)}}
	switch expect {
	case anyRevision:
		o.ExpectedStreamRevision = &api.AppendReq_Options_Any{Any: &shared.Empty{}}
	case noStream:
		o.ExpectedStreamRevision = &api.AppendReq_Options_NoStream{NoStream: &shared.Empty{}}
	case streamExists:
		o.ExpectedStreamRevision = &api.AppendReq_Options_StreamExists{StreamExists: &shared.Empty{}}
	default:
		o.ExpectedStreamRevision = &api.AppendReq_Options_Revision{Revision: uint64(expect)}
	}
	// A sending error is io.EOF: the reason comes with the answer.
	if err := up.Send(&api.AppendReq{Content: &api.AppendReq_Options_{Options: o}}); err != nil && !errors.Is(err, io.EOF) {
		return answer{}, err
	}
	for _, n := range ids {
		m := &api.AppendReq_ProposedMessage{Id: uuidOf(n), Data: data, Metadata: map[string]string{"type": typ, "content-type": "application/json"}}
		if err := up.Send(&api.AppendReq{Content: &api.AppendReq_ProposedMessage_{ProposedMessage: m}}); err != nil && !errors.Is(err, io.EOF) {
			return answer{}, err
		}
	}
	res, err := up.CloseAndRecv()
	if err != nil {
		return answer{}, err
	}
	if res.GetWrongExpectedVersion() != nil {
		return answer{wrong: true}, nil
	}
	ok := res.GetSuccess()
	return answer{ok: true, rev: ok.GetCurrentRevision(), pos: ok.GetPosition().GetCommitPosition()}, nil
}

// seen is an event as a read shows it.
type seen struct {
	Stream   string
	ID       uint64
	Rev, Pos uint64
}

func (c client) read(ctx context.Context, o *api.ReadReq_Options) (events []seen, found bool, err error) {
	o.UuidOption = &api.ReadReq_Options_UUIDOption{Content: &api.ReadReq_Options_UUIDOption_Structured{Structured: &shared.Empty{}}}
	down, err := c.Read(ctx, &api.ReadReq{Options: o})
	if err != nil {
		return nil, false, err
	}
	for {
		m, err := down.Recv()
		if errors.Is(err, io.EOF) {
			return events, true, nil
		}
		if err != nil {
			return nil, false, err
		}
		if m.GetStreamNotFound() != nil {
			return nil, false, nil
		}
		e := m.GetEvent().GetEvent()
		events = append(events, seen{
			Stream: string(e.GetStreamIdentifier().GetStreamName()), ID: numberOf(e.GetId()),
			Rev: e.GetStreamRevision(), Pos: e.GetCommitPosition(),
		})
	}
}

func (c client) readStream(ctx context.Context, stream string, back bool, from *uint64, count uint64) ([]seen, bool, error) {
	so := &api.ReadReq_Options_StreamOptions{StreamIdentifier: &shared.StreamIdentifier{StreamName: []byte(stream)}}
	switch {
	case from != nil:
		so.RevisionOption = &api.ReadReq_Options_StreamOptions_Revision{Revision: *from}
	case back:
		so.RevisionOption = &api.ReadReq_Options_StreamOptions_End{End: &shared.Empty{}}
	default:
		so.RevisionOption = &api.ReadReq_Options_StreamOptions_Start{Start: &shared.Empty{}}
	}
	o := &api.ReadReq_Options{StreamOption: &api.ReadReq_Options_Stream{Stream: so}, CountOption: &api.ReadReq_Options_Count{Count: count}}
	if back {
		o.ReadDirection = api.ReadReq_Options_Backwards
	}
	return c.read(ctx, o)
}

func (c client) readAll(ctx context.Context, back bool, count uint64) ([]seen, error) {
	ao := &api.ReadReq_Options_AllOptions{}
	if back {
		ao.AllOption = &api.ReadReq_Options_AllOptions_End{End: &shared.Empty{}}
	} else {
		ao.AllOption = &api.ReadReq_Options_AllOptions_Start{Start: &shared.Empty{}}
	}
	o := &api.ReadReq_Options{StreamOption: &api.ReadReq_Options_All{All: ao}, CountOption: &api.ReadReq_Options_Count{Count: count}}
	if back {
		o.ReadDirection = api.ReadReq_Options_Backwards
	}
	events, _, err := c.read(ctx, o)
	return events, err
}

// verify is the invariant check that every stateful test ends with.
func verify(tb testing.TB, dir string, events int) {
	tb.Helper()
	r, err := eventstore.Verify(tb.Context(), dir)
	if err != nil {
		tb.Fatalf("verify: %v", err)
	}
	if events >= 0 && r.Events != events {
		tb.Fatalf("the log holds %d events, want %d", r.Events, events)
	}
}
