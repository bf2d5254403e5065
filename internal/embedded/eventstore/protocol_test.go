package eventstore_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/EventStore/EventStore-Client-Go/v4/protos/gossip"
	"github.com/EventStore/EventStore-Client-Go/v4/protos/serverfeatures"
	"github.com/EventStore/EventStore-Client-Go/v4/protos/shared"
	api "github.com/EventStore/EventStore-Client-Go/v4/protos/streams"
	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"example.com/keytrail/internal/embedded/eventstore"
)

func identifier(stream string) *shared.StreamIdentifier {
	return &shared.StreamIdentifier{StreamName: []byte(stream)}
}

// subscription returns the request that follows the whole log.
func subscription() *api.ReadReq {
	return &api.ReadReq{Options: &api.ReadReq_Options{
		StreamOption: &api.ReadReq_Options_All{All: &api.ReadReq_Options_AllOptions{AllOption: &api.ReadReq_Options_AllOptions_Start{Start: &shared.Empty{}}}},
		CountOption:  &api.ReadReq_Options_Subscription{Subscription: &api.ReadReq_Options_SubscriptionOptions{}},
		UuidOption:   &api.ReadReq_Options_UUIDOption{Content: &api.ReadReq_Options_UUIDOption_Structured{Structured: &shared.Empty{}}},
	}}
}

// Clients tell errors apart by trailers, not by texts.
func TestTrailersTellErrorsApart(t *testing.T) {
	s, _ := open(t, eventstore.Config{MaxAppendBytes: 1000})
	c := dial(t, s)
	if _, err := c.append(t.Context(), "kt.a", noStream, "t", nil, number(1)); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Tombstone(t.Context(), &api.TombstoneReq{Options: &api.TombstoneReq_Options{
		StreamIdentifier: identifier("kt.gone"), ExpectedStreamRevision: &api.TombstoneReq_Options_Any{Any: &shared.Empty{}},
	}}); err != nil {
		t.Fatal(err)
	}
	appendOf := func(stream string, m *api.AppendReq_ProposedMessage) func(context.Context, *metadata.MD) error {
		return func(ctx context.Context, md *metadata.MD) error {
			up, err := c.Append(ctx, grpc.Trailer(md))
			if err != nil {
				return err
			}
			options := &api.AppendReq_Options{StreamIdentifier: identifier(stream), ExpectedStreamRevision: &api.AppendReq_Options_Any{Any: &shared.Empty{}}}
			for _, r := range []*api.AppendReq{
				{Content: &api.AppendReq_Options_{Options: options}}, {Content: &api.AppendReq_ProposedMessage_{ProposedMessage: m}},
			} {
				if err := up.Send(r); err != nil && !errors.Is(err, io.EOF) {
					return err
				}
			}
			_, err = up.CloseAndRecv()
			return err
		}
	}
	kind := map[string]string{"type": "t", "content-type": "application/json"}
	for _, test := range []struct {
		name string
		call func(context.Context, *metadata.MD) error
		code codes.Code
		want map[string]string
	}{
		{
			"too large", appendOf("kt.a", &api.AppendReq_ProposedMessage{Id: uuidOf(number(2)), Metadata: kind, Data: make([]byte, 1000)}), codes.InvalidArgument,
			map[string]string{"exception": "maximum-append-size-exceeded", "maximum-append-size": "1000"},
		},
		{
			"no type", appendOf("kt.a", &api.AppendReq_ProposedMessage{Id: uuidOf(number(2))}), codes.InvalidArgument,
			map[string]string{"exception": "missing-required-metadata-property", "required-metadata-properties": "type,content-type"},
		},
		{
			"append to a tombstone", appendOf("kt.gone", &api.AppendReq_ProposedMessage{Id: uuidOf(number(2)), Metadata: kind}), codes.FailedPrecondition,
			map[string]string{"exception": "stream-deleted", "stream-name": "kt.gone"},
		},
		{"delete at a wrong revision", func(ctx context.Context, md *metadata.MD) error {
			_, err := c.Delete(ctx, &api.DeleteReq{Options: &api.DeleteReq_Options{
				StreamIdentifier: identifier("kt.a"), ExpectedStreamRevision: &api.DeleteReq_Options_Revision{Revision: 7},
			}}, grpc.Trailer(md))
			return err
		}, codes.FailedPrecondition, map[string]string{"exception": "wrong-expected-version", "stream-name": "kt.a", "expected-version": "7", "actual-version": "0"}},
		{"read of a tombstone", func(ctx context.Context, md *metadata.MD) error {
			o := subscription().GetOptions()
			o.StreamOption = &api.ReadReq_Options_Stream{Stream: &api.ReadReq_Options_StreamOptions{StreamIdentifier: identifier("kt.gone")}}
			down, err := c.Read(ctx, &api.ReadReq{Options: o}, grpc.Trailer(md))
			for err == nil {
				_, err = down.Recv()
			}
			return err
		}, codes.FailedPrecondition, map[string]string{"exception": "stream-deleted", "stream-name": "kt.gone"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			var md metadata.MD
			if err := test.call(t.Context(), &md); status.Code(err) != test.code {
				t.Fatalf("got %v, want %s", err, test.code)
			}
			for key, want := range test.want {
				if got := md.Get(key); len(got) != 1 || got[0] != want {
					t.Errorf("trailer %s is %v, want %q", key, got, want)
				}
			}
		})
	}
}

// Clients other than Go's ask for ids as text.
func TestIdsGoOutAsTextWhenAsked(t *testing.T) {
	s, _ := open(t, eventstore.Config{})
	c := dial(t, s)
	if _, err := c.append(t.Context(), "kt.a", noStream, "t", nil, number(7)); err != nil {
		t.Fatal(err)
	}
	if _, err := c.append(t.Context(), "kt.links", noStream, "$>", []byte("0@kt.a"), number(8)); err != nil {
		t.Fatal(err)
	}
	down, err := c.Read(t.Context(), &api.ReadReq{Options: &api.ReadReq_Options{
		StreamOption: &api.ReadReq_Options_Stream{Stream: &api.ReadReq_Options_StreamOptions{StreamIdentifier: identifier("kt.links")}},
		ResolveLinks: true, CountOption: &api.ReadReq_Options_Count{Count: 1},
		UuidOption: &api.ReadReq_Options_UUIDOption{Content: &api.ReadReq_Options_UUIDOption_String_{String_: &shared.Empty{}}},
	}})
	if err != nil {
		t.Fatal(err)
	}
	m, err := down.Recv()
	if err != nil {
		t.Fatal(err)
	}
	got := []string{m.GetEvent().GetEvent().GetId().GetString_(), m.GetEvent().GetLink().GetId().GetString_()}
	if want := []string{uuid.UUID(idOf(number(7))).String(), uuid.UUID(idOf(number(8))).String()}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestDeadlineAndCancellationEndCalls(t *testing.T) {
	s, _ := open(t, eventstore.Config{})
	c := dial(t, s)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	sub, err := c.Read(ctx, subscription())
	for err == nil {
		_, err = sub.Recv()
	}
	if status.Code(err) != codes.DeadlineExceeded {
		t.Errorf("a subscription past its deadline: got %v", err)
	}
	over, stop := context.WithCancel(t.Context())
	stop()
	if _, err := c.append(over, "kt.a", noStream, "t", nil, number(1)); status.Code(err) != codes.Canceled {
		t.Errorf("a cancelled append: got %v", err)
	}
	if events, _, err := c.readStream(t.Context(), "kt.a", false, nil, 1); err != nil || len(events) != 0 {
		t.Errorf("the cancelled append stored %v, %v", events, err)
	}
}

// What is advertised is what there is: clients choose their ways by it.
func TestFeaturesAreWhatIsServed(t *testing.T) {
	s, _ := open(t, eventstore.Config{})
	conn, err := grpc.NewClient("unix://"+s.Address(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := conn.Close(); err != nil {
			t.Error(err)
		}
	}()
	f, err := serverfeatures.NewServerFeaturesClient(conn).GetSupportedMethods(t.Context(), &shared.Empty{})
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for _, m := range f.GetMethods() {
		got[m.GetServiceName()+"/"+m.GetMethodName()] = fmt.Sprint(m.GetFeatures())
	}
	const streams = "event_store.client.streams.streams/"
	want := map[string]string{
		streams + "read": "[position events]", streams + "append": "[]", streams + "batchappend": "[deadline_duration]", streams + "delete": "[]", streams + "tombstone": "[]",
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("features (-want +got):\n%s", d)
	}
	nodes, err := gossip.NewGossipClient(conn).Read(t.Context(), &shared.Empty{})
	if err != nil || len(nodes.GetMembers()) != 1 || nodes.GetMembers()[0].GetState() != gossip.MemberInfo_Leader || !nodes.GetMembers()[0].GetIsAlive() {
		t.Errorf("gossip: got %v, %v, want one leader", nodes, err)
	}
}

// The client pings every 10 s, also when nothing happens; gRPC's own default would cut
// it off after the third.
func TestIdleSubscriptionsStayConnected(t *testing.T) {
	if testing.Short() {
		t.Skip("it waits 35 s for three pings; make test runs it")
	}
	t.Parallel()
	s, _ := open(t, eventstore.Config{})
	conn, err := grpc.NewClient("unix://"+s.Address(), grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 10 * time.Second, Timeout: 10 * time.Second, PermitWithoutStream: true}))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := conn.Close(); err != nil {
			t.Error(err)
		}
	})
	// No deadline: the server would know it too, and end the call at the same moment.
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	defer time.AfterFunc(35*time.Second, cancel).Stop()
	sub, err := api.NewStreamsClient(conn).Read(ctx, subscription())
	for err == nil {
		_, err = sub.Recv()
	}
	if status.Code(err) != codes.Canceled || ctx.Err() == nil {
		t.Errorf("an idle subscription ended with %v", err)
	}
}

// Subscribers that do not read cost the server what flow control lets out, however much
// is appended.
func TestSlowSubscribersCostBoundedMemory(t *testing.T) {
	s, _ := open(t, eventstore.Config{})
	c := dial(t, s)
	const subscribers, appends, dataBytes = 20, 240, 512 << 10
	for range subscribers {
		sub, err := dial(t, s).Read(t.Context(), subscription())
		if err != nil {
			t.Fatal(err)
		}
		if m, err := sub.Recv(); err != nil || m.GetConfirmation() == nil {
			t.Fatalf("got %v, %v, want a confirmation", m, err)
		}
	}
	heap := func() int64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc)
	}
	before := heap()
	data := make([]byte, dataBytes)
	for i := range appends { // 120 MiB, of which each subscriber should hold some hundred KiB.
		if a, err := c.append(t.Context(), fmt.Sprintf("kt.s-%d", i), noStream, "t", data, number(i+1)); err != nil || !a.ok {
			t.Fatalf("append: %+v, %v", a, err)
		}
	}
	if grown := heap() - before; grown > 80<<20 {
		t.Errorf("%d subscribers that do not read hold %d MiB after %d MiB were appended", subscribers, grown>>20, appends*dataBytes>>20)
	}
}
