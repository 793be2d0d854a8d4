// Command etcd is one member of a Kvorum cluster, under the name that every unit
// file and script knows.
package main

import (
	"os"

	"github.com/kvorum/kvorum/embed"
)

func main() { os.Exit(embed.Main(os.Args[1:], os.Environ())) }
