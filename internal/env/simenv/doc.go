// Package simenv is the seeded body of the outside world: clocks that the
// simulator advances, randomness that one seed decides, tasks that it steps one
// at a time, and disks that crash, tear, flip bits, fill up, fail and stall
// (rules 4, 27 and 31). It starts no goroutine and asks the operating system for
// nothing: the same seed and the same calls give the same bytes and the same
// trace.
//
// A World has Machines; a Machine has a Disk that survives crashes, and one run
// of a process at a time. A simulator is a loop of this shape:
//
//	w := simenv.New(seed, simenv.Options{})
//	m := w.Machine("a")
//	p := m.Start()
//	member := start(p.World())             // the product, handed its world
//	for {
//		switch {                       // by the seed: w.Rand("schedule")
//		case turn of a stage:          // not before m.BusyUntil()
//			wake = p.Clock.WorldTime(member.Turn(p.Clock.Now()))
//		case p.Tasks.Pending() > 0:
//			p.Tasks.RunOne(pick)
//		case a sync is due:
//			m.Disk().CompleteDue(w.Now()) // or CompleteSync(pick)
//		case nothing can run:
//			w.AdvanceTo(min(wake, w.NextDue()))
//		case a crash:
//			m.Crash(simenv.PowerCrash)
//			p = m.Start()          // and start the product anew
//		}
//	}
//
// A test of one package on a disk needs no World: NewDisk, Mount, Crash, Mount.
//
// What a power loss may do. A file's content is durable up to its last completed
// sync. Every 4 KiB block written since is on disk as it was then, as it is now,
// as it was at some moment between, or, unless DiskOptions.WholeBlocks, as 512-byte
// sectors of these; each block decides for itself. So does the file's size, and
// what the size promises but no block delivers reads as zeros. A name is durable
// only by a sync of its directory, never by one of the file; of the unsynced
// operations of a directory the first so many remain (DiskOptions.ReorderDirOps:
// any). A rename is atomic, also between directories. How much is lost differs
// from crash to crash: nothing, a little, half, nearly all, all.
//
// A process crash loses nothing, and syncs nothing either.
package simenv
