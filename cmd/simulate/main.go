// Command simulate runs worlds of the product's own code, each decided by one
// seed, and tells the story of the first that breaks a promise:
//
//	simulate --seed 1 --count 2000
package main

import (
	"os"

	"github.com/kvorum/kvorum/internal/sim"
)

func main() {
	os.Exit(sim.Main(os.Args[1:], os.Stdout))
}
