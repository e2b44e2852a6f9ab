package script

import (
	"net/netip"
	"regexp"
	"strconv"

	"siptraced/compat/kamcfg"
	"siptraced/compat/sipmsg"
	"siptraced/compat/siptrace"
)

// Bounds of one run. What goes beyond is refused and counted; the message is kept.
const (
	MaxValue   = 10 << 10  // bytes of a value put into an AVP or a variable
	MaxValues  = 64        // values in all AVPs together
	MaxActions = 64        // sip_trace(), hlog(), xlog() and so on
	maxScratch = 256 << 10 // bytes of all text made by expressions
	maxLogText = 4096      // bytes of an xlog() line, as xlog's buf_size
	maxDepth   = 255       // routes within routes, as in Kamailio
)

// maxSteps bounds one run: 1 for each statement, each 32 bytes searched by a
// regular expression and each 64 bytes copied.
const maxSteps = 100_000

// Fault is why a part of a run came to nothing.
type Fault uint8

// The faults.
const (
	FaultSteps    Fault = iota // the step budget ran out: the run ended there
	FaultLoop                  // a while was left after MaxLoops rounds
	FaultDepth                 // routes called each other too deep
	FaultMemory                // an expression made too much text
	FaultValue                 // a value was too long for an AVP or a variable
	FaultValues                // too many values of AVPs
	FaultActions               // too many actions
	FaultDivide                // division by zero
	FaultRegex                 // a regular expression made at run time is none
	FaultArgument              // a function got what it can't take
	faults
)

var faultNames = [faults]string{"steps", "loop", "depth", "memory", "value", "values", "actions", "divide", "regex", "argument"}

// String is a short name for a counter.
func (f Fault) String() string {
	if int(f) < len(faultNames) {
		return faultNames[f]
	}
	return "fault " + strconv.Itoa(int(f))
}

// Faults counts the faults of a run by their kind.
type Faults [faults]uint32

// Any says whether there was a fault.
func (f *Faults) Any() bool { return *f != Faults{} }

// ActionKind is what an action asks for.
type ActionKind uint8

// The kinds of action.
const (
	SIPTrace    ActionKind = iota + 1 // sip_trace(): Address, CorrelationID, Mode
	SIPTraceMsg                       // sip_trace_msg(): Text, From, To, Address, CorrelationID
	HLog                              // hlog(): CorrelationID, Text
	Log                               // xlog() and log(): Level, Text
	KeepTrace                         // keep_trace(): Replies
)

// Action is what a function asks of the caller. Its bytes live until the next
// Run with the same Message. nil is an argument that was not given.
type Action struct {
	Kind          ActionKind
	Mode          byte // sip_trace: 'm', 't', 'd'; 0: not given
	Level         int8 // Kamailio's: -5 (alert) to 3 (debug), L_WARN is 0
	Pos           kamcfg.Pos
	Address       []byte // SIP URI of the mirror
	CorrelationID []byte
	Text          []byte
	From, To      []byte // proto:address:port
	Replies       bool   // keep_trace("replies")
}

// Result is what a run decided.
type Result struct {
	Dropped bool   // drop was reached: neither mirrored nor stored
	Flags   uint32 // bit n is setflag(n)
	Actions []Action
	Faults  Faults
}

// Message is the memory of runs, one for each worker, reused. The zero value
// works. Text in results aliases it, the message and the record.
type Message struct {
	SIP *sipmsg.Message
	Rec *siptrace.Record

	prog    *Program
	avps    [][]value // by slot; the last set is the last of its slice
	vars    []value
	values  int // of all avps
	flags   uint32
	rc      int32 // $rc
	steps   int
	depth   int
	dropped bool
	ended   bool // exit, drop, return 0
	bad     bool // the expression at hand failed
	faults  Faults
	actions []Action
	buf     []byte

	headers [][]byte // first value of each header that the program asks for
	indexed bool
	uris    [3]sipmsg.URI
	uriHave [3]uint8 // 0: not parsed, 1: parsed, 2: none
	hosts   [2][]byte
	regexes map[string]*regexp.Regexp // made at run time

	explain []Explanation
	tracing bool
}

// Run runs the route for one message. m may be used by one goroutine at a time;
// the program by any number.
func (p *Program) Run(m *Message, sip *sipmsg.Message, rec *siptrace.Record) Result {
	m.reset(p, sip, rec)
	p.root.run(m)
	return Result{Dropped: m.dropped, Flags: m.flags, Actions: m.actions, Faults: m.faults}
}

func (m *Message) reset(p *Program, sip *sipmsg.Message, rec *siptrace.Record) {
	m.SIP, m.Rec = sip, rec
	if m.prog != p {
		m.prog = p
		m.avps = make([][]value, p.avpCount)
		m.vars = make([]value, p.varCount)
		m.headers = make([][]byte, len(p.headers))
		m.regexes = nil
	}
	for i := range m.avps {
		m.avps[i] = m.avps[i][:0]
	}
	for i := range m.vars {
		m.vars[i] = integer(0)
	}
	m.values, m.flags, m.rc, m.depth = 0, 0, 1, 0
	m.steps = maxSteps
	m.dropped, m.ended, m.bad = false, false, false
	m.faults = Faults{}
	m.actions = m.actions[:0]
	if cap(m.buf) > maxScratch {
		m.buf = nil
	}
	m.buf = m.buf[:0]
	m.indexed = false
	m.uriHave = [3]uint8{}
	m.hosts = [2][]byte{}
}

func (m *Message) fault(f Fault) { m.faults[f]++ }

// failed marks the expression at hand as failed: what would take its value is
// not carried out.
func (m *Message) failed(f Fault) {
	m.fault(f)
	m.bad = true
}

// act hands out a place for an action, nil if there are too many.
func (m *Message) act(k ActionKind, at kamcfg.Pos) *Action {
	if len(m.actions) == MaxActions {
		m.fault(FaultActions)
		return nil
	}
	m.actions = append(m.actions, Action{Kind: k, Pos: at})
	return &m.actions[len(m.actions)-1]
}

// Values appends the texts of an AVP to dst, the one set last first. slot is of
// [Program.AVP]; -1 has none. They live until the next Run with m.
func (m *Message) Values(slot int, dst [][]byte) [][]byte {
	if slot < 0 || slot >= len(m.avps) {
		return dst
	}
	list := m.avps[slot]
	for i := len(list) - 1; i >= 0; i-- {
		dst = append(dst, m.text(list[i]))
	}
	return dst
}

func (m *Message) setAVP(slot int, all bool, v value) {
	list := m.avps[slot]
	if all || v.kind == isNull {
		n := len(list)
		if !all && n > 0 {
			n = 1
		}
		m.values -= n
		list = list[:len(list)-n]
	}
	switch {
	case v.kind == isNull:
	case len(v.s) > MaxValue:
		m.fault(FaultValue)
	case m.values >= MaxValues:
		m.fault(FaultValues)
	default:
		m.values++
		list = append(list, v)
	}
	m.avps[slot] = list
}

func (m *Message) avp(slot int, idx index) value {
	list := m.avps[slot]
	n := idx.n
	switch {
	case idx.all && len(list) != 1:
		return m.joined(list)
	case idx.all:
		n = 0
	case n < 0:
		n += len(list)
	}
	if n < 0 || n >= len(list) {
		return value{}
	}
	return list[len(list)-1-n]
}

// joined is $(avp(x)[*]): all values, ", " between.
func (m *Message) joined(list []value) value {
	if len(list) == 0 {
		return value{}
	}
	var parts [2 * MaxValues][]byte
	n := 0
	for i := len(list) - 1; i >= 0; i-- {
		if n > 0 {
			parts[n] = commaBlank
			n++
		}
		parts[n] = m.text(list[i])
		n++
	}
	return m.concat(parts[:n]...)
}

var commaBlank = []byte(", ")

// uri takes one of the message's URIs apart, once.
func (m *Message) uri(which int) *sipmsg.URI {
	if m.uriHave[which] == 0 {
		m.uriHave[which] = 2
		var ok bool
		switch which {
		case requestURI:
			if m.SIP.IsRequest {
				m.uris[which], ok = sipmsg.ParseURI(m.SIP.RequestURI)
			}
		case fromURI:
			m.uris[which], ok = sipmsg.ParseURI(m.SIP.From.URI)
		case toURI:
			m.uris[which], ok = sipmsg.ParseURI(m.SIP.To.URI)
		}
		if ok {
			m.uriHave[which] = 1
		}
	}
	if m.uriHave[which] == 2 {
		return nil
	}
	return &m.uris[which]
}

const (
	requestURI = iota
	fromURI
	toURI
)

// header is the first value of one of the program's headers.
func (m *Message) header(i int) []byte {
	if !m.indexed {
		m.prog.index(m)
	}
	return m.headers[i]
}

// end is one of the record's ends: 0 source, 1 destination.
func (m *Message) end(which int) *siptrace.Endpoint {
	if which == 0 {
		return &m.Rec.From
	}
	return &m.Rec.To
}

// addr is the address of an end, invalid where nobody knows it.
func (m *Message) addr(which int) netip.AddrPort { return m.end(which).Addr }

// host is the address of an end without brackets, written once.
func (m *Message) host(which int) []byte {
	if m.hosts[which] == nil {
		a := m.addr(which).Addr().Unmap()
		if !a.IsValid() {
			return nil
		}
		from := len(m.buf)
		m.buf = a.WithZone("").AppendTo(m.buf)
		m.hosts[which] = m.buf[from:len(m.buf):len(m.buf)]
	}
	return m.hosts[which]
}

func (m *Message) proto(which int) siptrace.Proto {
	return m.end(which).OrUnknown().Proto
}
