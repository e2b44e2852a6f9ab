package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// usage reads what a process takes of the machine, from proc(5).
type usage struct{ pid int }

// clockTicks of /proc/PID/stat per second; Linux has this value for user space
// on every architecture that Go knows.
const clockTicks = 100

// cpu is the CPU time of a process in seconds, user and system, with that of
// its children that have ended.
func (u usage) cpu() (float64, error) {
	f, err := statFields(u.pid)
	if err != nil {
		return 0, err
	}
	return f.cpu(), nil
}

// tree is the CPU time of a process and of all its descendants.
func (u usage) tree() (float64, error) {
	dirs, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return 0, err
	}
	all := map[int]stat{}
	for _, d := range dirs {
		pid, err := strconv.Atoi(filepath.Base(d))
		if err != nil {
			continue
		}
		if f, err := statFields(pid); err == nil { // else it has just ended
			all[pid] = f
		}
	}
	if _, ok := all[u.pid]; !ok {
		return 0, fmt.Errorf("process %d is gone", u.pid)
	}
	sum := 0.0
	for pid := range all {
		// Up to the top, or to the process that is meant.
		for at := pid; at > 0; at = all[at].parent {
			if at == u.pid {
				sum += all[pid].cpu()
				break
			}
		}
	}
	return sum, nil
}

// stat is the part of /proc/PID/stat that counts here.
type stat struct {
	parent int
	ticks  uint64 // utime + stime + cutime + cstime
}

func (s stat) cpu() float64 { return float64(s.ticks) / clockTicks }

func statFields(pid int) (stat, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return stat{}, err
	}
	return parseStat(b)
}

// parseStat takes field 4 and fields 14 to 17; the name in field 2 can hold
// anything, blanks and parentheses too.
func parseStat(b []byte) (stat, error) {
	_, rest, ok := bytes.Cut(b[max(bytes.LastIndexByte(b, ')'), 0):], []byte(") "))
	f := strings.Fields(string(rest))
	if !ok || len(f) < 15 {
		return stat{}, fmt.Errorf("not a line of /proc/PID/stat: %q", b)
	}
	var s stat
	var err error
	if s.parent, err = strconv.Atoi(f[1]); err != nil {
		return stat{}, err
	}
	for _, t := range f[11:15] {
		n, err := strconv.ParseUint(t, 10, 64)
		if err != nil {
			return stat{}, err
		}
		s.ticks += n
	}
	return s, nil
}

// memory is a value of /proc/PID/status in MiB: VmHWM is the largest resident
// set so far, VmRSS the present one.
func (u usage) memory(name string) (float64, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", u.pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(b)) {
		if rest, ok := strings.CutPrefix(line, name+":"); ok {
			var kib float64
			if _, err := fmt.Sscan(rest, &kib); err != nil {
				return 0, fmt.Errorf("%s of process %d: %w", name, u.pid, err)
			}
			return kib / 1024, nil
		}
	}
	return 0, fmt.Errorf("no %s of process %d", name, u.pid)
}

// machineCPU is the CPU time that the machine has spent on anything so far, in
// seconds over all its processors.
func machineCPU() (float64, error) {
	b, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0, err
	}
	line, _, _ := bytes.Cut(b, []byte("\n"))
	return parseCPULine(string(line))
}

// parseCPULine adds the columns of a line cpu in /proc/stat, without idle and
// iowait, and without those of guests, which are in user and nice already.
func parseCPULine(line string) (float64, error) {
	f := strings.Fields(line)
	if len(f) < 9 || f[0] != "cpu" {
		return 0, fmt.Errorf("not the line cpu of /proc/stat: %q", line)
	}
	var sum uint64
	for i, s := range f[1:9] {
		n, err := strconv.ParseUint(s, 10, 64)
		if err != nil {
			return 0, err
		}
		if i != 3 && i != 4 {
			sum += n
		}
	}
	return float64(sum) / clockTicks, nil
}

// ownCPU is the CPU time of this very process in seconds.
func ownCPU() float64 {
	var r syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &r); err != nil {
		return 0
	}
	return float64(r.Utime.Nano()+r.Stime.Nano()) / 1e9
}

// strangers tells how much of the machine programs took that have no part in a
// measurement: when that is not close to nothing, neither is the error.
type strangers struct {
	at           time.Time
	machine, own float64
}

func newStrangers() strangers {
	machine, err := machineCPU()
	if err != nil {
		return strangers{}
	}
	return strangers{time.Now(), machine, ownCPU()}
}

// share is their share of all processors since newStrangers, in percent, given
// the CPU seconds that the processes measured took.
func (s strangers) share(measured float64) float64 {
	machine, err := machineCPU()
	if err != nil || s.at.IsZero() {
		return 0
	}
	all := time.Since(s.at).Seconds() * float64(runtime.NumCPU())
	return max(100*(machine-s.machine-(ownCPU()-s.own)-measured)/all, 0)
}
