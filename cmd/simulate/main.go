// Command simulate runs worlds of the product's own code, each decided by one
// seed, and tells the story of the first that breaks a promise:
//
//	simulate --seed 1 --count 2000
package main

import (
	"os"
	"time"

	"github.com/kvorum/kvorum/internal/sim"
)

func main() {
	began := time.Now()
	os.Exit(sim.Main(os.Args[1:], os.Stdout, func() time.Duration { return time.Since(began) }))
}
