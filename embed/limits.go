package embed

import (
	"fmt"
	"log/slog"

	"golang.org/x/sys/unix"
)

const (
	// leastFiles is how many files the process must be able to have open: so many are
	// its own (spec/server-ops.md 8).
	leastFiles = 150
	// wiseFiles leave room for a few hundred clients.
	wiseFiles = 1024
)

// checkProcess looks at what the system grants this process, and takes what the
// configuration asks for. Package os has raised the limit of open files to the hard
// one by now.
func checkProcess(cfg *Config, log *slog.Logger) error {
	var files unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &files); err == nil {
		if err := checkFiles(uint64(files.Cur), log); err != nil {
			return err
		}
	}
	if !cfg.MemoryLock {
		return nil
	}
	if err := lockMemory(); err != nil {
		return fmt.Errorf("--memory-mlock: the memory cannot be locked (it needs LimitMEMLOCK=infinity or CAP_IPC_LOCK): %w", err)
	}
	log.Info("the memory of this process is locked")
	return nil
}

func checkFiles(limit uint64, log *slog.Logger) error {
	if limit <= leastFiles {
		return fmt.Errorf("file descriptor limit %d is too low: more than %d open files are needed (LimitNOFILE, ulimit -n)", limit, leastFiles)
	}
	if limit < wiseFiles {
		log.Warn("file descriptor limit is low: every client needs one", "limit", limit, "recommended", wiseFiles)
	}
	return nil
}

// warnOfPermissions tells when others than the owner may look into the data directory,
// which is made for the owner alone.
func (s *Server) warnOfPermissions() {
	const others = 0o077
	info, err := s.world.FS.Stat(s.cfg.DataDir)
	if err != nil || info.Mode().Perm()&others == 0 {
		return
	}
	s.log.Warn("others than its owner have permissions on the data directory; 0700 is recommended",
		"data-dir", s.cfg.DataDir, "permission", info.Mode().Perm().String())
}
