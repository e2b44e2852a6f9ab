package spool

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"siptraced/cmd/siptraced/internal/cluster"
	"siptraced/cmd/siptraced/internal/disk"
	"siptraced/cmd/siptraced/internal/segments"
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

// Place is where a spool would be.
type Place struct {
	// Free and Size are bytes of the file system; of a cluster they are 0.
	Free, Size int64
	// Full: no more than the reserve is free, which is left to others.
	Full bool
	// Warnings are what of a cluster's configuration can lose messages.
	Warnings []string
}

// Probe finds out whether a spool with this configuration could be opened, and
// leaves nothing behind. The error is an *InUseError where another process has it.
func Probe(ctx context.Context, cfg Config) (Place, error) {
	if cfg.NATS != "" {
		warnings, err := cluster.Probe(ctx, clusterConfig(cfg))
		return Place{Warnings: warnings}, err
	}
	dir, err := probeDir(cfg.Dir)
	if err != nil {
		return Place{}, err
	}
	size, free, err := disk.OS.Space(dir)
	if err != nil {
		return Place{}, fmt.Errorf("spool: %w", err)
	}
	return Place{Free: int64(free), Size: int64(size), Full: free < segments.Reserve(size)}, nil
}

// probeDir tries the lock, and writes a file: into the directory, or where it would
// be made, which it returns.
func probeDir(dir string) (string, error) {
	for {
		f, err := os.CreateTemp(dir, ".siptraced-check-*")
		if err == nil {
			defer os.Remove(f.Name())
			defer f.Close()
			return dir, probeUse(dir)
		}
		up := filepath.Dir(dir)
		if !errors.Is(err, fs.ErrNotExist) || up == dir {
			return "", fmt.Errorf("spool: %w", err)
		}
		dir = up
	}
}

// probeUse reports who has the directory: nobody, another process, or the first
// edition.
func probeUse(dir string) error {
	if _, err := os.Stat(filepath.Join(dir, "jetstream")); err == nil {
		return fmt.Errorf("spool: %s: %w", dir, ErrFormerEdition)
	}
	name := filepath.Join(dir, lockFile)
	if _, err := os.Stat(name); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	lock, err := disk.OS.Lock(name)
	if locked := (*disk.LockedError)(nil); errors.As(err, &locked) {
		return &InUseError{dir, locked.PID}
	}
	if err != nil {
		return fmt.Errorf("spool: %w", err)
	}
	return lock.Close()
}

// lockFile is what segments keeps a second process off the directory with.
const lockFile = "lock"
