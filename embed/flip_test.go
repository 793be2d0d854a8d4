package embed

import (
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
)

var (
	flipSeed  = flag.Uint64("flip.seed", 1, "seed of the bits that are flipped")
	flipEvery = flag.Int("flip.every", 1, "flip a bit in every so-manieth block of the log and the tables (1: all)")
)

const blockBytes = 4096

// history is what the damaged directories are judged by.
type history struct {
	now map[string]string // the keys and values
	old map[string]string // those at revision oldRevision
}

const oldRevision = 200

// prepare fills a directory with tables, a MANIFEST and a log with a live part,
// and returns a copy of it as a kill -9 would leave it.
func prepare(t *testing.T) (string, history) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "made")
	h := history{now: map[string]string{}, old: map[string]string{}}
	draw := rand.New(rand.NewPCG(*flipSeed, 0))
	for range 3 { // each clean stop makes a table
		m := startMember(t, dir)
		h.write(t, m, draw)
		m.stop()
	}
	m := startMember(t, dir)
	h.write(t, m, draw)
	image := filepath.Join(t.TempDir(), "image")
	copyDir(t, dir, image)
	m.stop()
	return image, h
}

func (h *history) write(t *testing.T, m *member, draw *rand.Rand) {
	t.Helper()
	kv := pb.NewKVClient(m.conn)
	for range 120 {
		key := fmt.Sprintf("key%03d", draw.IntN(200))
		value := fmt.Sprintf("%s=%s", key, strings.Repeat(fmt.Sprintf("%016x", draw.Uint64()), 1+draw.IntN(60)))
		resp, err := kv.Put(t.Context(), &pb.PutRequest{Key: []byte(key), Value: []byte(value)})
		if err != nil {
			t.Fatal(err)
		}
		h.now[key] = value
		if resp.Header.Revision <= oldRevision {
			h.old[key] = value
		}
	}
}

func copyDir(t *testing.T, from, to string) {
	t.Helper()
	if err := os.CopyFS(to, os.DirFS(from)); err != nil {
		t.Fatal(err)
	}
}

// verdict is what became of one flipped bit.
type verdict int

const (
	harmless verdict = iota // everything is served as it was: the bit was not in use
	refused                 // the member did not start and named the file
	found                   // a read failed and named the file
)

// judge starts a member on a damaged directory and compares every key.
func judge(t *testing.T, dir, file string, h history) (verdict, error) {
	t.Helper()
	cfg, client := configFor(t, dir)
	s, err := Start(cfg, slog.New(slog.DiscardHandler))
	if err != nil {
		return refused, names(err, file)
	}
	defer s.Close() // what a damaged store says at its end does not matter here
	conn, err := grpc.NewClient(client, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	kv := pb.NewKVClient(conn)
	for _, read := range []struct {
		revision int64
		want     map[string]string
	}{{0, h.now}, {oldRevision, h.old}} {
		resp, err := kv.Range(t.Context(), &pb.RangeRequest{Key: []byte{0}, RangeEnd: []byte{0}, Revision: read.revision})
		if err != nil {
			return found, names(err, file)
		}
		if len(resp.Kvs) != len(read.want) {
			return harmless, fmt.Errorf("revision %d: %d keys are served, %d were written", read.revision, len(resp.Kvs), len(read.want))
		}
		for _, got := range resp.Kvs {
			if read.want[string(got.Key)] != string(got.Value) {
				return harmless, fmt.Errorf("revision %d: %s is served as %.40q", read.revision, got.Key, got.Value)
			}
		}
	}
	return harmless, nil
}

// names demands that an error names the damaged file, and in a log the offset.
func names(err error, file string) error {
	if !strings.Contains(err.Error(), filepath.Base(file)) {
		return fmt.Errorf("the error does not name %s: %w", file, err)
	}
	if kindOf(file) == "log" && !strings.Contains(err.Error(), "at offset") {
		return fmt.Errorf("the error names no offset: %w", err)
	}
	return nil
}

// TestEveryFlippedBitIsFoundOrUnused flips one bit at a time in every durable
// file. Whatever happens then, wrong data is never served.
func TestEveryFlippedBitIsFoundOrUnused(t *testing.T) {
	if testing.Short() {
		t.Skip("starts a member for every bit")
	}
	image, h := prepare(t)
	draw := rand.New(rand.NewPCG(*flipSeed, 1))
	counts := map[string]*[3]int{}
	err := filepath.WalkDir(image, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(image, path)
		kind := kindOf(rel)
		if counts[kind] == nil {
			counts[kind] = &[3]int{}
		}
		for block := int64(0); block*blockBytes < info.Size(); block++ {
			if zero(t, path, block) && block%64 != 0 || draw.IntN(*flipEvery) != 0 && block > 0 && info.Size() > 16*blockBytes {
				continue
			}
			offset := block*blockBytes + draw.Int64N(min(blockBytes, info.Size()-block*blockBytes))
			bit := draw.IntN(8)
			v, err := flipAndJudge(t, image, rel, offset, bit, h)
			if err != nil {
				t.Errorf("%s, offset %d, bit %d: %v", rel, offset, bit, err)
			}
			counts[kind][v]++
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for kind, n := range counts {
		t.Logf("%-8s %4d refused at start, %4d found by a read, %4d unused", kind, n[refused], n[found], n[harmless])
	}
	for _, kind := range []string{"identity", "log", "table", "MANIFEST"} {
		if n := counts[kind]; n == nil || n[refused]+n[found] == 0 {
			t.Errorf("no flipped bit of the kind %s was ever found: was any flipped?", kind)
		}
	}
}

func flipAndJudge(t *testing.T, image, rel string, offset int64, bit int, h history) (verdict, error) {
	t.Helper()
	dir, err := os.MkdirTemp("", "flip")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	copyDir(t, image, dir)
	flip(t, filepath.Join(dir, rel), offset, bit)
	return judge(t, dir, rel, h)
}

// flip flips one bit of a file.
func flip(t *testing.T, path string, offset int64, bit int) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	var b [1]byte
	_, err = f.ReadAt(b[:], offset)
	b[0] ^= 1 << bit
	_, err2 := f.WriteAt(b[:], offset)
	if err := errors.Join(err, err2, f.Close()); err != nil {
		t.Fatal(err)
	}
}

// zero says whether a block of a file is blank.
func zero(t *testing.T, path string, block int64) bool {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var b [blockBytes]byte
	n, _ := f.ReadAt(b[:], block*blockBytes)
	for _, x := range b[:n] {
		if x != 0 {
			return false
		}
	}
	return true
}

func kindOf(rel string) string {
	base := filepath.Base(rel)
	switch {
	case strings.Contains(rel, "/log/"):
		return "log"
	case strings.HasSuffix(base, ".sst"):
		return "table"
	case strings.HasPrefix(base, "MANIFEST"):
		return "MANIFEST"
	case base == "identity":
		return base
	}
	return "other"
}
