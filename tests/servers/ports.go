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

// Ports come from below the range that Linux gives to sockets without a port of
// their own (32768 and up), so that a server stopped for a while finds its port
// still free when it comes back. They are leased in blocks: packages are tested
// side by side, each in a process of its own, and no two processes may choose the
// same port before either of them has bound it.
const (
	firstPort  = 20000
	portBlock  = 100
	portBlocks = 120
)

// ports remembers what this process has leased and handed out. A test never gets
// the same port twice, also when nothing listens on it yet.
var ports struct {
	sync.Mutex
	leases []net.Listener // one for each block; they end with the process
	left   []int          // of the blocks, in the order in which they are tried
}

// FreePort returns a port that is free for UDP and TCP on 127.0.0.1, on ::1
// and on the wildcard address.
func FreePort(tb testing.TB) int {
	tb.Helper()
	ports.Lock()
	defer ports.Unlock()
	for {
		for len(ports.left) > 0 {
			p := ports.left[0]
			ports.left = ports.left[1:]
			if free(p) {
				return p
			}
		}
		if !leaseBlock() {
			tb.Fatalf("servers: no free port from %d to %d", firstPort, firstPort+portBlocks*portBlock-1)
		}
	}
}

// leaseBlock takes a block of ports that no other process has. The lease is an
// abstract Unix socket: it lives in the same network namespace as the ports, and
// the kernel ends it with the process, however that ends.
func leaseBlock() bool {
	for _, block := range rand.Perm(portBlocks) {
		l, err := lease(blockName(block))
		if err != nil {
			continue // another process has it, or this one
		}
		ports.leases = append(ports.leases, l)
		for _, i := range rand.Perm(portBlock) {
			ports.left = append(ports.left, firstPort+block*portBlock+i)
		}
		return true
	}
	return false
}

func blockName(block int) string { return fmt.Sprintf("ports-%d", block) }

// lease claims a name among the tests of this machine, and fails while another
// holder has it.
func lease(name string) (net.Listener, error) {
	return net.Listen("unix", "@siptraced-tests-"+name)
}

// Claim waits until no other test on this machine, of whatever package, has
// claimed the name, and claims it until the test ends. It is for what there is
// only once: the ports that a program has by default.
func Claim(tb testing.TB, name string) {
	tb.Helper()
	var l net.Listener
	WaitFor(tb, 5*time.Minute, "another test to let go of "+name, func() (ok bool) {
		var err error
		l, err = lease(name)
		return err == nil
	})
	tb.Cleanup(func() { _ = l.Close() })
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
