// Package piles turns rows round with little memory: they come in any order, each with
// a number, and are dealt out to piles of neighbouring numbers; then a pile is read at
// a time. What does not fit into memory goes into one file, in stretches. It lies below
// whoever reads history: a watch wants it in the order of revisions, the engine has it
// in that of keys. (extsort puts rows into an order of their keys, and merges; numbers
// that lie densely need no comparisons.)
package piles

import (
	"errors"
	"hash/crc32"
	"slices"

	"github.com/kvorum/kvorum/internal/env"
	"github.com/kvorum/kvorum/internal/invariant"
)

// ErrDamaged: a stretch of the file does not come back as it was written.
var ErrDamaged = errors.New("piles: the file does not have what was written")

// Options are what piles are made of.
type Options struct {
	// The file, which is there from the first stretch that does not fit until Close.
	FS   env.FS
	Path string
	// Width numbers from First on go to the first of Count piles, and so on.
	First, Width uint64
	Count        int
	// Memory is about how many bytes of rows are kept in memory.
	Memory int
}

// Piles are rows dealt out by their numbers. They belong to one goroutine at a time. An
// error, the file system's, is final.
type Piles struct {
	opts  Options
	piles []pile
	held  int   // bytes in memory
	bytes int64 // of all rows
	file  env.File
	end   int64 // of the file
}

// pile is one of them: stretches of the file, and behind them what is in memory.
type pile struct {
	stretches []stretch
	rows      []byte
	bytes     int
	count     int
}

type stretch struct {
	at     int64
	length int
	sum    uint32
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// New makes empty piles.
func New(opts Options) *Piles {
	invariant.Check(opts.Width > 0 && opts.Count > 0, "piles without room")
	return &Piles{opts: opts, piles: make([]pile, opts.Count)}
}

// Of says to which pile a number belongs, and which numbers are that pile's.
func (p *Piles) Of(number uint64) (i int, first, last uint64) {
	at := (number - p.opts.First) / p.opts.Width
	first = p.opts.First + at*p.opts.Width
	return int(at), first, first + p.opts.Width - 1
}

// Add deals a row to the pile of its number; row appends it. Errors: the file system's.
func (p *Piles) Add(number uint64, row func(dst []byte) []byte) error {
	i, _, _ := p.Of(number)
	to := &p.piles[i]
	before := len(to.rows)
	to.rows = row(to.rows)
	grown := len(to.rows) - before
	to.bytes += grown
	to.count++
	p.held += grown
	p.bytes += int64(grown)
	if p.held > p.opts.Memory {
		return p.write()
	}
	return nil
}

// Bytes is how long all rows are together.
func (p *Piles) Bytes() int64 { return p.bytes }

// Size is how long the rows of a pile are together.
func (p *Piles) Size(i int) int { return p.piles[i].bytes }

// Count is how many rows a pile has.
func (p *Piles) Count(i int) int { return p.piles[i].count }

// Dealt ends the adding: if there is a file, it has all rows, and nothing is left in
// memory. Errors: the file system's.
func (p *Piles) Dealt() error {
	if p.file == nil {
		return nil
	}
	if err := p.write(); err != nil {
		return err
	}
	for i := range p.piles {
		p.piles[i].rows = nil
	}
	err := p.file.Close()
	p.file = nil
	if err != nil {
		return err
	}
	p.file, err = p.opts.FS.Open(p.opts.Path)
	return err
}

// write moves what is in memory to the file. Nothing is synced: the file does not
// outlive the process, and mostly goes before the system would write it.
func (p *Piles) write() (err error) {
	if p.file == nil {
		if p.file, err = p.opts.FS.Create(p.opts.Path, env.Other); err != nil {
			return err
		}
	}
	for i := range p.piles {
		to := &p.piles[i]
		if len(to.rows) == 0 {
			continue
		}
		if _, err := p.file.Write(to.rows); err != nil {
			return err
		}
		to.stretches = append(to.stretches, stretch{p.end, len(to.rows), crc32.Checksum(to.rows, castagnoli)})
		p.end += int64(len(to.rows))
		to.rows = to.rows[:0]
	}
	p.held = 0
	return nil
}

// Read appends the rows of a pile in the order in which they came. Errors: ErrDamaged,
// the file system's.
func (p *Piles) Read(i int, dst []byte) ([]byte, error) {
	from := &p.piles[i]
	dst = slices.Grow(dst, from.bytes)
	for _, s := range from.stretches {
		start := len(dst)
		dst = dst[:start+s.length]
		if _, err := p.file.ReadAt(dst[start:], s.at); err != nil {
			return dst, err
		}
		if crc32.Checksum(dst[start:], castagnoli) != s.sum {
			return dst, ErrDamaged
		}
	}
	return append(dst, from.rows...), nil
}

// Close removes the file. Errors: the file system's.
func (p *Piles) Close() error {
	if p.file == nil && p.end == 0 {
		return nil
	}
	var err error
	if p.file != nil {
		err = p.file.Close()
		p.file = nil
	}
	return errors.Join(err, p.opts.FS.Remove(p.opts.Path))
}
