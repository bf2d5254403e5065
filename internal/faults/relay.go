package faults

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// relayMessageMax bounds a message; event stores take 17 MiB.
const relayMessageMax = 64 << 20

// Fate is what becomes of one append.
type Fate int

// The fates of an append: it passes; it fails and nothing is stored; it is stored and the
// caller is told that it failed; the same two, but the caller is told nothing until the
// relay is released.
const (
	Pass Fate = iota
	Fail
	FailStored
	Hang
	HangStored
)

// String implements [fmt.Stringer].
func (f Fate) String() string {
	return [...]string{"passes", "failed", "failed but persisted", "no answer", "no answer but persisted"}[f]
}

// Relay stands between clients and an event store, message by message, and decides the
// fate of single appends. It is safe for concurrent use.
type Relay struct {
	listener net.Listener
	server   *grpc.Server
	conn     *grpc.ClientConn
	wg       sync.WaitGroup

	mu      sync.Mutex // Guards all below.
	decide  func(first []byte) Fate
	release chan struct{} // Closed to let hanging appends fail.
}

// NewRelay listens on a free port of the loopback address for the clients of the event
// store at target, which speaks without TLS.
func NewRelay(ctx context.Context, target string) (*Relay, error) {
	conn, err := grpc.NewClient("passthrough:///"+target, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.ForceCodecV2(raw{}), grpc.MaxCallRecvMsgSize(relayMessageMax), grpc.MaxCallSendMsgSize(relayMessageMax)))
	if err != nil {
		return nil, fmt.Errorf("relay: %w", err)
	}
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, errors.Join(fmt.Errorf("relay: %w", err), conn.Close())
	}
	r := &Relay{listener: l, conn: conn, decide: func([]byte) Fate { return Pass }, release: make(chan struct{})}
	r.server = grpc.NewServer(grpc.ForceServerCodecV2(raw{}), grpc.UnknownServiceHandler(r.handle),
		grpc.MaxRecvMsgSize(relayMessageMax), grpc.MaxSendMsgSize(relayMessageMax),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 5 * time.Second, PermitWithoutStream: true}))
	r.wg.Go(func() { _ = r.server.Serve(l) }) // Ends with Stop.
	return r, nil
}

// Address is where clients connect: host and port.
func (r *Relay) Address() string { return r.listener.Addr().String() }

// Decide sets who decides the fate of appends: it is given the first message of each,
// which names the stream.
func (r *Relay) Decide(f func(first []byte) Fate) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.decide = f
}

// Release lets every append fail that hangs now.
func (r *Relay) Release() {
	r.mu.Lock()
	defer r.mu.Unlock()
	close(r.release)
	r.release = make(chan struct{})
}

// Close cuts everybody off and waits until nothing of the relay is left.
func (r *Relay) Close() error {
	r.server.Stop()
	r.wg.Wait()
	if err := r.conn.Close(); err != nil {
		return fmt.Errorf("close relay: %w", err)
	}
	return nil
}

// handle relays one call of any method.
func (r *Relay) handle(_ any, in grpc.ServerStream) error {
	method, _ := grpc.MethodFromServerStream(in)
	ctx, cancel := context.WithCancel(in.Context())
	defer cancel()
	if md, ok := metadata.FromIncomingContext(ctx); ok {
		ctx = metadata.NewOutgoingContext(ctx, md)
	}
	if strings.HasSuffix(method, "/Append") {
		return r.append(ctx, method, in)
	}
	out, err := r.open(ctx, method)
	if err != nil {
		return err
	}
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		forward(in, out)
	}()
	for {
		var f frame
		if err := out.RecvMsg(&f); err != nil {
			in.SetTrailer(out.Trailer())
			cancel()
			<-sent
			return end(err)
		}
		if err := in.SendMsg(&f); err != nil {
			cancel()
			<-sent
			return err //nolint:wrapcheck // A status, for the client.
		}
	}
}

func (r *Relay) open(ctx context.Context, method string) (grpc.ClientStream, error) {
	out, err := r.conn.NewStream(ctx, &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}, method)
	if err != nil {
		return nil, err //nolint:wrapcheck // A status, for the client.
	}
	return out, nil
}

// forward passes a client's messages on until it has sent all or is gone: the server's
// answer says which.
func forward(in grpc.ServerStream, out grpc.ClientStream) {
	for {
		var f frame
		if err := in.RecvMsg(&f); err != nil {
			_ = out.CloseSend() // It always returns nil.
			return
		}
		if err := out.SendMsg(&f); err != nil {
			return
		}
	}
}

// end is the error of a stream that ended.
func end(err error) error {
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

// append takes the whole append in, and then does what was decided.
func (r *Relay) append(ctx context.Context, method string, in grpc.ServerStream) error {
	var all []*frame
	for {
		f := &frame{}
		if err := in.RecvMsg(f); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return err //nolint:wrapcheck // A status, for the client.
		}
		all = append(all, f)
	}
	if len(all) == 0 {
		return status.Error(codes.InvalidArgument, "an empty append")
	}
	r.mu.Lock()
	fate, release := r.decide(all[0].payload), r.release
	r.mu.Unlock()
	if fate == Pass || fate == FailStored || fate == HangStored {
		answer, trailer, err := r.store(ctx, method, all)
		if fate == Pass {
			in.SetTrailer(trailer)
			if err != nil {
				return err
			}
			return in.SendMsg(answer) //nolint:wrapcheck // A status, for the client.
		}
	}
	if fate == Hang || fate == HangStored {
		select {
		case <-release:
		case <-ctx.Done():
		}
	}
	return status.Errorf(codes.Unavailable, "made to fail: %v", fate)
}

// store sends an append to the event store and returns its answer.
func (r *Relay) store(ctx context.Context, method string, all []*frame) (*frame, metadata.MD, error) {
	out, err := r.open(ctx, method)
	if err != nil {
		return nil, nil, err
	}
	for _, f := range all {
		if err := out.SendMsg(f); err != nil {
			break // The answer says why.
		}
	}
	if err := out.CloseSend(); err != nil {
		return nil, nil, err //nolint:wrapcheck // A status, for the client.
	}
	answer := &frame{}
	err = out.RecvMsg(answer)
	if err == nil {
		err = end(out.RecvMsg(&frame{})) // Reads to the end, where the trailer is.
	}
	return answer, out.Trailer(), err
}

// frame is a message as it is on the wire.
type frame struct{ payload []byte }

// raw passes messages through as they are.
type raw struct{}

// Marshal implements encoding.CodecV2.
func (raw) Marshal(v any) (mem.BufferSlice, error) {
	f, ok := v.(*frame)
	if !ok {
		return nil, fmt.Errorf("relay: %T is no frame", v)
	}
	return mem.BufferSlice{mem.SliceBuffer(f.payload)}, nil
}

// Unmarshal implements encoding.CodecV2.
func (raw) Unmarshal(data mem.BufferSlice, v any) error {
	f, ok := v.(*frame)
	if !ok {
		return fmt.Errorf("relay: %T is no frame", v)
	}
	f.payload = data.Materialize()
	return nil
}

// Name implements encoding.CodecV2: to both sides it is protobuf.
func (raw) Name() string { return "proto" }
