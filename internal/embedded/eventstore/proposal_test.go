package eventstore

import (
	"reflect"
	"testing"

	"github.com/EventStore/EventStore-Client-Go/v4/protos/shared"
	api "github.com/EventStore/EventStore-Client-Go/v4/protos/streams"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/proto"
)

// FuzzAppendIsReadAsByReflection: whatever the bytes, an append is understood as the
// protocol's own decoder understands it, or refused as it refuses it.
func FuzzAppendIsReadAsByReflection(f *testing.F) {
	id := &shared.UUID{Value: &shared.UUID_Structured_{Structured: &shared.UUID_Structured{MostSignificantBits: -5, LeastSignificantBits: 1 << 40}}}
	text := &shared.UUID{Value: &shared.UUID_String_{String_: "0f6f1f0e-7b1c-4a5e-9a44-2d9b8f3c1a77"}}
	name := &shared.StreamIdentifier{StreamName: []byte("kt.key-1")}
	kinds := map[string]string{"type": "t.v1", "content-type": "application/json"}
	for _, m := range []*api.AppendReq{
		{Content: &api.AppendReq_Options_{Options: &api.AppendReq_Options{StreamIdentifier: name, ExpectedStreamRevision: &api.AppendReq_Options_Revision{Revision: 7}}}},
		{Content: &api.AppendReq_Options_{Options: &api.AppendReq_Options{StreamIdentifier: name, ExpectedStreamRevision: &api.AppendReq_Options_NoStream{NoStream: &shared.Empty{}}}}},
		{Content: &api.AppendReq_Options_{Options: &api.AppendReq_Options{StreamIdentifier: name, ExpectedStreamRevision: &api.AppendReq_Options_Any{Any: &shared.Empty{}}}}},
		{Content: &api.AppendReq_Options_{Options: &api.AppendReq_Options{StreamIdentifier: name, ExpectedStreamRevision: &api.AppendReq_Options_StreamExists{StreamExists: &shared.Empty{}}}}},
		{Content: &api.AppendReq_Options_{Options: &api.AppendReq_Options{StreamIdentifier: name}}},
		{Content: &api.AppendReq_ProposedMessage_{ProposedMessage: &api.AppendReq_ProposedMessage{Id: id, Metadata: kinds, Data: []byte(`{}`), CustomMetadata: []byte("m")}}},
		{Content: &api.AppendReq_ProposedMessage_{ProposedMessage: &api.AppendReq_ProposedMessage{Id: text, Metadata: kinds}}},
		{Content: &api.AppendReq_ProposedMessage_{ProposedMessage: &api.AppendReq_ProposedMessage{Id: id, Metadata: map[string]string{"type": "t.v1"}}}},
		{},
	} {
		wire, err := proto.Marshal(m)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(wire)
	}
	f.Fuzz(func(t *testing.T, wire []byte) {
		var byHand appendMessage
		errHand := byHand.unmarshal(mem.BufferSlice{mem.SliceBuffer(wire)})
		byReflection := appendMessage{other: new(api.AppendReq)}
		errReflection := proto.Unmarshal(wire, byReflection.other)
		if (errHand == nil) != (errReflection == nil) {
			t.Fatalf("by hand: %v; by reflection: %v", errHand, errReflection)
		}
		if errHand != nil {
			return
		}
		r, err := requestOf(&byHand)
		want, wantErr := requestOf(&byReflection)
		same(t, r, err, want, wantErr)
		e, err := eventOf(t.Context(), &byHand)
		wantEvent, wantErr := eventOf(t.Context(), &byReflection)
		same(t, e, err, wantEvent, wantErr)
	})
}

// same fails unless two ways of reading came to the same: the value, or an error.
func same(t *testing.T, got any, err error, want any, wantErr error) {
	t.Helper()
	if (err == nil) != (wantErr == nil) {
		t.Fatalf("by hand: %v; by reflection: %v", err, wantErr)
	}
	if err != nil {
		if err.Error() != wantErr.Error() {
			t.Fatalf("by hand: %v; by reflection: %v", err, wantErr)
		}
		return
	}
	if !reflect.DeepEqual(got, want) {
		t.Fatalf("by hand: %+v\nby reflection: %+v", got, want)
	}
}
