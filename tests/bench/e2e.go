package main

import (
	"context"
	"database/sql"
	"fmt"
	"slices"
	"time"

	"siptraced/tests/servers"
)

const (
	// maxLoss is the share of messages that may be lost at a rate that counts as
	// sustained.
	maxLoss = 0.001
	// maxGrowth is by which share of what comes in the backlog may grow there.
	maxGrowth = 0.02
	// maxDrain is how long after the last message the last row may come.
	maxDrain = time.Second
	// probesPerSecond are enough for a 99th percentile of a few seconds, and
	// few enough to cost nothing.
	probesPerSecond = 200
)

// measured is one load on a daemon, from the socket to the table.
type measured struct {
	asked      int
	sent       float64 // messages per second
	rows       float64 // rows per second, to the last one visible
	loss       float64 // share of the messages that have no row
	drops      int64   // datagrams that the kernel dropped
	growth     float64 // of the backlog in the second half, as a share of what came in
	drain      float64 // seconds from the last message to the last row
	cpu        float64 // CPU seconds per 100,000 rows, of the daemon
	server     float64 // of the database
	peak       float64 // MiB
	others     float64 // percent of the machine that other programs took
	latencies  []float64
	unanswered int // probes without a row
}

// sustained reports whether the daemon can bear the load for any time.
func (m measured) sustained() bool {
	return m.loss < maxLoss && m.growth < maxGrowth && m.drain < maxDrain.Seconds()
}

// endToEnd sends HEP3 over UDP at rising rates.
func endToEnd(b *bench) {
	for _, kind := range b.opt.kinds {
		b.endToEnd(kind)
	}
}

// endToEnd measures one kind of database: the time to the visible row, and the
// highest rate that holds.
func (b *bench) endToEnd(kind string) {
	t := table{
		title: fmt.Sprintf("From UDP to %s, %v for each rate, generator and database on the same machine", kind, b.opt.length),
		head: []string{
			"messages/s", "sent/s", "rows/s", "loss %", "kernel drops", "backlog +%", "drain s", "holds",
			"CPU s/100k", "database CPU", "peak MiB", "others %", "p50 ms", "p95 ms", "p99 ms",
		},
	}
	row := func(m measured) {
		p := []any{"", "", ""}
		if len(m.latencies) > 0 {
			p = []any{percentile(m.latencies, 50), percentile(m.latencies, 95), percentile(m.latencies, 99)}
		}
		t.add(append([]any{
			m.asked, m.sent, m.rows, 100 * m.loss, m.drops, 100 * m.growth, m.drain, m.sustained(),
			m.cpu, m.server, m.peak, m.others,
		}, p...)...)
	}
	b.section(func() {
		d := b.startDatabase(kind)
		var m, best measured
		for _, rate := range b.opt.rates {
			holds := false
			b.repeat(func() (float64, bool) {
				m = d.load(rate, 0)
				row(m)
				holds = m.sustained()
				return m.others, !holds
			})
			if holds && m.rows > best.rows {
				best = m
			}
			// Beyond what the machine can do there is nothing to find.
			if !holds || m.sent < 0.9*float64(rate) {
				break
			}
		}
		m = d.load(b.opt.latency, probesPerSecond)
		row(m)
		name := fmt.Sprintf("at %d/s", b.opt.latency)
		for _, p := range []float64{50, 95, 99} {
			b.add(kind, fmt.Sprintf("p%.0f of the time to the visible row, %s", p, name), percentile(m.latencies, p), "ms")
		}
		b.add(kind, "siptraced CPU, "+name, m.cpu, "s/100000 rows")
		b.add(kind, "peak memory, "+name, m.peak, "MiB")
		b.add(kind, bestRate, best.rows, "rows/s")
		b.add(kind, bestCPU, best.cpu, "s/100000 rows")
		b.add(kind, "peak memory at the highest rate", best.peak, "MiB")
		b.add(kind, "loss at the highest rate", 100*best.loss, "%")
	})
	t.print(b.out)
}

// Names of figures that others are compared with.
const (
	bestRate = "highest rate that holds"
	bestCPU  = "siptraced CPU at the highest rate"
)

// load sends at one rate to a daemon of its own, with an empty table. More
// arguments are for the daemon.
func (d *database) load(rate, probes int, args ...string) (m measured) {
	d.b.Helper()
	m.asked = rate
	d.b.section(func() {
		d.fresh()
		s := d.b.siptraced(d.url(), args...)
		db := d.open("")
		defer db.Close()
		d.warm(s)
		d.b.waitQuiet()
		cpu, err := s.cpu()
		if err != nil {
			d.b.Fatal(err)
		}
		server := d.cpu()
		epoch, other := time.Now(), newStrangers()
		w := watch(db, 20*time.Millisecond)
		var lat *latencies
		if probes > 0 {
			lat = d.watchProbes(epoch)
		}
		before := s.CountersNow(d.b)
		wait := d.b.generate(order{To: s.addr, Length: d.b.opt.length, Rate: rate, Probes: probes, Epoch: epoch.UnixMicro()})
		time.Sleep(d.b.opt.length / 2)
		half := s.CountersNow(d.b)
		out := wait()
		whole := s.CountersNow(d.b)
		d.settle(s)
		used, err := s.cpu()
		if err != nil {
			d.b.Fatal(err)
		}
		m.server = d.cpu() - server
		m.others = other.share(used - cpu + m.server + out.CPU)
		notes, err := w.end()
		if err != nil || len(notes) == 0 {
			d.b.Fatalf("no rows: %v\n%s", err, s.Tail(20))
		}
		rows := d.count(db) - warmUp
		last := notes[len(notes)-1].at
		m.sent = out.rate()
		m.rows = float64(rows) / (float64(last.UnixMicro()-out.First) / 1e6)
		m.loss = float64(out.Sent-rows) / float64(out.Sent)
		m.drain = max(float64(last.UnixMicro()-out.Last)/1e6, 0)
		m.growth = growth(half, whole, rate)
		m.cpu, m.server = per100k(used-cpu, float64(rows)), per100k(m.server, float64(rows))
		if m.peak, err = s.memory("VmHWM"); err != nil {
			d.b.Error(err)
		}
		if lat != nil {
			m.latencies, m.unanswered = lat.end(out.Probes)
		}
		m.drops = s.stop().Sum("kernel_drops") - before.Sum("kernel_drops")
		if m.unanswered > 0 && m.loss == 0 {
			d.b.Errorf("%d of %d probes were not seen, but no row is missing", m.unanswered, out.Probes)
		}
		d.b.Logf("%s at %d/s: sent %.0f/s, %.0f rows/s, loss %.3f %%, drain %.2f s, %.2f CPU s/100k; generator used %.1f s of CPU",
			d.kind, rate, m.sent, m.rows, 100*m.loss, m.drain, m.cpu, out.CPU)
	})
	return m
}

// growth is how much of what came in between two looks at the counters was added
// to the backlog. A tenth of a second of messages is under way, not backlog.
func growth(before, after servers.Counters, rate int) float64 {
	in := after[servers.Received] - before[servers.Received]
	more := after[servers.Pending] - max(before[servers.Pending], int64(rate/10))
	if in <= 0 || more <= 0 {
		return 0
	}
	return float64(more) / float64(in)
}

// warmUp is how many messages go before the measurement: connections are made
// then, and statements prepared.
const warmUp = 2000

func (d *database) warm(s *daemon) {
	d.b.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	t, err := newTraffic(prepared)
	if err == nil {
		err = feedTCP(ctx, s.addr, t, warmUp)
	}
	if err != nil {
		d.b.Fatalf("%v\n%s", err, s.Tail(20))
	}
	servers.WaitFor(d.b, time.Minute, "the first rows", func() bool {
		return s.CountersNow(d.b)[servers.Pending] == 0
	})
}

// settle waits until all that came in is in the table, or was lost.
func (d *database) settle(s *daemon) {
	d.b.Helper()
	var last servers.Counters
	quiet := 0
	servers.WaitFor(d.b, 5*time.Minute, "the rows to be in the table", func() bool {
		time.Sleep(100 * time.Millisecond)
		c := s.CountersNow(d.b)
		if c[servers.Pending] == 0 && last != nil && c[servers.Received] == last[servers.Received] && c.Balanced() == nil {
			quiet++
		} else {
			quiet = 0
		}
		last = c
		return quiet == 3
	})
}

// latencies collects how long the probes took to their rows.
type latencies struct {
	stop context.CancelFunc
	done chan struct{}
	seen []float64 // ms by probe number; 0 for those not seen
	err  error
}

// pollEvery is the pause between two looks for probes. What it adds to a time
// is in the figures.
const pollEvery = 2 * time.Millisecond

// giveUp is how long a probe is looked for after later ones have come.
const giveUp = 2 * time.Second

// watchProbes looks for probes among the rows by the index on callid, which has
// them all at its end, and asks only for those not seen yet.
func (d *database) watchProbes(epoch time.Time) *latencies {
	d.b.Helper()
	ctx, stop := context.WithCancel(context.Background())
	l := &latencies{stop: stop, done: make(chan struct{})}
	db := d.open("")
	query := "SELECT callid FROM sip_trace WHERE callid >= ? AND callid < 'q'"
	if d.kind == postgres {
		query = "SELECT callid FROM sip_trace WHERE callid >= $1 AND callid < 'q'"
	}
	stmt, err := db.PrepareContext(ctx, query)
	if err != nil {
		_ = db.Close()
		d.b.Fatal(err)
	}
	go func() {
		defer close(l.done)
		defer db.Close()
		missing := 0 // the first probe that was not seen
		var since time.Time
		for ctx.Err() == nil {
			before := missing
			if err := l.look(ctx, stmt, missing, epoch); err != nil {
				if ctx.Err() == nil {
					l.err = err
				}
				return
			}
			for missing < len(l.seen) && l.seen[missing] > 0 {
				missing++
			}
			if missing != before || missing == len(l.seen) {
				since = time.Now()
			} else if time.Since(since) > giveUp {
				missing++ // lost
			}
			select {
			case <-ctx.Done():
			case <-time.After(pollEvery):
			}
		}
	}()
	return l
}

func (l *latencies) look(ctx context.Context, stmt *sql.Stmt, from int, epoch time.Time) error {
	lower := [9]byte{probePrefix[0]}
	digits(lower[1:], from)
	rows, err := stmt.QueryContext(ctx, string(lower[:]))
	if err != nil {
		return err
	}
	defer rows.Close()
	var now time.Time
	for rows.Next() {
		if now.IsZero() {
			now = time.Now() // the answer is here
		}
		var callID string
		if err := rows.Scan(&callID); err != nil {
			return err
		}
		n, sent, err := parseProbe(callID)
		if err != nil {
			return err
		}
		for n >= len(l.seen) {
			l.seen = append(l.seen, 0)
		}
		if l.seen[n] == 0 {
			l.seen[n] = max(float64(now.Sub(epoch)-sent)/float64(time.Millisecond), 0.001)
		}
	}
	return rows.Err()
}

// end returns the times of the probes in milliseconds, sorted, and how many of
// those sent were not seen.
func (l *latencies) end(sent int) (sorted []float64, missing int) {
	l.stop()
	<-l.done
	for _, ms := range l.seen {
		if ms > 0 {
			sorted = append(sorted, ms)
		}
	}
	slices.Sort(sorted)
	return sorted, sent - len(sorted)
}
