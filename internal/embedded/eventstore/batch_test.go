package eventstore_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"testing"
	"time"

	"github.com/EventStore/EventStore-Client-Go/v4/protos/shared"
	api "github.com/EventStore/EventStore-Client-Go/v4/protos/streams"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/emptypb"

	"example.com/keytrail/internal/embedded/eventstore"
)

// batchOf returns a message of a batch append: its first, with options.
func batchOf(correlation int, stream string, expect int64, final bool, ids ...uint64) *api.BatchAppendReq {
	m := moreOf(correlation, final, ids...)
	o := &api.BatchAppendReq_Options{StreamIdentifier: &shared.StreamIdentifier{StreamName: []byte(stream)}}
	switch expect {
	case anyRevision:
		o.ExpectedStreamPosition = &api.BatchAppendReq_Options_Any{Any: &emptypb.Empty{}}
	case noStream:
		o.ExpectedStreamPosition = &api.BatchAppendReq_Options_NoStream{NoStream: &emptypb.Empty{}}
	case streamExists:
		o.ExpectedStreamPosition = &api.BatchAppendReq_Options_StreamExists{StreamExists: &emptypb.Empty{}}
	default:
		o.ExpectedStreamPosition = &api.BatchAppendReq_Options_StreamPosition{StreamPosition: uint64(expect)}
	}
	m.Options = o
	return m
}

func moreOf(correlation int, final bool, ids ...uint64) *api.BatchAppendReq {
	m := &api.BatchAppendReq{CorrelationId: uuidOf(number(correlation)), IsFinal: final}
	for _, n := range ids {
		m.ProposedMessages = append(m.ProposedMessages, &api.BatchAppendReq_ProposedMessage{
			Id: uuidOf(n), Data: []byte("{}"), Metadata: map[string]string{"type": "t", "content-type": "application/json"},
		})
	}
	return m
}

// batchCall is one call of BatchAppend.
type batchCall struct {
	t  *testing.T
	up api.Streams_BatchAppendClient
}

func startBatch(t *testing.T, c client) batchCall {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	t.Cleanup(cancel)
	up, err := c.BatchAppend(ctx)
	if err != nil {
		t.Fatal(err)
	}
	return batchCall{t, up}
}

func (b batchCall) send(m *api.BatchAppendReq) {
	b.t.Helper()
	if err := b.up.Send(m); err != nil {
		b.t.Fatal(err)
	}
}

// answers returns the next n answers by correlation.
func (b batchCall) answers(n int) map[int]*api.BatchAppendResp {
	b.t.Helper()
	out := map[int]*api.BatchAppendResp{}
	for range n {
		m, err := b.up.Recv()
		if err != nil {
			b.t.Fatal(err)
		}
		out[int(numberOf(m.GetCorrelationId())>>16)] = m
	}
	return out
}

func TestBatchAppendAnswersEachAppend(t *testing.T) {
	dir := t.TempDir()
	s, stop := open(t, eventstore.Config{Dir: dir, MaxAppendBytes: 4096})
	c := dial(t, s)
	if _, err := c.Tombstone(t.Context(), &api.TombstoneReq{Options: &api.TombstoneReq_Options{
		StreamIdentifier: &shared.StreamIdentifier{StreamName: []byte("kt.gone")}, ExpectedStreamRevision: &api.TombstoneReq_Options_NoStream{NoStream: &shared.Empty{}},
	}}); err != nil {
		t.Fatal(err)
	}
	b := startBatch(t, c)
	b.send(batchOf(1, "kt.a", noStream, false, number(1)))
	b.send(batchOf(2, "kt.b", noStream, true, number(10), number(11))) // Between the parts of another.
	b.send(moreOf(1, true, number(2), number(3)))
	b.send(batchOf(3, "kt.a", 2, true, number(4)))
	b.send(batchOf(4, "kt.a", 1, true, number(5)))                     // A wrong revision.
	b.send(batchOf(5, "kt.gone", anyRevision, true, number(6)))        // A tombstone.
	b.send(batchOf(6, "kt.b", noStream, true, number(10), number(11))) // A repeat.
	large := batchOf(7, "kt.large", noStream, false, number(7))
	large.ProposedMessages[0].Data = make([]byte, 5000)
	b.send(large)
	b.send(moreOf(7, true, number(8))) // What belongs to a refused append is dropped.
	b.send(batchOf(8, "", noStream, true, number(9)))
	late := batchOf(9, "kt.late", noStream, true, number(12))
	late.Options.DeadlineOption = &api.BatchAppendReq_Options_Deadline{Deadline: durationpb.New(-time.Second)}
	b.send(late)
	odd := batchOf(10, "kt.odd", noStream, true, number(13))
	odd.ProposedMessages[0].Metadata = nil
	b.send(odd)
	if err := b.up.CloseSend(); err != nil {
		t.Fatal(err)
	}
	got := b.answers(10)
	if _, err := b.up.Recv(); !errors.Is(err, io.EOF) {
		t.Errorf("after the last answer: %v", err)
	}
	for id, want := range map[int]uint64{1: 2, 2: 1, 3: 3, 6: 1} {
		if ok := got[id].GetSuccess(); ok == nil || ok.GetCurrentRevision() != want || ok.GetPosition().GetCommitPosition() == 0 {
			t.Errorf("append %d: got %v, want revision %d", id, got[id], want)
		}
	}
	for id, want := range map[int]codes.Code{
		4: codes.AlreadyExists, 5: codes.NotFound, 7: codes.InvalidArgument, 8: codes.InvalidArgument, 9: codes.DeadlineExceeded, 10: codes.InvalidArgument,
	} {
		if st := got[id].GetError(); st == nil || codes.Code(st.GetCode()) != want || len(st.GetDetails()) != 1 {
			t.Errorf("append %d: got %v, want %s with its details", id, got[id], want)
		}
	}
	var wrong shared.WrongExpectedVersion
	if err := got[4].GetError().GetDetails()[0].UnmarshalTo(&wrong); err != nil || wrong.GetExpectedStreamPosition() != 1 || wrong.GetCurrentStreamRevision() != 3 {
		t.Errorf("the wrong revision says %v, %v", &wrong, err)
	}
	stop()
	verify(t, dir, 7) // Six events and the tombstone.
}

// Appends that are begun and never ended must not fill the memory.
func TestBatchAppendsLeftOpenAreBounded(t *testing.T) {
	s, _ := open(t, eventstore.Config{})
	b := startBatch(t, dial(t, s))
	const tried = 400
	for i := range tried {
		b.send(batchOf(i+1, fmt.Sprintf("kt.s-%d", i), noStream, false, number(i+1)))
	}
	refused := b.answers(tried - eventstore.BatchOpenMax)
	for id, m := range refused {
		if m.GetError() == nil || id <= eventstore.BatchOpenMax {
			t.Fatalf("append %d: got %v", id, m)
		}
	}
	b.send(moreOf(1, true)) // The others go on.
	if ok := b.answers(1)[1].GetSuccess(); ok == nil {
		t.Error("an append that was begun in time was not stored")
	}
}

// Close must not wait for a client that keeps its call open.
func TestCloseEndsABatchThatIsOpen(t *testing.T) {
	dir := t.TempDir()
	s, _ := open(t, eventstore.Config{Dir: dir})
	b := startBatch(t, dial(t, s))
	b.send(batchOf(1, "kt.a", noStream, true, number(1)))
	if ok := b.answers(1)[1].GetSuccess(); ok == nil {
		t.Fatal("not stored")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := s.Close(ctx); err != nil {
		t.Fatal(err)
	}
	if _, err := b.up.Recv(); status.Code(err) != codes.Unavailable {
		t.Errorf("the call ended with %v", err)
	}
	if ctx.Err() != nil {
		t.Error("closing waited for the client")
	}
	verify(t, dir, 1)
}

// TestBatchStoresEventsAsTheyWereProposed: data, metadata and content type too.
func TestBatchStoresEventsAsTheyWereProposed(t *testing.T) {
	s, stop := open(t, eventstore.Config{Dir: t.TempDir()})
	defer stop()
	c := dial(t, s)
	m := batchOf(1, "kt.a", noStream, true, number(1), number(2))
	m.ProposedMessages[0].Metadata["content-type"] = "application/octet-stream"
	m.ProposedMessages[0].Data = []byte{0, 255}
	m.ProposedMessages[1].CustomMetadata = []byte(`{"by":"x"}`)
	b := startBatch(t, c)
	b.send(m)
	if got := b.answers(1)[1]; got.GetSuccess() == nil {
		t.Fatalf("append: %v", got)
	}
	down, err := c.Read(t.Context(), &api.ReadReq{Options: &api.ReadReq_Options{
		StreamOption: &api.ReadReq_Options_Stream{Stream: &api.ReadReq_Options_StreamOptions{
			StreamIdentifier: &shared.StreamIdentifier{StreamName: []byte("kt.a")},
			RevisionOption:   &api.ReadReq_Options_StreamOptions_Start{Start: &shared.Empty{}},
		}},
		CountOption: &api.ReadReq_Options_Count{Count: 2},
		UuidOption:  &api.ReadReq_Options_UUIDOption{Content: &api.ReadReq_Options_UUIDOption_Structured{Structured: &shared.Empty{}}},
	}})
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range m.ProposedMessages {
		resp, err := down.Recv()
		if err != nil {
			t.Fatal(err)
		}
		got := resp.GetEvent().GetEvent()
		kind := got.GetMetadata()["content-type"]
		if !bytes.Equal(got.GetData(), want.Data) || !bytes.Equal(got.GetCustomMetadata(), want.CustomMetadata) || kind != want.Metadata["content-type"] {
			t.Errorf("event %d: data %q, metadata %q, content type %s", i, got.GetData(), got.GetCustomMetadata(), kind)
		}
	}
}
