package piles_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"syscall"
	"testing"

	"github.com/kvorum/kvorum/internal/env/simenv"
	"github.com/kvorum/kvorum/internal/storage/piles"
)

func row(number uint64, size int) []byte {
	return append(binary.LittleEndian.AppendUint64(nil, number), bytes.Repeat([]byte{byte(number)}, size)...)
}

// add deals a row.
func add(t *testing.T, p *piles.Piles, number uint64, size int) []byte {
	t.Helper()
	r := row(number, size)
	if err := p.Add(number, func(dst []byte) []byte { return append(dst, r...) }); err != nil {
		t.Fatal(err)
	}
	return r
}

// Each pile has the rows of its numbers, in the order in which they came, whether there
// is room for all of them in memory, for some or for none; the file is there only if
// there is not, and is gone at the end.
func TestPilesHaveTheirNumbers(t *testing.T) {
	const first, width, count = 100, 7, 13
	for _, memory := range []int{0, 50, 2000, 1 << 20} {
		t.Run(fmt.Sprint(memory), func(t *testing.T) {
			disk := simenv.NewDisk(1, simenv.DiskOptions{})
			p := piles.New(piles.Options{FS: disk.Mount(), Path: "rows", First: first, Width: width, Count: count, Memory: memory})
			draw := rand.New(rand.NewPCG(1, uint64(memory)))
			want, rows, all := make([][]byte, count), make([]int, count), int64(0)
			for range 500 {
				n := first + draw.Uint64N(width*count)
				r := add(t, p, n, draw.IntN(40))
				i, from, to := p.Of(n)
				if from > n || n > to || to-from != width-1 || i != int(n-first)/width {
					t.Fatalf("%d goes to pile %d of %d to %d", n, i, from, to)
				}
				want[i] = append(want[i], r...)
				rows[i]++
				all += int64(len(r))
			}
			if err := p.Dealt(); err != nil {
				t.Fatal(err)
			}
			if inFile := len(disk.Files()) > 0; inFile != (all > int64(memory)) {
				t.Errorf("%d bytes, %d in memory, files %q", all, memory, disk.Files())
			}
			if p.Bytes() != all {
				t.Errorf("%d bytes are said to be %d", all, p.Bytes())
			}
			for i := range want {
				got, err := p.Read(i, []byte("before"))
				if err != nil || !bytes.Equal(got, append([]byte("before"), want[i]...)) || p.Size(i) != len(want[i]) || p.Count(i) != rows[i] {
					t.Errorf("pile %d: %d bytes (%d) of %d rows instead of %d of %d, %v", i, len(got)-6, p.Size(i), p.Count(i), len(want[i]), rows[i], err)
				}
			}
			if err := p.Close(); err != nil || len(disk.Files()) != 0 {
				t.Errorf("left %q: %v", disk.Files(), err)
			}
		})
	}
}

// What the file gives back is what was written, or ErrDamaged; errors of the disk come
// out, and nothing is left of the file after any.
func TestPilesTellWhatTheDiskDoes(t *testing.T) {
	for name, c := range map[string]struct {
		fault simenv.Fault
		want  error
	}{
		"flipped":    {simenv.Fault{Ops: simenv.OpRead, FlipBit: true}, piles.ErrDamaged},
		"unreadable": {simenv.Fault{Ops: simenv.OpRead, Err: syscall.EIO}, syscall.EIO},
		"full":       {simenv.Fault{Ops: simenv.OpWrite, Err: syscall.ENOSPC, Nth: 2}, syscall.ENOSPC},
		"refused":    {simenv.Fault{Ops: simenv.OpCreate, Err: syscall.EIO}, syscall.EIO},
		"not opened": {simenv.Fault{Ops: simenv.OpOpen, Err: syscall.EIO}, syscall.EIO},
	} {
		t.Run(name, func(t *testing.T) {
			disk := simenv.NewDisk(1, simenv.DiskOptions{})
			disk.Inject(c.fault)
			p := piles.New(piles.Options{FS: disk.Mount(), Path: "rows", Width: 10, Count: 3, Memory: 100})
			var err error
			for n := uint64(0); n < 30 && err == nil; n++ {
				err = p.Add(n, func(dst []byte) []byte { return append(dst, row(n, 20)...) })
			}
			if err == nil {
				err = p.Dealt()
			}
			if err == nil {
				_, err = p.Read(1, nil)
			}
			if !errors.Is(err, c.want) {
				t.Errorf("%v instead of %v", err, c.want)
			}
			disk.ClearFaults()
			if err := p.Close(); err != nil || len(disk.Files()) != 0 {
				t.Errorf("left %q: %v", disk.Files(), err)
			}
		})
	}
}
