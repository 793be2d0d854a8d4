package engine

import (
	"errors"
	"io"
	"io/fs"

	"github.com/kvorum/kvorum/internal/env"
)

// What both bodies do with files, beside their own formats.

// MakeDir makes a directory and the parents that it lacks, and makes all their
// names durable.
func MakeDir(fsys env.FS, dir string) error {
	var parents []string
	for at := dir; ; {
		if _, err := fsys.Stat(at); err == nil {
			break
		}
		up := fsys.PathDir(at)
		if up == at {
			break
		}
		parents = append(parents, up)
		at = up
	}
	if err := fsys.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	for _, parent := range parents {
		if err := SyncDir(fsys, parent); err != nil {
			return err
		}
	}
	// A process that was killed may have left the last name unsynced.
	return SyncDir(fsys, fsys.PathDir(dir))
}

// SyncDir makes the names in a directory durable.
func SyncDir(fsys env.FS, dir string) error {
	d, err := fsys.OpenDir(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// ReadFile reads a whole file.
func ReadFile(fsys env.FS, path string) ([]byte, error) {
	f, err := fsys.Open(path)
	if err != nil {
		return nil, err
	}
	data, err := io.ReadAll(f)
	return data, errors.Join(err, f.Close())
}

// RemoveIfThere removes a file unless it is gone already.
func RemoveIfThere(fsys env.FS, path string) error {
	if err := fsys.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}
