package siptrace

import (
	"net/netip"
	"time"
)

// Directions as the table spells them, seen from the proxy.
const (
	In  = "in"
	Out = "out"
)

// Record is one traced message: what one row of sip_trace holds, or several
// rows that differ in traced_user alone. The fields follow the table.
//
// Byte slices alias the memory that the message was read into; whoever keeps a
// Record longer than that memory copies it. Their bytes are those of the
// message: NUL, invalid UTF-8 and values wider than the column are possible.
type Record struct {
	Time   time.Time // moment of capture
	CallID []byte    // callid
	// Users has one entry per row, in row order: traced_user. Nil stands for
	// one row with an empty traced_user.
	Users   [][]byte
	Table   string   // "" is the configured table
	Msg     []byte   // msg, verbatim
	Method  []byte   // method: of the request line, or of CSeq in a reply
	Status  []byte   // status: empty in a request
	From    Endpoint // fromip
	To      Endpoint // toip
	FromTag []byte   // fromtag
	ToTag   []byte   // totag
	// Direction is In or Out.
	Direction string

	CorrelationID []byte         // HEP3 chunk 17; nil: none
	CaptureID     uint32         // of the HEP packet; 0: none
	Source        netip.AddrPort // who sent the packet to us

	// Sinks take the message; parameters and rules decide. Zero stands for
	// ToStore.
	Sinks Sinks
	// Destinations are the mirrors that rules named, as duplicate_uri has them;
	// nil stands for those of duplicate_uri.
	Destinations []string
	// Type is the HEP protocol type; 0 and 1 are SIP. With TypeLog, and no
	// Packet, Msg is the text of a log line (hlog).
	Type uint8
	// Packet is what came by HEP and is not SIP: the packet as it came. It goes to
	// HEP mirrors, and no field of a row but CallID (its correlation id) is set.
	Packet []byte
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

// Rows is the number of table rows that r makes.
func (r *Record) Rows() int {
	if r.Users == nil {
		return 1
	}
	return len(r.Users)
}
