package migrate

import (
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"

	"siptraced/compat/kamcfg"
	"siptraced/compat/siptrace"
)

// YAML is siptraced's configuration. It says each parameter that kamailio.cfg
// sets, or that the patch changes there, so that it means the same with
// either: what the proxy does to reach siptraced is not siptraced's own.
func (p *Plan) YAML() string {
	var b strings.Builder
	fmt.Fprintf(&b, "# %s\n", "siptraced.yaml, made from "+p.main+". It may hold passwords: readable for siptraced only.")
	fmt.Fprintf(&b, "kamailio_cfg: %q # its listen= lines are the proxy's own sockets\n", p.main)
	p.commandLine(&b)
	fmt.Fprintf(&b, "listen: [%q, %q]\n", "udp:"+p.listen.hostPort(), "tcp:"+p.listen.hostPort())
	if p.localHere() {
		fmt.Fprintf(&b, "local: [%q] # the proxy's own end, where it says so\n", p.params.TraceLocalIP)
	}
	b.WriteString("siptrace:\n")
	q := p.effective()
	for _, s := range siptrace.Specs() {
		_, set := p.set[s.Name]
		neutral := s.Moves == siptrace.Stays
		always := s.Name == "db_url" && p.sinks.db || s.Name == "trace_on" || s.Name == "trace_init_mode" && p.gated() ||
			slices.ContainsFunc(p.forced(), func(f kamcfg.Param) bool { return f.Name == s.Name })
		_, named := p.set["send_sock_name"]
		always = always || s.Name == "send_sock_addr" && named
		if !set && !always || s.Name == "trace_flag" {
			continue
		}
		fmt.Fprintf(&b, "  %s: %s%s\n", s.Name, p.value(s, &q), p.comment(s.Name, neutral))
	}
	if p.params.TraceTableAVP != "" {
		var list []string
		for _, t := range append([]string{p.params.Table}, p.tables...) {
			if !slices.Contains(list, t) {
				list = append(list, t)
			}
		}
		fmt.Fprintf(&b, "rules:\n  tables: %s # that trace_table_avp may name; patterns\n", quoted(list))
	}
	if p.route != "" {
		b.WriteString("event_route: |\n")
		for l := range strings.Lines(p.route) {
			if l != "\n" {
				l = "  " + l
			}
			b.WriteString(l)
		}
	}
	return b.String()
}

// commandLine writes what Kamailio has from its own command line.
func (p *Plan) commandLine(b *strings.Builder) {
	for _, l := range []struct {
		key, option string
		values      []string
	}{{"defines", "-A", p.started.Defines}, {"kamailio_listen", "-l", p.started.Listens}} {
		if len(l.values) > 0 {
			fmt.Fprintf(b, "%s: %s # Kamailio's own %s\n", l.key, quoted(l.values), l.option)
		}
	}
	if v := p.started.Version; v != "" {
		fmt.Fprintf(b, "kamailio_version: %q\n", v)
	}
}

// quoted is a list as YAML has it on one line.
func quoted(list []string) string {
	var out []string
	for _, s := range list {
		out = append(out, fmt.Sprintf("%q", s))
	}
	return "[" + strings.Join(out, ", ") + "]"
}

// effective are siptraced's parameters: the module's, changed only where the
// sinks would not be those that the module had.
func (p *Plan) effective() siptrace.Params {
	q := p.params
	q.DuplicateURI = nil
	for _, d := range p.dests {
		q.DuplicateURI = append(q.DuplicateURI, d.uri)
	}
	if p.duplicates() && len(p.dests) > 1 {
		// The others get what a rule gives them.
		q.DuplicateURI = p.params.DuplicateURI
	} else if len(q.DuplicateURI) > 1 {
		q.DuplicateURI = q.DuplicateURI[:1]
	}
	if p.carriesCalls() && p.namedOnly() && !slices.ContainsFunc(p.left, func(s statement) bool { return s.calls }) {
		q.DuplicateURI = nil
	}
	d := siptrace.DefaultParams()
	q.TraceSLAcks, q.TraceDialogAck, q.TraceDialogSpiral = d.TraceSLAcks, d.TraceDialogAck, d.TraceDialogSpiral
	q.TraceInitMode, q.EvcbMsg, q.TraceEphemeralSocket = d.TraceInitMode, d.EvcbMsg, d.TraceEphemeralSocket
	q.SendSockName, q.SendSockAddr = "", p.sendFrom()
	q.TraceOn = q.TraceOn || p.switched()
	if p.gated() {
		q.TraceInitMode = 2
	}
	if !p.core {
		q.TraceMode = 0
	}
	if p.localHere() {
		q.TraceLocalIP = ""
	}
	if q.Stores() != p.sinks.db {
		q.TraceToDatabase = p.sinks.db
		if !p.sinks.db {
			q.TraceMode &^= siptrace.ModeDatabase
		}
	}
	want := siptrace.Sinks(0)
	if p.sinks.hep {
		want |= siptrace.ToHEP
	}
	if p.sinks.sip {
		want |= siptrace.ToSIP
	}
	if got := q.Sinks(true) &^ siptrace.ToStore; want != 0 && got != want {
		q.HEPModeOn = p.sinks.hep
		q.TraceMode &^= siptrace.ModeSIP
		if !p.sinks.hep {
			q.TraceMode &^= siptrace.ModeHEP
		} else if p.sinks.sip {
			q.TraceMode |= siptrace.ModeSIP
		}
	}
	return q
}

// sendFrom is where mirrors leave from: the address that the proxy sent them
// from, and a port of siptraced's own, because the proxy needs its.
func (p *Plan) sendFrom() string {
	host, _ := hostPort(p.params.SendSockAddr)
	for _, l := range p.cfg.Listens {
		if l.Name != "" && l.Name == p.params.SendSockName {
			host = l.Host
		}
	}
	if net.ParseIP(host) == nil {
		return ""
	}
	port, err := strconv.Atoi(p.listen.port)
	for err == nil {
		port++
		a := address{host: host, port: strconv.Itoa(port)}
		if port > 65535 {
			port = 1024
		} else if p.taken(a) == "" {
			return "sip:" + a.hostPort()
		}
	}
	return ""
}

// value is a parameter as YAML has it.
func (p *Plan) value(s siptrace.Spec, q *siptrace.Params) string {
	if s.Name == "duplicate_uri" {
		return quoted(q.DuplicateURI)
	}
	if v, ok := s.Value(q).(int64); ok {
		return fmt.Sprint(v)
	}
	return fmt.Sprintf("%q", s.Value(q))
}

// comment says where a value comes from.
func (p *Plan) comment(name string, neutral bool) string {
	par, set := p.set[name]
	after := p.effective()
	switch {
	case name == "trace_init_mode" && p.gated():
		return " # only what sip_trace_mode() of the event route takes"
	case neutral || name == "trace_local_ip" && p.localHere():
		return " # the proxy sees to it"
	case name == "trace_on" && !p.params.TraceOn && p.switched():
		return " # the proxy has the switch, siptrace.status: off, it mirrors nothing"
	case name == "duplicate_uri" && len(p.dests) > 0 && len(after.DuplicateURI) == 0:
		return " # the event route names the addresses"
	case name == "duplicate_uri" && len(p.dests) == 0:
		return " # mirrored nowhere"
	case name == "duplicate_uri":
		return " # " + p.dests[0].at
	case !set:
		return ""
	}
	before := p.params
	spec, err := siptrace.Lookup(name)
	if strings.Contains(name, "send_sock") {
		return " # " + p.place(par.Pos) + " has the proxy's own port"
	}
	if err == nil && spec.Value(&before) != spec.Value(&after) {
		return fmt.Sprintf(" # %s has %s; so the sinks are those that the module had", p.place(par.Pos), par.Value)
	}
	return " # " + p.place(par.Pos)
}
