package main

import (
	"context"
	"fmt"
	"slices"
	"time"

	"siptraced/tests/servers"
)

// drained is one emptying of a full spool.
type drained struct {
	feed      float64 // messages per second into the spool
	reconnect float64 // seconds from the database's return to the first row
	rate      float64 // rows per second from then on
	cpu       float64 // the daemon's CPU seconds per 100,000 rows
	server    float64 // the database's
	peak      float64 // MiB, largest resident set
	others    float64 // percent of the machine that other programs took
}

// drain compares the emptying of a full spool with the best plain client: A B B
// A, so that what changes slowly counts for both, each with an empty table in a
// server that has just been started.
func drain(b *bench) {
	n := b.opt.messages
	t := table{
		title: fmt.Sprintf("Drain of %d messages, alternating with the best plain client", n),
		head: []string{
			"database", "round", "spooled/s", "reconnect s", "rows/s", "plain rows/s", "ratio", "by CPU",
			"CPU s/100k", "plain CPU", "database CPU", "of plain", "peak MiB", "others %", "meanwhile",
		},
	}
	for _, kind := range b.opt.kinds {
		b.section(func() {
			d := b.startDatabase(kind)
			w := bestWays[kind]
			var all, clean []compared
			b.repeat(func() (float64, bool) {
				var c compared
				steps := []func(){
					func() { c.drained = d.drain(n) },
					func() {
						d.down()
						d.up()
						c.plain = d.client(w, n)
					},
				}
				if len(all)%2 == 1 {
					slices.Reverse(steps)
				}
				for _, step := range steps {
					step()
					d.fresh()
				}
				all = append(all, c)
				t.add(kind, len(all), c.feed, c.reconnect, c.rate, c.plain.rate, c.ratio(), c.byCPU(),
					c.cpu, c.plain.cpu, c.server, c.plain.server, c.peak, c.others, c.plain.others)
				b.Logf("%s: %.0f rows/s, plain client (%s, %d rows, %d connections) %.0f, ratio %.2f",
					kind, c.rate, w.name, w.rows, w.conns, c.plain.rate, c.ratio())
				others := max(c.others, c.plain.others)
				if others < busy {
					clean = append(clean, c)
				}
				return others, true
			})
			if len(clean) > 0 {
				all = clean // what others disturbed says nothing
			}
			mid := func(f func(compared) float64) float64 {
				var list []float64
				for _, c := range all {
					list = append(list, f(c))
				}
				return median(list)
			}
			b.add(kind, "undisturbed rounds", float64(len(clean)), "rounds")
			b.add(kind, "drained", mid(func(c compared) float64 { return c.rate }), "rows/s")
			b.add(kind, "plain client", mid(func(c compared) float64 { return c.plain.rate }), "rows/s")
			b.add(kind, "drained / plain client", mid(compared.ratio), "ratio")
			b.add(kind, "plain client / drained, CPU per row with the database's", mid(compared.byCPU), "ratio")
			b.add(kind, "siptraced CPU", mid(func(c compared) float64 { return c.cpu }), "s/100000 rows")
			b.add(kind, "peak memory", mid(func(c compared) float64 { return c.peak }), "MiB")
		})
	}
	t.print(b.out)
}

// compared is a drain and the plain client after it.
type compared struct {
	drained
	plain clientResult
}

func (c compared) ratio() float64 { return c.rate / c.plain.rate }

// byCPU is what the ratio comes to where the CPU is the limit and nothing else
// runs; it does not suffer from what does.
func (c compared) byCPU() float64 {
	return (c.plain.cpu + c.plain.server) / (c.cpu + c.server)
}

// drain fills the spool while the database is down and then lets it back.
func (d *database) drain(n int) (r drained) {
	d.b.Helper()
	d.b.section(func() {
		d.down()
		var args []string
		if d.b.opt.profile != "" {
			args = []string{"--cpu-profile", d.b.absolute(d.b.opt.profile)}
		}
		s := d.b.siptraced(d.url(), args...)
		feed, err := newTraffic(prepared)
		if err != nil {
			d.b.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
		defer cancel()
		begin := time.Now()
		if err := feedTCP(ctx, s.addr, feed, n); err != nil {
			d.b.Fatalf("%v\n%s", err, s.Tail(20))
		}
		r.feed = float64(n) / time.Since(begin).Seconds()
		if c := s.CountersNow(d.b); c[servers.Pending] != int64(n) {
			d.b.Fatalf("%d messages wait in the spool, want %d: %v", c[servers.Pending], n, c)
		}
		d.b.waitQuiet()
		cpu, err := s.cpu()
		if err != nil {
			d.b.Fatal(err)
		}
		d.up()
		back, server, other := time.Now(), d.cpu(), newStrangers()
		db := d.open("")
		defer db.Close()
		w := watch(db, 10*time.Millisecond)
		servers.WaitFor(d.b, 15*time.Minute, "the spool to be empty", func() bool {
			time.Sleep(200 * time.Millisecond)
			return !s.Running() || s.CountersNow(d.b)[servers.Pending] == 0
		})
		time.Sleep(20 * time.Millisecond) // one more look of the watcher
		notes, err := w.end()
		if err != nil || len(notes) == 0 {
			d.b.Fatalf("no rows: %v\n%s", err, s.Tail(20))
		}
		first, last := notes[0], notes[len(notes)-1]
		// The rows seen at the first look were written before it.
		r.reconnect = first.at.Sub(back).Seconds()
		r.rate = float64(int64(n)-first.id) / last.at.Sub(first.at).Seconds()
		used, err := s.cpu()
		if err != nil {
			d.b.Fatal(err)
		}
		served := d.cpu() - server
		r.others = other.share(used - cpu + served)
		r.cpu, r.server = per100k(used-cpu, float64(n)), per100k(served, float64(n))
		if r.peak, err = s.memory("VmHWM"); err != nil {
			d.b.Error(err)
		}
		if got := d.count(db); got != n {
			d.b.Errorf("%s: %d rows in the table, want %d", d.kind, got, n)
		}
		s.stop()
	})
	return r
}
