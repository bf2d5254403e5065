package eventstore_test

import (
	"bytes"
	"strconv"
	"testing"

	"github.com/EventStore/EventStore-Client-Go/v4/protos/shared"
	api "github.com/EventStore/EventStore-Client-Go/v4/protos/streams"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"
	"pgregory.net/rapid"

	"example.com/keytrail/internal/embedded/eventstore"
)

// What is stored must be what the protocol's own code would send.
func TestFrameIsTheProtocolsMessage(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := eventstore.Proposed{
			ID: idOf(rapid.Uint64().Draw(t, "id")), Type: rapid.String().Draw(t, "type"), JSON: rapid.Bool().Draw(t, "json"),
			Data: rapid.SliceOf(rapid.Byte()).Draw(t, "data"), Meta: rapid.SliceOf(rapid.Byte()).Draw(t, "meta"),
		}
		stream := rapid.StringN(1, 300, 4000).Draw(t, "stream")
		pos, rev := rapid.Uint64().Draw(t, "pos"), rapid.Uint64().Draw(t, "rev")
		created := rapid.Int64Range(0, 1<<60).Draw(t, "created")

		gotStream, gotType, gotPos, gotRev, wire, err := eventstore.DecodeFrame(eventstore.EncodeFrame(p, stream, pos, rev, created))
		if err != nil {
			t.Fatal(err)
		}
		if gotStream != stream || gotType != p.Type || gotPos != pos || gotRev != rev {
			t.Errorf("the header says %q %q %d %d", gotStream, gotType, gotPos, gotRev)
		}
		var got api.ReadResp
		if err := proto.Unmarshal(wire, &got); err != nil {
			t.Fatal(err)
		}
		content := "application/octet-stream"
		if p.JSON {
			content = "application/json"
		}
		id := uuidOf(0)
		id.GetStructured().MostSignificantBits = got.GetEvent().GetEvent().GetId().GetStructured().GetMostSignificantBits()
		want := &api.ReadResp{Content: &api.ReadResp_Event{Event: &api.ReadResp_ReadEvent{
			Event: &api.ReadResp_ReadEvent_RecordedEvent{
				Id:               id,
				StreamIdentifier: &shared.StreamIdentifier{StreamName: []byte(stream)},
				StreamRevision:   rev, PreparePosition: pos, CommitPosition: pos,
				Metadata: map[string]string{"type": p.Type, "content-type": content, "created": strconv.FormatInt(created, 10)},
				Data:     p.Data, CustomMetadata: p.Meta,
			},
			Position: &api.ReadResp_ReadEvent_CommitPosition{CommitPosition: pos},
		}}}
		if d := cmp.Diff(want, &got, protocmp.Transform()); d != "" {
			t.Errorf("message (-want +got):\n%s", d)
		}
		if idOf(uint64(id.GetStructured().GetMostSignificantBits())) != p.ID {
			t.Error("the message has another id")
		}
	})
}

// Damaged bytes are an error, never a panic or a wrong slice.
func FuzzFramesOfDamagedBlocks(f *testing.F) {
	good := eventstore.EncodeFrame(eventstore.Proposed{ID: idOf(1), Type: "t", Data: []byte("data")}, "kt.a", 5, 6, 7)
	f.Add(good, 1)
	f.Add(append(bytes.Clone(good), good...), 2)
	f.Add(good[:len(good)-1], 1)
	f.Add([]byte{}, 0)
	f.Fuzz(func(t *testing.T, body []byte, n int) {
		if err := eventstore.WalkFrames(body, n); err == nil && n == 0 && len(body) != 0 {
			t.Error("a block without events has bytes")
		}
	})
}
