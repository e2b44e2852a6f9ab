package vectors

import (
	"bytes"
	"slices"
	"strings"
	"testing"
	"time"
)

func mirrors(t *testing.T) []*Mirror {
	t.Helper()
	list, err := Mirrors()
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// What the package writes itself has to be what the module wrote, in each
// version, and the headers as well.
func TestEncode(t *testing.T) {
	names, err := Names()
	if err != nil {
		t.Fatal(err)
	}
	packets := map[string]int{}
	for _, name := range names {
		s := load(t, name)
		if s.First != nil {
			s.Datagrams = append(s.Datagrams, s.First.Datagrams...)
		}
		for _, d := range s.Datagrams {
			if m, err := decodeHEP(d.Packet); err == nil {
				packets["HEP"+itoa(m.version)]++
				if got := m.encode(m.version); !bytes.Equal(got, d.Packet) {
					t.Errorf("%s, packet %d:\n got %x\nwant %x", name, d.N, got, d.Packet)
				}
				continue
			}
			x, err := tracedX(d.Packet)
			if err != nil || x.timeless {
				continue
			}
			if strings.HasPrefix(name, "xheaders-odd") { // where 5.6.3 wrote leftovers
				continue
			}
			packets["headers"]++
			if got := x.duplicate(); !bytes.Equal(got, d.Packet) {
				t.Errorf("%s, packet %d:\n got %q\nwant %q", name, d.N, got, d.Packet)
			}
		}
	}
	t.Logf("%v", packets)
	for kind, want := range map[string]int{"HEP1": 250, "HEP2": 600, "HEP3": 2500, "headers": 500} {
		if packets[kind] < want {
			t.Errorf("only %d packets of %s", packets[kind], kind)
		}
	}
}

func itoa(n int) string { return string(rune('0' + n)) }

// Every packet has to be the module's, or to be explained; and the rows as well.
func TestMirrors(t *testing.T) {
	used := map[string]bool{}
	for _, m := range mirrors(t) {
		same := 0
		for _, o := range m.Out {
			if o.Same {
				same++
			} else {
				used[o.Reason] = true
			}
		}
		wants, err := m.Wants(SQLite)
		if err != nil {
			t.Error(err)
		}
		for _, w := range wants {
			for _, r := range w.Reasons {
				if _, after, ok := strings.Cut(r, ": "); ok && w.Recorded != nil {
					r = after
				}
				used[r] = true
			}
		}
		t.Logf("%-26s %-22s %3d in, %3d out, %3d of them the module's, %3d rows", m.Name, m.Way, len(m.In), len(m.Out), same, len(wants))
		sent := Window{From: time.Now(), To: time.Now()}
		var perfect [][]byte
		for _, o := range m.Out {
			perfect = append(perfect, o.Packet)
			if o.Arrival { // recorded in another hour
				sent.From = time.Unix(0, 0)
			}
		}
		if p := CompareOut(m.Out, perfect, sent); len(p) > 0 {
			t.Errorf("%s, %s: perfect packets have problems: %q", m.Name, m.Way, p[:min(len(p), 3)])
		}
	}
	for _, d := range MirrorDifferences {
		if d.Kind != Refused && !used[d.Reason] {
			t.Errorf("difference that no recording shows: %s", d.Reason)
		}
	}
	for _, d := range Differences {
		if strings.HasPrefix(d.Scenarios, "xheaders-") && d.Kind != Unsent && !used[d.Reason] {
			t.Errorf("difference that no recording shows: %s", d.Reason)
		}
	}
}

func TestCompareOut(t *testing.T) {
	list := mirrors(t)
	i := slices.IndexFunc(list, func(m *Mirror) bool { return m.Name == "hep3-core" })
	want := list[i].Out
	tests := []struct {
		name  string
		spoil func([][]byte) [][]byte
		want  string
	}{
		{"missing", func(p [][]byte) [][]byte { return slices.Delete(p, 3, 4) }, "not sent: HEP3"},
		{"twice", func(p [][]byte) [][]byte { return append(p, p[3]) }, "not wanted: HEP3"},
		{"microsecond", func(p [][]byte) [][]byte { p[3] = bytes.Clone(p[3]); p[3][71] ^= 1; return p }, "not wanted"},
		{"port", func(p [][]byte) [][]byte { p[3] = bytes.Clone(p[3]); p[3][46] ^= 1; return p }, "not wanted"},
		{"order in a call", func(p [][]byte) [][]byte { p[0], p[1] = p[1], p[0]; return p }, "comes after that of a later message"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var got [][]byte
			for _, o := range want {
				got = append(got, o.Packet)
			}
			problems := CompareOut(want, tt.spoil(got), Window{})
			if !slices.ContainsFunc(problems, func(p string) bool { return strings.Contains(p, tt.want) }) {
				t.Errorf("got %q, want one with %q", problems, tt.want)
			}
		})
	}
	t.Run("arrival", func(t *testing.T) {
		arrival := []Out{{Packet: want[0].Packet, Arrival: true}}
		at, _ := timeOf(want[0].Packet)
		if p := CompareOut(arrival, [][]byte{want[0].Packet}, Window{From: at, To: at}); len(p) > 0 {
			t.Errorf("time within the window: %q", p)
		}
		if p := CompareOut(arrival, [][]byte{want[0].Packet}, Window{From: at.Add(time.Hour), To: at.Add(time.Hour)}); len(p) != 1 {
			t.Errorf("time outside of the window: %q", p)
		}
	})
}
