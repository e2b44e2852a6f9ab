package vectors

import (
	"bytes"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// Mirror is one way of using a recording for what a collector sends on: packets
// for it, and what it has to send and to store because of them.
type Mirror struct {
	*Scenario
	Way     string   // where the input was taken from
	Set     []string // settings beside the configuration
	Input   string   // network of the input: udp or tcp
	Network string   // of the mirror: udp or tcp
	IPv6    bool     // the mirror goes to an IPv6 address
	In      [][]byte
	Out     []Out
	// RowsOpen says that the rows depend on other parts of the collector.
	RowsOpen bool

	form   form
	traced []traced // what is stored
	pool   []*recorded
}

// Out is a packet that has to be sent.
type Out struct {
	Packet []byte
	// Arrival says that the time in it is that of arrival, or of sending.
	Arrival bool
	// Same says that the module sent the very same packet, time aside where
	// Arrival is set.
	Same   bool
	Reason string // of the difference, if there is one
	call   string
}

// recorded is a packet that the module sent.
type recorded struct {
	packet []byte
	used   bool
}

// form is how a configuration has messages mirrored.
type form struct {
	hep      int // version; 0: not as HEP
	sip      bool
	xheaders bool
	capture  uint32
	key      []byte // nil: none
}

var modparam = regexp.MustCompile(`(?m)^modparam\("siptrace",\s*"(\w+)",\s*"?([^"\n]*?)"?\)`)

// params reads the siptrace parameters of a recorded configuration.
func (s *Scenario) params() (map[string]string, error) {
	b, err := os.ReadFile(s.Config)
	if err != nil {
		return nil, err
	}
	p := map[string]string{"hep_version": "1", "hep_capture_id": "1"}
	for _, m := range modparam.FindAllSubmatch(b, -1) {
		p[string(m[1])] = string(m[2])
	}
	return p, nil
}

func formOf(p map[string]string) (f form, err error) {
	number := func(name string) int {
		n, e := strconv.Atoi(p[name])
		if e != nil && p[name] != "" {
			err = fmt.Errorf("vectors: %s: %w", name, e)
		}
		return n
	}
	mode := number("trace_mode")
	hep := number("hep_mode_on") == 1
	if mode&5 != 0 {
		hep, f.sip = mode&1 != 0, mode&4 != 0
	} else {
		f.sip = !hep
	}
	if hep {
		f.hep = number("hep_version")
	}
	f.xheaders = number("xheaders_write") == 1
	f.capture = uint32(number("hep_capture_id"))
	if k := p["auth_key"]; k != "" {
		f.key = []byte(k)
	}
	return f, err
}

// Source and Listen stand in expected packets for the address that the input
// comes from and for the one that it goes to.
const (
	Source = "udp:@SOURCE@"
	Listen = "udp:@LISTEN@"
)

// At puts addresses, as host:port, in the place of Source and Listen.
func (o Out) At(source, listen string) Out {
	o.Packet = bytes.ReplaceAll(o.Packet, []byte(Source), []byte("udp:"+source))
	o.Packet = bytes.ReplaceAll(o.Packet, []byte(Listen), []byte("udp:"+listen))
	return o
}

// Mirrors makes all ways of all recordings. It is an error if something that
// has to be sent is not what the module sent, and MirrorDifferences does not say
// why.
func Mirrors() ([]*Mirror, error) {
	names, err := Names()
	if err != nil {
		return nil, err
	}
	var list []*Mirror
	for _, name := range names {
		s, err := Load(name)
		if err != nil {
			return nil, err
		}
		for _, way := range s.ways() {
			m, err := s.mirror(way)
			if err != nil {
				return nil, fmt.Errorf("%s, %s: %w", name, way.name, err)
			}
			list = append(list, m)
		}
	}
	return list, nil
}

// way says how the input is made of a recording.
type way struct {
	name  string
	first bool // of a chain: the first node
	set   []string
	fill  func(m *Mirror) error
}

// ways are those that the files of the recording allow.
func (s *Scenario) ways() []way {
	var list []way
	add := func(name string, fill func(*Mirror) error, set ...string) {
		list = append(list, way{name: name, fill: fill, set: set})
	}
	switch {
	case s.Name == "xheaders-mode4":
		add("plain SIP", fromPlain)
	case s.Name == "xheaders-mode4-evroute":
		add("SIP duplicates", fromDuplicates(s.Datagrams), "siptrace.xheaders_read=1")
	case s.Name == "xheaders-mode7-evroute":
		add("HEP and SIP", fromBoth)
	case s.Inputs != nil && strings.HasPrefix(s.Name, "xheaders-"):
		var in []Datagram
		for _, i := range s.Inputs {
			in = append(in, i.Datagram)
		}
		add("SIP duplicates", fromDuplicates(in))
	case s.First != nil:
		add("SIP duplicates", fromDuplicates(s.First.Datagrams))
		if strings.HasSuffix(s.Name, "-hep") {
			add("time of relaying", fromDuplicates(s.First.Datagrams), "mirror_time=relay")
		}
		if len(s.First.Rows) > 0 {
			list = append(list, way{name: "rows of the first node", first: true, fill: fromRows})
		}
	case s.allHEP():
		add("HEP", fromHEPPackets(""))
		switch s.Name {
		case "local-ip-script":
			add("own address", fromHEPPackets("10.20.30.40:5060"))
		case "data-mode-v614":
			add("own address", fromHEPPackets("203.0.113.7:5070"))
		case "hep3-auth", "hep2-capture-id-70001":
			add("incoming capture id", fromHEPPackets(""), "mirror_capture_id=incoming", "siptrace.hep_capture_id=4242")
		}
	case len(s.Rows) > 0 && s.Name != "local-ip-noproto": // whose rows lack the own address
		add("rows", fromRows)
	case len(s.Datagrams) > 0:
		add("headers", fromHeaders)
	}
	return list
}

// mirror makes one way.
func (s *Scenario) mirror(w way) (*Mirror, error) {
	if w.first {
		c := *s.First
		c.Config = filepath.Join(filepath.Dir(s.Config), "kamailio.cfg")
		s = &c
	}
	m := &Mirror{Scenario: s, Way: w.name, Set: w.set, Input: "udp", Network: "udp"}
	p, err := s.params()
	if err != nil {
		return nil, err
	}
	if m.form, err = formOf(p); err != nil {
		return nil, err
	}
	uri := p["duplicate_uri"]
	m.IPv6 = strings.Contains(uri, "[")
	if strings.Contains(uri, "transport=tcp") {
		m.Network = "tcp"
	}
	_, m.RowsOpen = noFeedWith[s.Name]
	m.RowsOpen = m.RowsOpen && !strings.HasPrefix(s.Name, "xheaders-")
	if s.Name == "table-and-columns" {
		for _, c := range []string{"callid", "msg", "fromip"} {
			m.Set = append(m.Set, "siptrace."+c+"_column="+c)
		}
	}
	for i := range s.Datagrams {
		m.pool = append(m.pool, &recorded{packet: s.Datagrams[i].Packet})
	}
	if err := w.fill(m); err != nil {
		return nil, err
	}
	for _, r := range m.pool {
		if !r.used {
			return nil, fmt.Errorf("the module sent %s, and nothing leads to it", short(string(r.packet)))
		}
	}
	return m, nil
}

// Wants says which rows the input has to lead to, in its order.
func (m *Mirror) Wants(st Storage) ([]Want, error) {
	if m.RowsOpen {
		return nil, nil
	}
	return m.wants(m.traced, st)
}

// fromHEPPackets takes the HEP packets themselves: the mirror of a mirror is the
// same. With an address, the proxy's own end is put back to what it was bound to
// in place of that address.
func fromHEPPackets(address string) func(m *Mirror) error {
	return func(m *Mirror) error {
		p, err := m.params()
		if err != nil {
			return err
		}
		m.Input = m.Datagrams[0].Transport
		for i := range m.Datagrams {
			d := &m.Datagrams[i]
			msg, err := decodeHEP(d.Packet)
			if err != nil {
				return err
			}
			t := tracedHEP(msg)
			t.n, t.label = d.N, m.label(d)
			in := d.Packet
			if address != "" {
				before := *msg
				if msg.src.String() == address {
					before.src = bound
				} else {
					before.dst = bound
				}
				in = before.encode(msg.version)
			}
			m.In = append(m.In, in)
			on := p["trace_on"] == "1"
			switch {
			case msg.kind != 1: // goes on as it came, tracing or not
				err = m.expect(t, d.Packet)
			case !on || !isSIP(string(msg.payload)):
				err = m.refuse(t)
			default:
				m.traced = append(m.traced, t)
				err = m.expectForms(t)
			}
			if err != nil {
				return err
			}
		}
		return nil
	}
}

// bound is the socket that the proxies of the recordings have.
var bound = netip.MustParseAddrPort("127.0.0.1:15060")

// fromDuplicates takes SIP duplicates that are read by their headers.
func fromDuplicates(in []Datagram) func(m *Mirror) error {
	return func(m *Mirror) error {
		for i := range in {
			m.In = append(m.In, in[i].Packet)
			t, err := tracedX(in[i].Packet)
			label := m.label(&in[i])
			if err == nil && label == "time-huge" {
				err = fmt.Errorf("time")
			}
			if err != nil {
				t = traced{message: message{payload: in[i].Packet}, n: in[i].N, label: label}
				if err := m.refuse(t); err != nil {
					return err
				}
				continue
			}
			t.n, t.label = in[i].N, label
			m.traced = append(m.traced, t)
			if err := m.expectForms(t); err != nil {
				return err
			}
		}
		return nil
	}
}

// fromPlain takes SIP duplicates without headers: they come from whoever sends
// them.
func fromPlain(m *Mirror) error {
	for i := range m.Datagrams {
		d := &m.Datagrams[i]
		m.In = append(m.In, d.Packet)
		t := traced{n: d.N, from: Source, to: Listen, dir: "in", method: columns(string(d.Packet)).Method, timeless: true}
		t.kind, t.payload = 1, d.Packet
		m.traced = append(m.traced, t)
		if err := m.expectForms(t); err != nil {
			return err
		}
	}
	return nil
}

// fromRows wraps the messages of the rows into HEP3.
func fromRows(m *Mirror) error {
	for i := range m.Rows {
		r := &m.Rows[i]
		at, err := r.Moment(m.Location)
		if err != nil {
			return err
		}
		t := traced{n: i + 1, from: bracketed(r.FromIP), to: bracketed(r.ToIP), dir: r.Direction, method: r.Method}
		t.kind, t.capture, t.payload = 1, 1, []byte(r.Msg)
		t.sec, t.us = uint32(at.Unix()), uint32(at.Nanosecond()/1000)
		if err := m.wrapped(t); err != nil {
			return err
		}
	}
	return nil
}

// fromHeaders wraps the messages of SIP duplicates into HEP3.
func fromHeaders(m *Mirror) error {
	for i := range m.Datagrams {
		t, err := tracedX(m.Datagrams[i].Packet)
		if err != nil {
			return err
		}
		t.n, t.capture = m.Datagrams[i].N, 1
		if err := m.wrapped(t); err != nil {
			return err
		}
	}
	return nil
}

func (m *Mirror) wrapped(t traced) error {
	var from, to bool
	if t.proto, t.src, from = parseEndpoint(t.from); from {
		_, t.dst, to = parseEndpoint(t.to)
	}
	if !from || !to {
		return fmt.Errorf("message %d from %q to %q", t.n, t.from, t.to)
	}
	m.In = append(m.In, t.encode(3))
	m.traced = append(m.traced, t)
	return m.expectForms(t)
}

// fromBoth takes what trace_mode 7 sends to one address: each message as HEP and
// as SIP. The SIP duplicate of a message that came as HEP is one too many.
func fromBoth(m *Mirror) error {
	for i := range m.Datagrams {
		d := &m.Datagrams[i]
		m.In = append(m.In, d.Packet)
		msg, err := decodeHEP(d.Packet)
		if err != nil {
			continue
		}
		t := tracedHEP(msg)
		t.n = d.N
		x, err := tracedX(msg.payload)
		if err != nil {
			return err
		}
		t.dir, t.method = x.dir, x.method
		m.traced = append(m.traced, t)
		if err := m.expectForms(t); err != nil {
			return err
		}
	}
	return nil
}

// expectForms expects a traced message in each form that the configuration
// asks for.
func (m *Mirror) expectForms(t traced) error {
	if m.form.hep > 0 {
		c := t
		c.capture, c.key = m.form.capture, m.form.key
		if m.has("mirror_capture_id=incoming") {
			c.capture = t.capture
		}
		if err := m.expect(t, c.encode(m.form.hep)); err != nil {
			return err
		}
	}
	if !m.form.sip {
		return nil
	}
	p := t.payload
	if m.form.xheaders {
		c := t
		c.payload, _, _ = readX(t.payload)
		p = c.duplicate()
	}
	return m.expect(t, p)
}

func (m *Mirror) has(setting string) bool {
	for _, s := range m.Set {
		if s == setting {
			return true
		}
	}
	return false
}

// expect adds a packet, and looks for the module's.
func (m *Mirror) expect(t traced, packet []byte) error {
	relay := m.has("mirror_time=relay")
	_, timed := timeOf(packet)
	o := Out{Packet: packet, Arrival: timed && (t.timeless || relay), call: header(string(t.payload), "call-id", "i")}
	if t.kind != 1 {
		o.call = string(t.correlation)
	}
	r := m.find(func(r *recorded) bool { return !o.Arrival && bytes.Equal(r.packet, packet) })
	if relay {
		r = m.find(func(r *recorded) bool { return bytes.Equal(maskTime(r.packet), maskTime(packet)) })
	}
	switch {
	case r != nil:
		o.Same = true
	default:
		isHEP := func(p []byte) bool { _, err := decodeHEP(p); return err == nil }
		plain := payloadOf(packet)
		r = m.find(func(r *recorded) bool {
			return isHEP(r.packet) == isHEP(packet) && bytes.Equal(payloadOf(r.packet), plain)
		})
		if r == nil { // whatever of that call was sent
			r = m.find(func(r *recorded) bool { return t.label != "" && header(string(r.packet), "call-id") == o.call })
		}
		kind, theirs := Added, []byte(nil)
		if r != nil {
			kind, theirs = Altered, r.packet
		}
		d := m.differs(kind, t.label, &t, packet, theirs)
		if d == nil {
			return fmt.Errorf("message %d (%s): %s: sent here %s, by the module %s", t.n, t.label, kind, short(string(packet)), short(string(theirs)))
		}
		o.Reason = d.Reason
	}
	if r != nil {
		r.used = true
	}
	m.Out = append(m.Out, o)
	return nil
}

// refuse expects that nothing is sent because of a packet; the module may have.
func (m *Mirror) refuse(t traced) error {
	call := header(string(t.payload), "call-id", "i")
	r := m.find(func(r *recorded) bool { return bytes.Equal(payloadOf(r.packet), t.payload) })
	if r == nil && t.label != "" {
		r = m.find(func(r *recorded) bool { return header(string(r.packet), "call-id") == call })
	}
	if r == nil {
		return nil
	}
	r.used = true
	if m.differs(Refused, t.label, &t, nil, r.packet) == nil {
		return fmt.Errorf("message %d (%s): %s: the module sent %s", t.n, t.label, Refused, short(string(r.packet)))
	}
	return nil
}

func (m *Mirror) find(match func(*recorded) bool) *recorded {
	for _, r := range m.pool {
		if !r.used && match(r) {
			return r
		}
	}
	return nil
}

// payloadOf is the SIP message in a packet, without X-Siptrace headers.
func payloadOf(p []byte) []byte {
	if m, err := decodeHEP(p); err == nil {
		p = m.payload
	}
	plain, _, _ := readX(p)
	return plain
}

var xtime = regexp.MustCompile(`(?m)^X-Siptrace-Time: .*\r$`)

// maskTime blanks the time that a packet carries.
func maskTime(p []byte) []byte {
	if m, err := decodeHEP(p); err == nil {
		c := bytes.Clone(p)
		switch at := bytes.Index(p, []byte("\x00\x00\x00\x09\x00\x0a")); {
		case m.version == 2:
			clear(c[len(p)-len(m.payload)-12:][:8])
		case m.version == 3 && at >= 0: // chunk 9, and chunk 10 behind it
			clear(c[at+6:][:4])
			clear(c[at+16:][:4])
		}
		return c
	}
	return xtime.ReplaceAll(p, []byte("X-Siptrace-Time: \r"))
}

// timeOf is the time that a packet carries.
func timeOf(p []byte) (time.Time, bool) {
	if m, err := decodeHEP(p); err == nil {
		return m.time(), m.version > 1
	}
	_, x, _ := readX(p)
	var sec, us int64
	if _, err := fmt.Sscan(x.time, &sec, &us); err != nil {
		return time.Time{}, false
	}
	return time.Unix(sec, us*1000), true
}

// CompareOut says where packets that were sent are not those that had to be:
// missing and surplus ones, other bytes, and those of one call in another order.
// Nothing is said about the order of different calls.
func CompareOut(want []Out, got [][]byte, sent Window) []string {
	var problems []string
	open := make(map[string][]int)
	key := func(p []byte, arrival bool) string {
		if arrival {
			return "a" + string(maskTime(p))
		}
		return "t" + string(p)
	}
	for i, o := range want {
		k := key(o.Packet, o.Arrival)
		open[k] = append(open[k], i)
	}
	lastOf := make(map[string]int)
	for n, p := range got {
		k := key(p, false)
		if len(open[k]) == 0 {
			k = key(p, true)
		}
		list := open[k]
		if len(list) == 0 {
			problems = append(problems, fmt.Sprintf("packet %d: not wanted: %s", n, describePacket(p)))
			continue
		}
		i := list[0]
		open[k] = list[1:]
		if at, ok := timeOf(p); ok && want[i].Arrival && (at.Before(sent.From.Add(-time.Second)) || at.After(sent.To.Add(time.Second))) {
			problems = append(problems, fmt.Sprintf("packet %d: time %v, want one between %v and %v", n, at, sent.From, sent.To))
		}
		call := want[i].call
		if last, ok := lastOf[call]; ok && last > i {
			problems = append(problems, fmt.Sprintf("packet %d comes after that of a later message of call %s", n, call))
		}
		lastOf[call] = max(lastOf[call], i)
	}
	for i, o := range want {
		for _, j := range open[key(o.Packet, o.Arrival)] {
			if i == j {
				problems = append(problems, "not sent: "+describePacket(o.Packet))
			}
		}
	}
	return problems
}

// describePacket gives all of a packet, as far as it can be shown on a few lines.
func describePacket(p []byte) string {
	m, err := decodeHEP(p)
	if err != nil {
		_, x, _ := readX(p)
		return fmt.Sprintf("SIP %s, headers %q, %d bytes, call %q", short(string(p[:min(len(p), 60)])), x, len(p), header(string(p), "call-id"))
	}
	at := m.time()
	return fmt.Sprintf("HEP%d %s > %s, %d.%06d, type %d, capture id %d, correlation %q, key %t, payload %s (%d bytes), head %x", m.version,
		endpoint(m.proto, m.src), endpoint(m.proto, m.dst), at.Unix(), m.us, m.kind, m.capture, m.correlation, m.key != nil,
		short(string(m.payload[:min(len(m.payload), 60)])), len(m.payload), p[:min(len(p)-len(m.payload), 110)])
}

// HEP is what a HEP packet says.
type HEP struct {
	Version     int
	Proto       byte // IP protocol number; 22 is TLS
	Src, Dst    netip.AddrPort
	Time        time.Time // the epoch for HEP1
	Type        byte      // protocol type, 1 is SIP
	CaptureID   uint32
	Correlation []byte // nil: none, as the next one
	Key         []byte
	Payload     []byte
}

// Encode writes h as the module does.
func (h HEP) Encode() []byte {
	m := message{
		version: h.Version, proto: h.Proto, src: h.Src, dst: h.Dst, kind: h.Type, capture: h.CaptureID,
		correlation: h.Correlation, key: h.Key, payload: h.Payload,
	}
	if !h.Time.IsZero() {
		m.sec, m.us = uint32(h.Time.Unix()), uint32(h.Time.Nanosecond()/1000)
	}
	return m.encode(h.Version)
}

// Decode reads a HEP packet.
func Decode(p []byte) (HEP, error) {
	m, err := decodeHEP(p)
	if err != nil {
		return HEP{}, err
	}
	return HEP{m.version, m.proto, m.src, m.dst, m.time(), m.kind, m.capture, m.correlation, m.key, m.payload}, nil
}
