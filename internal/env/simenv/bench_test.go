package simenv_test

import (
	"testing"

	"github.com/kvorum/kvorum/internal/env"
	"github.com/kvorum/kvorum/internal/env/simenv"
)

// A log's day: frames of one block into a file made beforehand, a sync each.
func BenchmarkLogFrame(b *testing.B) {
	d := simenv.NewDisk(1, simenv.DiskOptions{})
	f, err := d.Mount().Create("log", env.WAL)
	if err != nil {
		b.Fatal(err)
	}
	const segment = 4 << 20
	f.Write(make([]byte, segment))
	frame := make([]byte, 4096)
	frame[17] = 1
	b.SetBytes(int64(len(frame)))
	for i := 0; b.Loop(); i++ {
		f.WriteAt(frame, int64(i)*4096%segment)
		env.StartSync(f, false, func(error) {})
		d.CompleteSync(0)
	}
}

// Small appends, synced now and then.
func BenchmarkAppend100Bytes(b *testing.B) {
	fs := simenv.NewDisk(1, simenv.DiskOptions{}).Mount()
	f, _ := fs.Create("log", env.WAL)
	record := make([]byte, 100)
	record[17] = 1
	b.SetBytes(int64(len(record)))
	for i := 0; b.Loop(); i++ {
		if i%100_000 == 0 {
			f, _ = fs.Create("log", env.WAL)
		}
		f.Write(record)
		if i%50 == 0 {
			f.SyncData()
		}
	}
}

// A new world with a little log, and its power loss.
func BenchmarkPowerCrash(b *testing.B) {
	for seed := uint64(0); b.Loop(); seed++ {
		d := simenv.NewDisk(seed, simenv.DiskOptions{})
		f, err := d.Mount().Create("log", env.WAL)
		if err != nil {
			b.Fatal(err)
		}
		f.Write(make([]byte, 256<<10))
		d.Crash(simenv.PowerCrash)
	}
}
