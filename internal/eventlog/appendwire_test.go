package eventlog_test

import (
	"testing"

	"github.com/EventStore/EventStore-Client-Go/v4/protos/shared"
	api "github.com/EventStore/EventStore-Client-Go/v4/protos/streams"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/encoding"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"
	"pgregory.net/rapid"
)

// TestAppendsAreEncodedAsByReflection: what the codec writes by hand, anybody reads as the
// message that it was.
func TestAppendsAreEncodedAsByReflection(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		m := drawAppend(t)
		got, err := encoding.GetCodecV2("proto").Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		var back api.AppendReq
		if err := proto.Unmarshal(got.Materialize(), &back); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(m, &back, protocmp.Transform(), protocmp.IgnoreEmptyMessages()); diff != "" {
			t.Fatalf("read back, -sent +read:\n%s", diff)
		}
	})
}

// drawAppend draws a message as the client makes it.
func drawAppend(t *rapid.T) *api.AppendReq {
	if rapid.Bool().Draw(t, "options") {
		o := &api.AppendReq_Options{StreamIdentifier: &shared.StreamIdentifier{StreamName: rapid.SliceOfN(rapid.Byte(), 1, 300).Draw(t, "stream")}}
		if rapid.Bool().Draw(t, "new") {
			o.ExpectedStreamRevision = &api.AppendReq_Options_NoStream{NoStream: &shared.Empty{}}
		} else {
			o.ExpectedStreamRevision = &api.AppendReq_Options_Revision{Revision: rapid.Uint64().Draw(t, "revision")}
		}
		return &api.AppendReq{Content: &api.AppendReq_Options_{Options: o}}
	}
	bytes := rapid.SliceOfN(rapid.Byte(), 0, 400)
	return &api.AppendReq{Content: &api.AppendReq_ProposedMessage_{ProposedMessage: &api.AppendReq_ProposedMessage{
		Id: &shared.UUID{Value: &shared.UUID_Structured_{Structured: &shared.UUID_Structured{
			MostSignificantBits: rapid.Int64().Draw(t, "high"), LeastSignificantBits: rapid.Int64().Draw(t, "low"),
		}}},
		Metadata:       rapid.MapOfN(rapid.StringN(0, 60, 200), rapid.StringN(0, 60, 200), 1, 4).Draw(t, "metadata"),
		CustomMetadata: bytes.Draw(t, "meta"), Data: bytes.Draw(t, "data"),
	}}}
}
