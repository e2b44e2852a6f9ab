package segments

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"siptraced/cmd/siptraced/internal/disk"
	"siptraced/cmd/siptraced/internal/journal"
)

// Config is where an engine keeps its logs, and how.
type Config struct {
	// Dir is made if there is none. FS has it; nil: the operating system's.
	Dir string
	FS  disk.FS
	// SyncInterval is how long an entry may wait until it is safe from a loss of power;
	// 0: Append comes back when it is.
	SyncInterval time.Duration
	Log          *slog.Logger // nil: nothing is said
	// SegmentSize bounds a segment, in bytes; 0: 64 MiB. Small bounds and small file
	// systems have smaller ones.
	SegmentSize int64
	// Random makes the names of logs and timelines; nil: from the operating system.
	Random func() uint64
}

// Engine is a directory of logs (journal.Engine).
type Engine struct {
	cfg       Config
	fs        disk.FS
	log       *slog.Logger
	lock      io.Closer
	positions *positions
	blocks    sync.Pool

	stop context.CancelFunc
	run  context.Context
	done sync.WaitGroup

	mu   sync.Mutex // covers logs
	logs map[int]*Log

	closeOnce sync.Once
	closeErr  error // of the first Close
}

var _ journal.Engine = (*Engine)(nil)

// lockName is the file that keeps a second process off the directory.
const lockName = "lock"

const logPrefix = "shard-"

// ErrFormerEdition is the answer to a directory of the first edition.
var ErrFormerEdition = errors.New("the directory has a spool of siptraced's first edition: start the former version with the same configuration until nothing waits " +
	"(pending of each sink in siptrace.sinks is 0), stop it, and remove the directory")

// Open opens a directory for writing. The error wraps a *disk.LockedError where another
// process has it.
func Open(_ context.Context, cfg Config) (*Engine, error) {
	if cfg.FS == nil {
		cfg.FS = disk.OS
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.SegmentSize <= 0 {
		cfg.SegmentSize = mostSegment
	}
	if cfg.Random == nil {
		cfg.Random = random
	}
	e := &Engine{cfg: cfg, fs: cfg.FS, log: cfg.Log, logs: map[int]*Log{}}
	if err := e.open(); err != nil {
		e.release()
		return nil, fmt.Errorf("spool: %s: %w", cfg.Dir, err)
	}
	e.run, e.stop = context.WithCancel(context.Background())
	e.done.Go(e.expire)
	return e, nil
}

func random() uint64 {
	var b [8]byte
	_, _ = rand.Read(b[:]) // it does not fail
	return binary.LittleEndian.Uint64(b[:])
}

func (e *Engine) open() (err error) {
	if err = makeDir(e.fs, e.cfg.Dir); err != nil {
		return err
	}
	names, err := e.fs.List(e.cfg.Dir)
	if err != nil {
		return err
	}
	if former(names) {
		return ErrFormerEdition
	}
	if e.lock, err = e.fs.Lock(filepath.Join(e.cfg.Dir, lockName)); err != nil {
		return err
	}
	if e.positions, err = openPositions(e.fs, e.cfg.Dir, e.log); err != nil {
		return err
	}
	e.positions.tails = e.noteTails
	return nil
}

// makeDir makes a directory and those above it, for good.
func makeDir(fsys disk.FS, dir string) error {
	var made []string // in whose directories there is a new name
	for {
		if _, err := fsys.List(dir); !errors.Is(err, fs.ErrNotExist) || filepath.Dir(dir) == dir {
			break
		}
		made = append(made, dir)
		dir = filepath.Dir(dir)
	}
	if len(made) == 0 {
		// Who made it may have ended before its name was safe. A directory that is not
		// ours may not be open to us.
		if err := fsys.SyncDir(filepath.Dir(dir)); !errors.Is(err, fs.ErrPermission) {
			return err
		}
		return nil
	}
	if err := fsys.MkdirAll(made[0]); err != nil {
		return err
	}
	for _, name := range made {
		if err := fsys.SyncDir(filepath.Dir(name)); err != nil {
			return err
		}
	}
	return nil
}

// former reports whether a directory is one of the first edition.
func former(names []string) bool { return slices.Contains(names, "jetstream") }

func (e *Engine) release() {
	if e.positions != nil {
		e.positions.close()
	}
	if e.lock != nil {
		e.lock.Close()
	}
}

// Logs is how many logs the directory has.
func (e *Engine) Logs(context.Context) (int, error) { return countLogs(e.fs, e.cfg.Dir) }

func countLogs(fsys disk.FS, dir string) (n int, err error) {
	names, err := fsys.List(dir)
	if err != nil {
		return 0, err
	}
	for _, name := range names {
		text, ok := strings.CutPrefix(name, logPrefix)
		if i, err := strconv.Atoi(text); ok && err == nil && logPrefix+strconv.Itoa(i) == name {
			n = max(n, i+1)
		}
	}
	return n, nil
}

// Open opens a log; once, until Close.
func (e *Engine) Open(_ context.Context, i int, limits journal.Limits) (journal.Log, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.logs[i] != nil {
		return nil, fmt.Errorf("spool: log %d is open already", i)
	}
	l := newLog(e, i, limits)
	if err := l.open(); err != nil {
		return nil, fmt.Errorf("spool: %s: %w", l.dir, err)
	}
	e.logs[i] = l
	e.done.Go(func() { l.keep(e.run) })
	return l, nil
}

// SetLimits changes the bounds of a log that is open.
func (e *Engine) SetLimits(_ context.Context, i int, limits journal.Limits) error {
	e.mu.Lock()
	l := e.logs[i]
	e.mu.Unlock()
	if l == nil {
		return fmt.Errorf("spool: log %d is not open", i)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.limits = limits
	return nil
}

// Positions are kept in the directory, too.
func (e *Engine) Positions() journal.Positions { return e.positions }

// MaxEntry is 16 MiB.
func (e *Engine) MaxEntry() int { return maxEntry }

// Place is the directory.
func (e *Engine) Place() string { return e.cfg.Dir }

// Space is that of the directory's file system.
func (e *Engine) Space() (size, free uint64, ok bool) {
	size, free, err := e.fs.Space(e.cfg.Dir)
	return size, free, err == nil
}

func (e *Engine) opened() []*Log {
	e.mu.Lock()
	defer e.mu.Unlock()
	var logs []*Log
	for _, l := range e.logs {
		logs = append(logs, l)
	}
	slices.SortFunc(logs, func(a, b *Log) int { return a.index - b.index })
	return logs
}

// expire gives up what is older than the bounds allow.
func (e *Engine) expire() {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-e.run.Done():
			return
		case <-tick.C:
			for _, l := range e.opened() {
				if err := l.expire(); err != nil {
					e.log.Warn("spool: old messages are not removed, trying again", "shard", l.index, "err", err)
				}
			}
		}
	}
}

// noteTails adds how far each log came to what is saved.
func (e *Engine) noteTails(values map[string]string) {
	for _, l := range e.opened() {
		values[l.key()] = l.note()
	}
}

// Close syncs all logs, and notes their ends. Cursors have to be closed before. When
// ctx ends first, the error says so, and what was not synced is safe from a crash of
// the process only.
func (e *Engine) Close(ctx context.Context) error {
	e.closeOnce.Do(func() { e.closeErr = e.close(ctx) })
	return e.closeErr
}

func (e *Engine) close(ctx context.Context) error {
	closed := make(chan error, 1)
	go func() {
		e.stop()
		e.done.Wait()
		var err error
		for _, l := range e.opened() {
			err = errors.Join(err, l.close())
		}
		err = errors.Join(err, e.positions.Flush(ctx))
		e.release()
		closed <- err
	}()
	select {
	case err := <-closed:
		if err != nil {
			return fmt.Errorf("spool: %s: %w", e.cfg.Dir, err)
		}
		return nil
	case <-ctx.Done():
		return fmt.Errorf("spool: %s: the disk does not answer: %w", e.cfg.Dir, ctx.Err())
	}
}
