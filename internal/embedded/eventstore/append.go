package eventstore

import (
	"context"
	"errors"
	"io"
	"strconv"

	"github.com/EventStore/EventStore-Client-Go/v4/protos/shared"
	api "github.com/EventStore/EventStore-Client-Go/v4/protos/streams"
	"github.com/google/uuid"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

func parseUUID(s string) ([16]byte, error) {
	u, err := uuid.Parse(s)
	if err != nil {
		return u, status.Error(codes.InvalidArgument, "event id is not a UUID")
	}
	return u, nil
}

// Append implements the protocol's Append: one options message, then one message
// an event. Success is sent only when the events are on disk.
func (s *streams) Append(in api.Streams_AppendServer) error {
	ctx := in.Context()
	r, err := s.receive(in)
	if err != nil {
		return err
	}
	if err := s.access.may(ctx, actWrite, r.stream); err != nil {
		return err
	}
	res, err := s.submit(ctx, r)
	switch {
	case err != nil:
		return err
	case res.deleted:
		return failDeleted(ctx, r.stream)
	case res.wrong:
		return in.SendAndClose(wrongVersion(r.expect, res.current))
	}
	return in.SendAndClose(&api.AppendResp{Result: &api.AppendResp_Success_{Success: &api.AppendResp_Success{
		CurrentRevisionOption: &api.AppendResp_Success_CurrentRevision{CurrentRevision: res.rev},
		PositionOption:        &api.AppendResp_Success_Position{Position: &api.AppendResp_Position{CommitPosition: res.pos, PreparePosition: res.pos}},
	}}})
}

// receive reads the whole append. It reads to the end even when the append is
// already too large: a client whose sending breaks off does not see why.
func (s *streams) receive(in api.Streams_AppendServer) (*request, error) {
	var m appendMessage
	if err := in.RecvMsg(&m); err != nil {
		return nil, err
	}
	r, err := requestOf(&m)
	if err != nil {
		return nil, err
	}
	sizeBytes := 0
	for {
		m := appendMessage{}
		err := in.RecvMsg(&m)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, err
		}
		e, err := eventOf(in.Context(), &m)
		if err != nil {
			return nil, err
		}
		if sizeBytes += e.sizeBytes(); sizeBytes <= s.appendBytesMax {
			r.events = append(r.events, e)
		}
	}
	if sizeBytes > s.appendBytesMax {
		return nil, fail(in.Context(), codes.InvalidArgument, "Maximum Append Size of "+strconv.Itoa(s.appendBytesMax)+" Exceeded.",
			"exception", "maximum-append-size-exceeded", "maximum-append-size", strconv.Itoa(s.appendBytesMax))
	}
	return r, nil
}

// requestOf returns the append that begins with m.
func requestOf(m *appendMessage) (*request, error) {
	r := &request{op: opAppend, stream: m.stream, expect: m.expect}
	if m.options {
		return r, checkStreamName(m.stream)
	}
	options := m.other.GetOptions()
	if options == nil {
		return nil, status.Error(codes.InvalidArgument, "the first message of an append carries its options")
	}
	var err error
	if r.stream, err = readStreamName(options.GetStreamIdentifier()); err != nil {
		return nil, err
	}
	r.expect, err = expectedOf(options.GetExpectedStreamRevision())
	return r, err
}

// eventOf returns the event that m carries.
func eventOf(ctx context.Context, m *appendMessage) (proposed, error) {
	if m.other == nil && !m.options {
		return m.event, nil
	}
	p := m.other.GetProposedMessage()
	if p == nil {
		return proposed{}, status.Error(codes.InvalidArgument, "proposed message expected")
	}
	return proposedOf(ctx, p)
}

// proposedMessage is an event as either kind of append carries it.
type proposedMessage interface {
	GetId() *shared.UUID
	GetMetadata() map[string]string
	GetCustomMetadata() []byte
	GetData() []byte
}

func proposedOf(ctx context.Context, m proposedMessage) (proposed, error) {
	typ, hasType := m.GetMetadata()["type"]
	content, hasContent := m.GetMetadata()["content-type"]
	if !hasType || !hasContent {
		return proposed{}, fail(ctx, codes.InvalidArgument, "Required Metadata Property missing.",
			"exception", "missing-required-metadata-property", "required-metadata-properties", "type,content-type")
	}
	if len(typ) > nameBytesMax {
		return proposed{}, status.Errorf(codes.InvalidArgument, "event type of %d bytes is longer than %d", len(typ), nameBytesMax)
	}
	id, err := uuidOf(m.GetId())
	if err != nil {
		return proposed{}, err
	}
	return proposed{id: id, typ: typ, json: content == "application/json", data: m.GetData(), meta: m.GetCustomMetadata()}, nil
}

func expectedOf(option any) (expected, error) {
	switch v := option.(type) {
	case *api.AppendReq_Options_Revision:
		return expected{kind: expectExactly, rev: v.Revision}, nil
	case *api.AppendReq_Options_NoStream, *api.DeleteReq_Options_NoStream, *api.TombstoneReq_Options_NoStream, *api.BatchAppendReq_Options_NoStream:
		return expected{kind: expectNoStream}, nil
	case *api.AppendReq_Options_StreamExists, *api.DeleteReq_Options_StreamExists, *api.TombstoneReq_Options_StreamExists, *api.BatchAppendReq_Options_StreamExists:
		return expected{kind: expectExists}, nil
	case *api.AppendReq_Options_Any, *api.DeleteReq_Options_Any, *api.TombstoneReq_Options_Any, *api.BatchAppendReq_Options_Any:
		return expected{kind: expectAny}, nil
	case *api.DeleteReq_Options_Revision:
		return expected{kind: expectExactly, rev: v.Revision}, nil
	case *api.TombstoneReq_Options_Revision:
		return expected{kind: expectExactly, rev: v.Revision}, nil
	case *api.BatchAppendReq_Options_StreamPosition:
		return expected{kind: expectExactly, rev: v.StreamPosition}, nil
	}
	return expected{}, status.Error(codes.InvalidArgument, "expected revision missing")
}

func wrongVersion(e expected, h head) *api.AppendResp {
	w := &api.AppendResp_WrongExpectedVersion{}
	switch e.kind {
	case expectAny:
		w.ExpectedRevisionOption = &api.AppendResp_WrongExpectedVersion_ExpectedAny{ExpectedAny: &shared.Empty{}}
	case expectExists:
		w.ExpectedRevisionOption = &api.AppendResp_WrongExpectedVersion_ExpectedStreamExists{ExpectedStreamExists: &shared.Empty{}}
	case expectNoStream:
		w.ExpectedRevisionOption = &api.AppendResp_WrongExpectedVersion_ExpectedNoStream{ExpectedNoStream: &shared.Empty{}}
	case expectExactly:
		w.ExpectedRevisionOption = &api.AppendResp_WrongExpectedVersion_ExpectedRevision{ExpectedRevision: e.rev}
	}
	if h.exists {
		w.CurrentRevisionOption = &api.AppendResp_WrongExpectedVersion_CurrentRevision{CurrentRevision: h.last}
	} else {
		w.CurrentRevisionOption = &api.AppendResp_WrongExpectedVersion_CurrentNoStream{CurrentNoStream: &shared.Empty{}}
	}
	return &api.AppendResp{Result: &api.AppendResp_WrongExpectedVersion_{WrongExpectedVersion: w}}
}

// Delete implements the protocol's soft delete: what the stream holds is hidden,
// its numbering goes on.
func (s *streams) Delete(ctx context.Context, in *api.DeleteReq) (*api.DeleteResp, error) {
	pos, err := s.remove(ctx, opSoftDelete, in.GetOptions().GetStreamIdentifier(), in.GetOptions().GetExpectedStreamRevision())
	if err != nil {
		return nil, err
	}
	return &api.DeleteResp{PositionOption: &api.DeleteResp_Position_{Position: &api.DeleteResp_Position{CommitPosition: pos, PreparePosition: pos}}}, nil
}

// Tombstone implements the protocol's hard delete, which is final.
func (s *streams) Tombstone(ctx context.Context, in *api.TombstoneReq) (*api.TombstoneResp, error) {
	pos, err := s.remove(ctx, opTombstone, in.GetOptions().GetStreamIdentifier(), in.GetOptions().GetExpectedStreamRevision())
	if err != nil {
		return nil, err
	}
	return &api.TombstoneResp{PositionOption: &api.TombstoneResp_Position_{Position: &api.TombstoneResp_Position{CommitPosition: pos, PreparePosition: pos}}}, nil
}

func (s *streams) remove(ctx context.Context, op operation, id *shared.StreamIdentifier, option any) (uint64, error) {
	name, err := readStreamName(id)
	if err != nil {
		return 0, err
	}
	expect, err := expectedOf(option)
	if err != nil {
		return 0, err
	}
	if err := s.access.may(ctx, actDelete, name); err != nil {
		return 0, err
	}
	res, err := s.submit(ctx, &request{op: op, stream: name, expect: expect})
	switch {
	case err != nil:
		return 0, err
	case res.deleted:
		return 0, failDeleted(ctx, name)
	case res.wrong:
		return 0, failWrongVersion(ctx, name, expect, res.current)
	}
	return res.pos, nil
}

func failWrongVersion(ctx context.Context, stream string, e expected, h head) error {
	want := map[expectation]string{expectAny: "-2", expectNoStream: "-1", expectExists: "-4", expectExactly: strconv.FormatUint(e.rev, 10)}[e.kind]
	have := "-1"
	if h.exists {
		have = strconv.FormatUint(h.last, 10)
	}
	return fail(ctx, codes.FailedPrecondition,
		"Delete failed due to WrongExpectedVersion. Stream: "+stream+", Expected version: "+want+", Actual version: "+have,
		"exception", "wrong-expected-version", "stream-name", stream, "expected-version", want, "actual-version", have)
}

// submit hands r to the writer and waits for the answer. The caller may go away;
// the append is then stored or not, and nobody is told.
func (s *streams) submit(ctx context.Context, r *request) (result, error) {
	if err := s.send(ctx, r); err != nil {
		return result{}, err
	}
	return s.await(ctx, r)
}

// send hands r to the writer. After an error nothing of it is stored.
func (s *streams) send(ctx context.Context, r *request) error {
	r.ctx = ctx
	r.done = make(chan result, 1)
	select {
	case s.writer.requests <- r:
		return nil
	case <-ctx.Done():
		return status.FromContextError(ctx.Err()).Err()
	}
}

// await waits for the answer to a request that was sent.
func (s *streams) await(ctx context.Context, r *request) (result, error) {
	select {
	case res := <-r.done:
		if res.err != nil {
			return res, failUnstored(res.err, !errors.Is(res.err, errNotStored))
		}
		return res, nil
	case <-ctx.Done():
		return result{}, status.FromContextError(ctx.Err()).Err()
	}
}
