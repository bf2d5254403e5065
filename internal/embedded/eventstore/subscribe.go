package eventstore

import (
	"context"

	api "github.com/EventStore/EventStore-Client-Go/v4/protos/streams"
	"github.com/google/uuid"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protowire"
)

// errClosing ends subscriptions when the server closes; the client may come back.
func errClosing() error { return status.Error(codes.Unavailable, "the event store is closing") }

func confirm(out api.Streams_ReadServer) error {
	return out.Send(&api.ReadResp{Content: &api.ReadResp_Confirmation{
		Confirmation: &api.ReadResp_SubscriptionConfirmation{SubscriptionId: uuid.NewString()},
	}})
}

// caughtUp says that the subscriber has all there is. The fields are those that newer
// servers added to the message: newer clients take a notice without them for none.
func (s *streams) caughtUp(out api.Streams_ReadServer, place caughtUpPlace) error {
	now := s.clock()
	stamp := appendVarint(appendVarint(nil, 1, uint64(now.Unix())), 2, uint64(now.Nanosecond())) //nolint:gosec // After 1970.
	fields := protowire.AppendBytes(protowire.AppendTag(nil, 1, protowire.BytesType), stamp)
	if rev := place.revision; rev != nil {
		fields = appendVarint(fields, 2, *rev)
	}
	if pos := place.position; pos != nil {
		fields = protowire.AppendTag(fields, 3, protowire.BytesType)
		fields = protowire.AppendBytes(fields, appendVarint(appendVarint(nil, 1, *pos), 2, *pos))
	}
	notice := &api.ReadResp_CaughtUp{}
	notice.ProtoReflect().SetUnknown(fields)
	return out.Send(&api.ReadResp{Content: &api.ReadResp_CaughtUp_{CaughtUp: notice}})
}

// caughtUpPlace is where a subscriber stands: in a stream, or in the log. Neither if
// nothing is there yet.
type caughtUpPlace struct{ revision, position *uint64 }

func checkpoint(out api.Streams_ReadServer, pos uint64) error {
	return out.Send(&api.ReadResp{Content: &api.ReadResp_Checkpoint_{
		Checkpoint: &api.ReadResp_Checkpoint{CommitPosition: pos, PreparePosition: pos},
	}})
}

// wait returns when there is more, or with the error that ends the subscription.
func (s *streams) wait(ctx context.Context, more <-chan struct{}) error {
	select {
	case <-more:
		return nil
	case <-s.closing:
		return errClosing()
	case <-ctx.Done():
		return status.FromContextError(ctx.Err()).Err()
	}
}

// allFollower is one subscription to the log. It reads at its subscriber's pace:
// what it holds is one chunk, however far behind it is.
type allFollower struct {
	streams    *streams
	send       *sender
	filter     *filter
	pos        uint64 // All up to here was considered.
	considered uint64 // Since the last checkpoint.
	told       uint64 // The last checkpoint.
	frames     []frame
}

// followAll serves a subscription to the log, from after the position.
func (s *streams) followAll(o *api.ReadReq_Options_AllOptions, f *filter, send *sender) error {
	end, _ := s.recent.head()
	a := &allFollower{streams: s, send: send, filter: f}
	switch v := o.GetAllOption().(type) {
	case *api.ReadReq_Options_AllOptions_Position:
		a.pos = v.Position.GetCommitPosition()
	case *api.ReadReq_Options_AllOptions_End:
		a.pos = end
	}
	a.told = a.pos
	if err := confirm(send.out); err != nil {
		return err
	}
	ctx := send.out.Context()
	for live := false; ; {
		last, more := s.recent.head()
		for a.pos < last {
			if err := a.advance(ctx); err != nil {
				return failRead(err)
			}
		}
		if !live {
			live = true
			if err := a.arrive(); err != nil {
				return err
			}
		}
		if err := s.wait(ctx, more); err != nil {
			return err
		}
	}
}

// advance sends the next chunk.
func (a *allFollower) advance(ctx context.Context) error {
	blocks, err := a.streams.reader.after(ctx, a.pos)
	if err != nil {
		return err
	}
	if len(blocks) == 0 {
		return status.Errorf(codes.Internal, "event store: no events after position %d", a.pos)
	}
	for _, b := range blocks {
		select {
		case <-a.streams.closing:
			return errClosing()
		default:
		}
		if a.frames, err = b.frames(a.frames); err != nil {
			return err
		}
		for i := range a.frames {
			f := &a.frames[i]
			if f.pos <= a.pos {
				continue
			}
			if err := a.consider(f); err != nil { //nolint:contextcheck // Links are read under the stream's own context.
				return err
			}
		}
	}
	return nil
}

func (a *allFollower) consider(f *frame) error {
	a.pos = f.pos
	if a.filter.match(f) {
		if _, err := a.send.event(f); err != nil {
			return err
		}
	}
	if a.filter == nil {
		return nil
	}
	if a.considered++; a.considered < a.filter.every {
		return nil
	}
	return a.checkpoint()
}

// checkpoint tells how far the log was looked at, unless that was told already.
func (a *allFollower) checkpoint() error {
	a.considered = 0
	if a.pos <= a.told {
		return nil
	}
	a.told = a.pos
	return checkpoint(a.send.out, a.pos)
}

// arrive says that the subscriber has all there is.
func (a *allFollower) arrive() error {
	if a.filter != nil {
		if err := a.checkpoint(); err != nil {
			return err
		}
	}
	var place caughtUpPlace
	if a.pos > 0 {
		place.position = &a.pos
	}
	return a.streams.caughtUp(a.send.out, place)
}

// followStream serves a subscription to one stream, from after the revision.
func (s *streams) followStream(name string, o *api.ReadReq_Options_StreamOptions, send *sender) error {
	ctx := send.out.Context()
	_, more := s.recent.head()
	st, err := s.reader.open(ctx, name)
	if err != nil {
		return failRead(err)
	}
	next := uint64(0)
	switch v := o.GetRevisionOption().(type) {
	case *api.ReadReq_Options_StreamOptions_Revision:
		next = min(v.Revision, revisionMax) + 1
	case *api.ReadReq_Options_StreamOptions_End:
		next = st.next()
	}
	if err := confirm(send.out); err != nil {
		return err
	}
	for live := false; ; {
		if st.tombstoned() {
			return failDeleted(ctx, name)
		}
		err := s.reader.walk(ctx, st, next, false, func(f frame) (bool, error) {
			next = f.rev + 1
			return send.event(&f)
		})
		if err != nil {
			return failRead(err)
		}
		if !live {
			live = true
			var place caughtUpPlace
			if last := next - 1; next > 0 {
				place.revision = &last
			}
			if err := s.caughtUp(send.out, place); err != nil {
				return err
			}
		}
		if err := s.wait(ctx, more); err != nil {
			return err
		}
		_, more = s.recent.head()
		if st, err = s.reader.open(ctx, name); err != nil {
			return failRead(err)
		}
	}
}
