//go:build simulation

package simulate

import (
	"bytes"
	"context"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"time"

	"siptraced/cmd/siptraced/internal/disk/faulty"
	"siptraced/cmd/siptraced/internal/mirror"
	"siptraced/cmd/siptraced/internal/spool"
	"siptraced/compat/siptrace"
)

// wholeRun drives the spool with the store and a mirror.
type wholeRun struct {
	*world
	db       *server
	peer     *peer
	machines []*machine
	messages []*message // by number, from 1
	calls    int

	// given is how many messages each sink counted as not delivered, in processes that
	// ended; excused are those of them that are known.
	given, excused map[string]uint64

	batchBytes, batchRows int
	maxBytes              int64
	full, ack             string
}

func (w *world) runWhole() {
	r := &wholeRun{
		world: w, given: map[string]uint64{}, excused: map[string]uint64{}, batchBytes: []int{1 << 10, 8 << 10, 64 << 10}[w.rand.IntN(3)], batchRows: []int{10, 100, 4000}[w.rand.IntN(3)],
		maxBytes: []int64{0, 0, 4 << 20}[w.rand.IntN(3)], full: []string{spool.RefuseNew, spool.DropOldest}[w.rand.IntN(2)],
		ack: []string{mirror.AckTCP, mirror.AckKeepAlive}[w.rand.IntN(2)],
	}
	_, _ = os.Remove("rejects-A"), os.Remove("rejects-B") // of another run
	r.db, r.peer = newServer(w), newPeer(w)
	r.db.missed = func(id int) {
		if msg := r.messages[id-1]; !msg.trimmed && !msg.gone && !msg.dropped && !r.unreadable(id) {
			r.find("the database lost message %d, and the position passed it again without it", id)
		}
	}
	r.addMachine(w.disk, "A")
	w.note("whole run: sync %s segment %d batches of %d bytes and %d rows, bound %d %s, ack %s",
		r.machines[0].sync, r.machines[0].segment, r.batchBytes, r.batchRows, r.maxBytes, r.full, r.ack)
	for range 2 + w.rand.IntN(4) {
		if len(w.findings) > 0 {
			break
		}
		r.phase()
	}
	r.finish()
}

// addMachine is for a disk that is new, or a copy.
func (r *wholeRun) addMachine(d *faulty.Disk, name string) *machine {
	m := &machine{books: r.newBooks(d, name), run: r, name: name, shards: 1 + r.rand.IntN(3)}
	if len(r.machines) > 0 {
		first := r.machines[0]
		m.sync, m.segment, m.shards = first.sync, first.segment, first.shards
	}
	r.watch(d, name+": ")
	m.lost, m.adopted = r.lose, r.keep
	r.machines = append(r.machines, m)
	return m
}

const numberHeader = "\r\nX-Number: "

// newMessage makes the next message of one of the calls.
func (r *wholeRun) newMessage(calls []int) *message {
	msg := &message{id: len(r.messages) + 1, call: calls[r.rand.IntN(len(calls))], store: !r.chance(10), mirror: !r.chance(10), poison: r.chance(300)}
	msg.poison = msg.poison && msg.store
	r.messages = append(r.messages, msg)
	return msg
}

func (r *wholeRun) record(msg *message) *siptrace.Record {
	poison := ""
	if msg.poison {
		poison = "X-Poison: 1\r\n"
	}
	text := fmt.Sprintf("INFO sip:b@example.com SIP/2.0\r\nCall-ID: call-%d%s%d\r\n%s\r\n", msg.call, numberHeader, msg.id, poison)
	text += string(bytes.Repeat([]byte{'x'}, r.rand.IntN([]int{100, 1000, 8000}[r.rand.IntN(3)])))
	end := siptrace.Endpoint{Proto: siptrace.UDP, Addr: netip.MustParseAddrPort("192.0.2.7:5060")}
	rec := &siptrace.Record{
		Time: time.Now(), CallID: fmt.Appendf(nil, "call-%d", msg.call), Method: []byte("INFO"), Msg: []byte(text),
		From: end, To: end, FromTag: []byte("a"), Direction: siptrace.In,
	}
	if msg.store {
		rec.Sinks |= siptrace.ToStore
	}
	if msg.mirror {
		rec.Sinks |= siptrace.ToListed
	}
	return rec
}

// keep notes that the messages of an entry are kept.
func (r *wholeRun) keep(s *sent) {
	for _, id := range s.ids {
		r.messages[id-1].kept = true
	}
}

// lose notes that an entry is gone: its messages are lost, but for those that sinks
// have or that another disk has.
func (r *wholeRun) lose(s *sent) {
	for _, id := range s.ids {
		if r.elsewhere(s, id) {
			continue
		}
		msg := r.messages[id-1]
		msg.gone = true
		msg.storeLost = msg.storeLost || r.db.rows[id] == 0
		msg.mirrorLost = msg.mirrorLost || r.peer.acked[id] == 0
	}
}

// elsewhere reports whether another entry has a message.
func (r *wholeRun) elsewhere(s *sent, id int) bool {
	for _, m := range r.machines {
		for _, l := range m.logs {
			for _, o := range l.entries {
				if o == s || o.gone || !o.kept {
					continue
				}
				for _, other := range o.ids {
					if other == id {
						return true
					}
				}
			}
		}
	}
	return false
}

// unreadable reports whether a message may be gone from the spool, too, though nobody has
// looked yet: where it was, the disk was damaged, or could not be synced.
func (r *wholeRun) unreadable(id int) bool {
	for _, m := range r.machines {
		for _, l := range m.logs {
			for _, s := range l.entries {
				if (s.doubtful || m.rots > 0 || m.unbounded) && slices.Contains(s.ids, id) {
					return true
				}
			}
		}
	}
	return false
}

// trim checks that all sinks are done with an entry that is given up.
func (r *wholeRun) trim(m *machine, s *sent) {
	for _, id := range s.ids {
		msg := r.messages[id-1]
		msg.trimmed = true
		if msg.store && !msg.poison && r.db.rows[id] == 0 && r.db.lost[id] == 0 && !msg.storeLost && !msg.dropped {
			if msg.storeLost = r.excuse("store"); !msg.storeLost {
				r.find("%s: message %d is given up, and is not in the table", m.name, id)
			}
		}
		if msg.mirror && r.peer.acked[id] == 0 && !msg.mirrorLost && !msg.dropped {
			if msg.mirrorLost = r.excuse("mirror.peer"); !msg.mirrorLost {
				r.find("%s: message %d is given up, and the peer does not have it", m.name, id)
			}
		}
	}
}

// excuse reports whether a sink counted that it did not get a message, for a reason
// that there is.
func (r *wholeRun) excuse(sink string) bool {
	given := r.given[sink]
	for _, m := range r.machines {
		if p := m.program; p != nil {
			given += p.given(sink)
		}
	}
	if r.excused[sink] >= given {
		return false
	}
	r.excused[sink]++
	return true
}

// mayDrop reports whether a sink counted a message that the log dropped to make room.
func (r *wholeRun) mayDrop(sink string) bool { return r.full == spool.DropOldest && r.excuse(sink) }

// given is how many messages a sink counted as not delivered.
func (p *program) given(sink string) uint64 {
	counts := p.counts.Snapshot()
	return counts[sink+".expired"] + counts[sink+".failed"] + counts[sink+".missed"]
}

// phase is the life of a process on each machine.
func (r *wholeRun) phase() {
	for _, m := range r.machines {
		if r.chance(4) {
			m.shards = 1 + r.rand.IntN(3)
		}
		if m.start(r.chance(5)) {
			r.senders(m)
		}
	}
	d := r.between(500*time.Millisecond, 6*time.Second)
	if m := r.machines[0]; r.chance(4) && m.program != nil {
		r.killLater(m)
	}
	for end := r.now() + d; r.now() < end; {
		_ = sleep(context.Background(), r.between(20*time.Millisecond, d/2))
		r.trouble(r.machines[r.rand.IntN(len(r.machines))])
	}
	for _, m := range r.machines {
		r.endLife(m)
	}
	r.betweenLives()
}

func (r *wholeRun) senders(m *machine) {
	pace := []time.Duration{5 * time.Millisecond, 20 * time.Millisecond, 100 * time.Millisecond}[r.rand.IntN(3)]
	for range 1 + r.rand.IntN(3) {
		var calls []int
		for range 1 + r.rand.IntN(4) {
			r.calls++
			calls = append(calls, r.calls)
		}
		go m.program.send(calls, pace)
	}
}

// killLater has the process killed at one of its next calls of the disk.
func (r *wholeRun) killLater(m *machine) {
	n := r.rand.IntN(600)
	p := m.program
	r.note("%s: will be killed at call %d", m.name, n)
	r.doomed, r.doom = n+1, func() {
		if m.program != p {
			return
		}
		p.uncertainAtKill = m.uncertain(p.logs)
		m.disk.Inject(faulty.Fault{Times: 1, Kill: true, Partial: r.chance(2)})
	}
}

// trouble has something go wrong.
func (r *wholeRun) trouble(m *machine) {
	switch r.rand.IntN(12) {
	case 0, 1, 2:
		r.diskTrouble(m.disk, &m.damage)
	case 3, 4, 5, 6:
		r.dbTrouble()
	case 7, 8, 9:
		r.peerTrouble()
	case 10:
		if m.program != nil && !m.program.dead() {
			m.inspect(m.disk.CrashClone(r.rand.Uint64()), "a loss of power (clone)", m.unsynced(m.program.logs), false)
		}
	}
}

// endLife ends the process of a machine, if it has one.
func (r *wholeRun) endLife(m *machine) {
	p := m.program
	if p == nil {
		m.mend()
		return
	}
	r.doomed = 0
	how := r.rand.IntN(4)
	switch {
	case p.dead():
		r.note("%s: the process was killed", m.name)
		p.kill(true)
		p.bury()
		m.check("a kill", p.uncertainAtKill)
	case how == 0:
		r.note("%s: stop", m.name)
		m.mend()
		if p.stop(r.between(100*time.Millisecond, 3*time.Second)) {
			m.check("a stop", nil)
		} else {
			r.note("%s: the process was killed", m.name)
			p.kill(true)
			m.check("a kill", p.uncertainAtKill)
		}
	case how == 1:
		allowed := m.unsynced(p.logs)
		r.note("%s: power loss, %v may be lost", m.name, allowed)
		m.disk.PowerLoss()
		p.kill(false)
		p.bury()
		m.check("a loss of power", allowed)
	default:
		r.note("%s: kill", m.name)
		allowed := m.uncertain(p.logs)
		p.kill(true)
		p.bury()
		m.check("a kill", allowed)
	}
}

func (m *machine) check(after string, allowed []uint64) {
	m.mend()
	m.inspect(m.disk.Clone(m.rand.Uint64()), after, allowed, true)
}

// betweenLives is what an operator does while nothing runs.
func (r *wholeRun) betweenLives() {
	m := r.machines[0]
	switch r.rand.IntN(10) {
	case 0:
		if len(r.machines) > 1 {
			return
		}
		r.note("the machine is cloned")
		m.copyTo(r.addMachine(m.disk.Clone(r.rand.Uint64()), "B"))
	case 1:
		r.note("a day passes")
		time.Sleep(24 * time.Hour)
	case 2:
		r.note("%s: a backup is made", m.name)
		m.backup = &machine{books: r.newBooks(m.disk.Clone(r.rand.Uint64()), m.name)}
		m.copyTo(m.backup)
	case 3:
		if m.backup != nil {
			m.restore()
		}
	}
}

// copyTo has a machine know what this one knows, whose disk it got.
func (m *machine) copyTo(to *machine) {
	to.damage = m.damage
	to.logs = nil
	for _, l := range m.logs {
		c := to.ledger(l.index)
		c.trimmed = l.trimmed
		for _, s := range l.entries {
			other := *s
			c.places[s.sum] = len(c.entries)
			c.entries = append(c.entries, &other)
		}
	}
}

// restore puts the backup in the place of the disk. What came since is gone, but for
// what sinks have.
func (m *machine) restore() {
	r := m.run
	r.note("%s: the backup is restored", m.name)
	then := map[uint64]bool{}
	for _, l := range m.backup.logs {
		for _, s := range l.entries {
			then[s.sum] = s.kept && !s.gone
		}
	}
	for _, l := range m.logs {
		for _, s := range l.entries {
			if s.kept && !then[s.sum] {
				l.lose(s)
			}
		}
	}
	m.disk = m.backup.disk.Clone(r.rand.Uint64())
	r.slow(m.disk)
	r.watch(m.disk, m.name+": ")
	r.disk = m.disk
	m.backup.copyTo(m)
	m.mend()
}

// patience is how long it may take until all is where it belongs, once nothing goes
// wrong any more.
const patience = 5 * time.Minute

// finish mends everything, and waits until all is where it belongs.
func (r *wholeRun) finish() {
	for _, m := range r.machines {
		m.mend()
	}
	r.db.fault, r.db.shape = nil, shape{}
	r.db.start()
	r.peer.set(func() { r.peer.down, r.peer.frozen, r.peer.cut = false, false, false })
	r.mended = true
	if len(r.findings) > 0 {
		return
	}
	for _, m := range r.machines {
		if !m.start(false) {
			return
		}
		r.senders(m)
	}
	_ = sleep(context.Background(), time.Second)
	for _, m := range r.machines {
		p := m.program
		close(p.over)
		p.waitSenders()
		p.over = make(chan struct{})
		began := r.now()
		for p.store.Pending()+p.mirrors.Pending() > 0 || p.underway() {
			if r.now()-began > patience {
				r.find("%s: nothing is wrong any more, and %d messages wait for the store and %d for the mirror: %s; %s", m.name,
					p.store.Pending(), p.mirrors.Pending(), p.store.Consumer().State().Err, interesting(p.counts.Snapshot()))
				break
			}
			_ = sleep(context.Background(), 100*time.Millisecond)
		}
		r.note("%s: drained after %s", m.name, r.now()-began)
		p.stop(time.Minute)
	}
	if len(r.findings) == 0 {
		r.audit()
	}
}

// underway reports whether messages are on their way into the log.
func (p *program) underway() bool {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	return p.spool.Sync(ctx, p.spool.Mark()) != nil
}

// audit compares what was taken in with what the table and the peer have.
func (r *wholeRun) audit() {
	stored, sent := 0, 0
	for _, msg := range r.messages {
		rows, acked := r.db.rows[msg.id], r.peer.acked[msg.id]
		if rows > 0 {
			stored++
		}
		if acked > 0 {
			sent++
		}
		switch {
		case rows > 1:
			r.find("message %d is in the table %d times", msg.id, rows)
		case rows == 1 && (!msg.store || msg.poison):
			r.find("message %d is in the table, and should not be", msg.id)
		case rows == 1 && !msg.kept:
			r.find("message %d is in the table, and was never kept", msg.id)
		}
		if acked > 0 && !msg.mirror {
			r.find("the peer has message %d, and should not", msg.id)
		}
		if !msg.kept {
			if msg.acknowledged {
				r.find("message %d was acknowledged, and never kept", msg.id)
			}
			continue
		}
		if msg.store && !msg.poison && rows == 0 && !msg.storeLost && !msg.dropped && !(r.db.lost[msg.id] > 0 && (msg.trimmed || msg.gone)) && !r.mayDrop("store") {
			r.find("message %d is not in the table (call %d, acknowledged %t, trimmed %t)", msg.id, msg.call, msg.acknowledged, msg.trimmed)
		}
		if msg.mirror && acked == 0 && !msg.mirrorLost && !msg.dropped && !r.mayDrop("mirror.peer") {
			r.find("the peer does not have message %d (call %d, acknowledged %t, trimmed %t)", msg.id, msg.call, msg.acknowledged, msg.trimmed)
		}
	}
	for id := range r.db.rows {
		if id < 1 || id > len(r.messages) {
			r.find("the table has a message %d that was never sent", id)
		}
	}
	r.order("the table", r.db.order())
	// Each of several machines sends what they have in common; and what a host still
	// sends for a process that ended may come behind what the next one gave up.
	if len(r.machines) == 1 && r.given["mirror.peer"] == 0 {
		r.order("the peer", firsts(r.peer.arrived))
	}
	r.note("audit: %d messages, %d in the table, %d at the peer", len(r.messages), stored, sent)
}

// order checks that the messages of each call stand in their order.
func (r *wholeRun) order(where string, ids []int) {
	last := map[int]int{}
	for _, id := range ids {
		if id < 1 || id > len(r.messages) {
			continue
		}
		if msg := r.messages[id-1]; msg.dropped || msg.gone {
			// What the host of a process that ended still sends may come behind what the
			// next process sends, and that one did not have it.
			continue
		}
		call := r.messages[id-1].call
		if id < last[call] {
			r.find("%s has message %d of call %d behind %d", where, id, call, last[call])
		}
		last[call] = max(last[call], id)
	}
}

// firsts leaves out what came before.
func firsts(ids []int) (list []int) {
	seen := map[int]bool{}
	for _, id := range ids {
		if !seen[id] {
			list = append(list, id)
		}
		seen[id] = true
	}
	return list
}

// order is the rows in the order in which they were committed.
func (s *server) order() (ids []int) {
	for _, c := range s.commits {
		ids = append(ids, c.rows...)
	}
	return ids
}
