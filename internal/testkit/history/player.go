package history

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	"github.com/kvorum/kvorum/internal/id"
	"github.com/kvorum/kvorum/internal/state/command"
	"github.com/kvorum/kvorum/internal/testkit/model"
)

// Server is what histories are played against.
type Server interface {
	// Conn is the connection to the present run.
	Conn() grpc.ClientConnInterface
	// Renew ends the server and begins another that has never been written to.
	Renew() error
	// Restart ends the run and begins the next on what it left.
	Restart(Restart) error
}

// Crasher is a Server that can be made to crash within a call.
type Crasher interface {
	// CrashAfter plans a crash after so many operations of the disk: the next
	// Restart comes back from there. struck says whether it has happened.
	CrashAfter(how Restart, operations int) (struck func() bool)
}

// patience bounds one call.
const patience = 30 * time.Second

// Player plays histories against one server.
type Player struct {
	Server Server
	// Streams and Hashes say that the server knows RangeStream and sums as HashKV
	// of 3.7 does.
	Streams, Hashes bool
	// Restarts are the ways in which the server can be restarted; one history in
	// RestartOneIn has one.
	Restarts     []Restart
	RestartOneIn int
	// UnstableTies says that equals may come in any order out of a sort.
	UnstableTies bool
	// Rules are what the server does in another way than the oracle.
	Rules []*Rule

	// Calls and Restarted count what was done, Tally what was met.
	Calls, Restarted int
	Tally            Tally

	identity identity
}

// Rule is a difference between a server and the oracle.
type Rule struct {
	// Title names it in the document that lists the differences.
	Title string
	// Applies says whether a request is concerned.
	Applies func(request any) bool
	// As gives the request that the oracle answers in the way in which the server
	// answers this one. First gives one that the oracle refuses in that way, if it
	// does refuse. With neither, such a request is not sent.
	As, First func(request any) any
	// Seen counts the requests that were answered differently, or not sent.
	Seen int
}

// Play plays the history of a seed, on a fresh server or after what the server
// has lived through already. The error tells the smallest story that was found.
func (p *Player) Play(seed uint64, fresh bool) error {
	r, err := p.begin(fresh)
	if err != nil {
		return fmt.Errorf("seed %d: %w", seed, err)
	}
	rnd := rand.New(rand.NewPCG(seed, 7))
	gen := &model.Generator{Rand: rnd, Keys: []int64{2, 8, 40}[rnd.IntN(3)]}
	lived := rand.New(rand.NewPCG(seed, 8))
	leases := &model.Generator{Rand: lived, Leases: historyLeases}
	gen.Leases = historyLeases
	calls := 10 + rnd.IntN(31)
	restartAt := -1
	if len(p.Restarts) > 0 && rnd.IntN(p.RestartOneIn) == 0 {
		restartAt = rnd.IntN(calls)
	}
	for i := range calls {
		step := p.draw(rnd, gen, r)
		if i != restartAt && lived.Int64N(8) == 0 { // what became of a cut grant no key would tell
			step = Step{Request: leaseChange(leases, r.oracle), Form: step.Form}
		}
		if i == restartAt {
			step = p.disturbed(rnd, step)
		}
		if err = r.play(step); err != nil {
			break
		}
	}
	if err == nil {
		err = r.end()
	}
	var wrong *mismatch
	switch {
	case err == nil:
		return nil
	case errors.As(err, &wrong):
		return p.shrink(seed, fresh, wrong)
	}
	return fmt.Errorf("seed %d: %w", seed, err)
}

// historyLeases are the leases that histories make, end and name in puts.
var historyLeases = []id.Lease{7, 1 << 62, -5}

// leaseChange draws a grant, of a time that no history lasts, or a revocation.
func leaseChange(gen *model.Generator, oracle *model.Store) any {
	for {
		switch r := gen.LeaseChange(oracle).(type) {
		case *command.LeaseGrant:
			r.TTL += 1000
			return r
		case *command.LeaseRevoke:
			return r
		}
	}
}

// draw draws a call.
func (p *Player) draw(rnd *rand.Rand, gen *model.Generator, r *run) Step {
	step := Step{Form: rnd.Uint64()}
	for {
		if rnd.IntN(100) < 55 {
			step.Request = gen.Request(r.now())
		} else {
			step.Request = gen.Edge(r.now(), r.oracle.Compacted()-r.offset)
		}
		wipe, isDelete := step.Request.(*command.DeleteRangeRequest)
		if !isDelete || len(wipe.End) == 0 || rnd.IntN(3) == 0 {
			break // else there would seldom be much to read
		}
	}
	_, isRange := step.Request.(*command.RangeRequest)
	step.Stream = isRange && p.Streams && rnd.IntN(4) == 0
	return step
}

// disturbed makes a step one with a restart: instead of the call, or within it.
func (p *Player) disturbed(rnd *rand.Rand, step Step) Step {
	how := p.Restarts[rnd.IntN(len(p.Restarts))]
	if _, can := p.Server.(Crasher); can && how != Clean && rnd.IntN(2) == 0 {
		step.Restart, step.After = how, 1+rnd.IntN(8)
		return step
	}
	return Step{Restart: how}
}

// run is one history being played.
type run struct {
	p      *Player
	oracle *model.Store
	// offset is how much later than at 1 the server's revision was at the start.
	offset id.Revision
	steps  []Step
}

// mismatch is a history that ended in a wrong answer to its last step, or to
// what is asked of every history at its end.
type mismatch struct {
	steps     []Step
	offset    id.Revision
	want, got string
	why       error
}

func (m *mismatch) Error() string {
	return fmt.Sprintf("%v\n\twant %s\n\tgot  %s", m.why, m.want, m.got)
}

func (r *run) now() id.Revision { return r.oracle.Revision() - r.offset }

// begin makes the server empty and the oracle what the server then is.
func (p *Player) begin(fresh bool) (*run, error) {
	if p.Tally == nil {
		p.Tally = Tally{}
	}
	if fresh {
		p.identity = identity{}
		return &run{p: p, oracle: model.New()}, p.Server.Renew()
	}
	for _, lease := range historyLeases {
		p.call(&command.LeaseRevoke{ID: lease}, false, 0) // it may not be there
	}
	all := &command.DeleteRangeRequest{Key: []byte{0}, End: []byte{0}}
	got, _ := p.call(all, false, 0)
	if got.code != codes.OK {
		return nil, fmt.Errorf("cannot delete everything: %v", got)
	}
	at := got.message.(headed).GetHeader().GetRevision()
	got, _ = p.call(&command.CompactRequest{Revision: id.Revision(at)}, false, 0)
	if got.code != codes.OK && !strings.HasSuffix(got.text, "has been compacted") {
		return nil, fmt.Errorf("cannot compact at %d: %v", at, got)
	}
	return &run{p: p, oracle: model.Emptied(id.Revision(at)), offset: id.Revision(at) - 1}, nil
}

// call sends a request as it is. A stream is put together; its pieces may be
// wrong in themselves.
func (p *Player) call(request any, inPieces bool, seed uint64) (answer, error) {
	p.Calls++
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	kv := pb.NewKVClient(p.Server.Conn())
	switch m := Message(request, seed).(type) {
	case *pb.RangeRequest:
		if inPieces {
			return gather(ctx, kv, m)
		}
		got, err := kv.Range(ctx, m)
		return answered(got, err), nil
	case *pb.PutRequest:
		got, err := kv.Put(ctx, m)
		return answered(got, err), nil
	case *pb.DeleteRangeRequest:
		got, err := kv.DeleteRange(ctx, m)
		return answered(got, err), nil
	case *pb.TxnRequest:
		got, err := kv.Txn(ctx, m)
		return answered(got, err), nil
	case *pb.LeaseGrantRequest:
		got, err := pb.NewLeaseClient(p.Server.Conn()).LeaseGrant(ctx, m)
		return answered(got, err), nil
	case *pb.LeaseRevokeRequest:
		got, err := pb.NewLeaseClient(p.Server.Conn()).LeaseRevoke(ctx, m)
		return answered(got, err), nil
	case *pb.CompactionRequest:
		got, err := kv.Compact(ctx, m)
		return answered(got, err), nil
	}
	panic(fmt.Sprintf("%T is no request", request))
}

// firstPiece is how many keys the first piece of a stream has; each later one has
// twice as many, since what histories write is small.
const firstPiece = 10

// gather puts the pieces of a stream together and judges how it was cut.
func gather(ctx context.Context, kv pb.KVClient, m *pb.RangeRequest) (answer, error) {
	from, err := kv.RangeStream(ctx, m)
	if err != nil {
		return answered(nil, err), nil
	}
	var pieces []*pb.RangeResponse
	for {
		piece, err := from.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return answered(nil, err), nil
		}
		pieces = append(pieces, piece.GetRangeResponse())
	}
	if len(pieces) == 0 {
		return answer{message: &pb.RangeResponse{}}, errors.New("a stream without a message")
	}
	if (m.CountOnly || m.Limit < 0) && len(pieces) != 1 {
		return answer{message: pieces[0]}, fmt.Errorf("%d pieces, one was asked for", len(pieces))
	}
	whole := proto.CloneOf(pieces[len(pieces)-1])
	whole.Kvs = nil
	for i, piece := range pieces {
		if i < len(pieces)-1 && (piece.Header != nil || piece.More || piece.Count != 0 || len(piece.Kvs) != firstPiece<<i) {
			return answer{message: piece}, fmt.Errorf("piece %d of %d", i+1, len(pieces))
		}
		whole.Kvs = append(whole.Kvs, piece.Kvs...)
	}
	return answer{message: whole}, nil
}

// play plays one step. The error is a *mismatch if the server answered wrongly.
func (r *run) play(step Step) error {
	if step.Request == nil {
		r.steps = append(r.steps, step)
		return r.restart(step.Restart)
	}
	request := shift(step.Request, r.offset)
	if r.p.unsent(request) {
		return nil
	}
	r.steps = append(r.steps, step)
	before := r.oracle
	if r.p.UnstableTies || step.Restart != Stay {
		before = r.oracle.Clone()
	}
	judged := r.p.differently(r.oracle, step, request)
	want := expected(r.oracle, step, judged)
	struck := func() bool { return false }
	if step.Restart != Stay {
		struck = r.p.Server.(Crasher).CrashAfter(step.Restart, step.After)
	}
	got, why := r.p.call(request, step.Stream, step.Form)
	if step.Restart != Stay {
		lost := struck()
		if err := r.restart(step.Restart); err != nil {
			return err
		}
		if lost {
			return r.fate(request, before)
		}
	}
	if r.p.UnstableTies && want.code == codes.OK && got.code == codes.OK {
		all := expected(before, step, untie(judged))
		settleTies(judged, want.message, all.message, got.message)
	}
	if why == nil {
		why = r.p.identity.difference(want, got)
	}
	if why != nil {
		return r.wrong(want, got, why)
	}
	r.p.Tally.met(step, request, r.oracle, got)
	return nil
}

// restart restarts the server; one that does not come back is a wrong answer.
func (r *run) restart(how Restart) error {
	r.p.Restarted++
	if err := r.p.Server.Restart(how); err != nil {
		return &mismatch{steps: r.steps, offset: r.offset, want: "a start", got: err.Error(), why: errDiffers}
	}
	return nil
}

func (r *run) wrong(want, got answer, why error) error {
	return &mismatch{steps: r.steps, offset: r.offset, want: want.String(), got: got.String(), why: why}
}

// unsent says whether a rule forbids to send a request.
func (p *Player) unsent(request any) bool {
	for _, rule := range p.Rules {
		if rule.As == nil && rule.First == nil && rule.Applies(request) {
			rule.Seen++
			return true
		}
	}
	return false
}

// differently is what the oracle is asked instead of a request, by the rules.
func (p *Player) differently(oracle *model.Store, step Step, request any) any {
	for _, rule := range p.Rules {
		if (rule.As == nil && rule.First == nil) || !rule.Applies(request) {
			continue
		}
		usual, other := expected(oracle.Clone(), step, request), request
		if rule.As != nil {
			other = rule.As(request)
		} else if first := rule.First(request); expected(oracle.Clone(), step, first).code != codes.OK {
			other = first
		}
		if unusual := expected(oracle.Clone(), step, other); unusual.code != usual.code || !proto.Equal(unusual.message, usual.message) || unusual.text != usual.text {
			rule.Seen++
		}
		request = other
	}
	return request
}

// fate finds out what became of a call whose answer was lost in a crash: it took
// place, or it did not.
func (r *run) fate(request any, before *model.Store) error {
	if compact, ok := request.(*command.CompactRequest); ok {
		again, _ := r.p.call(compact, false, 0)
		want := refusalOf(before.Clone().Compact(compact))
		if again.code != want && again.code != codes.OutOfRange {
			return r.wrong(answer{code: want}, again, errors.New("a compaction again, after a crash"))
		}
		return nil
	}
	got, _ := r.p.call(&command.RangeRequest{Key: []byte{0}, CountOnly: true}, false, 0)
	if got.code != codes.OK {
		return fmt.Errorf("after a crash: %v", got)
	}
	switch rev := id.Revision(got.message.(headed).GetHeader().GetRevision()); rev {
	case before.Revision():
		r.p.Tally.add("call lost in a crash", r.oracle.Revision() > rev)
		r.oracle = before
	case r.oracle.Revision():
		r.p.Tally["call carried out, its answer lost in a crash"]++
	default:
		return r.wrong(answer{message: &pb.ResponseHeader{Revision: int64(r.oracle.Revision())}}, got, errors.New("a revision of nobody, after a crash"))
	}
	return nil
}

func refusalOf(_ any, err error) codes.Code {
	if err != nil {
		return codes.OutOfRange
	}
	return codes.OK
}

// end holds all that is left of a history against the oracle: every key, and the
// sum of every version.
func (r *run) end() error {
	all := &command.RangeRequest{Key: []byte{0}, End: []byte{0}}
	got, _ := r.p.call(all, false, 0)
	want := expected(r.oracle, Step{}, all)
	if err := r.p.identity.difference(want, got); err != nil {
		return r.wrong(want, got, fmt.Errorf("all keys at the end: %w", err))
	}
	if !r.p.Hashes {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	sum, err := pb.NewMaintenanceClient(r.p.Server.Conn()).HashKV(ctx, &pb.HashKVRequest{})
	got = answered(sum, err)
	rev, compacted := r.oracle.Revision(), r.oracle.Compacted()
	want = answer{message: &pb.HashKVResponse{
		Header: headerMessage(rev), Hash: r.oracle.HashKV(rev, compacted), HashRevision: int64(rev), CompactRevision: int64(compacted),
	}}
	if err := r.p.identity.difference(want, got); err != nil {
		return r.wrong(want, got, fmt.Errorf("the sum of all versions at the end: %w", err))
	}
	return nil
}
