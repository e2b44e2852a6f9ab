package siptrace

import (
	"net/netip"
	"slices"
	"time"
)

// Directions as the table spells them, seen from the proxy.
const (
	In  = "in"
	Out = "out"
)

// Record is one traced message: what one row of sip_trace holds, or several
// rows that differ in traced_user alone, with what HEP says beside the message,
// and where it goes.
//
// Byte slices alias the memory that the message was read into; whoever keeps a
// Record longer than that memory makes a copy ([Record.Clone]). Their bytes
// are those of the message: NUL, invalid UTF-8 and values wider than the column
// are possible.
type Record struct {
	Time    time.Time // moment of capture
	CallID  []byte    // callid
	Msg     []byte    // msg, verbatim
	Method  []byte    // method: of the request line, or of CSeq in a reply
	Status  []byte    // status: empty in a request
	From    Endpoint  // fromip
	To      Endpoint  // toip
	FromTag []byte    // fromtag
	ToTag   []byte    // totag
	// Direction is In or Out.
	Direction string

	// Type is the HEP protocol type; 0 and 1 are SIP. With TypeLog, and no
	// Packet, Msg is the text of a log line (hlog).
	Type uint8
	// Packet is what came by HEP and is not SIP: the packet as it came. It goes to
	// HEP mirrors, and no field of a row but CallID (its correlation id) is set.
	Packet []byte

	Meta
	Route
}

// Meta is what is known of a message beside its text and its row, most of it
// from HEP3.
type Meta struct {
	Source        netip.AddrPort // who sent the packet to us
	CorrelationID []byte         // chunk 17; nil: none
	CaptureID     uint32         // chunk 12; 0: none
	NodeName      []byte         // chunk 19; nil: none
	VLAN          uint16         // chunk 18; 0: none
	// Vendor are the chunks of other vendors, each with its header, as they came.
	Vendor []byte
	// Path are the siptraced instances that the message passed, and Origin tells a
	// delivery from its repetition; both are bytes of those who write them.
	Path, Origin []byte
}

// Route is where a message goes: parameters and rules decide.
type Route struct {
	// Sinks take the message; none: it goes nowhere.
	Sinks Sinks
	Table string // "" is the configured table
	// Users has one entry per row, in row order: traced_user. Nil stands for
	// one row with an empty traced_user.
	Users [][]byte
	// Destinations are the mirrors that rules named, as duplicate_uri has them;
	// nil stands for those of duplicate_uri.
	Destinations []string
}

// TypeLog is the HEP protocol type of a log line (HEP3 chunk 11).
const TypeLog = 100

// Sinks is a set of sinks.
type Sinks uint8

// The sinks.
const (
	ToStore  Sinks = 1 << iota // the database
	ToHEP                      // HEP mirrors
	ToSIP                      // SIP mirrors
	ToListed                   // the destinations of siptraced's own configuration
)

// Mirrored are the sinks beside the database.
const Mirrored = ToHEP | ToSIP | ToListed

// Rows is the number of table rows that r makes.
func (r *Record) Rows() int {
	if r.Users == nil {
		return 1
	}
	return len(r.Users)
}

// Size is how many bytes CloneInto needs.
func (r *Record) Size() int {
	n := len(r.CallID) + len(r.Msg) + len(r.Method) + len(r.Status) + len(r.FromTag) + len(r.ToTag) + len(r.Packet) +
		len(r.CorrelationID) + len(r.NodeName) + len(r.Vendor) + len(r.Path) + len(r.Origin)
	for _, u := range r.Users {
		n += len(u)
	}
	return n
}

// CloneInto makes dst a copy of r whose bytes are appended to mem, which has room
// for r.Size() more. The copy shares nothing with r.
func (r *Record) CloneInto(dst *Record, mem []byte) {
	*dst = *r
	for _, f := range [...]*[]byte{
		&dst.CallID, &dst.Msg, &dst.Method, &dst.Status, &dst.FromTag, &dst.ToTag, &dst.Packet,
		&dst.CorrelationID, &dst.NodeName, &dst.Vendor, &dst.Path, &dst.Origin,
	} {
		if *f != nil {
			*f, mem = own(mem, *f)
		}
	}
	if r.Destinations != nil {
		dst.Destinations = slices.Clone(r.Destinations)
	}
	if r.Users != nil {
		dst.Users = slices.Clone(r.Users)
		for i, u := range dst.Users {
			if u != nil {
				dst.Users[i], mem = own(mem, u)
			}
		}
	}
}

// Clone returns a copy of r in memory of its own.
func (r *Record) Clone() (c Record) {
	r.CloneInto(&c, make([]byte, 0, r.Size()))
	return c
}

// own returns the copy of b at the end of mem, and mem with it.
func own(mem, b []byte) (c, rest []byte) {
	n := len(mem)
	mem = append(mem, b...)
	return mem[n:len(mem):len(mem)], mem
}
