package store

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"siptraced/compat/siptrace"
	"siptraced/dbschema"
	"siptraced/tests/servers"
)

// What a table does not take: rows, in whatever company, and everything.
func testPoison(t *testing.T, all map[string]func(*testing.T) backend) {
	for name, test := range map[string]func(*testing.T, map[string]func(*testing.T) backend){
		"Compositions": testCompositions, "Partitions": testPartitions, "IDsUsedUp": testIDsUsedUp, "Narrowed": testNarrowed,
		"ConnectionLost": testConnectionLost, "RightsOnOneTable": testRightsOnOneTable, "TableGone": testTableGone,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, all)
		})
	}
}

// retries waits until the writers failed a number of times more.
func (r *rig) retries(t *testing.T, n uint64) {
	t.Helper()
	n += r.count.Snapshot()["store.retries"]
	servers.WaitFor(t, 2*time.Minute, "failed attempts", func() bool { return r.count.Snapshot()["store.retries"] >= n })
}

// arrived waits until so many rows are in the database.
func (r *rig) arrived(t *testing.T, rows uint64) {
	t.Helper()
	servers.WaitFor(t, 60*time.Second, "the rows", func() bool { return r.count.Snapshot()["store.rows"] >= rows })
}

// refuse makes the table refuse rows whose Call-ID is poison.
var refuse = map[string]map[string]string{
	"constraint": {
		"mariadb":  "ALTER TABLE sip_trace ADD CONSTRAINT no_poison CHECK (callid <> 'poison')",
		"postgres": "ALTER TABLE sip_trace ADD CONSTRAINT no_poison CHECK (callid <> 'poison')",
		"sqlite":   "CREATE TRIGGER refuse BEFORE INSERT ON sip_trace WHEN NEW.callid = 'poison' BEGIN SELECT RAISE(ABORT, 'no poison'); END",
	},
	"trigger": {
		"mariadb": "CREATE TRIGGER refuse BEFORE INSERT ON sip_trace FOR EACH ROW IF NEW.callid = 'poison' THEN SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = 'no poison'; END IF",
		"postgres": `CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN IF NEW.callid = 'poison' THEN RAISE EXCEPTION 'no poison'; END IF; RETURN NEW; END $$;
			CREATE TRIGGER refuse BEFORE INSERT ON sip_trace FOR EACH ROW EXECUTE FUNCTION refuse()`,
	},
	// Errors that say nothing about rows.
	"unknown": {
		"mariadb": "CREATE TRIGGER refuse BEFORE INSERT ON sip_trace FOR EACH ROW IF NEW.callid = 'poison' THEN SIGNAL SQLSTATE 'HY000' SET MYSQL_ERRNO = 30001, MESSAGE_TEXT = 'what'; END IF",
		"postgres": `CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN IF NEW.callid = 'poison' THEN RAISE EXCEPTION USING ERRCODE = 'XX000', MESSAGE = 'what'; END IF; RETURN NEW; END $$;
			CREATE TRIGGER refuse BEFORE INSERT ON sip_trace FOR EACH ROW EXECUTE FUNCTION refuse()`,
	},
	// A table that only the trigger lacks, and for some rows only.
	"missing": {
		"mariadb": "CREATE TRIGGER refuse BEFORE INSERT ON sip_trace FOR EACH ROW IF NEW.callid = 'poison' THEN INSERT INTO nowhere VALUES (1); END IF",
		"postgres": `CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN IF NEW.callid = 'poison' THEN INSERT INTO nowhere VALUES (1); END IF; RETURN NEW; END $$;
			CREATE TRIGGER refuse BEFORE INSERT ON sip_trace FOR EACH ROW EXECUTE FUNCTION refuse()`,
	},
	// Not before the COMMIT.
	"deferred": {
		"postgres": `CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN IF NEW.callid = 'poison' THEN RAISE EXCEPTION 'no poison'; END IF; RETURN NEW; END $$;
			CREATE CONSTRAINT TRIGGER refuse AFTER INSERT ON sip_trace DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION refuse()`,
	},
}

// composition is what comes in which order: runs of poison and of good rows, each
// its own batch.
type composition struct {
	name string
	runs []run
}

type run struct {
	n      int
	poison bool
	size   int // of the message
}

var compositions = []composition{
	{"one alone", []run{{1, true, 10}}},
	{"all", []run{{200, true, 10}}},
	{"all, good ones behind", []run{{200, true, 10}, {20, false, 10}}},
	{"good ones before and behind", []run{{20, false, 10}, {1, true, 10}, {20, false, 10}, {3, true, 10}, {20, false, 10}}},
	{"large ones, good ones behind", []run{{12, true, 40000}, {20, false, 10}}},
}

// Whatever makes a row impossible and in whatever company it comes: it is
// rejected, and all others arrive.
func testCompositions(t *testing.T, all map[string]func(*testing.T) backend) {
	for name, make := range all {
		for cause, texts := range refuse {
			if texts[name] == "" {
				continue
			}
			for i, c := range compositions {
				if i > 0 && i < 3 && cause != "trigger" && cause != "unknown" {
					continue // no different from the next one
				}
				t.Run(name+"/"+cause+"/"+c.name, func(t *testing.T) {
					t.Parallel()
					b := make(t)
					b.create(t, texts[name])
					testComposition(t, b, c)
				})
			}
		}
	}
}

func testComposition(t *testing.T, b backend, c composition) {
	r := newRig(t, b.url, t.TempDir())
	good, poison := 0, 0
	for _, run := range c.runs {
		for range run.n {
			call := "call"
			if poison++; !run.poison {
				poison--
				good++
			} else {
				call = "poison"
			}
			r.put(t, call, fmt.Sprintf("%06d %s", good+poison, strings.Repeat("x", run.size)))
		}
	}
	servers.WaitFor(t, 60*time.Second, "every message to find its place", func() bool {
		got := r.count.Snapshot()
		return got["store.written"] == uint64(good) && got["store.set_aside"] == uint64(poison)
	})
	r.stop(t)
	if rows := b.rows(t); len(rows) != good || !slices.IsSorted(rows) {
		t.Errorf("%d rows, want %d in order", len(rows), good)
	}
	if n := bytes.Count(r.rejected(t), []byte("\n")); n != poison {
		t.Errorf("%d lines in the reject file, want %d", n, poison)
	}
}

// A table by days: a message whose clock is wrong is rejected; when nobody made
// the partition of today, everything waits for it.
func testPartitions(t *testing.T, all map[string]func(*testing.T) backend) {
	for name, make := range all {
		if name == "sqlite" {
			continue
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			today := time.Now().UTC()
			until := func(days int) string { return today.AddDate(0, 0, days).Format(time.DateOnly) }
			add := func(from, to int) string {
				if name == "mariadb" {
					return fmt.Sprintf("ALTER TABLE sip_trace ADD PARTITION (PARTITION p%d VALUES LESS THAN (TO_DAYS('%s')))", to, until(to))
				}
				return fmt.Sprintf("CREATE TABLE p%d PARTITION OF sip_trace FOR VALUES FROM ('%s') TO ('%s')", to+9, until(from), until(to))
			}
			b := make(t)
			if name == "mariadb" {
				b.create(t, "ALTER TABLE sip_trace DROP PRIMARY KEY, ADD KEY (id)", "ALTER TABLE sip_trace PARTITION BY RANGE (TO_DAYS(time_stamp)) (PARTITION p2 VALUES LESS THAN (TO_DAYS('"+until(2)+"')))")
			} else {
				b.create(t, "ALTER TABLE sip_trace RENAME TO plain", "CREATE TABLE sip_trace (LIKE plain INCLUDING DEFAULTS) PARTITION BY RANGE (time_stamp)", add(-2, 2))
			}
			r := newRig(t, b.url, t.TempDir())
			r.putAt(t, time.Date(2100, 1, 1, 0, 0, 0, 0, time.UTC), "future", "future")
			servers.WaitFor(t, 30*time.Second, "the rejection", func() bool { return r.count.Snapshot()["store.set_aside"] == 1 })
			for i := range 300 {
				r.putAt(t, today, "call", fmt.Sprintf("%03d", i))
				if i == 100 {
					r.putAt(t, time.Date(2099, 1, 1, 0, 0, 0, 0, time.UTC), "future", "future")
				}
			}
			r.arrived(t, 300)
			// Later it would prove nothing: then no row has a partition.
			servers.WaitFor(t, 30*time.Second, "the second rejection", func() bool { return r.count.Snapshot()["store.set_aside"] == 2 })
			// The partition of today is gone, as on the day for which nobody made one.
			if name == "mariadb" {
				b.exec(t, "ALTER TABLE sip_trace REMOVE PARTITIONING", "DELETE FROM sip_trace", "ALTER TABLE sip_trace PARTITION BY RANGE (TO_DAYS(time_stamp)) (PARTITION p0 VALUES LESS THAN (TO_DAYS('"+until(-2)+"')))")
			} else {
				b.exec(t, "DROP TABLE p11", add(-9, -2))
			}
			for i := range 300 {
				r.putAt(t, today, "call", fmt.Sprintf("%03d", i))
			}
			// One that there is a place for proves nothing.
			r.putAt(t, today.AddDate(0, 0, -4), "past", "past")
			r.retries(t, 5)
			if n := r.count.Snapshot()["store.set_aside"]; n != 2 {
				t.Fatalf("%d rows rejected while there is no partition\n%s", n, r.log)
			}
			b.exec(t, add(-2, 2))
			r.arrived(t, 601)
			got := r.stop(t)
			if got["store.set_aside"] != 2 || got["store.rows"] != 601 {
				t.Errorf("%v", got)
			}
		})
	}
}

// The numbers of the id are used up: nothing is rejected, and all goes in when
// there are more.
func testIDsUsedUp(t *testing.T, all map[string]func(*testing.T) backend) {
	for name, make := range all {
		var use, fix []string
		switch name {
		case "postgres":
			use = []string{"SELECT setval('sip_trace_id_seq', 2147483645)"}
			fix = []string{"ALTER TABLE sip_trace ALTER COLUMN id TYPE BIGINT", "ALTER SEQUENCE sip_trace_id_seq AS BIGINT"}
		case "mariadb":
			use = []string{"ALTER TABLE sip_trace AUTO_INCREMENT = 4294967293"}
			fix = []string{"ALTER TABLE sip_trace MODIFY id BIGINT UNSIGNED AUTO_INCREMENT NOT NULL"}
		default:
			continue // 63 bits
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := make(t)
			b.create(t, use...)
			r := newRig(t, b.url, t.TempDir())
			for i := range 500 {
				r.put(t, fmt.Sprintf("call-%d", i%9), fmt.Sprintf("%03d", i))
			}
			r.retries(t, 8)
			if n := r.count.Snapshot()["store.set_aside"]; n != 0 {
				t.Fatalf("%d rows rejected\n%s", n, r.log)
			}
			b.exec(t, fix...)
			r.arrived(t, 500)
			if got := r.stop(t); got["store.rows"] != 500 || got["store.set_aside"] != 0 {
				t.Errorf("%v", got)
			}
		})
	}
}

// A column gets narrower while siptraced writes: the values are cut, as after a
// restart.
func testNarrowed(t *testing.T, all map[string]func(*testing.T) backend) {
	for name, make := range all {
		var narrow string
		switch name {
		case "postgres":
			narrow = "ALTER TABLE sip_trace ALTER COLUMN callid TYPE VARCHAR(5)"
		case "mariadb":
			narrow = "ALTER TABLE sip_trace MODIFY callid VARCHAR(5) NOT NULL DEFAULT ''"
		default:
			continue // holds to no width
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := make(t)
			b.create(t)
			r := newRig(t, b.url, t.TempDir())
			r.put(t, "call", "first")
			r.arrived(t, 1)
			b.exec(t, narrow)
			for i := range 1000 {
				r.put(t, fmt.Sprintf("long call id %d", i), fmt.Sprintf("%03d", i))
			}
			r.arrived(t, 1001)
			got := r.stop(t)
			if got["store.rows"] != 1001 || got["store.set_aside"] != 0 || got["store.cut.callid"] != 1000 {
				t.Errorf("%v", got)
			}
		})
	}
}

// Messages larger than the server takes are rejected, however many come first.
func TestLargerThanPacket(t *testing.T) {
	maria := servers.StartMariaDB(t, servers.WithServerArgs("--max-allowed-packet=16384"))
	maria.CreateDatabase(t, "large", "utf8mb4")
	u, err := siptrace.ParseDBURL(maria.URL("large"))
	if err != nil {
		t.Fatal(err)
	}
	b := backend{u, maria.Open(t, "large")}
	b.create(t)
	r := newRig(t, b.url, t.TempDir())
	for i := range 30 {
		r.put(t, "large", fmt.Sprintf("%02d", i)+strings.Repeat("x", 60000))
	}
	for i := range 100 {
		r.put(t, "call", fmt.Sprintf("%03d", i))
	}
	r.arrived(t, 100)
	if got := r.stop(t); got["store.set_aside"] != 30 || got["store.rows"] != 100 {
		t.Errorf("%v", got)
	}
}

// A row that costs the connection is found and rejected; what comes with it and
// behind it arrives.
func testConnectionLost(t *testing.T, all map[string]func(*testing.T) backend) {
	for name, make := range all {
		if name == "sqlite" {
			continue
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := make(t)
			b.create(t)
			u := b.url
			u.Hosts = []string{cutter(t, b.url.Hosts[0], "CUT HERE")}
			r := newRig(t, u, t.TempDir())
			for i := range 300 {
				if i%140 == 77 {
					r.put(t, "poison", fmt.Sprintf("%03d CUT HERE", i))
					continue
				}
				r.put(t, "call", fmt.Sprintf("%03d", i))
			}
			r.arrived(t, 298)
			if got := r.stop(t); got["store.set_aside"] != 2 {
				t.Errorf("%v", got)
			}
			if rows := b.rows(t); len(rows) != 298 || !slices.IsSorted(rows) {
				t.Errorf("%d rows", len(rows))
			}
		})
	}
}

// cutter passes connections on, and ends one that a text is sent over.
func cutter(t *testing.T, to, text string) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var done sync.WaitGroup
	ended := make(chan struct{})
	t.Cleanup(func() { close(ended); l.Close(); done.Wait() })
	done.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			s, err := net.Dial("tcp", to)
			if err != nil {
				c.Close()
				continue
			}
			done.Go(func() {
				_, _ = io.Copy(c, s)
				c.Close()
			})
			closed := make(chan struct{})
			done.Go(func() {
				select {
				case <-ended:
				case <-closed:
				}
				c.Close()
				s.Close()
			})
			done.Go(func() {
				defer close(closed)
				buf := make([]byte, 1<<16)
				for {
					n, err := c.Read(buf)
					if err != nil || bytes.Contains(buf[:n], []byte(text)) {
						return
					}
					if _, err := s.Write(buf[:n]); err != nil {
						return
					}
				}
			})
		}
	})
	return l.Addr().String()
}

// Rights on the table of messages alone are enough; the position is not kept
// then.
func testRightsOnOneTable(t *testing.T, all map[string]func(*testing.T) backend) {
	for name, make := range all {
		if name == "sqlite" {
			continue
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := make(t)
			b.create(t)
			u := b.url
			u.User, u.Password = "one_"+u.Database, "pw"
			if name == "mariadb" {
				b.exec(t, "CREATE USER "+u.User+" IDENTIFIED BY 'pw'", "GRANT SELECT, INSERT ON sip_trace TO "+u.User)
			} else {
				b.exec(t, "CREATE ROLE "+u.User+" LOGIN PASSWORD 'pw'", "GRANT SELECT, INSERT ON sip_trace TO "+u.User, "GRANT USAGE ON SEQUENCE sip_trace_id_seq TO "+u.User, "REVOKE CREATE ON SCHEMA public FROM PUBLIC")
			}
			r := newRig(t, u, t.TempDir())
			r.put(t, "call", "first")
			r.arrived(t, 1)
			if got := r.stop(t); got["store.rows"] != 1 {
				t.Errorf("%v", got)
			}
			if !strings.Contains(r.log.String(), "the position can't be kept") {
				t.Errorf("nothing logged:\n%s", r.log)
			}
		})
	}
}

// The configured table is gone while a table that a rule named takes rows: what
// belongs into it waits.
func testTableGone(t *testing.T, all map[string]func(*testing.T) backend) {
	for name, make := range all {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := make(t)
			d, _ := dbschema.DialectOf(b.url.Driver)
			texts, err := dbschema.Create(d, "sip_trace_alt", siptrace.DefaultColumns())
			if err != nil {
				t.Fatal(err)
			}
			b.create(t, slices.DeleteFunc(texts, func(s string) bool {
				return !strings.HasPrefix(s, "CREATE TABLE") || !strings.Contains(s, "sip_trace_alt")
			})...)
			r := newRig(t, b.url, t.TempDir())
			r.put(t, "call", "first")
			r.arrived(t, 1)
			if name == "sqlite" {
				b.exec(t, "DROP TABLE sip_trace")
			} else {
				b.exec(t, "ALTER TABLE sip_trace RENAME TO elsewhere")
			}
			for i := range 40 {
				table := []string{"", "sip_trace_alt"}[i%2]
				if err := r.spool.Put(&siptrace.Record{Time: time.Unix(1700000000, 0), CallID: []byte("x"), Msg: fmt.Appendf(nil, "%02d", i), Route: siptrace.Route{Sinks: siptrace.ToStore, Table: table}}); err != nil {
					t.Fatal(err)
				}
			}
			if name != "sqlite" { // there the table is made anew
				r.retries(t, 5)
				b.exec(t, "ALTER TABLE elsewhere RENAME TO sip_trace")
			}
			r.arrived(t, 41)
			if got := r.stop(t); got["store.rows"] != 41 || got["store.set_aside"] != 0 {
				t.Errorf("%v\n%s", got, r.log)
			}
		})
	}
}
