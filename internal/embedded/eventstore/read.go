package eventstore

import (
	"context"
	"math"
	"strconv"
	"strings"

	api "github.com/EventStore/EventStore-Client-Go/v4/protos/streams"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// streams serves the protocol's Streams service.
type streams struct {
	api.UnimplementedStreamsServer

	writer         *writer
	reader         *reader
	recent         *recent
	appendBytesMax int
	closing        <-chan struct{} // Closed when subscriptions have to end.
}

// linkType is the type of an event that stands for another: "revision@stream".
const linkType = "$>"

// Read implements all of the protocol's reads and subscriptions.
func (s *streams) Read(in *api.ReadReq, out api.Streams_ReadServer) error {
	o := in.GetOptions()
	if o.GetUuidOption() == nil {
		return status.Error(codes.InvalidArgument, "'uuidOption' is a required argument")
	}
	if o.GetUuidOption().GetString_() != nil {
		return status.Error(codes.Unimplemented, "the embedded event store sends structured ids only: ask for them, or use EventStoreDB")
	}
	f, err := newFilter(o.GetFilter())
	if err != nil {
		return err
	}
	subscribe := o.GetSubscription() != nil
	back := o.GetReadDirection() == api.ReadReq_Options_Backwards
	if subscribe && back {
		return status.Error(codes.InvalidArgument, "a subscription reads forwards")
	}
	send := &sender{out: out, reader: s.reader, resolve: o.GetResolveLinks(), left: math.MaxUint64}
	if !subscribe {
		if _, ok := o.GetCountOption().(*api.ReadReq_Options_Count); !ok {
			return status.Error(codes.InvalidArgument, "'countOption' is a required argument")
		}
		send.left = o.GetCount()
	}
	switch from := o.GetStreamOption().(type) {
	case *api.ReadReq_Options_Stream:
		name, err := readStreamName(from.Stream.GetStreamIdentifier())
		if err != nil {
			return err
		}
		if subscribe {
			return s.followStream(name, from.Stream, send)
		}
		return s.readStream(name, from.Stream, back, send)
	case *api.ReadReq_Options_All:
		if subscribe {
			return s.followAll(from.All, f, send)
		}
		return s.readAll(from.All, back, f, send)
	}
	return status.Error(codes.InvalidArgument, "'streamOption' is a required argument")
}

// sender sends events until its count is used up.
type sender struct {
	out     api.Streams_ReadServer
	reader  *reader
	resolve bool
	left    uint64
}

// event sends f, or what it links to, and reports whether more may follow.
func (s *sender) event(f *frame) (bool, error) {
	if s.left == 0 {
		return false, nil
	}
	s.left--
	if s.resolve && string(f.typ) == linkType {
		m, err := s.linked(*f)
		if err != nil {
			return false, err
		}
		return s.left > 0, s.out.Send(m)
	}
	return s.left > 0, s.out.SendMsg(f)
}

// linked returns the message of a link with the event it points at, or without
// if that cannot be read any more.
func (s *sender) linked(link frame) (*api.ReadResp, error) {
	m, err := link.message()
	if err != nil {
		return nil, err
	}
	e := m.GetEvent()
	e.Link, e.Event = e.GetEvent(), nil
	number, name, ok := strings.Cut(string(e.GetLink().GetData()), "@")
	rev, err := strconv.ParseUint(number, 10, 64)
	if !ok || err != nil {
		return m, nil //nolint:nilerr // Not a link that can be followed: it is sent alone.
	}
	target, ok, err := s.reader.event(s.out.Context(), name, rev)
	if err != nil || !ok {
		return m, err
	}
	t, err := target.message()
	if err != nil {
		return nil, err
	}
	e.Event = t.GetEvent().GetEvent()
	return m, nil
}

func (s *streams) readStream(name string, o *api.ReadReq_Options_StreamOptions, back bool, send *sender) error {
	ctx := send.out.Context()
	st, err := s.reader.open(ctx, name)
	if err != nil {
		return failRead(err)
	}
	if st.tombstoned() {
		return failDeleted(ctx, name)
	}
	if !st.visible() {
		return send.out.Send(&api.ReadResp{Content: &api.ReadResp_StreamNotFound_{
			StreamNotFound: &api.ReadResp_StreamNotFound{StreamIdentifier: o.GetStreamIdentifier()},
		}})
	}
	from := uint64(0)
	switch v := o.GetRevisionOption().(type) {
	case *api.ReadReq_Options_StreamOptions_Revision:
		from = v.Revision
	case *api.ReadReq_Options_StreamOptions_End:
		from = st.high
		if !back {
			return nil
		}
	}
	if send.left == 0 {
		return nil
	}
	return failRead(s.reader.walk(ctx, st, from, back, func(f frame) (bool, error) { return send.event(&f) }))
}

// readAll reads the log: forwards from the position on, backwards from before it.
func (s *streams) readAll(o *api.ReadReq_Options_AllOptions, back bool, f *filter, send *sender) error {
	ctx := send.out.Context()
	end, _ := s.recent.head()
	pos := uint64(0)
	switch v := o.GetAllOption().(type) {
	case *api.ReadReq_Options_AllOptions_Position:
		pos = v.Position.GetCommitPosition()
	case *api.ReadReq_Options_AllOptions_End:
		pos = end + 1
	}
	var frames []frame
	for more := send.left > 0; more && (back || pos <= end); {
		blocks, err := s.chunk(ctx, pos, back)
		if err != nil || len(blocks) == 0 {
			return failRead(err)
		}
		for _, b := range blocks {
			if frames, err = b.frames(frames); err != nil {
				return failRead(err)
			}
			if more, err = sendAll(frames, pos, end, back, f, send); err != nil || !more {
				return failRead(err)
			}
		}
		if last := blocks[len(blocks)-1]; back {
			pos = last.first
		} else {
			pos = last.last + 1
		}
	}
	return nil
}

func (s *streams) chunk(ctx context.Context, pos uint64, back bool) ([]*block, error) {
	if back {
		return s.reader.before(ctx, pos)
	}
	return s.reader.after(ctx, max(pos, 1)-1)
}

// sendAll sends those of the frames that lie in the range and match.
func sendAll(frames []frame, pos, end uint64, back bool, f *filter, send *sender) (bool, error) {
	for i := range frames {
		e := &frames[i]
		if back {
			e = &frames[len(frames)-1-i]
		}
		if e.pos > end || back && e.pos >= pos || !back && e.pos < pos || !f.match(e) {
			continue
		}
		if more, err := send.event(e); err != nil || !more {
			return false, err
		}
	}
	return true, nil
}

// failRead turns what went wrong while reading into an answer. Errors that are
// already one pass.
func failRead(err error) error {
	if err == nil {
		return nil
	}
	if _, ok := status.FromError(err); ok {
		return err
	}
	return status.Errorf(codes.Internal, "event store: %v", err)
}
