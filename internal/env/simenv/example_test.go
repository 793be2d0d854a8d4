package simenv_test

import (
	"fmt"

	"github.com/kvorum/kvorum/internal/env"
	"github.com/kvorum/kvorum/internal/env/simenv"
)

// A machine writes a promise, syncs it while the world goes on, and loses power.
func Example() {
	w := simenv.New(1, simenv.Options{})
	m := w.Machine("a")
	world := m.Start().World() // what the product is given

	log, _ := world.FS.Create("log", env.WAL)
	dir, _ := world.FS.OpenDir("")
	dir.Sync()
	log.Write([]byte("promise"))
	env.StartSync(log, false, func(err error) { fmt.Println("synced:", err) })

	w.AdvanceTo(w.NextDue()) // nothing else can happen before
	m.Disk().CompleteDue(w.Now())

	m.Crash(simenv.PowerCrash)
	world = m.Start().World() // the next run of the process
	log, _ = world.FS.Open("log")
	found := make([]byte, 7)
	log.Read(found)
	fmt.Printf("found: %s\n", found)
	// Output:
	// synced: <nil>
	// found: promise
}
