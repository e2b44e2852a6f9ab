package servers

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// Ports are taken from below the range that Linux gives to sockets without a
// port of their own (32768 and up), so that a server stopped for a while finds
// its port still free when it comes back.
const (
	firstPort = 20000
	lastPort  = 31999
)

// ports remembers what this process has handed out. A test never gets the same
// port twice, also when nothing listens on it yet.
var ports struct {
	sync.Mutex
	used map[int]bool
}

// FreePort returns a port that is free for UDP and TCP on 127.0.0.1, on ::1
// and on the wildcard address.
func FreePort(tb testing.TB) int {
	tb.Helper()
	ports.Lock()
	defer ports.Unlock()
	if ports.used == nil {
		ports.used = make(map[int]bool)
	}
	for range 1000 {
		p := firstPort + rand.IntN(lastPort-firstPort+1)
		if ports.used[p] || !free(p) {
			continue
		}
		ports.used[p] = true
		return p
	}
	tb.Fatalf("servers: no free port between %d and %d", firstPort, lastPort)
	return 0
}

// FreePorts returns n different free ports.
func FreePorts(tb testing.TB, n int) []int {
	tb.Helper()
	ps := make([]int, n)
	for i := range ps {
		ps[i] = FreePort(tb)
	}
	return ps
}

func free(port int) bool {
	for _, host := range []string{"127.0.0.1", "::1", "0.0.0.0"} {
		addr := netip.AddrPortFrom(netip.MustParseAddr(host), uint16(port)).String()
		c, err := net.ListenPacket("udp", addr)
		if noSuchFamily(err) {
			continue
		}
		if err != nil {
			return false
		}
		_ = c.Close()
		l, err := net.Listen("tcp", addr)
		if err != nil {
			return false
		}
		_ = l.Close()
	}
	return true
}

// noSuchFamily tells that the machine has no IPv6. Tests of IPv6 will fail
// there and say so; all others need not.
func noSuchFamily(err error) bool {
	return errors.Is(err, syscall.EADDRNOTAVAIL) || errors.Is(err, syscall.EAFNOSUPPORT)
}

// bound reports whether a UDP socket is bound to the port, or a TCP socket
// listens on it, without touching it: a probe packet would be one more message
// for the program under test. network is udp or tcp.
func bound(network string, port int) bool {
	for _, file := range []string{"/proc/net/" + network, "/proc/net/" + network + "6"} {
		b, err := os.ReadFile(file)
		if err != nil {
			continue
		}
		if tableHasPort(string(b), port, network == "tcp") {
			return true
		}
	}
	return false
}

// tableHasPort looks for the port among the local addresses of a table as in
// /proc/net/tcp: slot, local address in hex:PORT, remote address, state. State
// 0A is LISTEN.
func tableHasPort(table string, port int, listening bool) bool {
	want := fmt.Sprintf(":%04X", port)
	for line := range strings.Lines(table) {
		var slot, local, remote, state string
		if n, _ := fmt.Sscan(line, &slot, &local, &remote, &state); n < 4 {
			continue
		}
		if strings.HasSuffix(local, want) && (!listening || state == "0A") {
			return true
		}
	}
	return false
}

// WaitFor asks cond every few milliseconds until it is true, and fails the
// test after the timeout with what was waited for.
func WaitFor(tb testing.TB, timeout time.Duration, what string, cond func() bool) {
	tb.Helper()
	if !waitFor(timeout, cond) {
		tb.Fatalf("waited %v in vain for %s", timeout, what)
	}
}

func waitFor(timeout time.Duration, cond func() bool) bool {
	deadline := time.Now().Add(timeout)
	for pause := time.Millisecond; ; pause = min(2*pause, 100*time.Millisecond) {
		if cond() {
			return true
		}
		if time.Now().After(deadline) {
			return false
		}
		time.Sleep(pause)
	}
}
