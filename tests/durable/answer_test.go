package durable

import (
	"bytes"
	"encoding/json"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"siptraced/tests/servers"
)

// TestCommitAnswerLost cuts the connection to the database around a COMMIT: what
// the daemon can't know, it finds out, and writes no row twice.
func TestCommitAnswerLost(t *testing.T) {
	parallel(t)
	for _, tt := range []struct {
		name string
		open func(t *testing.T) (d *database, addr string)
	}{
		{"mariadb", func(t *testing.T) (*database, string) {
			m := servers.StartMariaDB(t)
			return mariaDB(t, m), m.Addr()
		}},
		{"postgres", func(t *testing.T) (*database, string) {
			p := servers.StartPostgres(t)
			return postgres(t, p), p.Addr()
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d, addr := tt.open(t)
			rounds := servers.Pick(40, 500)
			x := newProxy(t, addr, random(t), rounds)
			p := newPlace(t, strings.Replace(d.url, addr, x.addr, 1))
			run := p.start(t)
			s := send(t, 1, servers.Pick(1000, 2000), p.addr)
			servers.WaitFor(t, servers.Pick(3*time.Minute, 15*time.Minute), "the connections to be cut", func() bool { return x.left() == 0 })
			s.finish(t, 3*time.Minute)
			run.drained(t, 3*time.Minute)
			c := run.stop(t)
			t.Logf("connections cut: %d with the answer to a COMMIT that was done, %d right behind a COMMIT, %d before one; %v",
				x.cuts[answer], x.cuts[behind], x.cuts[before], c)
			if x.cuts[answer] < rounds/4 {
				t.Errorf("only %d of %d answers of a server that had committed were lost", x.cuts[answer], rounds)
			}
			v := d.verify(t, whole, s)
			if int64(v.rows) != c[servers.Written] || int64(v.rows) != c["store.rows"] {
				t.Errorf("rows: %d, but written: %d, counted as rows: %d", v.rows, c[servers.Written], c["store.rows"])
			}
		})
	}
}

// TestCommitAnswerLostRefused is TestCommitAnswerLost with rows that the database
// refuses: each of them is in the reject file, and in the books, once.
func TestCommitAnswerLostRefused(t *testing.T) {
	parallel(t)
	m := servers.StartMariaDB(t)
	d := mariaDB(t, m)
	execute(t, d.db, "CREATE TRIGGER no_bye BEFORE INSERT ON sip_trace FOR EACH ROW IF NEW.method = 'BYE' AND NEW.status = '' THEN SIGNAL SQLSTATE '45000'; END IF")
	rounds := servers.Pick(20, 200)
	x := newProxy(t, m.Addr(), random(t), rounds)
	p := newPlace(t, strings.Replace(d.url, m.Addr(), x.addr, 1))
	run := p.start(t)
	s := send(t, 1, 300, p.addr)
	servers.WaitFor(t, servers.Pick(3*time.Minute, 15*time.Minute), "the connections to be cut", func() bool { return x.left() == 0 })
	s.finish(t, 3*time.Minute)
	run.drained(t, 3*time.Minute)
	c := run.stop(t)
	t.Logf("connections cut: %v; %v", x.cuts, c)

	aside := map[int]int{}
	file, err := os.ReadFile(filepath.Join(p.dir, "siptraced.rejects.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(file)) {
		var reject struct{ Packet []byte }
		if err := json.Unmarshal([]byte(line), &reject); err != nil {
			t.Fatalf("reject file: %v: %s", err, line)
		}
		_, number, _, ok := identify(reject.Packet)
		if !ok {
			t.Fatalf("reject file: a packet that nobody sent: %q", reject.Packet)
		}
		aside[number]++
	}
	again := 0
	for n, times := range aside {
		if !bytes.HasPrefix(s.message(nil, n, 1), []byte("BYE ")) {
			t.Errorf("message %d was set aside and is no BYE", n)
		}
		again += times - 1
	}
	v, err := judge(whole, []*sender{s}, d.each)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%v; %d of them set aside, %d of these more than once", v, len(aside), again)
	for _, g := range v.gone {
		if aside[g.number] == 0 {
			t.Errorf("message %d has no row, and is not in the reject file", g.number)
		}
	}
	if v.lost != len(aside) {
		t.Errorf("messages without a row: %d, in the reject file: %d", v.lost, len(aside))
	}
	if again > 0 {
		t.Errorf("lines of the reject file that were there already: %d", again)
	}
	if v.doubled+v.disordered+v.broken > 0 {
		t.Errorf("%v\n%s", v, strings.Join(v.examples, "\n"))
	}
	if c[servers.Aside] != int64(len(aside)) || c[servers.Written] != int64(v.rows) || c["store.rows"] != int64(v.rows) {
		t.Errorf("counters: set aside %d, written %d, rows %d; the reject file has %d, the table %d",
			c[servers.Aside], c[servers.Written], c["store.rows"], len(aside), v.rows)
	}
}

// cut is where the proxy ends a connection.
type cut int

const (
	answer  cut = iota // the server has committed and says so
	behind             // the COMMIT went to the server, nobody waits for the answer
	before             // the COMMIT goes nowhere
	numCuts = iota
)

// proxy carries bytes between the daemon and its database, and cuts connections
// around a COMMIT until it has done that often enough.
type proxy struct {
	addr   string
	server string

	mu     sync.Mutex // covers what follows
	random *rand.Rand
	rounds int // cuts still to be made
	cuts   [numCuts]int
	conns  map[net.Conn]struct{} // nil once it has ended
}

func newProxy(tb testing.TB, server string, r *rand.Rand, rounds int) *proxy {
	tb.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	x := &proxy{addr: l.Addr().String(), server: server, random: r, rounds: rounds, conns: map[net.Conn]struct{}{}}
	var running sync.WaitGroup
	running.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			running.Go(func() { x.serve(c) })
		}
	})
	tb.Cleanup(func() {
		_ = l.Close()
		x.mu.Lock()
		for c := range x.conns {
			_ = c.Close()
		}
		x.conns = nil
		x.mu.Unlock()
		running.Wait()
	})
	return x
}

// left is how many cuts are still to be made.
func (x *proxy) left() int {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.rounds
}

// keep remembers a connection, to be closed in the end.
func (x *proxy) keep(c net.Conn) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.conns == nil {
		_ = c.Close()
		return
	}
	x.conns[c] = struct{}{}
}

// next chooses where to cut; ok is false when there were cuts enough.
func (x *proxy) next() (c cut, ok bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.rounds == 0 {
		return 0, false
	}
	return []cut{answer, answer, behind, before}[x.random.IntN(4)], true
}

func (x *proxy) done(c cut) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.cuts[c]++
	x.rounds = max(0, x.rounds-1)
}

// serve carries one connection.
func (x *proxy) serve(client net.Conn) {
	defer client.Close()
	server, err := net.Dial("tcp", x.server)
	if err != nil {
		return
	}
	defer server.Close()
	x.keep(client)
	x.keep(server)
	x.mu.Lock()
	commits := 1 + x.random.IntN(4) // that get through
	x.mu.Unlock()

	committed := make(chan struct{}) // closed when the answer to the last COMMIT has come
	var swallow sync.Mutex           // covers swallowed
	swallowed := false               // answers go nowhere
	var back sync.WaitGroup
	back.Go(func() {
		defer client.Close()
		buf := make([]byte, 64<<10)
		for {
			n, err := server.Read(buf)
			if err != nil {
				return
			}
			swallow.Lock()
			drop := swallowed
			swallow.Unlock()
			if drop {
				if isCommitted(buf[:n]) {
					close(committed)
				}
				return
			}
			if _, err := client.Write(buf[:n]); err != nil {
				return
			}
		}
	})
	defer back.Wait()
	defer server.Close()

	word := []byte("COMMIT")
	buf := make([]byte, 64<<10)
	held := 0 // of the last read, what may be the start of the word
	for {
		n, err := client.Read(buf[held:])
		if err != nil {
			return
		}
		if bytes.Contains(buf[:held+n], word) {
			if c, more := x.next(); more && commits == 0 {
				switch c {
				case answer:
					swallow.Lock()
					swallowed = true
					swallow.Unlock()
					if _, err := server.Write(buf[held : held+n]); err != nil {
						return
					}
					back.Wait()
					select {
					case <-committed:
						x.done(c)
					default:
					}
				case behind:
					if _, err := io.Copy(server, bytes.NewReader(buf[held:held+n])); err != nil {
						return
					}
					x.done(c)
				case before:
					x.done(c)
				}
				return
			}
			commits--
			commits = max(commits, 0)
		}
		if _, err := server.Write(buf[held : held+n]); err != nil {
			return
		}
		total := held + n
		held = min(total, len(word)-1) // too short to hold the word again
		copy(buf, buf[total-held:total])
	}
}

// isCommitted recognises the answer to a COMMIT that was done: an OK packet of
// MySQL (sequence 1, first byte 0) or CommandComplete of PostgreSQL.
func isCommitted(b []byte) bool {
	return len(b) > 4 && b[3] == 1 && b[4] == 0 || bytes.HasPrefix(b, []byte("C\x00\x00\x00\x0bCOMMIT\x00"))
}
