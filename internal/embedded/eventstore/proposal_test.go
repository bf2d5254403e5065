package eventstore_test

import (
	"testing"

	"github.com/EventStore/EventStore-Client-Go/v4/protos/shared"
	api "github.com/EventStore/EventStore-Client-Go/v4/protos/streams"
	"google.golang.org/protobuf/proto"

	"example.com/keytrail/internal/embedded/eventstore"
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
		first, other, err := eventstore.ReadAppend(t.Context(), wire, true)
		wantFirst, wantOther, wantErr := eventstore.ReadAppend(t.Context(), wire, false)
		if (err == nil) != (wantErr == nil) || first != wantFirst || other != wantOther {
			t.Fatalf("by hand: %s; %s; %v\nby reflection: %s; %s; %v", first, other, err, wantFirst, wantOther, wantErr)
		}
	})
}
