package eventstore

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/EventStore/EventStore-Client-Go/v4/protos/shared"
	api "github.com/EventStore/EventStore-Client-Go/v4/protos/streams"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/protoadapt"
	"google.golang.org/protobuf/types/known/emptypb"
)

const (
	// batchOpenMax bounds the appends of one call that are begun and not final.
	batchOpenMax = 256
	// batchInFlightMax bounds the appends of one call that wait to be on disk; a client
	// that sends more is held up.
	batchInFlightMax = 64
	// batchDeadlineMax is the longest that an append may take to be sent and stored.
	batchDeadlineMax = time.Minute
)

// BatchAppend implements the protocol's BatchAppend: many appends, each sent in one or
// more messages under a correlation id, answered one by one. An append that is refused
// does not end the call.
func (s *streams) BatchAppend(in api.Streams_BatchAppendServer) error {
	if s.access != nil {
		if _, err := s.access.caller(in.Context()); err != nil {
			return err
		}
	}
	b := &batch{
		streams: s, in: in, open: map[[16]byte]*batchAppend{},
		arrived: make(chan batchMessage), answers: make(chan *batchAppend, batchInFlightMax),
	}
	go b.listen(in.Context())
	sent := make(chan error, 1)
	go func() { sent <- b.answer() }()
	err := b.receive(in.Context())
	close(b.answers)
	if failed := <-sent; err == nil {
		err = failed
	}
	return err
}

// batch is one call of BatchAppend. One goroutine hands appends to the writer, another
// answers them in the same order.
type batch struct {
	streams *streams
	in      api.Streams_BatchAppendServer
	open    map[[16]byte]*batchAppend
	bytes   int // Of all open appends.
	arrived chan batchMessage
	answers chan *batchAppend
}

// batchMessage is what was received, or why nothing more will be.
type batchMessage struct {
	message *api.BatchAppendReq
	err     error
}

// listen passes on what the client sends. It is a goroutine of its own because receiving
// cannot be given up when the server closes: it ends with the call, just after it.
func (b *batch) listen(ctx context.Context) {
	for {
		m, err := b.in.Recv()
		select {
		case b.arrived <- batchMessage{m, err}:
		case <-ctx.Done():
			return
		}
		if err != nil {
			return
		}
	}
}

// batchAppend is one append of a batch.
type batchAppend struct {
	id      *shared.UUID
	stream  *shared.StreamIdentifier
	request *request
	bytes   int
	ctx     context.Context //nolint:containedctx // Its own deadline, from its first message to its answer.
	cancel  context.CancelFunc
	refused *status.Status // Set: it was not handed to the writer.
}

func (b *batch) receive(ctx context.Context) error {
	defer func() {
		for _, a := range b.open {
			a.cancel()
		}
	}()
	for {
		var m batchMessage
		select {
		case m = <-b.arrived:
		case <-b.streams.closing:
			return errClosing()
		case <-ctx.Done():
			return status.FromContextError(ctx.Err()).Err()
		}
		if errors.Is(m.err, io.EOF) {
			return nil
		}
		if m.err != nil {
			return m.err
		}
		a, err := b.take(ctx, m.message)
		if err != nil {
			return err
		}
		if a == nil {
			continue
		}
		if a.refused == nil {
			if a.refused, err = b.hand(a); err != nil {
				a.cancel()
				return err
			}
		}
		select {
		case b.answers <- a:
		case <-ctx.Done():
			a.cancel()
			return status.FromContextError(ctx.Err()).Err()
		}
	}
}

// take adds a message to its append. It returns the append once it has to be answered:
// it is final, or refused. Messages of an append that was refused are dropped.
func (b *batch) take(ctx context.Context, m *api.BatchAppendReq) (*batchAppend, error) {
	id, err := uuidOf(m.GetCorrelationId())
	if err != nil {
		return nil, status.Error(codes.InvalidArgument, "a batch append has a correlation id")
	}
	a := b.open[id]
	if o := m.GetOptions(); o != nil && a == nil {
		a = b.begin(ctx, m.GetCorrelationId(), o)
		if a.refused != nil {
			return a, nil
		}
		b.open[id] = a
	}
	if a == nil {
		return nil, nil //nolint:nilnil // Nothing is to be answered.
	}
	b.add(ctx, a, m.GetProposedMessages())
	if a.refused == nil && !m.GetIsFinal() {
		return nil, nil //nolint:nilnil // Nothing is to be answered yet.
	}
	delete(b.open, id)
	b.bytes -= a.bytes
	return a, nil
}

func (b *batch) begin(ctx context.Context, id *shared.UUID, o *api.BatchAppendReq_Options) *batchAppend {
	a := &batchAppend{id: id, stream: o.GetStreamIdentifier(), cancel: func() {}, ctx: ctx}
	left := batchDeadlineMax
	switch d := o.GetDeadlineOption().(type) {
	case *api.BatchAppendReq_Options_Deadline:
		left = min(left, d.Deadline.AsDuration())
	case *api.BatchAppendReq_Options_Deadline_21_10_0:
		left = min(left, d.Deadline_21_10_0.AsTime().Sub(b.streams.clock()))
	}
	name, err := readStreamName(a.stream)
	if err == nil {
		err = b.streams.access.may(ctx, actWrite, name)
	}
	var expect expected
	if err == nil {
		expect, err = expectedOf(o.GetExpectedStreamPosition())
	}
	switch {
	case err != nil:
		a.refused = refusedBatch(err)
	case left <= 0:
		a.refused = timedOut()
	case len(b.open) >= batchOpenMax:
		a.refused = badRequest(fmt.Sprintf("%d appends are begun and not final: end some", batchOpenMax))
	default:
		a.request = &request{stream: name, op: opAppend, expect: expect}
		a.ctx, a.cancel = context.WithTimeout(ctx, left)
	}
	return a
}

// add puts events into a, within the limit of an append and of the call.
func (b *batch) add(ctx context.Context, a *batchAppend, messages []*api.BatchAppendReq_ProposedMessage) {
	for _, m := range messages {
		e, err := proposedOf(ctx, m)
		if err != nil {
			a.refused = refusedBatch(err)
			return
		}
		a.request.events = append(a.request.events, e)
		a.bytes += e.sizeBytes()
		b.bytes += e.sizeBytes()
	}
	switch {
	case a.bytes > b.streams.appendBytesMax:
		a.refused = batchStatus(codes.InvalidArgument, "MaximumAppendSizeExceeded",
			&shared.MaximumAppendSizeExceeded{MaxAppendSize: uint32(b.streams.appendBytesMax)}) //nolint:gosec // Bounded by appendBytesCeiling.
	case b.bytes > max(messageBytesMax, 2*b.streams.appendBytesMax):
		a.refused = badRequest("the appends that are begun and not final are too large together: end some")
	}
}

// hand gives a to the writer.
func (b *batch) hand(a *batchAppend) (*status.Status, error) {
	err := b.streams.send(a.ctx, a.request)
	if err != nil && b.in.Context().Err() == nil {
		return timedOut(), nil // Its own deadline passed, not the call's.
	}
	return nil, err
}

// answer sends the answers until there are no more. After an error it still takes them,
// so that nobody waits for it.
func (b *batch) answer() error {
	var failed error
	for a := range b.answers {
		out := &api.BatchAppendResp{CorrelationId: a.id, StreamIdentifier: a.stream}
		success, refused := b.result(a)
		if refused != nil {
			out.Result = &api.BatchAppendResp_Error{Error: refused.Proto()}
		} else {
			out.Result = &api.BatchAppendResp_Success_{Success: success}
		}
		a.cancel()
		if failed == nil {
			failed = b.in.Send(out)
		}
	}
	return failed
}

// result waits until a is stored or refused.
func (b *batch) result(a *batchAppend) (*api.BatchAppendResp_Success, *status.Status) {
	if a.refused != nil {
		return nil, a.refused
	}
	res, err := b.streams.await(a.ctx, a.request)
	switch {
	case err != nil && a.ctx.Err() != nil:
		return nil, timedOut()
	case err != nil:
		return nil, batchStatus(codes.Unknown, status.Convert(err).Message(), &shared.Unknown{})
	case res.deleted:
		return nil, batchStatus(codes.NotFound, "StreamDeleted", &shared.StreamDeleted{StreamIdentifier: a.stream})
	case res.wrong:
		return nil, batchStatus(codes.AlreadyExists, "WrongExpectedVersion", wrongBatchVersion(a.request.expect, res.current))
	}
	return &api.BatchAppendResp_Success{
		CurrentRevisionOption: &api.BatchAppendResp_Success_CurrentRevision{CurrentRevision: res.rev},
		PositionOption:        &api.BatchAppendResp_Success_Position{Position: &shared.AllStreamPosition{CommitPosition: res.pos, PreparePosition: res.pos}},
	}, nil
}

func wrongBatchVersion(e expected, h head) *shared.WrongExpectedVersion {
	w := &shared.WrongExpectedVersion{}
	switch e.kind {
	case expectAny:
		w.ExpectedStreamPositionOption = &shared.WrongExpectedVersion_ExpectedAny{ExpectedAny: &emptypb.Empty{}}
	case expectExists:
		w.ExpectedStreamPositionOption = &shared.WrongExpectedVersion_ExpectedStreamExists{ExpectedStreamExists: &emptypb.Empty{}}
	case expectNoStream:
		w.ExpectedStreamPositionOption = &shared.WrongExpectedVersion_ExpectedNoStream{ExpectedNoStream: &emptypb.Empty{}}
	case expectExactly:
		w.ExpectedStreamPositionOption = &shared.WrongExpectedVersion_ExpectedStreamPosition{ExpectedStreamPosition: e.rev}
	}
	if h.exists {
		w.CurrentStreamRevisionOption = &shared.WrongExpectedVersion_CurrentStreamRevision{CurrentStreamRevision: h.last}
	} else {
		w.CurrentStreamRevisionOption = &shared.WrongExpectedVersion_CurrentNoStream{CurrentNoStream: &emptypb.Empty{}}
	}
	return w
}

// batchStatus is an answer with the details by which clients tell refusals apart.
func batchStatus(c codes.Code, text string, details protoadapt.MessageV1) *status.Status {
	st, err := status.New(c, text).WithDetails(details)
	if err != nil {
		panic(fmt.Sprintf("eventstore: encode an answer of our own: %v", err))
	}
	return st
}

func timedOut() *status.Status {
	return batchStatus(codes.DeadlineExceeded, "Timeout", &shared.Timeout{})
}

func badRequest(text string) *status.Status {
	return batchStatus(codes.InvalidArgument, "BadRequest", &shared.BadRequest{Message: text})
}

// refusedBatch is the answer to an append that was refused with a gRPC error.
func refusedBatch(err error) *status.Status {
	st := status.Convert(err)
	if c := st.Code(); c == codes.PermissionDenied || c == codes.Unauthenticated {
		return batchStatus(codes.PermissionDenied, "AccessDenied", &shared.AccessDenied{})
	}
	if st.Code() == codes.InvalidArgument {
		return badRequest(st.Message())
	}
	return batchStatus(codes.Unknown, st.Message(), &shared.Unknown{})
}
