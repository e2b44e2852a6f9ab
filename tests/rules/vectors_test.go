package rules

import (
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"siptraced/tests/vectors"
)

// Routes that stand for what the recorded configurations do in request_route.
const (
	userRoute = `event_route[siptrace:msg] {
	if ($fU=="one") { $avp(s:tu)="sip:one@vec.example"; }
	else if ($fU=="three") { $avp(s:tu)="user-a"; $avp(s:tu)="user-b"; $avp(s:tu)="user-c"; }
}
`
	tableRoute = `event_route[siptrace:msg] {
	if ($fU=="alice") $avp(s:tt)="sip_trace_alt";
}
`
)

// key tells rows of one message.
type key struct{ msg, from, to, moment string }

func keyOf(r *vectors.Row) key {
	return key{r.Msg, r.FromIP, r.ToIP, r.TimeStamp + "." + strconv.FormatInt(r.TimeUS, 10)}
}

// withUsers makes wants of a recording with several rows per message: users are
// those of each recorded message, in the order of its rows. Packets that have no
// row come back as unwanted.
func withUsers(t *testing.T, s *vectors.Scenario, st vectors.Storage) (wants []vectors.Want, unwanted int) {
	t.Helper()
	users := map[key][]string{}
	one := *s
	one.Name = "script-" + s.Name // made by sip_trace(), with its differences
	one.Rows = nil
	for i := range s.Rows {
		k := keyOf(&s.Rows[i])
		if users[k] == nil {
			one.Rows = append(one.Rows, s.Rows[i])
		}
		users[k] = append(users[k], s.Rows[i].TracedUser)
	}
	one.Datagrams = nil
	traced := map[string]int{}
	for i := range one.Rows {
		r := &one.Rows[i]
		traced[r.Msg+"\x00"+r.FromIP+"\x00"+r.ToIP]++
	}
	for _, d := range s.Datagrams {
		payload, _ := d.Payload()
		k := string(payload) + "\x00" + d.Ends()
		if traced[k] > 0 {
			traced[k]--
			one.Datagrams = append(one.Datagrams, d)
		} else {
			unwanted++
		}
	}
	single, err := one.Wants(st)
	if err != nil {
		t.Fatal(err)
	}
	for _, w := range single {
		for _, u := range users[keyOf(w.Recorded)] {
			w.Row.TracedUser = u
			wants = append(wants, w)
		}
	}
	return wants, unwanted
}

// The recordings in which AVPs choose users and tables, with the AVPs set in the
// event route.
func TestVectors(t *testing.T) {
	t.Parallel()
	for kind, open := range backends(t, "mariadb", "postgres", "sqlite") {
		t.Run(kind, func(t *testing.T) {
			for _, tt := range []struct {
				name, route string
				wants       func(t *testing.T, s *vectors.Scenario, st vectors.Storage) (wants []vectors.Want, unwanted int)
				rows        int
			}{
				{"traced-user-on", userRoute, withUsers, 158},
				{"traced-user-off", userRoute, withUsers, 88},
				{"traced-user-mode3", userRoute, mode3, 0},
				{"trace-table-avp", tableRoute, nil, 0},
			} {
				t.Run(tt.name, func(t *testing.T) {
					t.Parallel()
					s, db := recording(t, tt.name), open(t, "sip_trace_alt")
					d := start(t, options{config: s.Config, route: tt.route, db: db})
					from := time.Now()
					d.feed(t, s.Packets()...)
					c := d.stop(t)
					window := vectors.Window{From: from, To: time.Now()}
					if tt.wants == nil {
						tables(t, s, db, window)
						return
					}
					wants, unwanted := tt.wants(t, s, db.storage)
					if tt.rows > 0 && len(wants) != tt.rows {
						t.Fatalf("the recording has %d rows, not %d", len(wants), tt.rows)
					}
					rows := db.rows(t, "sip_trace")
					report(t, vectors.Compare(wants, rows, window))
					oneTime(t, rows)
					if got := c["dropped.trace_off"]; got != int64(unwanted) {
						t.Errorf("dropped.trace_off: got %d, want %d", got, unwanted)
					}
				})
			}
		})
	}
}

// mode3 is traced-user-mode3: in the module trace_mode never asks for users, so
// that only what sip_trace() added has them. Here they are those of the message.
func mode3(t *testing.T, s *vectors.Scenario, st vectors.Storage) (wants []vectors.Want, unwanted int) {
	t.Helper()
	one := *s
	one.Name = "script-" + s.Name
	one.Rows = slices.DeleteFunc(slices.Clone(s.Rows), func(r vectors.Row) bool { return r.TracedUser != "" })
	single, err := one.Wants(st)
	if err != nil {
		t.Fatal(err)
	}
	from := regexp.MustCompile(`(?im)^From:[^\n]*sip:(one|three)@`)
	users := map[string][]string{"": {""}, "one": {"", "sip:one@vec.example"}, "three": {"", "user-c", "user-b", "user-a"}}
	for _, w := range single {
		name := ""
		if m := from.FindStringSubmatch(w.Row.Msg); m != nil {
			name = m[1]
		}
		for _, u := range users[name] {
			w.Row.TracedUser = u
			wants = append(wants, w)
		}
	}
	return wants, 0
}

// oneTime fails the test if rows of one message differ in their time.
func oneTime(t *testing.T, rows []vectors.Row) {
	t.Helper()
	for i := 1; i < len(rows); i++ {
		a, b := &rows[i-1], &rows[i]
		if b.TracedUser != "" && a.Msg == b.Msg && (a.TimeStamp != b.TimeStamp || a.TimeUS != b.TimeUS) {
			t.Errorf("rows %d and %d of one message: %s.%06d and %s.%06d", a.ID, b.ID, a.TimeStamp, a.TimeUS, b.TimeStamp, b.TimeUS)
		}
	}
}

// tables compares both tables of trace-table-avp.
func tables(t *testing.T, s *vectors.Scenario, db *database, window vectors.Window) {
	t.Helper()
	alt, err := s.RowsOf("sip_trace_alt")
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		table string
		rows  []vectors.Row
	}{{"sip_trace", s.Rows}, {"sip_trace_alt", alt}} {
		one := *s
		one.Rows = tt.rows
		wants, _ := withUsers(t, &one, db.storage)
		if len(wants) != 18 {
			t.Errorf("%s: %d rows wanted, not 18", tt.table, len(wants))
		}
		report(t, vectors.Compare(wants, db.rows(t, tt.table), window))
	}
}

// The recorded route as it is: it drops REGISTER with its replies, and writes
// where each message came from into the log.
func TestEventRouteDrop(t *testing.T) {
	t.Parallel()
	s, all := recording(t, "event-route-drop"), recording(t, "hep3-core")
	d := start(t, options{config: s.Config})
	d.feed(t, s.Packets()...)
	d.feed(t, all.Packets()...)
	log := d.Stderr()
	c := d.stop(t)
	want, drops := len(s.Rows), int64(0)
	cseq := regexp.MustCompile(`(?im)^CSeq:\s*\d+\s+REGISTER`)
	for _, p := range all.Datagrams {
		if payload, _ := p.Payload(); cseq.Match(payload) {
			drops++
		} else {
			want++
		}
	}
	rows := d.db.rows(t, "sip_trace")
	if len(rows) != want || c["dropped.event_route"] != drops || drops == 0 {
		t.Errorf("%d rows, %d dropped; want %d and %d", len(rows), c["dropped.event_route"], want, drops)
	}
	for _, r := range rows {
		if r.Method == "REGISTER" {
			t.Errorf("row %d is a REGISTER", r.ID)
		}
	}
	if got := strings.Count(log, "EVR src="); got != len(s.Datagrams)+len(all.Datagrams) {
		t.Errorf("%d lines of xlog, want %d", got, len(s.Datagrams)+len(all.Datagrams))
	}
	for _, want := range []string{
		"EVR src=udp:127.0.0.1:15110 dst=udp:127.0.0.1:15060 sh=127.0.0.1 shi=127.0.0.1 sp=15110 spr=udp",
	} {
		if !strings.Contains(log, want) {
			t.Errorf("no line %q in the log", want)
		}
	}
}

// siptrace.status on and off while messages come, at the moments of the recording.
func TestStatusToggle(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"status-toggle-mode3", "status-toggle-script"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := recording(t, name)
			d := start(t, options{config: s.Config})
			event := regexp.MustCompile(`^(\d+\.\d+) siptrace\.status (\w+) -> (\w+)`)
			next, off := 0, 0
			on := true
			for line := range strings.Lines(read(t, filepath.Join(filepath.Dir(s.Config), "events.txt"))) {
				m := event.FindStringSubmatch(line)
				if m == nil {
					continue
				}
				at, err := strconv.ParseFloat(m[1], 64)
				if err != nil {
					t.Fatal(err)
				}
				var batch [][]byte
				for ; next < len(s.Datagrams) && s.Datagrams[next].Time < at; next++ {
					batch = append(batch, s.Datagrams[next].Packet)
				}
				if !on {
					off += len(batch)
				}
				d.feed(t, batch...)
				if got := d.kamcmd(t, "siptrace.status", m[2]); m[3] != "error" && got != m[3] {
					t.Errorf("siptrace.status %s: got %q, want %q", m[2], got, m[3])
				}
				switch m[3] {
				case "Enabled":
					on = true
				case "Disabled":
					on = false
				}
			}
			var rest [][]byte
			for ; next < len(s.Datagrams); next++ {
				rest = append(rest, s.Datagrams[next].Packet)
			}
			d.feed(t, rest...)
			c := d.stop(t)
			rows := d.db.rows(t, "sip_trace")
			if len(rows) != len(s.Rows) || c["dropped.trace_off"] != int64(off) || len(s.Datagrams)-off != len(s.Rows) {
				t.Errorf("%d packets, %d of them while off: %d rows, %d dropped; the module wrote %d rows", len(s.Datagrams), off, len(rows), c["dropped.trace_off"], len(s.Rows))
			}
			want := map[string]int{}
			for _, r := range s.Rows {
				want[r.Msg+r.FromIP+r.ToIP]++
			}
			for _, r := range rows {
				if want[r.Msg+r.FromIP+r.ToIP]--; want[r.Msg+r.FromIP+r.ToIP] < 0 {
					t.Errorf("surplus row %d: %.60q", r.ID, r.Msg)
				}
			}
		})
	}
}
