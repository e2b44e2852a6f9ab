package vectors

import (
	"context"
	"net"
	"slices"
	"strings"
	"testing"
	"time"
)

func load(t *testing.T, name string) *Scenario {
	t.Helper()
	s, err := Load(name)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func fromHEP(t *testing.T) []*Scenario {
	t.Helper()
	list, err := FromHEP()
	if err != nil {
		t.Fatal(err)
	}
	return list
}

func TestLoad(t *testing.T) {
	names, err := Names()
	if err != nil {
		t.Fatal(err)
	}
	datagrams, rows := 0, 0
	for _, name := range names {
		s := load(t, name)
		datagrams += len(s.Datagrams)
		rows += len(s.Rows)
	}
	if len(names) != 89 || datagrams != 5001 || rows != 4522 {
		t.Errorf("got %d recordings, %d packets, %d rows, want 89, 5001, 4522", len(names), datagrams, rows)
	}
}

func TestFromHEP(t *testing.T) {
	var names []string
	packets, rows := 0, 0
	for _, s := range fromHEP(t) {
		names = append(names, s.Name)
		packets += len(s.Datagrams)
		rows += len(s.Rows)
	}
	t.Logf("%d recordings, %d packets, %d rows", len(names), packets, rows)
	for _, want := range []string{
		"hep1-core", "hep2-core", "hep3-core", "hep3-ipv6", "hep3-tcp", "hep2-tls", "edge-hep3", "hep3-tz-newyork",
		"fork-mode3", "retransmit-mode3", "spiral-mode3", "local-ip-script", "advertise", "two-sockets", "wildcard-listen",
		"hep3-tcp-collector", "hlog-auth", "mode1-hep-only", "table-and-columns",
	} {
		if !slices.Contains(names, want) {
			t.Errorf("%s is not among them", want)
		}
	}
	for name := range noFeedWith {
		if _, err := Load(name); err != nil {
			t.Errorf("left out by name: %v", err)
		}
	}
}

// Every packet and every row has to be explained, for each way to store text.
func TestWants(t *testing.T) {
	used := make(map[string]bool)
	for _, s := range fromHEP(t) {
		for _, st := range []Storage{UTF8, Latin1, Postgres, SQLite} {
			wants, err := s.Wants(st)
			if err != nil {
				t.Error(err)
				continue
			}
			same, changed, kept := 0, 0, 0
			for _, w := range wants {
				for _, r := range w.Reasons {
					if _, after, ok := strings.Cut(r, ": "); ok && w.Recorded != nil {
						r = after
					}
					used[r] = true
				}
				switch {
				case w.Recorded == nil:
					kept++
				case len(w.Reasons) > 0:
					changed++
				default:
					same++
				}
				if w.Recorded == nil || len(w.Reasons) > 0 || st.latin1 != s.Latin1 || st.noNUL || st.wide > 0 {
					continue
				}
				got, want := w.Row, *w.Recorded
				want.ID, want.TimeStamp, want.TimeUS = 0, "", 0
				if got != want {
					t.Errorf("%s, packet %d (%s): a row without a difference is not the recorded one:\n got %+v\nwant %+v",
						s.Name, w.Datagram, w.Label, got, want)
				}
			}
			if st.Name == UTF8.Name {
				t.Logf("%-26s %3d packets, %3d rows: %3d the same, %3d changed, %3d kept", s.Name, len(s.Datagrams), len(wants), same, changed, kept)
			}
		}
	}
	for _, d := range Differences {
		if !strings.HasPrefix(d.Scenarios, "xheaders-") && d.Kind != Unsent && !used[d.Reason] {
			t.Errorf("difference that no recording shows: %s", d.Reason)
		}
	}
}

// What the package reads in a message has to be what the module wrote, for all
// messages that the module did not fill from another one.
func TestColumns(t *testing.T) {
	n := 0
	for _, s := range fromHEP(t) {
		if strings.HasPrefix(s.Name, "edge-") {
			continue
		}
		wants, err := s.Wants(UTF8)
		if err != nil {
			t.Fatal(err)
		}
		for _, w := range wants {
			n++
			c := columns(w.Row.Msg)
			for _, name := range []string{"callid", "method", "status", "fromtag", "totag"} {
				if got, want := *c.Column(name), *w.Row.Column(name); got != want {
					t.Errorf("%s, packet %d: %s: got %q, want %q", s.Name, w.Datagram, name, got, want)
				}
			}
		}
	}
	if n < 2000 {
		t.Errorf("only %d messages looked at", n)
	}
}

// perfect makes the rows of a collector that does everything right.
func perfect(wants []Want, at time.Time) []Row {
	rows := make([]Row, len(wants))
	for i, w := range wants {
		when := w.Time
		if when.IsZero() {
			when = at
		}
		when = when.In(w.location)
		rows[i] = w.Row
		rows[i].ID = int64(i + 1)
		rows[i].TimeStamp = when.Format(time.DateTime)
		rows[i].TimeUS = int64(when.Nanosecond() / 1000)
	}
	return rows
}

func TestCompare(t *testing.T) {
	now := time.Now()
	sent := Window{From: now, To: now}
	for _, s := range fromHEP(t) {
		wants, err := s.Wants(UTF8)
		if err != nil {
			t.Fatal(err)
		}
		if p := Compare(wants, perfect(wants, now), sent); len(p) > 0 {
			t.Errorf("%s: perfect rows have problems: %q", s.Name, p[:min(len(p), 3)])
		}
	}

	tests := []struct {
		name  string
		spoil func(rows []Row) []Row
		want  string
	}{
		{"missing", func(r []Row) []Row { return slices.Delete(r, 3, 4) }, "no row of packet 4"},
		{"surplus", func(r []Row) []Row {
			extra := r[3]
			extra.ID = int64(len(r) + 1)
			return append(r, extra)
		}, "surplus row"},
		{"msg", func(r []Row) []Row { r[3].Msg += "x"; return r }, "surplus row"},
		{"callid", func(r []Row) []Row { r[3].CallID = "x"; return r }, "callid: got"},
		{"traced_user", func(r []Row) []Row { r[3].TracedUser = "x"; return r }, "traced_user: got"},
		{"method", func(r []Row) []Row { r[3].Method = "x"; return r }, "method: got"},
		{"status", func(r []Row) []Row { r[3].Status = "x"; return r }, "status: got"},
		{"fromtag", func(r []Row) []Row { r[3].FromTag = "x"; return r }, "fromtag: got"},
		{"totag", func(r []Row) []Row { r[3].ToTag = "x"; return r }, "totag: got"},
		{"direction", func(r []Row) []Row { r[3].Direction = "x"; return r }, "direction: got"},
		{"fromip", func(r []Row) []Row { r[3].FromIP = "x"; return r }, "no row of packet 4"},
		{"microseconds", func(r []Row) []Row { r[3].TimeUS ^= 1; return r }, "want that of the packet"},
		{"hour", func(r []Row) []Row { r[3].TimeStamp = "2026-11-21 04:47:43"; return r }, "time: got"},
		{"order in a call", func(r []Row) []Row {
			r[0], r[1] = r[1], r[0]
			r[0].ID, r[1].ID = 1, 2
			return r
		}, "of the same call"},
		{"order of ids", func(r []Row) []Row { r[0].ID = 7; return r }, "row 2 comes after row 7"},
	}
	s := load(t, "hep3-core")
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			wants, err := s.Wants(UTF8)
			if err != nil {
				t.Fatal(err)
			}
			problems := Compare(wants, tt.spoil(perfect(wants, now)), sent)
			if !slices.ContainsFunc(problems, func(p string) bool { return strings.Contains(p, tt.want) }) {
				t.Errorf("got %q, want one with %q", problems, tt.want)
			}
		})
	}

	t.Run("HEP1 time", func(t *testing.T) {
		wants, err := load(t, "hep1-core").Wants(UTF8)
		if err != nil {
			t.Fatal(err)
		}
		rows := perfect(wants, now.Add(-time.Hour))
		if p := Compare(wants, rows, sent); len(p) != len(rows) {
			t.Errorf("rows an hour old: got %d problems, want %d", len(p), len(rows))
		}
	})
	t.Run("order of calls", func(t *testing.T) {
		wants, err := s.Wants(UTF8)
		if err != nil {
			t.Fatal(err)
		}
		rows := perfect(wants, now)
		slices.SortStableFunc(rows, func(a, b Row) int { return strings.Compare(a.CallID, b.CallID) })
		for i := range rows {
			rows[i].ID = int64(i + 1)
		}
		if p := Compare(wants, rows, sent); len(p) > 0 {
			t.Errorf("calls in another order: %q", p)
		}
	})
}

func TestStorage(t *testing.T) {
	tests := []struct{ name, in, utf8, latin1, postgres string }{
		{"ASCII", "abc", "abc", "abc", "abc"},
		{"Latin letters", "caf\u00e9", "caf\u00e9", "caf\xe9", "caf\u00e9"},
		{"euro sign", "\u20ac", "\u20ac", "\x80", "\u20ac"},
		{"beyond latin1", "\u4f60", "\u4f60", "\u4f60", "\u4f60"},
		{"not UTF-8", "caf\xe9\x80", "caf\u00e9\u0080", "caf\xe9\x80", "caf\u00e9\u0080"},
		{"NUL", "a\x00b", "a\x00b", "a\x00b", "a" + NULStandIn + "b"},
		{"NUL, not UTF-8", "\x00\xe9", "\x00\u00e9", "\x00\xe9", NULStandIn + "\u00e9"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := UTF8.store(tt.in); got != tt.utf8 {
				t.Errorf("UTF-8: got %q, want %q", got, tt.utf8)
			}
			if got := Latin1.store(tt.in); got != tt.latin1 {
				t.Errorf("latin1: got %q, want %q", got, tt.latin1)
			}
			if got := Postgres.store(tt.in); got != tt.postgres {
				t.Errorf("PostgreSQL: got %q, want %q", got, tt.postgres)
			}
		})
	}
}

func TestFeed(t *testing.T) {
	s := load(t, "edge-hep3")
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()

	t.Run("udp", func(t *testing.T) {
		c, err := net.ListenPacket("udp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		got := make(chan int)
		go func() {
			b := make([]byte, 1<<16)
			n := 0
			for range s.Datagrams {
				time.Sleep(time.Millisecond) // a slow reader must lose nothing
				if _, _, err := c.ReadFrom(b); err != nil {
					break
				}
				n++
			}
			got <- n
		}()
		if err := Feed(ctx, "udp", c.LocalAddr().String(), s.Packets()); err != nil {
			t.Fatal(err)
		}
		if n := <-got; n != len(s.Datagrams) {
			t.Errorf("got %d packets, want %d", n, len(s.Datagrams))
		}
	})
	t.Run("tcp", func(t *testing.T) {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		got := make(chan int)
		go func() {
			n := 0
			defer func() { got <- n }()
			c, err := l.Accept()
			if err != nil {
				return
			}
			defer c.Close()
			b := make([]byte, 1<<16)
			for {
				m, err := c.Read(b)
				n += m
				if err != nil {
					return
				}
			}
		}()
		if err := Feed(ctx, "tcp", l.Addr().String(), s.Packets()); err != nil {
			t.Fatal(err)
		}
		want := 0
		for _, p := range s.Packets() {
			want += len(p)
		}
		if n := <-got; n != want {
			t.Errorf("got %d bytes, want %d", n, want)
		}
	})
	t.Run("nobody listens", func(t *testing.T) {
		if err := Feed(ctx, "udp", "127.0.0.1:1", s.Packets()[:1]); err == nil {
			t.Error("no error")
		}
	})
}
