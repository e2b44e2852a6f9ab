package siptrace

// Mirroring is what the configuration says of mirrors beside the module's
// parameters.
type Mirroring struct {
	// Static: there are destinations of siptraced's own configuration, which take
	// every traced message.
	Static bool
	// Explicit: destinations of duplicate_uri take only what a rule or trace_mode
	// sends there.
	Explicit bool
}

// Routing is which sinks take which messages, unless rules decide otherwise.
type Routing struct {
	Default Sinks // of messages for which no rule named a destination
	Named   Sinks // of those for which a rule did
	Always  Sinks // of every message beside those, and of what rules decided
	Other   Sinks // of what came by HEP and is neither SIP nor a log line
	Log     Sinks // of log lines that came by HEP
	OwnLog  Sinks // of those that were made here (hlog), whatever the modes say
	Onwards bool  // there are destinations that no rule has to name
}

// Routing is what the parameters make of the mirrors.
func (p *Params) Routing(m Mirroring) Routing {
	duplicate := len(p.DuplicateURI) > 0
	// What trace_mode says of all traffic is explicit too.
	all := duplicate && (!m.Explicit || p.TraceMode&(ModeHEP|ModeSIP) != 0)
	r := Routing{Default: p.Sinks(all), Named: p.Sinks(true), Onwards: duplicate || m.Static}
	if m.Static {
		r.Always = ToListed
	}
	r.Other = r.Default&ToHEP | r.Always
	if r.Log = r.Other; p.Stores() {
		r.Log |= ToStore
	}
	if r.OwnLog = r.Log; duplicate {
		r.OwnLog |= ToHEP
	}
	return r
}

// Choose decides which sinks take rec, unless a rule did.
func (r *Routing) Choose(rec *Record) {
	switch {
	case rec.Sinks != 0:
	case rec.Destinations != nil:
		rec.Sinks = r.Named
	default:
		rec.Sinks = r.Default
	}
	rec.Sinks |= r.Always
}
