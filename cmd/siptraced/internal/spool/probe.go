package spool

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"github.com/nats-io/nats.go/jetstream"
)

// InUseError says that another process has the spool's directory.
type InUseError struct {
	Dir string
	PID int // 0: not known
}

func (e *InUseError) Error() string {
	who := "another siptraced"
	if e.PID > 0 {
		who += fmt.Sprintf(" (pid %d)", e.PID)
	}
	return fmt.Sprintf("spool: %s is in use by %s: stop it, or name another directory (key spool.dir)", e.Dir, who)
}

// holder is the process that wrote itself into the lock file, 0 where it is not
// known.
func holder(lock *os.File) int {
	text := make([]byte, 32)
	n, _ := lock.ReadAt(text, 0)
	pid, _ := strconv.Atoi(strings.TrimSpace(string(text[:n])))
	return pid
}

// Place is where a spool would be.
type Place struct {
	// Free and Size are bytes of the file system; of a cluster they are 0.
	Free, Size int64
	// Full: no more than the reserve is free, which is left to others.
	Full bool
}

// Probe finds out whether a spool with this configuration could be opened, and
// leaves nothing behind. The error is an *InUseError where another process has it.
func Probe(ctx context.Context, cfg Config) (Place, error) {
	if cfg.NATS != "" {
		return Place{}, probeCluster(ctx, cfg)
	}
	dir, err := probeDir(cfg.Dir)
	if err != nil {
		return Place{}, err
	}
	var st syscall.Statfs_t
	if err := syscall.Statfs(dir, &st); err != nil {
		return Place{}, fmt.Errorf("spool: %s: %w", dir, err)
	}
	size, free := st.Blocks*uint64(st.Bsize), st.Bavail*uint64(st.Bsize)
	return Place{Free: int64(free), Size: int64(size), Full: free < kept(size)}, nil
}

func probeCluster(ctx context.Context, cfg Config) error {
	e, err := dialCluster(ctx, cfg, slog.New(slog.DiscardHandler))
	if err != nil {
		return err
	}
	defer e.close()
	js, err := jetstream.New(e.conn)
	if err == nil {
		_, err = js.AccountInfo(ctx)
	}
	if err != nil {
		return fmt.Errorf("spool: cluster (key spool.nats): JetStream: %w", err)
	}
	return nil
}

// probeDir tries the lock, and writes a file: into the directory, or where it would
// be made, which it returns.
func probeDir(dir string) (string, error) {
	for {
		f, err := os.CreateTemp(dir, ".siptraced-check-*")
		if err == nil {
			defer os.Remove(f.Name())
			defer f.Close()
			return dir, probeLock(dir)
		}
		up := filepath.Dir(dir)
		if !errors.Is(err, fs.ErrNotExist) || up == dir {
			return "", fmt.Errorf("spool: %w", err)
		}
		dir = up
	}
}

func probeLock(dir string) error {
	f, err := os.OpenFile(filepath.Join(dir, lockFile), os.O_RDWR, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("spool: %w", err)
	}
	defer f.Close() // and with it the lock
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return &InUseError{dir, holder(f)}
	}
	return nil
}
