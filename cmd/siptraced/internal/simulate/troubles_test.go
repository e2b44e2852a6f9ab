//go:build simulation

package simulate

import (
	"strings"
	"syscall"
	"time"
)

// later does something after a while, unless everything was mended meanwhile.
func (r *wholeRun) later(lo, hi time.Duration, f func()) {
	r.after(r.between(lo, hi), func() {
		if !r.mended {
			f()
		}
	})
}

// dbTrouble has the database server do something wrong.
func (r *wholeRun) dbTrouble() {
	s := r.db
	switch r.rand.IntN(12) {
	case 0:
		r.note("db: down")
		s.stop()
		r.later(100*time.Millisecond, 8*time.Second, func() { r.note("db: up"); s.start() })
	case 1:
		r.note("db: restarted")
		s.restart()
	case 2:
		n := 1 + r.rand.IntN(10)
		r.note("db: an older copy takes over, without the last %d commits", n)
		s.back(n)
	case 3, 4:
		n := r.rand.IntN(20)
		f := []dbFault{{before: true}, {after: true}}[r.rand.IntN(2)]
		r.note("db: the connection breaks at statement %d, %+v", n, f)
		r.nth(n, "", f)
	case 5, 6:
		n := r.rand.IntN(4)
		f := []dbFault{{before: true}, {after: true}, {after: true}, {undone: true}, {delay: 70 * time.Second}, {delay: 3 * time.Second, after: true}}[r.rand.IntN(6)]
		r.note("db: COMMIT %d goes wrong, %+v", n, f)
		r.nth(n, "COMMIT", f)
	case 7:
		r.note("db: each statement may break the connection")
		share := 20 + r.rand.IntN(100)
		s.fault = func(string) dbFault {
			switch r.rand.IntN(share) {
			case 0:
				return dbFault{before: true}
			case 1:
				return dbFault{after: true}
			}
			return dbFault{}
		}
		r.later(time.Second, 6*time.Second, func() { s.fault = nil })
	case 8:
		d := r.between(50*time.Millisecond, 2*time.Second)
		r.note("db: slow by %s", d)
		s.fault = func(string) dbFault { return dbFault{delay: d} }
		r.later(time.Second, 6*time.Second, func() { s.fault = nil })
	case 9:
		r.note("db: a statement hangs")
		r.nth(r.rand.IntN(5), "", dbFault{delay: 90 * time.Second})
	case 10:
		errs := []error{
			number(1205, "HY000", "Lock wait timeout exceeded"), number(1213, "40001", "Deadlock found"), number(1290, "HY000", "read only"),
			number(1021, "HY000", "Disk full"), number(1114, "HY000", "The table is full"), number(1146, "42S02", "no such table"),
			number(1054, "42S22", "Unknown column"), number(1142, "42000", "INSERT command denied"),
		}
		err := errs[r.rand.IntN(len(errs))]
		r.note("db: answers %v", err)
		s.fault = func(text string) dbFault {
			if strings.HasPrefix(text, "INSERT INTO `sip_trace`") {
				return dbFault{err: err}
			}
			return dbFault{}
		}
		r.later(100*time.Millisecond, 6*time.Second, func() { s.fault = nil })
	case 11:
		s.shape = []shape{{missing: true}, {renamed: true}, {unfilled: true}, {longer: true}}[r.rand.IntN(4)]
		r.note("db: the table changes: %+v", s.shape)
		r.later(100*time.Millisecond, 6*time.Second, func() { r.note("db: the table is as it was"); s.shape = shape{} })
	}
}

// nth has something happen to the n-th statement from now on that begins so.
func (r *wholeRun) nth(n int, prefix string, f dbFault) {
	r.db.fault = func(text string) dbFault {
		if !strings.HasPrefix(text, prefix) {
			return dbFault{}
		}
		if n--; n >= 0 {
			return dbFault{}
		}
		r.db.fault = nil
		return f
	}
}

// peerTrouble has the mirror's peer, or the network, do something wrong.
func (r *wholeRun) peerTrouble() {
	p := r.peer
	switch r.rand.IntN(6) {
	case 0:
		r.note("peer: down")
		p.set(func() { p.down = true })
		p.crash(syscall.ECONNRESET)
		r.later(100*time.Millisecond, 6*time.Second, func() { r.note("peer: up"); p.set(func() { p.down = false }) })
	case 1:
		r.note("peer: crashes")
		p.crash(syscall.ECONNRESET)
	case 2:
		r.note("peer: frozen")
		p.set(func() { p.frozen = true })
		r.later(100*time.Millisecond, 40*time.Second, func() { r.note("peer: goes on"); p.set(func() { p.frozen = false }) })
	case 3:
		r.note("peer: cut off")
		p.set(func() { p.cut = true })
		r.after(20*time.Second, func() {
			if p.cut {
				p.crash(syscall.ETIMEDOUT) // TCP_USER_TIMEOUT
			}
		})
		r.later(100*time.Millisecond, 40*time.Second, func() { r.note("peer: reached again"); p.set(func() { p.cut = false }) })
	case 4:
		r.note("peer: closes its connections")
		p.closeAll()
	}
}
