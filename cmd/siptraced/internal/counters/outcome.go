package counters

import "sync/atomic"

// Outcome is where a message ended, or a record that it gave rise to.
type Outcome uint8

// The outcomes. Those that are refused are counted by cause, of which there are
// many: they have Rejected.
const (
	Spooled Outcome = iota // in the spool, which counts for itself
	Parked                 // not ended yet: it comes again
	Rejected
	TraceOff     // trace_on is 0, and no rule gave it a user
	NoSink       // neither the database nor a mirror takes it
	Keepalive    // blanks and line ends
	HEPKeepalive // HEP3 without a payload
	HEPNotSIP    // another protocol than SIP, and no mirror for it
	NoXHeaders   // xheaders_read is 1, and the message has none
	Loop         // it was mirrored from here
	Repeated     // a delivery that was in the spool already
	Duplicate    // the SIP duplicate of what came by HEP as well
	EventRoute   // the event route dropped it
	StatelessACK // trace_sl_acks is 0
	InitMode     // trace_init_mode is 2, and no rule chose it
	outcomes
)

// names are the counters of the outcomes; Rejected has one for each cause below
// its name.
var names = [outcomes]string{
	Spooled: "spooled", Parked: "parked", Rejected: "rejected",
	TraceOff: "dropped.trace_off", NoSink: "dropped.no_sink", Keepalive: "dropped.keepalive", HEPKeepalive: "dropped.hep_keepalive",
	HEPNotSIP: "dropped.hep_not_sip", NoXHeaders: "dropped.no_xheaders", Loop: "dropped.loop", Repeated: "dropped.repeated",
	Duplicate: "dropped.duplicate", EventRoute: "dropped.event_route", StatelessACK: "dropped.sl_ack", InitMode: "dropped.trace_init_mode",
}

// String is the name of the outcome's counter.
func (o Outcome) String() string { return names[o] }

// Outcomes counts outcomes. Safe for concurrent use.
type Outcomes struct {
	set     *Set
	dropped [outcomes]*atomic.Uint64
}

// Outcomes are the counters of a set for what was dropped.
func (s *Set) Outcomes() *Outcomes {
	c := &Outcomes{set: s}
	for o := TraceOff; o < outcomes; o++ {
		c.dropped[o] = s.Counter(o.String())
	}
	return c
}

// Add counts an outcome. What is spooled the spool counts, what is parked is
// counted when it ends, and Reject counted what is rejected.
func (c *Outcomes) Add(o Outcome) {
	if count := c.dropped[o]; count != nil {
		count.Add(1)
	}
}

// Reject counts what is refused by its cause, and is Rejected.
func (c *Outcomes) Reject(cause string) Outcome {
	c.set.Counter(Rejected.String() + "." + cause).Add(1)
	return Rejected
}
