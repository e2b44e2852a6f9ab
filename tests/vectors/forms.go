package vectors

import (
	"slices"
)

// Message is a recorded message as a collector gets it, with what is known of it.
type Message struct {
	Scenario string
	Packet   []byte // HEP, or SIP with X-Siptrace headers
	traced   traced
	log      bool // not SIP
}

// Form is how a mirror writes messages.
type Form struct {
	HEP       int // version; 0: SIP
	XHeaders  bool
	CaptureID uint32
	Incoming  bool // the capture id that came in, if one did
	Key       string
	Relay     bool // the time of sending
}

func (f *Form) key() []byte {
	if f.Key == "" {
		return nil
	}
	return []byte(f.Key)
}

// Messages are those of all recordings, other than the odd ones, of which the
// direction is known and both ends are addresses. SIP has to be read by its
// headers.
func Messages() ([]Message, error) {
	names, err := Names()
	if err != nil {
		return nil, err
	}
	var list []Message
	for _, name := range names {
		s, err := Load(name)
		if err != nil {
			return nil, err
		}
		switch {
		case s.Inputs != nil:
			continue // odd ones
		case name == "xheaders-mode7-evroute":
			continue // twice
		case s.First != nil:
			list = append(list, duplicates(s.First)...)
			fallthrough
		case !s.allHEP():
			list = append(list, duplicates(s)...)
		default:
			more, err := s.messages()
			if err != nil {
				return nil, err
			}
			list = append(list, more...)
		}
	}
	return list, nil
}

func duplicates(s *Scenario) []Message {
	var list []Message
	for _, d := range s.Datagrams {
		if t, err := tracedX(d.Packet); err == nil && t.proto != 0 {
			list = append(list, Message{Scenario: s.Name, Packet: d.Packet, traced: t})
		}
	}
	return list
}

func (s *Scenario) messages() ([]Message, error) {
	var wants []Want
	if _, no := noFeedWith[s.Name]; !no {
		var err error
		if wants, err = s.Wants(UTF8); err != nil {
			return nil, err
		}
	}
	var list []Message
	for _, d := range s.Datagrams {
		m, err := decodeHEP(d.Packet)
		if err != nil {
			return nil, err
		}
		t := tracedHEP(m)
		i := slices.IndexFunc(wants, func(w Want) bool { return w.Datagram == d.N })
		if i >= 0 {
			t.dir, t.method = wants[i].Row.Direction, wants[i].Row.Method
		}
		if i >= 0 || m.kind != 1 {
			list = append(list, Message{Scenario: s.Name, Packet: d.Packet, traced: t, log: m.kind != 1})
		}
	}
	return list, nil
}

// As is the packet of the message in a form, false if there is none.
func (m *Message) As(f Form) (Out, bool) {
	t := m.traced
	o := Out{call: header(string(t.payload), "call-id", "i")}
	switch {
	case m.log:
		// As it came; a key gives way to ours.
		if t.key != nil {
			t.key = f.key()
		}
		o.Packet, o.call = t.encode(3), string(t.correlation)
		return o, f.HEP > 0
	case f.HEP > 0:
		if !f.Incoming || t.capture == 0 {
			t.capture = f.CaptureID
		}
		t.key = f.key()
		o.Packet = t.encode(f.HEP)
	case f.XHeaders:
		o.Packet = t.duplicate()
	default:
		o.Packet = t.payload
	}
	_, timed := timeOf(o.Packet)
	o.Arrival = timed && (t.timeless || f.Relay)
	return o, true
}
