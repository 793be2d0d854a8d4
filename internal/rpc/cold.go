package rpc

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/encoding"
	_ "google.golang.org/grpc/encoding/proto" // the codec of all messages
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// mostUnsent bounds what a handler may have sent that the client has no window for.
const mostUnsent = 64 << 10

// coldStream is a call that a goroutine of its own serves: the grpc.ServerStream of
// its handler. What the connection and the goroutine share is guarded by conn.mu.
type coldStream struct {
	conn   *conn
	stream *stream
	ctx    context.Context
	cancel context.CancelFunc
	codec  encoding.CodecV2
	// decompress is nil when messages come as they are; answers go out in kind.
	compressor encoding.Compressor
	firstTaken bool // of a method whose client sends one message

	changed  sync.Cond // a message or an end came, or there is room to send
	inbox    []received
	first    int
	err      error // why nothing comes after inbox
	started  bool
	returned bool
	header   metadata.MD
	trailer  metadata.MD
}

// received is a message as it came.
type received struct {
	flag byte
	body []byte
}

// startCold makes a call with a goroutine. That of a unary method begins once its
// message has come. c.mu is held.
func (c *conn) startCold(s *stream) {
	cs := &coldStream{conn: c, stream: s}
	cs.changed.L = &c.mu
	s.cold = cs
	if enc := s.headers.encoding; enc != "" && enc != "identity" {
		if cs.compressor = encoding.GetCompressor(enc); cs.compressor == nil {
			s.stop = true
			c.end(s, &ending{status: status.Newf(codes.Unimplemented, "grpc: Decompressor is not installed for grpc-encoding %q", enc)})
			cs.returned = true
			return
		}
		s.out.encoding = enc
	}
	if s.method.cold.streams() {
		cs.start()
	}
}

// start runs the handler. conn.mu is held.
func (cs *coldStream) start() {
	if cs.started || cs.stream.gone {
		return
	}
	cs.started = true
	go cs.run()
}

// put adds a message that came. conn.mu is held.
func (cs *coldStream) put(m received) {
	cs.inbox = append(cs.inbox, m)
	cs.changed.Broadcast()
}

// fail says why nothing more comes: io.EOF is the client's proper end. conn.mu is held.
func (cs *coldStream) fail(err error) {
	if cs.err == nil {
		cs.err = err
	}
	cs.changed.Broadcast()
	cs.start()
}

// sent says that there is room to send. conn.mu is held.
func (cs *coldStream) sent() {
	if cs.stream.out.bytes < mostUnsent {
		cs.changed.Broadcast()
	}
}

// end says that the stream is gone. conn.mu is held.
func (cs *coldStream) end() {
	if !cs.started { // nobody will run it
		cs.returned = true
	}
	if cs.cancel != nil {
		cs.cancel()
	}
	cs.changed.Broadcast()
}

// run serves the call and tells its status.
func (cs *coldStream) run() {
	s, c := cs.stream, cs.conn
	ctx := metadata.NewIncomingContext(c.ctx, s.headers.metadata())
	ctx = grpc.NewContextWithServerTransportStream(ctx, transportStream{cs})
	var cancel context.CancelFunc
	if s.deadline.IsZero() {
		ctx, cancel = context.WithCancel(ctx)
	} else {
		ctx, cancel = context.WithDeadline(ctx, s.deadline)
	}
	defer cancel()
	c.mu.Lock()
	cs.ctx, cs.cancel = ctx, cancel
	if s.gone {
		cancel()
	}
	c.mu.Unlock()
	stop := context.AfterFunc(ctx, func() {
		c.mu.Lock()
		cs.changed.Broadcast()
		c.mu.Unlock()
	})
	defer stop()
	cs.codec = codecOf(s.headers.subtype)
	err := s.method.cold.serve(c.server, cs)
	st := statusOK
	if err != nil {
		st = statusOf(err)
	}
	cs.finish(st)
	c.mu.Lock()
	cs.returned = true
	if s.gone {
		c.abandonedEnded()
	}
	c.mu.Unlock()
}

// protoName is the codec of protobuf.
const protoName = "proto"

func codecOf(subtype string) encoding.CodecV2 {
	if codec := encoding.GetCodecV2(strings.ToLower(subtype)); codec != nil {
		return codec
	}
	return encoding.GetCodecV2(protoName)
}

// finish ends the call, unless it has ended.
func (cs *coldStream) finish(st *status.Status) {
	c, s := cs.conn, cs.stream
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(cs.header) > 0 && !s.out.begun {
		cs.begin(nil)
	}
	c.end(s, &ending{status: st, trailer: cs.trailer})
}

// over says whether nothing can be sent any more. conn.mu is held.
func (cs *coldStream) over() error {
	switch {
	case cs.conn.phase == dead:
		return status.Error(codes.Unavailable, "transport is closing")
	case cs.ctx.Err() != nil:
		return status.FromContextError(cs.ctx.Err()).Err()
	case cs.stream.gone, cs.stream.out.ending != nil:
		return status.FromContextError(context.Canceled).Err()
	}
	return nil
}

// begin has the headers sent. conn.mu is held.
func (cs *coldStream) begin(md metadata.MD) {
	cs.header = metadata.Join(cs.header, md)
	cs.stream.out.headers, cs.stream.out.begun = cs.header, true
	cs.conn.activate(cs.stream)
}

var errHeadersSent = status.Error(codes.Internal, "transport: SendHeader called multiple times")

// Context is the call's: it carries the client's metadata, deadline and address, and
// ends with the stream.
func (cs *coldStream) Context() context.Context { return cs.ctx }

// SetHeader adds to the metadata that goes before the first message.
func (cs *coldStream) SetHeader(md metadata.MD) error {
	if md.Len() == 0 {
		return nil
	}
	if err := validMetadata(md); err != nil {
		return status.Error(codes.Internal, err.Error())
	}
	return cs.setHeader(md)
}

func (cs *coldStream) setHeader(md metadata.MD) error {
	cs.conn.mu.Lock()
	defer cs.conn.mu.Unlock()
	if cs.stream.out.begun || cs.stream.gone || cs.stream.out.ending != nil {
		return errHeadersSent
	}
	cs.header = metadata.Join(cs.header, md)
	return nil
}

// SendHeader sends the metadata that goes before the first message at once.
func (cs *coldStream) SendHeader(md metadata.MD) error {
	if err := validMetadata(md); err != nil {
		return status.Error(codes.Internal, err.Error())
	}
	return cs.sendHeader(md)
}

func (cs *coldStream) sendHeader(md metadata.MD) error {
	cs.conn.mu.Lock()
	defer cs.conn.mu.Unlock()
	if err := cs.over(); err != nil {
		return err
	}
	if cs.stream.out.begun {
		return errHeadersSent
	}
	cs.begin(md)
	return nil
}

// SetTrailer adds to the metadata that goes with the status.
func (cs *coldStream) SetTrailer(md metadata.MD) {
	cs.conn.mu.Lock()
	defer cs.conn.mu.Unlock()
	cs.trailer = metadata.Join(cs.trailer, md)
}

// SendMsg sends a message. It waits while the client lets too much of what was sent
// before wait.
func (cs *coldStream) SendMsg(m any) error {
	err := cs.send(m)
	if err != nil {
		cs.finish(status.Convert(err))
	}
	return err
}

func (cs *coldStream) send(m any) error {
	all, bytes, err := cs.encode(m)
	if err != nil {
		return err
	}
	c, o := cs.conn, &cs.stream.out
	c.mu.Lock()
	defer c.mu.Unlock()
	for {
		if err := cs.over(); err != nil {
			for i := range all {
				all[i].free()
			}
			return err
		}
		if o.bytes < mostUnsent {
			break
		}
		cs.changed.Wait()
	}
	if !o.begun {
		cs.begin(nil)
	}
	o.pieces = append(o.pieces, all...)
	o.bytes += bytes
	if !o.needsWindow {
		c.activate(cs.stream)
	}
	return nil
}

func compressed(by encoding.Compressor, message mem.BufferSlice) (out mem.BufferSlice, err error) {
	defer message.Free()
	z, err := by.Compress(mem.NewWriter(&out, mem.DefaultBufferPool()))
	if err == nil {
		for _, b := range message {
			if _, err = z.Write(b.ReadOnlyData()); err != nil {
				break
			}
		}
	}
	if err == nil {
		err = z.Close()
	}
	if err != nil {
		out.Free()
		return nil, err
	}
	return out, nil
}

// RecvMsg takes the next message. It returns io.EOF when the client has said all.
func (cs *coldStream) RecvMsg(m any) error {
	err := cs.receive(m)
	if err != nil && err != io.EOF {
		cs.finish(status.Convert(err))
	}
	return err
}

func (cs *coldStream) receive(m any) error {
	one := !cs.stream.method.cold.clientStreams()
	err := cs.receiveInto(m)
	switch {
	case err == io.EOF && one && !cs.firstTaken:
		return errNoMessage
	case err != nil || !one:
		return err
	}
	cs.firstTaken = true
	if err = cs.receiveInto(m); err == io.EOF { // there may be no second one
		return nil
	} else if err != nil {
		return err
	}
	return errManyMessages
}

func (cs *coldStream) receiveInto(m any) error {
	got, err := cs.take()
	if err != nil {
		return err
	}
	if err := flagFault(got.flag, cs.stream.headers.encoding, cs.compressor != nil); err != nil {
		return err
	}
	message := mem.BufferSlice{mem.SliceBuffer(got.body)}
	if got.flag == 1 {
		if message, err = decompressed(cs.compressor, message, cs.conn.server.mostReceived()); err != nil {
			return err
		}
	}
	defer message.Free()
	if err := cs.codec.Unmarshal(message, m); err != nil {
		return status.Errorf(codes.Internal, "grpc: failed to unmarshal the received message: %v", err)
	}
	return nil
}

// take waits for the next message.
func (cs *coldStream) take() (received, error) {
	c := cs.conn
	c.mu.Lock()
	defer c.mu.Unlock()
	for cs.first == len(cs.inbox) {
		if cs.err != nil {
			return received{}, cs.err
		}
		if err := cs.over(); err != nil {
			return received{}, err
		}
		cs.changed.Wait()
	}
	got := cs.inbox[cs.first]
	cs.inbox[cs.first] = received{}
	if cs.first++; cs.first == len(cs.inbox) {
		cs.inbox, cs.first = cs.inbox[:0], 0
	}
	c.taken(cs.stream, len(got.body)+messageHead)
	return got, nil
}

func decompressed(by encoding.Compressor, message mem.BufferSlice, most int) (mem.BufferSlice, error) {
	r, err := by.Decompress(message.Reader())
	if err != nil {
		return nil, status.Errorf(codes.Internal, "grpc: failed to decompress the message: %v", err)
	}
	if closer, ok := r.(io.Closer); ok {
		defer closer.Close()
	}
	out, err := mem.ReadAll(io.LimitReader(r, int64(most)+1), mem.DefaultBufferPool())
	if err != nil {
		out.Free()
		return nil, status.Errorf(codes.Internal, "grpc: failed to read decompressed data: %v", err)
	}
	if out.Len() > most {
		out.Free()
		return nil, status.Errorf(codes.ResourceExhausted, "grpc: received message after decompression larger than max %d", most)
	}
	return out, nil
}

// transportStream is what grpc.SetHeader and its like find in a call's context.
type transportStream struct{ cs *coldStream }

// Method is the full name of the method.
func (t transportStream) Method() string { return t.cs.stream.headers.path }

// Waiting is how many messages have come that RecvMsg has not returned yet.
func (t transportStream) Waiting() int {
	t.cs.conn.mu.Lock()
	defer t.cs.conn.mu.Unlock()
	return len(t.cs.inbox) - t.cs.first
}

// SetHeader is that of the stream.
func (t transportStream) SetHeader(md metadata.MD) error { return t.cs.setHeader(md) }

// SendHeader is that of the stream.
func (t transportStream) SendHeader(md metadata.MD) error { return t.cs.sendHeader(md) }

// SetTrailer is that of the stream; it fails after the end.
func (t transportStream) SetTrailer(md metadata.MD) error {
	cs := t.cs
	cs.conn.mu.Lock()
	defer cs.conn.mu.Unlock()
	if cs.stream.gone || cs.stream.out.ending != nil {
		return errHeadersSent
	}
	cs.trailer = metadata.Join(cs.trailer, md)
	return nil
}

// validMetadata says what cannot be sent as a header.
func validMetadata(md metadata.MD) error {
	for name, values := range md {
		switch {
		case name == "":
			return errors.New("there is an empty key in the header")
		case name[0] == ':':
			continue
		}
		for i := range len(name) {
			if b := name[i]; !(b >= 'a' && b <= 'z' || b >= '0' && b <= '9' || b == '.' || b == '-' || b == '_') {
				return fmt.Errorf("header key %q contains illegal characters not in [0-9a-z-_.]", name)
			}
		}
		if strings.HasSuffix(name, "-bin") {
			continue
		}
		for _, v := range values {
			for i := range len(v) {
				if v[i] < 0x20 || v[i] > 0x7E {
					return fmt.Errorf("header key %q contains value with non-printable ASCII characters", name)
				}
			}
		}
	}
	return nil
}
