//go:build simulation

package simulate

import (
	"bytes"
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"syscall"
	"time"

	"siptraced/cmd/siptraced/internal/counters"
	"siptraced/cmd/siptraced/internal/disk/faulty"
	"siptraced/cmd/siptraced/internal/journal"
	"siptraced/cmd/siptraced/internal/mirror"
	"siptraced/cmd/siptraced/internal/segments"
	"siptraced/cmd/siptraced/internal/spool"
	"siptraced/cmd/siptraced/internal/store"
	"siptraced/compat/siptrace"
)

// message is one SIP message that was taken in.
type message struct {
	id, call      int
	store, mirror bool
	poison        bool // the database refuses it
	refused       bool // the spool said that it has no room
	acknowledged  bool // Sync said that it is kept
	kept          bool // it is in a log, or was
	dropped       bool // to make room
	gone          bool // no log has it any more, though it was not given up
	trimmed       bool // given up, as all sinks were done with it
	// storeLost and mirrorLost: it is in no log any more, and that is all right.
	storeLost, mirrorLost bool
}

// machine is a disk, and the program that uses it.
type machine struct {
	*books
	run     *wholeRun
	name    string
	shards  int
	program *program
	backup  *machine
}

// program is one process of siptraced: the spool, the store, a mirror.
type program struct {
	m       *machine
	process *faulty.Process
	engine  *segments.Engine
	logs    []journal.Log
	spool   *spool.Spool
	counts  *counters.Set
	store   *store.Store
	mirrors *mirror.Mirrors
	kept    uint64 // messages that Append said it keeps
	over    chan struct{}
	senders int
	ended   signal

	uncertainAtKill []uint64
	dbConns         []*dbConn
	netConns        []*netConn
}

// spyEngine looks at what the spool does with the logs.
type spyEngine struct {
	*segments.Engine
	p *program
}

func (e spyEngine) Open(ctx context.Context, i int, limits journal.Limits) (journal.Log, error) {
	l, err := e.Engine.Open(ctx, i, limits)
	if err != nil {
		return nil, err
	}
	e.p.logs = append(e.p.logs, l)
	e.p.m.ledger(i).trimmed = 0
	return &spyLog{Log: l, p: e.p, ledger: e.p.m.ledger(i), offered: map[*journal.Entry]*sent{}}, nil
}

type spyLog struct {
	journal.Log
	p       *program
	ledger  *ledger
	offered map[*journal.Entry]*sent
}

func (l *spyLog) Append(ctx context.Context, entries []*journal.Entry) (int, error) {
	for _, e := range entries {
		if l.offered[e] == nil {
			l.offered[e] = l.ledger.offer(e, numbers(e.Data))
		}
	}
	n, err := l.Log.Append(ctx, entries)
	if l.p.dead() {
		return n, err
	}
	for _, e := range entries[:n] {
		s := l.offered[e]
		delete(l.offered, e)
		l.ledger.keep(s, e)
		l.p.kept += uint64(len(s.ids))
		if len(s.ids) != e.Records {
			l.ledger.find("an entry of %d records has %d messages", e.Records, len(s.ids))
		}
		l.p.m.run.keep(s)
	}
	return n, err
}

// Trim is where messages leave: every sink has to be done with them.
func (l *spyLog) Trim(ctx context.Context, upTo uint64) error {
	if !l.p.dead() {
		l.ledger.trim(upTo, func(s *sent) { l.p.m.run.trim(l.p.m, s) })
	}
	return l.Log.Trim(ctx, upTo)
}

func (l *spyLog) DropOldest(ctx context.Context) (bool, error) {
	any, err := l.Log.DropOldest(ctx)
	if b, _ := l.Bounds(ctx); b.First > 0 {
		l.ledger.trim(b.First-1, func(s *sent) {
			for _, id := range s.ids {
				l.p.m.run.messages[id-1].dropped = true
			}
		})
	}
	return any, err
}

// numbers are those of the messages in a batch.
func numbers(data []byte) (ids []int) {
	for {
		_, rest, found := bytes.Cut(data, []byte(numberHeader))
		if !found {
			return ids
		}
		number, rest, _ := bytes.Cut(rest, []byte("\r\n"))
		if id, err := strconv.Atoi(string(number)); err == nil {
			ids = append(ids, id)
		}
		data = rest
	}
}

func (p *program) dead() bool { return killed(p.process) }

// start starts the program. It reports whether it came up.
func (m *machine) start(trouble bool) bool {
	p := &program{m: m, process: m.disk.Start(), counts: counters.New(), over: make(chan struct{}), ended: newSignal()}
	lost := m.disk.Lost()
	if trouble {
		m.diskTrouble(m.disk, &m.damage)
	}
	err := p.open()
	if err == nil {
		if m.disk.Lost() > lost {
			m.doubtAll()
		}
		m.note("%s: started, %d shards", m.name, p.spool.Shards())
		m.program = p
		return true
	}
	m.note("%s: does not start: %v", m.name, err)
	if !trouble {
		m.find("%s does not start: %v", m.name, err)
	}
	p.process.Kill()
	if p.engine != nil && p.spool == nil {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		_ = p.engine.Close(ctx)
		cancel()
	}
	m.mend()
	m.doubtAll()
	return false
}

func (p *program) open() error {
	m, r, ctx := p.m, p.m.run, context.Background()
	log := m.logger(m.name)
	var err error
	if p.engine, err = m.open(p.process); err != nil {
		return err
	}
	cfg := spool.DefaultConfig()
	cfg.Dir, cfg.Shards, cfg.SyncInterval, cfg.BatchBytes, cfg.BatchAge = spoolDir, m.shards, m.sync, r.batchBytes, 10*time.Millisecond
	cfg.MaxBytes, cfg.Full = r.maxBytes, r.full
	if p.spool, err = spool.OpenOn(ctx, cfg, spyEngine{p.engine, p}, log); err != nil {
		return err
	}
	p.spool.Refused = func(rec *siptrace.Record) {
		if id, _ := identify(string(rec.Msg)); id > 0 && !p.dead() {
			r.messages[id-1].refused = true
			if r.messages[id-1].acknowledged {
				r.find("message %d was acknowledged, and refused", id)
			}
		}
	}
	p.counts.Func("spooled", p.spool.Stats.Spooled.Load)
	sc := store.DefaultConfig()
	sc.URL, sc.Connect, sc.RejectFile = dbURL(), p.connect, "rejects-"+m.name
	sc.BatchRows, sc.BatchAge = r.batchRows, 5*time.Millisecond
	if p.store, err = store.Open(ctx, sc, p.spool, p.counts, log); err != nil {
		return err
	}
	d := mirror.Destination{
		Static: true, Protocol: mirror.HEP3, CaptureID: 1, Time: mirror.TimeOriginal, Ack: r.ack, MaxBytes: 1 << 30, MaxAge: 240 * time.Hour,
	}
	if d, err = d.At("sip:192.0.2.9:9060;transport=tcp"); err != nil {
		return err
	}
	d.Name = "peer"
	mc := mirror.Config{Destinations: []mirror.Destination{d}, Dial: p.dial}
	p.store.Start()
	p.mirrors, err = mirror.Open(ctx, mc, p.spool, p.counts, log)
	return err
}

// connect is store.Config.Connect.
func (p *program) connect(siptrace.DBURL, int) (driver.Connector, error) {
	return connector{p.m.run.db, p}, nil
}

func (p *program) dial(ctx context.Context, network string, local, remote netip.AddrPort) (net.Conn, error) {
	if p.dead() {
		return nil, errors.New("the process is dead")
	}
	c, err := p.m.run.peer.dial(ctx, network, local, remote)
	if err == nil {
		p.netConns = append(p.netConns, c.(*netConn))
	}
	return c, err
}

// send puts messages into the spool until the program ends, as a sender over a
// connection does: from time to time it asks for an acknowledgement.
func (p *program) send(calls []int, pace time.Duration) {
	r := p.m.run
	p.senders++
	defer func() {
		p.senders--
		p.ended.wake()
	}()
	mark := p.spool.Mark()
	var batch []*message
	for !p.isOver() {
		msg := r.newMessage(calls)
		rec := r.record(msg)
		if err := p.spool.Put(rec); err != nil {
			if !errors.Is(err, spool.ErrClosed) {
				r.find("put: %v", err)
			}
			return
		}
		if p.dead() {
			return
		}
		batch = append(batch, msg)
		if r.chance(12) {
			if !p.acknowledge(batch, mark) {
				mark = p.spool.Mark()
			}
			batch = nil
		}
		_ = sleep(context.Background(), r.between(0, 2*pace))
	}
}

// acknowledge asks whether all that was put is kept.
func (p *program) acknowledge(batch []*message, mark uint64) bool {
	r := p.m.run
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := p.spool.Sync(ctx, mark); err != nil || p.dead() {
		return false
	}
	for _, msg := range batch {
		msg.acknowledged = true
		switch {
		case msg.refused:
			r.find("message %d was refused, and acknowledged", msg.id)
		case !msg.kept:
			r.find("message %d was acknowledged before it was kept", msg.id)
		}
	}
	return true
}

func (p *program) isOver() bool {
	select {
	case <-p.over:
		return true
	case <-p.process.Killed():
		return true
	default:
		return false
	}
}

// stop ends the program in order, with time to drain. It is false where it was killed
// meanwhile.
func (p *program) stop(drain time.Duration) bool {
	r := p.m.run
	close(p.over)
	p.waitSenders()
	ctx, cancel := context.WithTimeout(context.Background(), drain)
	defer cancel()
	p.spool.Flush(ctx)
	p.stopSinks(ctx)
	hard, end := context.WithTimeout(context.Background(), 30*time.Second)
	defer end()
	if err := p.spool.Close(hard); err != nil && !p.dead() {
		r.find("%s: closing the spool: %v", p.m.name, err)
	}
	if p.dead() {
		return false
	}
	if hard.Err() != nil {
		r.find("%s: the spool does not close", p.m.name)
	}
	p.balance()
	for _, l := range p.m.logs {
		for _, s := range l.entries {
			s.synced = s.synced || s.kept
		}
	}
	p.kill(true)
	return true
}

func (p *program) waitSenders() {
	for p.senders > 0 {
		<-p.ended.wait()
	}
}

func (p *program) stopSinks(ctx context.Context) {
	done := make(chan struct{})
	go func() {
		p.mirrors.Stop(ctx)
		close(done)
	}()
	if err := p.store.Stop(ctx); err != nil {
		p.m.find("%s: stopping the store: %v", p.m.name, err)
	}
	<-done
}

// kill ends the process, and what it has in memory is of no effect any more. Its host
// goes on, unless the power is gone: it sends what the process gave it, and tells the
// others that it ended.
func (p *program) kill(power bool) {
	p.process.Kill()
	p.m.program = nil
	for _, sink := range []string{"store", "mirror.peer"} {
		p.m.run.given[sink] += p.given(sink)
	}
	for _, c := range p.dbConns {
		c.bad = true
		if !c.gone {
			d := p.m.latency(2 * time.Millisecond)
			if !power {
				d = p.m.latency(20 * time.Second) // until the server asks
			}
			p.m.after(d, func() { c.server.end(c) })
		}
	}
	for _, c := range p.netConns {
		if !power {
			c.reset(syscall.ETIMEDOUT)
		}
		_ = c.Close()
	}
}

// bury has what is left of a process that was killed come to its end.
func (p *program) bury() {
	select {
	case <-p.over:
	default:
		close(p.over)
	}
	p.spool.Abort()
	p.waitSenders()
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	p.spool.Flush(ctx)
	p.stopSinks(ctx)
	_ = p.spool.Close(ctx)
}

// balance compares the books of a program that ended in order.
func (p *program) balance() {
	counts := p.counts.Snapshot()
	for _, e := range counters.Accounting() {
		if !slices.Contains(e.In, "spooled") {
			continue
		}
		if in, out := e.Sums(counts, "peer"); in != out {
			p.m.find("%s: the books do not balance: %s: %d, but %d: %v", p.m.name, e, in, out, interesting(counts))
		}
	}
	if got := p.spool.Stats.Spooled.Load(); got != p.kept {
		p.m.find("%s: spooled says %d, and %d were kept", p.m.name, got, p.kept)
	}
}

func interesting(counts map[string]uint64) (text string) {
	var names []string
	for name, n := range counts {
		if n > 0 {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	for _, name := range names {
		text += fmt.Sprintf(" %s %d", name, counts[name])
	}
	return text
}
