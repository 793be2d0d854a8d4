package bench

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"net/http"
	"sync"
	"time"

	"github.com/spf13/cobra"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/protobuf/proto"
)

// Lists are callers that all list everything at once, and what that cost the server.
type Lists struct {
	Server  string `json:"server"`
	Callers int    `json:"callers"`
	// Idle callers ask as well and take next to nothing.
	Idle int `json:"idle_callers"`
	// Bytes that each of the others got, all the same ones.
	Bytes int64         `json:"bytes_each"`
	Took  time.Duration `json:"took_ns"`
	CPU   time.Duration `json:"cpu_ns"`
	// Before is the memory before, Peak the most that was resident meanwhile.
	Before Memory `json:"before"`
	Peak   int64  `json:"peak_resident_bytes"`
}

// listsPlan is the scenario's options.
type listsPlan struct {
	callers, idle int
	stream        bool
	space         Space
}

func listsCommand(out, errs io.Writer) *cobra.Command {
	var (
		t     targets
		s     settings
		plan  listsPlan
		cmd   = &cobra.Command{Use: "lists", Short: "list all keys by many callers at once, and look at the server's memory", Args: cobra.NoArgs}
		flags = cmd.Flags()
	)
	t.add(flags)
	s.addSpace(flags, 1_000_000)
	s.addTurns(flags, 1)
	flags.IntVar(&plan.callers, "callers", 10, "callers, each on a connection of its own, who read and forget")
	flags.IntVar(&plan.idle, "idle-callers", 0, "more callers, who ask and do not read")
	flags.BoolVar(&plan.stream, "stream", false, "ask for RangeStream instead of a unary range")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		format, err := s.format()
		if err != nil {
			return err
		}
		return t.measured(cmd.Context(), func(servers []Server) error {
			var all []*Lists
			plan.space = s.opts.Space
			for _, server := range servers {
				f := filler{server: server, space: s.opts.Space, seed: s.opts.Seed, progress: errs}
				if err := f.ensure(cmd.Context()); err != nil {
					return err
				}
				for range max(s.turns.rounds, 1) {
					if err := settle(cmd.Context(), servers, s.turns.rest); err != nil {
						return err
					}
					one, err := plan.run(cmd.Context(), server)
					if err != nil {
						return err
					}
					all = append(all, one)
				}
			}
			return listsTable(all, plan).print(out, format)
		})
	}
	return cmd
}

// run lists once.
func (p listsPlan) run(ctx context.Context, s Server) (*Lists, error) {
	method := pb.KV_Range_FullMethodName
	if p.stream {
		method = pb.KV_RangeStream_FullMethodName
	}
	message, err := proto.Marshal(&pb.RangeRequest{Key: p.space.key(0), RangeEnd: p.space.key(p.space.Keys)})
	if err != nil {
		return nil, err
	}
	before, err := s.observe()
	if err != nil {
		return nil, err
	}
	s.resetPeak()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	found := &Lists{Server: s.label(), Callers: p.callers, Idle: p.idle, Before: before.memory()}
	for range p.idle {
		body, end, err := askFor(ctx, s, method, message)
		if err != nil {
			return nil, err
		}
		defer end()
		if _, err := io.ReadFull(body.Body, make([]byte, 1000)); err != nil {
			return nil, fmt.Errorf("%s: an idle caller: %w", s.Endpoint, err)
		}
	}
	var (
		wg    sync.WaitGroup
		sums  = make([]uint32, p.callers)
		sizes = make([]int64, p.callers)
		fails = make([]error, p.callers)
		begin = time.Now()
	)
	for i := range p.callers {
		wg.Go(func() { sizes[i], sums[i], fails[i] = listAll(ctx, s, method, message) })
	}
	wg.Wait()
	found.Took = time.Since(begin)
	after, err := s.observe()
	if err = errors.Join(append(fails, err)...); err != nil {
		return nil, fmt.Errorf("%s: %w", s.Endpoint, err)
	}
	for i := range sums {
		if sums[i] != sums[0] || sizes[i] != sizes[0] {
			return nil, fmt.Errorf("%s: callers got different answers", s.Endpoint)
		}
	}
	if least := int64(p.space.Keys) * int64(p.space.KeyBytes+p.space.ValueBytes); sizes[0] < least {
		return nil, fmt.Errorf("%s: an answer of %d bytes, of at least %d", s.Endpoint, sizes[0], least)
	}
	found.Bytes, found.CPU, found.Peak = sizes[0], after.CPU-before.CPU, after.Peak
	return found, nil
}

// askFor begins a call on a connection of its own. A gRPC library would keep the whole
// message; this one hands out its bytes as they come, and lets no more come than are
// taken.
func askFor(ctx context.Context, s Server, method string, message []byte) (*http.Response, func(), error) {
	address, err := s.address()
	if err != nil {
		return nil, nil, err
	}
	protocols := new(http.Protocols)
	protocols.SetUnencryptedHTTP2(true)
	transport := &http.Transport{Protocols: protocols, DisableCompression: true}
	framed := binary.BigEndian.AppendUint32([]byte{0}, uint32(len(message)))
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+address+method, bytes.NewReader(append(framed, message...)))
	if err != nil {
		return nil, nil, err
	}
	req.Header.Set("Content-Type", "application/grpc")
	req.Header.Set("Te", "trailers")
	resp, err := transport.RoundTrip(req)
	if err != nil {
		return nil, nil, err
	}
	return resp, func() {
		resp.Body.Close()
		transport.CloseIdleConnections()
	}, nil
}

// listAll reads a whole answer and forgets it.
func listAll(ctx context.Context, s Server, method string, message []byte) (int64, uint32, error) {
	resp, end, err := askFor(ctx, s, method, message)
	if err != nil {
		return 0, 0, err
	}
	defer end()
	sum := crc32.New(crc32.MakeTable(crc32.Castagnoli))
	n, err := io.CopyBuffer(struct{ io.Writer }{sum}, struct{ io.Reader }{resp.Body}, make([]byte, 256<<10))
	if err != nil {
		return n, 0, fmt.Errorf("after %d bytes: %w", n, err)
	}
	if code := resp.Trailer.Get("Grpc-Status"); code != "0" {
		return n, 0, fmt.Errorf("status %s %s", code, resp.Trailer.Get("Grpc-Message"))
	}
	return n, sum.Sum32(), nil
}

func listsTable(all []*Lists, p listsPlan) *table {
	kind := "unary"
	if p.stream {
		kind = "streamed"
	}
	t := &table{
		title: "Many lists at once", data: all,
		about: fmt.Sprintf("%d keys of %d bytes with %d random bytes each, listed by %d callers at once, %s; %d more ask and do not read.",
			p.space.Keys, p.space.KeyBytes, p.space.ValueBytes, p.callers, kind, p.idle),
		header: []string{"server", "bytes each", "took", "bytes a second", "server CPU", "resident before", "peak", "growth"},
	}
	for _, l := range all {
		rate := float64(l.Bytes) * float64(l.Callers) / l.Took.Seconds()
		t.add(l.Server, size(l.Bytes).String(), span(l.Took).String(), size(int64(rate)).String(), span(l.CPU).String(),
			size(l.Before.Resident).String(), size(l.Peak).String(), size(l.Peak-l.Before.Resident).String())
	}
	return t
}
