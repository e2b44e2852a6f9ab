package spool

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"testing"

	"siptraced/cmd/siptraced/internal/disk"
)

// A directory is looked at without a trace: whether it can be opened, and if not, why.
func TestProbe(t *testing.T) {
	dir := t.TempDir()
	cfg := testConfig(t)
	cfg.Dir = filepath.Join(dir, "not", "yet")
	place, err := Probe(t.Context(), cfg)
	if err != nil || place.Free <= 0 || place.Size < place.Free {
		t.Errorf("a directory to be made: %+v, %v", place, err)
	}
	if names, err := disk.OS.List(dir); err != nil || len(names) > 0 {
		t.Errorf("it left %v, %v", names, err)
	}
	s := open(t, cfg)
	var used *InUseError
	if _, err := Probe(t.Context(), cfg); !errors.As(err, &used) || used.PID != os.Getpid() || used.Dir != cfg.Dir {
		t.Errorf("a directory in use: %v", err)
	}
	if _, err := Open(t.Context(), cfg, slog.New(slog.DiscardHandler)); !errors.As(err, &used) || used.PID != os.Getpid() {
		t.Errorf("opened twice: %v", err)
	}
	closeAll(t, s, nil)
	if _, err := Probe(t.Context(), cfg); err != nil {
		t.Errorf("a directory that was closed: %v", err)
	}
}

// What the first edition left is not touched, and its remedy is said.
func TestFormerEdition(t *testing.T) {
	cfg := testConfig(t)
	if err := os.Mkdir(filepath.Join(cfg.Dir, "jetstream"), 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := Probe(t.Context(), cfg); !errors.Is(err, ErrFormerEdition) {
		t.Errorf("Probe: %v", err)
	}
	if _, err := Open(context.Background(), cfg, slog.New(slog.DiscardHandler)); !errors.Is(err, ErrFormerEdition) {
		t.Errorf("Open: %v", err)
	}
	if names, err := disk.OS.List(cfg.Dir); err != nil || len(names) != 1 {
		t.Errorf("the directory has %v, %v", names, err)
	}
}
