package main

import (
	"fmt"
	"strings"
	"time"

	"siptraced/tests/servers"
)

// window is how many requests are under way to Kamailio: more than it has
// workers, and few enough for the buffer that its socket has by default.
const window = 64

// moduleConfig is a Kamailio that does nothing but answer without state and
// trace: each request and its reply is a row.
const moduleConfig = `#!KAMAILIO
debug=0
log_stderror=yes
children=@CHILDREN@
disable_tcp=yes
auto_aliases=no
dns=no
rev_dns=no
listen=udp:127.0.0.1:@PORT@
loadmodule "db_mysql.so"
loadmodule "kex.so"
loadmodule "tm.so"
loadmodule "sl.so"
loadmodule "pv.so"
loadmodule "siptrace.so"
modparam("siptrace", "db_url", "@DBURL@")
modparam("siptrace", "trace_on", 1)
modparam("siptrace", "trace_to_database", 1)
modparam("siptrace", "trace_mode", 2)
request_route {
	sl_send_reply("200", "OK");
}
`

// traced is what the module reached with a number of workers.
type traced struct {
	size        float64 // mean of the messages in the table, in bytes
	rate        float64
	answered    float64
	loss        float64
	cpu, server float64
	others      float64
}

// module measures Kamailio's own siptrace at its best, and then compares.
func module(b *bench) {
	t := table{
		title: fmt.Sprintf("Kamailio's siptrace, trace_mode=2, %v for each number of workers; %d requests under way", b.opt.length, window),
		head:  []string{"workers", "mean bytes", "requests/s", "rows/s", "loss %", "CPU s/100k", "database CPU", "others %"},
	}
	var best traced
	b.section(func() {
		d := b.startDatabase(mariaDB)
		for _, n := range b.opt.children {
			var top traced
			b.repeat(func() (float64, bool) {
				m := d.module(n)
				t.add(n, m.size, m.answered, m.rate, 100*m.loss, m.cpu, m.server, m.others)
				b.Logf("%d workers: %.0f rows/s, %.2f CPU s/100k", n, m.rate, m.cpu)
				if m.rate > top.rate {
					top = m
				}
				return m.others, true
			})
			b.add(mariaDB, fmt.Sprintf("module, %d workers", n), top.rate, "rows/s")
			if top.rate > best.rate {
				best = top
			}
		}
	})
	t.print(b.out)
	b.add(mariaDB, "module at its best", best.rate, "rows/s")
	b.add(mariaDB, "Kamailio CPU at its best", best.cpu, "s/100000 rows")
	rate, ok := b.figure("e2e", mariaDB, bestRate)
	if !ok {
		// For the ratio, both have to be of one run.
		outer := b.scenario
		b.scenario = "e2e"
		b.endToEnd(mariaDB)
		b.scenario = outer
		rate, _ = b.figure("e2e", mariaDB, bestRate)
	}
	cpu, _ := b.figure("e2e", mariaDB, bestCPU)
	r := table{
		title: "siptraced against the module, both at their best in this run",
		head:  []string{"", "module", "siptraced", "ratio"},
	}
	if best.rate == 0 || cpu == 0 {
		b.Errorf("nothing to compare: the module reached %.0f rows/s, siptraced %.0f", best.rate, rate)
	} else {
		r.add("rows/s", best.rate, rate, rate/best.rate)
		r.add("CPU s per 100,000 rows", best.cpu, cpu, best.cpu/cpu)
		b.add(mariaDB, "rows/s, siptraced / module", rate/best.rate, "ratio")
		b.add(mariaDB, "CPU per row, module / siptraced", best.cpu/cpu, "ratio")
	}
	r.print(b.out)
}

// module runs Kamailio with so many workers on an empty table.
func (d *database) module(children int) (m traced) {
	d.b.Helper()
	d.b.section(func() {
		d.fresh()
		port := fmt.Sprint(servers.FreePort(d.b))
		cfg := strings.NewReplacer("@CHILDREN@", fmt.Sprint(children), "@PORT@", port, "@DBURL@", d.url()).Replace(moduleConfig)
		k := servers.StartKamailio(d.b, cfg, "udp:127.0.0.1:"+port)
		u := usage{k.PID()}
		db := d.open("")
		defer db.Close()
		d.b.waitQuiet()
		cpu, err := u.tree()
		if err != nil {
			d.b.Fatal(err)
		}
		server, other := d.cpu(), newStrangers()
		w := watch(db, 20*time.Millisecond)
		out := d.b.generate(order{To: "127.0.0.1:" + port, Length: d.b.opt.length, Window: window})()
		// A worker writes the row before it takes the next request.
		time.Sleep(500 * time.Millisecond)
		used, err := u.tree()
		if err != nil {
			d.b.Fatal(err)
		}
		m.server = d.cpu() - server
		m.others = other.share(used - cpu + m.server + out.CPU)
		notes, err := w.end()
		if err != nil || len(notes) == 0 {
			d.b.Fatalf("no rows: %v\n%s", err, k.Tail(20))
		}
		if err := db.QueryRow("SELECT AVG(LENGTH(msg)) FROM sip_trace").Scan(&m.size); err != nil {
			d.b.Fatal(err)
		}
		rows := d.count(db)
		last := notes[len(notes)-1].at
		m.rate = float64(rows) / (float64(last.UnixMicro()-out.First) / 1e6)
		m.answered = float64(out.Answered) / (float64(out.Last-out.First) / 1e6)
		m.loss = float64(2*out.Sent-rows) / float64(2*out.Sent)
		m.cpu, m.server = per100k(used-cpu, float64(rows)), per100k(m.server, float64(rows))
		k.Stop(d.b)
	})
	return m
}
