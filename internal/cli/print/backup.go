package print

import (
	"fmt"
	"os"

	"github.com/kvorum/kvorum/internal/storage/etcddb"
)

// BackupStatus is what a backup file says of itself.
type BackupStatus struct {
	Hash      uint32 `json:"hash"`
	Revision  int64  `json:"revision"`
	TotalKey  int    `json:"totalKey"`
	TotalSize int64  `json:"totalSize"`
	Version   string `json:"version"`
}

// BackupStatus writes it.
func (p *Printer) BackupStatus(s BackupStatus) error {
	g := grid{head: []string{"Hash", "Revision", "Total Keys", "Total Size", "Version"}}
	g.rows = [][]string{{fmt.Sprintf("%x", s.Hash), fmt.Sprint(s.Revision), fmt.Sprint(s.TotalKey), size(s.TotalSize), s.Version}}
	return p.write(answer{
		simple: func(l *lines) { l.columns(g.rows) },
		fields: func(l *lines) {
			l.field("Hash", "%d", s.Hash)
			l.field("Revision", "%d", s.Revision)
			l.field("Keys", "%d", s.TotalKey)
			l.field("Size", "%d", s.TotalSize)
			l.field("Version", "%q", s.Version)
		},
		json:  s,
		table: &g,
	})
}

// BackupHashKV is the hash over the keys in a backup file and their history.
type BackupHashKV struct {
	Hash            uint32 `json:"hash"`
	HashRevision    int64  `json:"hashRevision"`
	CompactRevision int64  `json:"compactRevision"`
}

// BackupHashKV writes it.
func (p *Printer) BackupHashKV(h BackupHashKV) error {
	g := grid{head: []string{"Hash", "Hash Revision", "Compact Revision"}}
	g.rows = [][]string{{fmt.Sprintf("%x", h.Hash), fmt.Sprint(h.HashRevision), fmt.Sprint(h.CompactRevision)}}
	return p.write(answer{
		simple: func(l *lines) { l.columns(g.rows) },
		fields: func(l *lines) {
			l.field("Hash", "%d", h.Hash)
			l.field("Hash revision", "%d", h.HashRevision)
			l.field("Compact revision", "%d", h.CompactRevision)
		},
		json:  h,
		table: &g,
	})
}

// FileStatus reads a backup, with its digest if it has one, and writes its status.
// Errors: etcddb.ErrDamaged, the file system's.
func FileStatus(p *Printer, path string) error {
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return err
	}
	bytes := info.Size()
	if etcddb.HasDigest(bytes) {
		if bytes, err = etcddb.CheckDigest(file, bytes); err != nil {
			return err
		}
	}
	db, err := etcddb.Open(file, bytes)
	if err != nil {
		return err
	}
	s, err := db.Status()
	if err != nil {
		return err
	}
	return p.BackupStatus(BackupStatus{Hash: s.Hash, Revision: s.Revision, TotalKey: s.Rows, TotalSize: s.Bytes, Version: s.Version})
}
