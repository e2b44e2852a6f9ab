//go:build simulation

package simulate

import (
	"context"
	"encoding/binary"
	"errors"
	"strconv"
	"time"

	"siptraced/cmd/siptraced/internal/disk"
	"siptraced/cmd/siptraced/internal/disk/faulty"
	"siptraced/cmd/siptraced/internal/journal"
	"siptraced/cmd/siptraced/internal/segments"
)

// logRun drives the logs of package segments alone: it appends, reads, trims, and
// knows what has to be there.
type logRun struct {
	*books
	ids     int
	readers []*logReader
	life    *life

	uncertainAtKill []uint64
}

// life is one process.
type life struct {
	process *faulty.Process
	engine  *segments.Engine
	logs    []journal.Log
	over    chan struct{} // closed when it is to end
	actors  int           // that did not end yet
	ended   signal
}

// logReader is who appends to a log and reads it.
type logReader struct {
	*ledger
	run      *logRun
	log      journal.Log
	total    uint64
	position uint64
	flushed  uint64 // the position that is certainly saved
}

// body is what an entry holds.
func body(id, size int) []byte {
	b := make([]byte, size)
	binary.LittleEndian.PutUint64(b, uint64(id))
	for i := 8; i < len(b); i++ {
		b[i] = byte(i*7 + id*31)
	}
	return b
}

func (w *world) newBooks(d *faulty.Disk, name string) *books {
	d.SetSize(diskSize, 0)
	w.slow(d)
	return &books{
		world: w, disk: d, name: name, names: w.names,
		sync:    []time.Duration{100 * time.Millisecond, 100 * time.Millisecond, 0, time.Second}[w.rand.IntN(4)],
		segment: []int64{64 << 10, 256 << 10, 1 << 20}[w.rand.IntN(3)],
	}
}

func (w *world) runLog() {
	r := &logRun{books: w.newBooks(w.disk, "log")}
	w.watch(w.disk, "")
	for i := range 1 + w.rand.IntN(2) {
		r.readers = append(r.readers, &logReader{ledger: r.ledger(i), run: r})
	}
	w.note("log run: sync %s segment %d logs %d", r.sync, r.segment, len(r.logs))
	for range 3 + w.rand.IntN(5) {
		if len(w.findings) > 0 {
			return
		}
		if r.start(w.chance(4)) {
			r.live(w.between(200*time.Millisecond, 4*time.Second))
		}
	}
	r.finish()
}

// start opens the directory, maybe on a disk that makes trouble, and looks at what
// is there. It reports whether that succeeded.
func (r *logRun) start(trouble bool) bool {
	l := &life{process: r.disk.Start(), over: make(chan struct{}), ended: newSignal()}
	lost := r.disk.Lost()
	if trouble {
		r.diskTrouble(r.disk, &r.damage)
	}
	began := r.now()
	engine, err := r.open(l.process)
	if err != nil {
		r.note("open: %v", err)
		if !trouble {
			r.find("the directory does not open: %v", err)
		}
		l.process.Kill()
		r.failedStart()
		return false
	}
	r.note("opened after %s", r.now()-began)
	l.engine, r.life = engine, l
	for _, m := range r.readers {
		m.log, err = engine.Open(context.Background(), m.index, journal.Limits{})
		if err != nil {
			r.note("open log %d: %v", m.index, err)
			if !trouble {
				r.find("log %d does not open: %v", m.index, err)
			}
			r.kill()
			r.failedStart()
			return false
		}
		m.trimmed = 0
		l.logs = append(l.logs, m.log)
		m.begin(engine)
	}
	if r.disk.Lost() > lost {
		r.doubtAll()
	}
	return true
}

// failedStart mends the disk. A sync may have failed.
func (r *logRun) failedStart() {
	r.mend()
	r.doubtAll()
}

func (m *logReader) key() string { return "reader." + strconv.Itoa(m.index) }

// begin takes over what the log says of itself.
func (m *logReader) begin(e *segments.Engine) {
	text, found, err := e.Positions().Get(context.Background(), m.key())
	if err != nil {
		m.run.find("positions: %v", err)
	}
	position, _ := strconv.ParseUint(text, 10, 64)
	if !found && m.flushed > 0 && !m.run.positions {
		m.run.find("log %d: position %d was saved, and there is none", m.index, m.flushed)
	}
	if found && position < m.flushed && !m.run.positions {
		m.run.find("log %d: position %d was saved, and %d is there", m.index, m.flushed, position)
	}
	// What was read may be in the kernel's memory only.
	m.position, m.flushed = position, min(m.flushed, position)
	m.log.Skip(position)
	b, err := m.log.Bounds(context.Background())
	if err != nil {
		m.run.find("bounds: %v", err)
	}
	m.total = b.Total
	m.run.note("log %d: first %d last %d total %d position %d damaged %d", m.index, b.First, b.Last, b.Total, position, b.DamagedRecords)
}

// live has things happen for a while, and ends the process in one way or another.
func (r *logRun) live(d time.Duration) {
	l := r.life
	for _, m := range r.readers {
		r.act(func() { m.append(l) })
		r.act(func() { m.read(l) })
	}
	end := r.now() + d
	if r.chance(4) {
		n := r.rand.IntN(400)
		r.note("the process will be killed at call %d", n)
		r.doomed, r.doom = n+1, func() {
			r.uncertainAtKill = r.uncertain(r.life.logs)
			r.disk.Inject(faulty.Fault{Times: 1, Kill: true, Partial: r.chance(2)})
		}
	}
	for r.now() < end && !killed(l.process) {
		_ = sleep(context.Background(), r.between(20*time.Millisecond, d/2))
		if killed(l.process) {
			break
		}
		switch r.rand.IntN(6) {
		case 0, 1:
			r.diskTrouble(r.disk, &r.damage)
		case 2:
			r.lookAtClone()
		case 3:
			r.second()
		case 4:
			r.syncNow()
		}
	}
	r.endLife()
}

func killed(p *faulty.Process) bool {
	select {
	case <-p.Killed():
		return true
	default:
		return false
	}
}

// act runs f as a part of the process.
func (r *logRun) act(f func()) {
	l := r.life
	l.actors++
	go func() {
		f()
		l.actors--
		l.ended.wake()
	}()
}

// endLife ends the process: in order, by a kill, or by a loss of power.
func (r *logRun) endLife() {
	l := r.life
	r.doomed = 0
	how := r.rand.IntN(3)
	switch {
	case killed(l.process):
		r.note("the process was killed")
		r.kill()
		r.check("a kill", r.uncertainAtKill)
	case how == 0:
		r.note("stop")
		r.mend()
		if !r.stop() {
			r.check("a kill", r.uncertainAtKill)
			return
		}
		if r.chance(2) {
			r.disk.PowerLoss()
			r.check("a stop and a loss of power", nil)
			return
		}
		r.check("a stop", nil)
	case how == 1:
		r.note("kill")
		allowed := r.uncertain(r.life.logs)
		r.kill()
		r.check("a kill", allowed)
	default:
		allowed := r.unsynced(r.life.logs)
		r.note("power loss, %v may be lost", allowed)
		r.disk.PowerLoss()
		r.kill()
		r.check("a loss of power", allowed)
	}
}

// wait waits until all parts of the process ended.
func (l *life) wait() {
	for l.actors > 0 {
		<-l.ended.wait()
	}
}

// kill ends the process at once.
func (r *logRun) kill() {
	r.life.process.Kill()
	close(r.life.over)
	r.close(time.Minute)
}

// stop ends it in order. It is false where it was killed meanwhile, in a call that took
// long.
func (r *logRun) stop() bool {
	close(r.life.over)
	r.life.wait()
	err := r.close(time.Minute)
	if killed(r.life.process) {
		r.note("the process was killed")
		return false
	}
	if err != nil {
		r.find("close: %v", err)
	}
	for _, m := range r.readers {
		for _, s := range m.entries {
			s.synced = s.synced || s.kept
		}
		m.flushed = max(m.flushed, m.position)
	}
	r.life.process.Kill() // what it still does is of no effect
	return true
}

func (r *logRun) close(patience time.Duration) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	err := r.life.engine.Close(ctx)
	if ctx.Err() != nil {
		r.find("the engine does not close within %s", patience)
	}
	r.life.wait()
	return err
}

// append offers entries until the process ends.
func (m *logReader) append(l *life) {
	r := m.run
	for !m.ended(l) {
		var batch []*sent
		var entries []*journal.Entry
		for range 1 + r.rand.IntN(3) {
			r.ids++
			records := 1 + r.rand.IntN(20)
			m.total += uint64(records)
			e := &journal.Entry{Records: records, Total: m.total, Taken: time.Now(), Data: body(r.ids, 8+r.rand.IntN([]int{200, 5000, 40000}[r.rand.IntN(3)]))}
			batch, entries = append(batch, m.offer(e, nil)), append(entries, e)
		}
		for len(entries) > 0 {
			n, err := m.log.Append(context.Background(), entries)
			if n < 0 || n > len(entries) || err == nil && n != len(entries) {
				r.find("log %d: Append kept %d of %d: %v", m.index, n, len(entries), err)
				return
			}
			if m.ended(l) && killed(l.process) {
				return // nobody heard the answer
			}
			for i, e := range entries[:n] {
				m.keep(batch[i], e)
			}
			entries, batch = entries[n:], batch[n:]
			if err == nil {
				continue
			}
			r.note("log %d: append: kept %d, %v", m.index, n, err)
			_ = sleep(context.Background(), r.between(10*time.Millisecond, 200*time.Millisecond))
			if m.ended(l) {
				return
			}
		}
		_ = sleep(context.Background(), r.between(time.Millisecond, 60*time.Millisecond))
	}
}

func (m *logReader) ended(l *life) bool {
	select {
	case <-l.over:
		return true
	case <-l.process.Killed():
		return true
	default:
		return false
	}
}

// read reads, saves its position, and trims.
func (m *logReader) read(l *life) {
	r := m.run
	for !m.ended(l) {
		c, err := m.log.Read(context.Background(), m.position)
		if err != nil {
			r.note("log %d: read: %v", m.index, err)
			_ = sleep(context.Background(), r.between(10*time.Millisecond, 100*time.Millisecond))
			continue
		}
		m.follow(l, c)
		c.Close()
	}
}

func (m *logReader) follow(l *life, c journal.Cursor) {
	r := m.run
	at := m.position
	next := 0 // of m.entries
	for !m.ended(l) {
		e, err := c.Next(context.Background())
		if m.ended(l) && killed(l.process) {
			return
		}
		if errors.Is(err, journal.ErrEnd) {
			m.save(l, at)
			_ = sleep(context.Background(), r.between(5*time.Millisecond, 100*time.Millisecond))
			continue
		}
		if err != nil {
			r.note("log %d: next: %v", m.index, err)
			_ = sleep(context.Background(), r.between(10*time.Millisecond, 100*time.Millisecond))
			return
		}
		next = m.expect(next, at, &e)
		at = e.Seq
		if e.Memory != nil {
			e.Memory.Release()
		}
		if r.chance(8) {
			m.save(l, at)
		}
		if r.chance(200) {
			return // and from the saved position again
		}
	}
}

// save saves the reader's position and trims.
func (m *logReader) save(l *life, at uint64) {
	if at == m.position || m.ended(l) {
		return
	}
	p := l.engine.Positions()
	if err := p.Put(context.Background(), m.key(), strconv.FormatUint(at, 10)); err != nil {
		m.run.find("put: %v", err)
	}
	m.position = at
	if err := p.Flush(context.Background()); err != nil {
		m.run.note("log %d: flush: %v", m.index, err)
		return
	}
	if m.ended(l) {
		return
	}
	m.flushed = at
	r := m.run
	r.note("log %d: saved %d", m.index, at)
	m.trim(at, func(*sent) {})
	if err := m.log.Trim(context.Background(), at); err != nil {
		m.run.note("log %d: trim: %v", m.index, err)
	}
}

// expect compares an entry that was read behind the number at with what has to be
// there. It returns where in m.entries the next one is.
func (m *logReader) expect(next int, at uint64, e *journal.Entry) int {
	r := m.run
	if e.Seq <= at {
		r.find("log %d: entry %d was read behind %d", m.index, e.Seq, at)
	}
	i := m.known(next, e)
	if i < 0 {
		return next
	}
	for _, s := range m.entries[next:i] {
		if s.kept && !s.gone && s.seq > at {
			m.missed(s, "reading", true)
		}
	}
	return i + 1
}

// check opens the directory as it is now, and reads all that is there.
func (r *logRun) check(after string, allowed []uint64) {
	r.mend()
	r.inspect(r.disk.Clone(r.rand.Uint64()), after, allowed, true)
}

// lookAtClone looks at what a machine would find that lost power now.
func (r *logRun) lookAtClone() {
	allowed := r.unsynced(r.life.logs)
	r.inspect(r.disk.CrashClone(r.rand.Uint64()), "a loss of power (clone)", allowed, false)
}

// second tries to use the directory beside the process that has it.
func (r *logRun) second() {
	if killed(r.life.process) {
		return
	}
	p := r.disk.Start()
	e, err := r.open(p)
	if err == nil {
		if !killed(r.life.process) {
			r.find("two processes have the directory")
		}
		p.Kill()
		_ = e.Close(context.Background())
	}
	if err != nil && !errors.As(err, new(*disk.LockedError)) {
		r.note("second process: %v", err)
	}
	p.Kill()
}

// syncNow syncs a log, and notes what is safe then.
func (r *logRun) syncNow() {
	m := r.readers[r.rand.IntN(len(r.readers))]
	var before []*sent
	for _, s := range m.entries {
		if s.kept && !s.gone {
			before = append(before, s)
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	if err := m.log.Sync(ctx); err != nil {
		r.note("log %d: sync: %v", m.index, err)
		return
	}
	if killed(r.life.process) {
		return
	}
	for _, s := range before {
		s.synced = true
	}
}

// finish mends everything, and waits until all is read and safe.
func (r *logRun) finish() {
	r.mend()
	if len(r.findings) > 0 || !r.start(false) {
		return
	}
	l := r.life
	for _, m := range r.readers {
		r.act(func() { m.append(l) })
		r.act(func() { m.read(l) })
	}
	_ = sleep(context.Background(), time.Second)
	close(l.over)
	l.wait()
	for _, m := range r.readers {
		m.finish()
	}
	if err := r.close(time.Minute); err != nil {
		r.find("close: %v", err)
	}
	l.process.Kill()
}

// finish reads what is left.
func (m *logReader) finish() {
	r := m.run
	if n := len(m.entries); n > 0 && !m.entries[n-1].kept {
		r.find("log %d: the disk is well, and nothing is kept", m.index)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := m.log.Sync(ctx); err != nil {
		r.find("log %d: the disk is well, and sync says: %v", m.index, err)
	}
	b, _ := m.log.Bounds(ctx)
	if b.UnsyncedRecords+b.UncertainRecords > 0 {
		r.find("log %d: after a sync %d records are not synced and %d uncertain", m.index, b.UnsyncedRecords, b.UncertainRecords)
	}
	c, err := m.log.Read(ctx, m.position)
	if err != nil {
		r.find("log %d: read: %v", m.index, err)
		return
	}
	defer c.Close()
	next, at := 0, m.position
	for {
		e, err := c.Next(ctx)
		if errors.Is(err, journal.ErrEnd) {
			break
		}
		if err != nil {
			r.find("log %d: next: %v", m.index, err)
			return
		}
		next = m.expect(next, at, &e)
		at = e.Seq
		if e.Memory != nil {
			e.Memory.Release()
		}
	}
	for _, s := range m.entries[next:] {
		if s.kept && !s.gone && s.seq > at {
			m.missed(s, "the end", true)
		}
	}
	r.note("log %d: %d entries, last %d", m.index, len(m.entries), at)
}
