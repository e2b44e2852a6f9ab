package main

import (
	"os"
	"os/exec"
	"testing"
	"time"
)

func TestParseStat(t *testing.T) {
	tests := []struct {
		name, line string
		parent     int
		ticks      uint64
		fails      bool
	}{
		{"plain", "42 (kamailio) S 7 42 42 0 -1 4194560 1 2 3 4 10 20 30 40 20 0 1 0 5", 7, 100, false},
		{"odd name", "42 (a ) b) S 7 42 42 0 -1 4194560 1 2 3 4 1 2 0 0 20 0 1 0 5", 7, 3, false},
		{"cut off", "42 (kamailio) S 7 42", 0, 0, true},
		{"not a number", "42 (kamailio) S 7 42 42 0 -1 4194560 1 2 3 4 x 20 30 40 20", 0, 0, true},
		{"empty", "", 0, 0, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := parseStat([]byte(tt.line))
			if (err != nil) != tt.fails {
				t.Fatalf("error %v", err)
			}
			if !tt.fails && (got.parent != tt.parent || got.ticks != tt.ticks) {
				t.Errorf("got %+v, want parent %d, ticks %d", got, tt.parent, tt.ticks)
			}
		})
	}
}

func TestParseCPULine(t *testing.T) {
	got, err := parseCPULine("cpu  1000 200 300 99999 88888 10 20 30 5 6")
	if err != nil || got != 15.6 {
		t.Errorf("got %v, %v, want 15.6", got, err)
	}
	for _, bad := range []string{"", "cpu0 1 2 3 4 5 6 7 8", "cpu 1 2 3", "cpu 1 2 3 4 5 x 7 8"} {
		if got, err := parseCPULine(bad); err == nil {
			t.Errorf("%q: got %v, want an error", bad, got)
		}
	}
	if now, err := machineCPU(); err != nil || now <= 0 {
		t.Errorf("this machine: got %v, %v", now, err)
	}
}

// TestTree looks at a child of this process that uses the CPU.
func TestTree(t *testing.T) {
	me := usage{os.Getpid()}
	before, err := me.tree()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("sh", "-c", "while :; do :; done")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}()
	child := usage{cmd.Process.Pid}
	deadline := time.Now().Add(20 * time.Second)
	for {
		own, err := child.cpu()
		if err != nil {
			t.Fatal(err)
		}
		all, err := me.tree()
		if err != nil {
			t.Fatal(err)
		}
		if own >= 0.1 && all-before >= own {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("the child used %v s, this process and its children %v s more", own, all-before)
		}
		time.Sleep(20 * time.Millisecond)
	}
	if mib, err := child.memory("VmHWM"); err != nil || mib <= 0 || mib > 100 {
		t.Errorf("memory of a shell: got %v MiB, %v", mib, err)
	}
	if _, err := child.memory("VmNothing"); err == nil {
		t.Error("no error for a value that is not there")
	}
}
