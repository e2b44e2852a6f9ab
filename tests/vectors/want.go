package vectors

import (
	"fmt"
	"slices"
	"time"
)

// Want is a row that a collector has to write.
type Want struct {
	Datagram int    // number of the packet that leads to it
	Label    string // of a hand-made message
	Row      Row    // with the bytes that the table keeps; id and time mean nothing here
	Time     time.Time
	Recorded *Row // the module's row; nil if it lost it
	Reasons  []string

	location *time.Location
	open     []string // columns about which nothing is promised
}

// Wants says which rows the packets of the recording have to lead to, in the
// order of the packets. It is an error if a packet without a row, or a row
// without a packet, is not explained by Differences.
func (s *Scenario) Wants(st Storage) ([]Want, error) {
	var list []traced
	for i := range s.Datagrams {
		d := &s.Datagrams[i]
		m, err := decodeHEP(d.Packet)
		if err != nil {
			return nil, fmt.Errorf("%s, packet %d: %w", s.Name, d.N, err)
		}
		if m.kind == 1 && isSIP(string(m.payload)) {
			t := tracedHEP(m)
			t.n, t.label = d.N, s.label(d)
			list = append(list, t)
		}
	}
	return s.wants(list, st)
}

// traced is a message as it comes to a collector, however it was wrapped.
type traced struct {
	message
	n        int // of the packet
	label    string
	from, to string // proto:address:port
	dir      string // empty: the addresses tell
	method   string // empty: the message tells
	timeless bool   // the time is that of arrival
}

func tracedHEP(m *message) traced {
	return traced{message: *m, from: endpoint(m.proto, m.src), to: endpoint(m.proto, m.dst), timeless: m.version == 1}
}

// wants is Wants for messages that came in any way.
func (s *Scenario) wants(list []traced, st Storage) ([]Want, error) {
	if len(s.Rows) == 0 {
		return nil, nil // the configuration keeps the database out
	}
	own := Storage{latin1: s.Latin1}
	type key struct{ msg, from, to string }
	recorded := make(map[key][]*Row)
	for i := range s.Rows {
		r := &s.Rows[i]
		k := key{r.Msg, bracketed(r.FromIP), bracketed(r.ToIP)}
		recorded[k] = append(recorded[k], r)
	}
	var wants []Want
	for i := range list {
		t := &list[i]
		payload := string(t.payload)
		w := Want{Datagram: t.n, Label: t.label, location: s.Location}
		if !t.timeless {
			w.Time = t.time()
		}
		msg := own.store(payload)
		if s.NonStrict {
			msg = questionMarks(payload)
		}
		k := key{msg, bracketed(t.from), bracketed(t.to)}
		if list := recorded[k]; len(list) > 0 {
			w.Recorded, recorded[k] = list[0], list[1:]
			s.change(&w, &t.message, own, st)
		} else if err := s.keep(&w, t, st); err != nil {
			return nil, err
		}
		wants = append(wants, w)
	}
	for _, list := range recorded {
		for _, r := range list {
			if err := s.unsent(r); err != nil {
				return nil, err
			}
		}
	}
	return wants, nil
}

func bracketed(endpoint string) string {
	if b, ok := brackets(change{recorded: endpoint}); ok {
		return b
	}
	return endpoint
}

// change makes the wanted row from the recorded one.
func (s *Scenario) change(w *Want, m *message, own, st Storage) {
	for _, c := range Columns {
		v := own.storedText(*w.Recorded.Column(c))
		for i := range Differences {
			d := &Differences[i]
			if !d.applies(s, Changed, w.Label) || !slices.Contains(d.Columns, c) {
				continue
			}
			if nv, ok := d.want(change{column: c, recorded: v, message: m, storage: st}); ok && nv != v {
				v = nv
				w.Reasons = append(w.Reasons, c+": "+d.Reason)
			}
		}
		*w.Row.Column(c) = st.fit(c, v)
	}
}

// keep makes the wanted row of a message whose row the module lost.
func (s *Scenario) keep(w *Want, t *traced, st Storage) error {
	for i := range Differences {
		d := &Differences[i]
		if !d.applies(s, Lost, w.Label) {
			continue
		}
		w.Reasons = append(w.Reasons, d.Reason)
		w.open = d.Columns
		r := columns(string(t.payload))
		r.FromIP, r.ToIP, r.Direction = t.from, t.to, t.dir
		if t.method != "" {
			r.Method = t.method
		}
		if r.Direction == "" {
			r.Direction = "in"
			if s.own(r.FromIP) {
				r.Direction = "out"
			}
		}
		for _, c := range Columns {
			*w.Row.Column(c) = st.fit(c, *r.Column(c))
		}
		return nil
	}
	return fmt.Errorf("%s, packet %d (%s): the module wrote no row, and no difference says why", s.Name, w.Datagram, w.Label)
}

// own reports whether an address is one of the proxy's, by the rows of the run.
func (s *Scenario) own(endpoint string) bool {
	for i := range s.Rows {
		if s.Rows[i].Direction == "out" && s.Rows[i].FromIP == endpoint {
			return true
		}
	}
	return false
}

func (s *Scenario) unsent(r *Row) error {
	label := ""
	for _, in := range s.Inputs {
		if string(in.Packet) == r.Msg || in.Label+"@odd" == r.CallID {
			label = in.Label
		}
	}
	for i := range Differences {
		if Differences[i].applies(s, Unsent, label) {
			return nil
		}
	}
	return fmt.Errorf("%s, row %d (%s): no packet leads to it, and no difference says why", s.Name, r.ID, label)
}

// widths are those of the current table, in characters.
var widths = map[string]int{
	"callid": 255, "traced_user": 255, "method": 50, "status": 255, "fromip": 64, "toip": 64,
	"fromtag": 128, "totag": 128, "direction": 4,
}

// fit is what the column keeps of v.
func (st Storage) fit(column, v string) string {
	v = st.store(v)
	width, ok := widths[column]
	switch {
	case !ok:
		return v
	case st.wide > 0:
		return v[:min(len(v), st.wide)]
	case st.latin1:
		return v[:min(len(v), width)]
	default:
		return cut(v, width)
	}
}
