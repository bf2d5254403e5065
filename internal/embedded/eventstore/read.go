package eventstore

import (
	"context"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/EventStore/EventStore-Client-Go/v4/protos/shared"
	api "github.com/EventStore/EventStore-Client-Go/v4/protos/streams"
	"github.com/google/uuid"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// streams serves the protocol's Streams service.
type streams struct {
	api.UnimplementedStreamsServer

	writer         *writer
	reader         *reader
	recent         *recent
	access         *access // nil: everything is allowed.
	appendBytesMax int
	clock          func() time.Time
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
	subscribe := o.GetSubscription() != nil
	back := o.GetReadDirection() == api.ReadReq_Options_Backwards
	if subscribe && back {
		return status.Error(codes.InvalidArgument, "a subscription reads forwards")
	}
	send := &sender{streams: s, out: out, resolve: o.GetResolveLinks(), text: o.GetUuidOption().GetString_() != nil, left: math.MaxUint64}
	if !subscribe {
		if _, ok := o.GetCountOption().(*api.ReadReq_Options_Count); !ok {
			return status.Error(codes.InvalidArgument, "'countOption' is a required argument")
		}
		send.left = o.GetCount()
	}
	switch from := o.GetStreamOption().(type) {
	case *api.ReadReq_Options_Stream:
		if o.GetFilter() != nil {
			return status.Error(codes.InvalidArgument, "a filter belongs to $all: a stream is read whole")
		}
		return s.readNamed(from.Stream, subscribe, back, send)
	case *api.ReadReq_Options_All:
		f, err := newFilter(o.GetFilter(), subscribe)
		if err != nil {
			return err
		}
		if err := s.access.may(out.Context(), actRead, allStream); err != nil {
			return err
		}
		if subscribe {
			return s.followAll(from.All, f, send)
		}
		return s.readAll(from.All, back, f, send)
	}
	return status.Error(codes.InvalidArgument, "'streamOption' is a required argument")
}

func (s *streams) readNamed(from *api.ReadReq_Options_StreamOptions, subscribe, back bool, send *sender) error {
	name, err := readStreamName(from.GetStreamIdentifier())
	if err != nil {
		return err
	}
	if err := s.access.may(send.out.Context(), actRead, name); err != nil {
		return err
	}
	if subscribe {
		return s.followStream(name, from, send)
	}
	return s.readStream(name, from, back, send)
}

// sender sends events until its count is used up.
type sender struct {
	streams *streams
	out     api.Streams_ReadServer
	resolve bool
	text    bool // Ids go out as text instead of two numbers.
	left    uint64
}

// event sends f, or what it links to, and reports whether more may follow.
func (s *sender) event(f *frame) (bool, error) {
	if s.left == 0 {
		return false, nil
	}
	s.left--
	link := s.resolve && string(f.typ) == linkType
	if !link && !s.text {
		return s.left > 0, s.out.SendMsg(f)
	}
	m, err := f.message()
	if err != nil {
		return false, err
	}
	if link {
		if err := s.follow(m.GetEvent()); err != nil {
			return false, err
		}
	}
	if s.text {
		textID(m.GetEvent().GetEvent())
		textID(m.GetEvent().GetLink())
	}
	return s.left > 0, s.out.Send(m)
}

func textID(e *api.ReadResp_ReadEvent_RecordedEvent) {
	if e == nil {
		return
	}
	if id, err := uuidOf(e.GetId()); err == nil { // A stored id is one.
		e.Id = &shared.UUID{Value: &shared.UUID_String_{String_: uuid.UUID(id).String()}}
	}
}

// follow puts the event that a link points at beside the link, or nothing if it cannot
// be read any more, or not by this caller.
func (s *sender) follow(e *api.ReadResp_ReadEvent) error {
	ctx := s.out.Context()
	e.Link, e.Event = e.GetEvent(), nil
	number, name, ok := strings.Cut(string(e.GetLink().GetData()), "@")
	rev, err := strconv.ParseUint(number, 10, 64)
	if !ok || name == "" || err != nil {
		return nil //nolint:nilerr // Not a link that can be followed: it is sent alone.
	}
	if ok, err := s.streams.access.mayFollow(ctx, name); err != nil || !ok {
		return err
	}
	target, ok, err := s.streams.reader.event(ctx, name, rev)
	if err != nil || !ok {
		return err
	}
	t, err := target.message()
	if err != nil {
		return err
	}
	e.Event = t.GetEvent().GetEvent()
	return nil
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
		if err := ctx.Err(); err != nil { // A filter may let nothing through for long.
			return status.FromContextError(err).Err()
		}
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
