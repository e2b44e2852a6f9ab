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
// Record longer than that memory makes a copy ([Record.CloneInto]). Their bytes
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

// texts are the fields of r that alias memory of others, but for Users.
func (r *Record) texts() [12]*[]byte {
	return [...]*[]byte{
		&r.CallID, &r.Msg, &r.Method, &r.Status, &r.FromTag, &r.ToTag, &r.Packet,
		&r.CorrelationID, &r.NodeName, &r.Vendor, &r.Path, &r.Origin,
	}
}

// Size is how many bytes CloneInto needs.
func (r *Record) Size() int {
	n := 0
	for _, f := range r.texts() {
		n += len(*f)
	}
	for _, u := range r.Users {
		n += len(u)
	}
	return n
}

// CloneInto returns a copy of r whose bytes are appended to mem, which has room
// for r.Size() more. The copy shares nothing with r.
func (r *Record) CloneInto(mem []byte) Record {
	c := *r
	own := func(b []byte) []byte {
		if b == nil {
			return nil
		}
		n := len(mem)
		mem = append(mem, b...)
		return mem[n:len(mem):len(mem)]
	}
	for _, f := range c.texts() {
		*f = own(*f)
	}
	c.Destinations, c.Users = slices.Clone(r.Destinations), slices.Clone(r.Users)
	for i, u := range c.Users {
		c.Users[i] = own(u)
	}
	return c
}
