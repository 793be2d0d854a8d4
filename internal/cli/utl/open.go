package utl

import (
	"fmt"
	"os"
	"time"

	"github.com/kvorum/kvorum/internal/storage/etcddb"
)

// database is an open file with etcd's data in it.
type database struct {
	*os.File
	size int64
}

// lockLook is how often a locked file is looked at.
const lockLook = 50 * time.Millisecond

// open opens a file for reading, once nobody has it locked as a running etcd does.
func open(path string, patience time.Duration) (*database, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	for begun := time.Now(); ; time.Sleep(lockLook) {
		free, err := share(file)
		if err != nil {
			file.Close()
			return nil, err
		}
		if free {
			break
		}
		if time.Since(begun) >= patience {
			file.Close()
			return nil, fmt.Errorf("%s is in use by another process: stop the member first", path)
		}
	}
	info, err := file.Stat()
	if err != nil {
		file.Close()
		return nil, err
	}
	return &database{file, info.Size()}, nil
}

// database is how long the file is without a digest at its end, which is checked.
// Errors: etcddb.ErrDamaged, the file system's.
func (f *database) database() (int64, error) {
	if etcddb.HasDigest(f.size) {
		return etcddb.CheckDigest(f, f.size)
	}
	return f.size, nil
}
