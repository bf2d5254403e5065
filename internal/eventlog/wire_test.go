package eventlog_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/EventStore/EventStore-Client-Go/v4/protos/shared"
	api "github.com/EventStore/EventStore-Client-Go/v4/protos/streams"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"
)

// recordedEvent returns an event as servers send one.
func recordedEvent() *api.ReadResp_ReadEvent_RecordedEvent {
	return &api.ReadResp_ReadEvent_RecordedEvent{
		Id:               &shared.UUID{Value: &shared.UUID_Structured_{Structured: &shared.UUID_Structured{MostSignificantBits: -5, LeastSignificantBits: 7}}},
		StreamIdentifier: &shared.StreamIdentifier{StreamName: []byte("kt.apikey-1")},
		StreamRevision:   3, PreparePosition: 1 << 40, CommitPosition: 1 << 40,
		Metadata:       map[string]string{"type": "apikey.created.v1", "created": "17637000000000000", "content-type": "application/json"},
		CustomMetadata: []byte(`{"by":"x"}`), Data: []byte(`{"pad":"` + strings.Repeat("x", 290) + `"}`),
	}
}

func response(event, link *api.ReadResp_ReadEvent_RecordedEvent) *api.ReadResp {
	return &api.ReadResp{Content: &api.ReadResp_Event{Event: &api.ReadResp_ReadEvent{
		Event: event, Link: link, Position: &api.ReadResp_ReadEvent_CommitPosition{CommitPosition: 1 << 40},
	}}}
}

// answers returns what a server may answer a read or a subscription, and what it may not.
func answers(tb testing.TB) map[string][]byte {
	tb.Helper()
	with := func(edit func(*api.ReadResp_ReadEvent_RecordedEvent)) *api.ReadResp {
		e := recordedEvent()
		edit(e)
		return response(e, nil)
	}
	out := map[string][]byte{}
	for name, m := range map[string]*api.ReadResp{
		"event":              response(recordedEvent(), nil),
		"resolved link":      response(recordedEvent(), recordedEvent()),
		"link alone":         response(nil, recordedEvent()),
		"without a position": {Content: &api.ReadResp_Event{Event: &api.ReadResp_ReadEvent{Event: recordedEvent(), Position: &api.ReadResp_ReadEvent_NoPosition{NoPosition: &shared.Empty{}}}}},
		"id as text": with(func(e *api.ReadResp_ReadEvent_RecordedEvent) {
			e.Id = &shared.UUID{Value: &shared.UUID_String_{String_: "00000000-0000-4000-8000-000000000001"}}
		}),
		"no data":       with(func(e *api.ReadResp_ReadEvent_RecordedEvent) { e.Data, e.CustomMetadata = nil, nil }),
		"no metadata":   with(func(e *api.ReadResp_ReadEvent_RecordedEvent) { e.Metadata = nil }),
		"more metadata": with(func(e *api.ReadResp_ReadEvent_RecordedEvent) { e.Metadata[""] = "" }),
		"no id":         with(func(e *api.ReadResp_ReadEvent_RecordedEvent) { e.Id = nil }),
		"empty stream":  with(func(e *api.ReadResp_ReadEvent_RecordedEvent) { e.StreamIdentifier = &shared.StreamIdentifier{} }),
		"empty event":   response(&api.ReadResp_ReadEvent_RecordedEvent{}, nil),
		"nothing":       {},
		"checkpoint":    {Content: &api.ReadResp_Checkpoint_{Checkpoint: &api.ReadResp_Checkpoint{CommitPosition: 5, PreparePosition: 5}}},
		"confirmation":  {Content: &api.ReadResp_Confirmation{Confirmation: &api.ReadResp_SubscriptionConfirmation{SubscriptionId: "x"}}},
		"caught up":     {Content: &api.ReadResp_CaughtUp_{CaughtUp: &api.ReadResp_CaughtUp{}}},
	} {
		b, err := proto.Marshal(m)
		if err != nil {
			tb.Fatal(err)
		}
		out[name] = b
	}
	event := out["event"]
	out["two events"] = slices.Concat(event, event)
	out["event and checkpoint"] = slices.Concat(event, out["checkpoint"])
	out["cut short"] = event[:len(event)-3]
	out["unknown field"] = slices.Concat(event, number(99, 1))
	recorded, err := proto.Marshal(recordedEvent())
	if err != nil {
		tb.Fatal(err)
	}
	for name, more := range map[string][]byte{
		"empty bytes":            slices.Concat(nest(7), nest(8), nest(2, nest(3))),
		"key that is not text":   nest(6, nest(1, []byte("\xff")), nest(2, []byte("v"))),
		"value that is not text": nest(6, nest(1, []byte("k")), nest(2, []byte("\xff"))),
		"entry without a value":  nest(6, nest(1, []byte("k"))),
		"entry backwards":        nest(6, nest(2, []byte("v")), nest(1, []byte("k"))),
		"key twice":              slices.Concat(nest(6, nest(1, []byte("k")), nest(2, []byte("v"))), nest(6, nest(1, []byte("k")), nest(2, []byte("w")))),
		"id twice":               nest(1, nest(1, number(1, 9))),
		"name twice":             nest(2, nest(1, []byte("x"))),
		"number for bytes":       number(8, 1),
		"bytes for a number":     nest(3, []byte("x")),
		"unknown number inside":  number(9, 1),
		"data twice":             nest(8, []byte("later")),
	} {
		out[name] = nest(1, nest(1, recorded, more), number(3, 5))
	}
	out["empty bytes alone"] = nest(1, nest(1, nest(2, nest(3)), nest(7), nest(8)))
	out["event twice inside"] = nest(1, nest(1, recorded), nest(1, number(3, 9)), number(3, 5))
	out["position twice"] = nest(1, nest(1, recorded), number(3, 5), number(3, 6))
	out["unknown number beside"] = nest(1, nest(1, recorded), number(5, 5))
	return out
}

// nest returns a field that holds the parts.
func nest(num protowire.Number, parts ...[]byte) []byte {
	return protowire.AppendBytes(protowire.AppendTag(nil, num, protowire.BytesType), slices.Concat(parts...))
}

// number returns a field that is one.
func number(num protowire.Number, v uint64) []byte {
	return protowire.AppendVarint(protowire.AppendTag(nil, num, protowire.VarintType), v)
}

// Whatever the bytes are, the client gets what the protobuf library makes of them.
func TestAnswersAreDecodedAsTheLibraryDoes(t *testing.T) {
	for name, wire := range answers(t) {
		t.Run(name, func(t *testing.T) { checkDecoding(t, wire) })
	}
}

func FuzzDecodeAnswer(f *testing.F) {
	for _, wire := range answers(f) {
		f.Add(wire)
	}
	f.Fuzz(func(t *testing.T, wire []byte) { checkDecoding(t, wire) })
}

// checkDecoding compares the codec that the client gets with the library's decoder.
func checkDecoding(t *testing.T, wire []byte) {
	t.Helper()
	var want api.ReadResp
	wantErr := proto.Unmarshal(wire, &want)
	got := api.ReadResp{Content: &api.ReadResp_LastStreamPosition{LastStreamPosition: 1}} // It has to go.
	got.ProtoReflect().SetUnknown(number(99, 1))
	cut := len(wire) / 2 // It may come in several frames.
	gotErr := unmarshal(&got, wire[:cut], wire[cut:])
	if (gotErr != nil) != (wantErr != nil) {
		t.Fatalf("error %v, want %v", gotErr, wantErr)
	}
	if wantErr != nil {
		return
	}
	if diff := cmp.Diff(&want, &got, protocmp.Transform()); diff != "" {
		t.Errorf("the message differs (-want +got):\n%s", diff)
	}
	for _, f := range []func(*api.ReadResp) []byte{
		func(m *api.ReadResp) []byte { return m.GetEvent().GetEvent().GetData() },
		func(m *api.ReadResp) []byte { return m.GetEvent().GetEvent().GetCustomMetadata() },
		func(m *api.ReadResp) []byte { return m.GetEvent().GetEvent().GetStreamIdentifier().GetStreamName() },
	} {
		if w, g := f(&want), f(&got); (w == nil) != (g == nil) {
			t.Errorf("no bytes at all: %t, want %t", g == nil, w == nil)
		}
	}
}

// unmarshal decodes what came in frames, as the client does.
func unmarshal(into *api.ReadResp, frames ...[]byte) error {
	var data mem.BufferSlice
	for _, f := range frames {
		data = append(data, mem.SliceBuffer(f))
	}
	return encoding.GetCodecV2("proto").Unmarshal(data, into)
}

// The receiver of an event owns its bytes: gRPC uses the memory that they came in again.
func TestADecodedEventSharesNoMemoryWithTheConnection(t *testing.T) {
	wire := answers(t)["event"]
	var m api.ReadResp
	if err := unmarshal(&m, wire); err != nil {
		t.Fatal(err)
	}
	clear(wire)
	if diff := cmp.Diff(response(recordedEvent(), nil), &m, protocmp.Transform()); diff != "" {
		t.Errorf("the event changed with the buffer (-want +got):\n%s", diff)
	}
	e := m.GetEvent().GetEvent()
	_ = append(e.GetCustomMetadata(), strings.Repeat("y", 64)...)
	_ = append(e.GetStreamIdentifier().GetStreamName(), strings.Repeat("y", 64)...)
	if diff := cmp.Diff(response(recordedEvent(), nil), &m, protocmp.Transform()); diff != "" {
		t.Errorf("appending to one field changed another (-want +got):\n%s", diff)
	}
}

// An event takes the short way: catching up would be half as fast on the other.
func TestEventsAreDecodedByHand(t *testing.T) {
	const allocsMax = 12 // The library needs some thirty.
	wire := answers(t)["event"]
	got := testing.AllocsPerRun(100, func() {
		var m api.ReadResp
		if err := unmarshal(&m, wire); err != nil {
			t.Error(err)
		}
	})
	if got > allocsMax {
		t.Errorf("decoding an event allocates %.0f times, at most %d are expected", got, allocsMax)
	}
}
