package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"siptraced/tests/servers"
)

// bench is one run of the command. It stands in for the testing.TB that package
// servers reports to: a failure ends the scenario, and what a scenario started
// ends with it. Methods of testing.TB that servers does not use are not there.
type bench struct {
	testing.TB

	opt options
	out io.Writer // tables and figures
	log io.Writer // progress

	results []figure
	bin     string // siptraced, built once

	scenario string
	mu       sync.Mutex // covers what follows
	built    string     // directory of a program that was built
	failed   bool
	level    int       // where Cleanup adds: 0 is the scenario, above it are its sections
	cleanups []cleanup // the deepest level last
}

// cleanup ends something at the end of its level.
type cleanup struct {
	level int
	run   func()
}

// runAll runs the scenarios that were asked for and returns the exit code.
func (b *bench) runAll() int {
	begin := time.Now()
	code := 0
	for _, name := range b.opt.names {
		if !b.runScenario(name, scenarios[scenarioIndex(name)].run) {
			code = 1
		}
	}
	b.removeProgram()
	b.Logf("all done in %.0f s", time.Since(begin).Seconds())
	return code
}

// runScenario runs one scenario to its end or to its first failure.
func (b *bench) runScenario(name string, f func(*bench)) bool {
	b.mu.Lock()
	b.scenario, b.failed, b.level = name, false, 0
	b.mu.Unlock()
	first := len(b.results)
	done := make(chan struct{})
	// Of its own, so that FailNow can end it wherever it is.
	go func() {
		defer close(done)
		f(b)
	}()
	<-done
	b.cleanUp(0)
	b.printFigures(b.results[first:])
	return !b.Failed()
}

// cleanUp ends what a level and those above it started, the last thing first.
func (b *bench) cleanUp(level int) {
	for {
		b.mu.Lock()
		last := len(b.cleanups) - 1
		if last < 0 || b.cleanups[last].level < level {
			b.mu.Unlock()
			return
		}
		f := b.cleanups[last].run
		b.cleanups = b.cleanups[:last]
		b.mu.Unlock()
		f()
	}
}

// section runs a part of a scenario and ends what it started before the next
// part begins.
func (b *bench) section(f func()) {
	outer := b.setLevel(func(l int) int { return l + 1 })
	defer func() {
		b.cleanUp(outer + 1)
		b.setLevel(func(int) int { return outer })
	}()
	f()
}

// at runs f; what it starts ends with an outer level.
func (b *bench) at(level int, f func()) {
	inner := b.setLevel(func(int) int { return level })
	defer b.setLevel(func(int) int { return inner })
	f()
}

func (b *bench) setLevel(change func(int) int) (old int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	old = b.level
	b.level = change(old)
	return old
}

// The part of testing.TB that package servers uses.

func (b *bench) Helper()      {}
func (b *bench) Name() string { return b.scenario }

func (b *bench) Cleanup(f func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	i := len(b.cleanups)
	for i > 0 && b.cleanups[i-1].level > b.level {
		i--
	}
	b.cleanups = slices.Insert(b.cleanups, i, cleanup{b.level, f})
}

func (b *bench) Failed() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.failed
}

func (b *bench) Fail() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.failed = true
}

func (b *bench) FailNow() {
	b.Fail()
	runtime.Goexit()
}

func (b *bench) Log(args ...any) {
	fmt.Fprintln(b.log, append([]any{"bench: " + b.scenario + ":"}, args...)...)
}

func (b *bench) Logf(format string, args ...any) {
	b.Log(fmt.Sprintf(format, args...))
}

func (b *bench) Error(args ...any) {
	b.Log(args...)
	b.Fail()
}

func (b *bench) Errorf(format string, args ...any) {
	b.Logf(format, args...)
	b.Fail()
}

func (b *bench) Fatal(args ...any) {
	b.Log(args...)
	b.FailNow()
}

func (b *bench) Fatalf(format string, args ...any) {
	b.Logf(format, args...)
	b.FailNow()
}

// TempDir is a directory that goes with the scenario, or with its section. It
// stands beside those of the servers.
func (b *bench) TempDir() string {
	dir, err := os.MkdirTemp(os.Getenv(servers.LogDir), "siptraced-bench-")
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

// program is the siptraced under test.
func (b *bench) program() string {
	if b.bin != "" {
		return b.bin
	}
	if b.opt.bin != "" {
		b.bin = b.absolute(b.opt.bin)
		return b.bin
	}
	dir, err := os.MkdirTemp("", "siptraced-bench-bin-")
	if err != nil {
		b.Fatal(err)
	}
	b.mu.Lock()
	b.built = dir
	b.mu.Unlock()
	if b.bin, err = servers.Build(dir, false); err != nil {
		b.Fatal(err)
	}
	return b.bin
}

// removeProgram removes what program has built.
func (b *bench) removeProgram() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.built != "" {
		_ = os.RemoveAll(b.built)
		b.built = ""
	}
}

// daemon is a running siptraced with one address for UDP and TCP.
type daemon struct {
	*servers.Siptraced
	b    *bench
	addr string
	usage
}

// siptraced starts the daemon that writes to a database.
func (b *bench) siptraced(dbURL string, args ...string) *daemon {
	b.Helper()
	addr := fmt.Sprintf("127.0.0.1:%d", servers.FreePort(b))
	all := append([]string{
		"run", "--set", "listen=udp:" + addr + ",tcp:" + addr, "--set", "spool.dir=" + b.TempDir(),
		"--set", "rpc.http=", "--set", "rpc.ctl=", // there is one default address, and it may be in use
	}, args...)
	if dbURL != "" {
		all = append(all, "--set", "siptrace.db_url="+dbURL)
	}
	all = append(all, "--set", "local=udp:"+proxy.String())
	for _, s := range b.opt.set {
		all = append(all, "--set", s)
	}
	d := &daemon{b: b, addr: addr}
	d.Siptraced = servers.StartSiptraced(b, servers.Command{Bin: b.program(), Args: all})
	d.usage = usage{pid: d.PID()}
	return d
}

// stop ends the daemon in order and looks at its books.
func (d *daemon) stop() servers.Counters {
	d.b.Helper()
	d.MustStop(d.b)
	c := d.Counters(d.b)
	if err := c.Balanced(); err != nil {
		d.b.Errorf("books: %v", err)
	}
	return c
}

// busy is the percentage of the machine that other programs may take for it to
// count as quiet.
const busy = 10

// waitQuiet waits for a second in which the machine has nothing else to do, or
// until the time for it is over. What b has started has to be idle.
func (b *bench) waitQuiet() {
	for end := time.Now().Add(b.opt.quiet); time.Now().Before(end); {
		s := newStrangers()
		time.Sleep(time.Second)
		if s.share(0) < busy {
			return
		}
	}
}

// repeat calls measure until it was undisturbed as often as there are rounds;
// measure returns what other programs took meanwhile, in percent, and whether to
// go on. Without the flag quiet, no measurement counts as disturbed.
func (b *bench) repeat(measure func() (others float64, again bool)) {
	most := b.opt.rounds
	if b.opt.quiet > 0 {
		most *= 3
	}
	for clean, i := 0, 0; clean < b.opt.rounds && i < most; i++ {
		others, again := measure()
		if !again {
			return
		}
		if b.opt.quiet == 0 || others < busy {
			clean++
		}
	}
}

// newDir makes a directory or fails the scenario.
func (b *bench) newDir(path string) {
	if err := os.MkdirAll(path, 0o755); err != nil {
		b.Fatal(err)
	}
}

// absolute is a path that holds for a program in another directory.
func (b *bench) absolute(path string) string {
	abs, err := filepath.Abs(path)
	if err != nil {
		b.Fatal(err)
	}
	return abs
}
