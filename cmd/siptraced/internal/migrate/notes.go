package migrate

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"siptraced/compat/kamcfg"
	"siptraced/compat/siptrace"
)

// Notes say in words what keeps working, what moves, and what can't be seen
// from outside the proxy.
func (p *Plan) Notes() string {
	var b strings.Builder
	for _, s := range []struct {
		title string
		list  []string
	}{
		{"What keeps working", p.keeps()},
		{"What moves", p.moves()},
		{"What can't be seen from outside the proxy, and how to carry it", p.hidden()},
		{"What to do", p.steps()},
	} {
		if len(s.list) == 0 {
			continue
		}
		b.WriteString(s.title + ":\n")
		for _, l := range s.list {
			b.WriteString("  * " + strings.ReplaceAll(l, "\n", "\n    ") + "\n")
		}
	}
	return b.String()
}

func (p *Plan) keeps() (out []string) {
	how := "HEP3"
	if len(p.apart) > 0 {
		how = fmt.Sprintf("HEP%d", p.params.HEPVersion)
	}
	if p.relay {
		how = "SIP duplicates, their X-Siptrace headers untouched,"
	}
	if p.core {
		out = append(out, fmt.Sprintf("trace_mode: the proxy mirrors everything that it receives and sends, as %s to %s.", how, p.listen.uri()))
	}
	if at := p.callsOf("sip_trace", "sip_trace_mode"); at != "" {
		out = append(out, fmt.Sprintf("sip_trace() and sip_trace_mode() choose as before what is traced: message, transaction or dialog (%s). What they take goes as %s to %s; a correlation id goes with it.", at, how, p.listen.uri()))
	}
	if len(p.apart) > 0 {
		var at []string
		for _, c := range p.calls {
			if uri, _ := c.address(); p.leftAlone(c) {
				at = append(at, fmt.Sprintf("%s (%s)", uri, p.place(c.pos)))
			}
		}
		out = append(out, fmt.Sprintf("sip_trace() to other collectors stays as it is: the proxy sends to them by itself, past siptraced. They are %s. For their sake the proxy's hep_version stays %d.", strings.Join(at, ", "), p.params.HEPVersion))
	}
	if p.core && p.script {
		out = append(out, "What the script traces comes twice, as before: by trace_mode and by sip_trace().")
	}
	if p.acks && !p.core && !p.script && p.sinks != (sinks{}) {
		out = append(out, fmt.Sprintf("The ACKs for the proxy's own stateless replies (trace_sl_acks) are all that the module traces here: there is no trace_mode, and no sip_trace() in force. They go as %s to %s.", how, p.listen.uri()))
	}
	flag := "the script's flag decides in the proxy what sip_trace() takes"
	if !p.script {
		flag = "of no effect, because no sip_trace() is called"
	}
	effects := map[string]string{
		"trace_flag":             flag,
		"trace_sl_acks":          "the proxy leaves those ACKs out",
		"trace_init_mode":        "as before",
		"evcb_msg":               "the KEMI function runs in the proxy, before the mirror; as event_route[siptrace:msg] it could run in siptraced",
		"trace_dialog_ack":       "the proxy follows the dialog",
		"trace_dialog_spiral":    "the proxy follows the dialog",
		"trace_ephemeral_socket": "as before",
		"hep_capture_id":         "the id is in the proxy's mirror and in siptraced's",
		"auth_key":               "the key is in the proxy's mirror and in siptraced's",
		"traced_user_avp":        "the proxy mirrors the stateless replies to requests that have users, and siptraced stores the users",
	}
	for _, move := range []siptrace.Move{siptrace.Stays, siptrace.Both} {
		for _, s := range siptrace.Specs() {
			if par, ok := p.set[s.Name]; ok && s.Moves == move {
				out = append(out, fmt.Sprintf("%s (%s): %s.", s.Name, p.place(par.Pos), effects[s.Name]))
			}
		}
	}
	if p.localHere() {
		out = append(out, fmt.Sprintf("trace_local_ip (%s): the proxy puts it into what sip_trace() takes, not into the traffic of trace_mode.", p.place(p.set["trace_local_ip"].Pos)))
	}
	if at := p.callsOf("hlog"); at != "" {
		out = append(out, fmt.Sprintf("hlog() sends its texts to siptraced, which passes them on (%s).", at))
	}
	if at := p.callsOf("sip_trace_msg"); at != "" {
		out = append(out, fmt.Sprintf("sip_trace_msg() goes on to send to its own address, past siptraced: it never wrote rows (%s).", at))
	}
	for _, par := range p.cfg.Params {
		if par.For("siptrace") && par.Module != "siptrace" {
			out = append(out, fmt.Sprintf("%s sets %s for several modules and stays; siptrace makes no use of it any more, or a line below it says otherwise.", p.place(par.Pos), par.Name))
		}
	}
	return out
}

func (p *Plan) moves() (out []string) {
	q := p.effective()
	if p.sinks.db {
		url := q.DBURL
		if u, err := siptrace.ParseDBURL(url); err == nil {
			url = u.Redacted()
		}
		out = append(out, fmt.Sprintf("Storing: siptraced writes the same table, %s in %s. The proxy opens no database for siptrace any more.", q.Table, url))
	} else {
		out = append(out, "Nothing was stored, and nothing is: the traffic of trace_mode goes by the bits of trace_mode alone, that of sip_trace() by trace_to_database."+
			either(p.sinks == (sinks{}), " Nor is anything mirrored: siptraced drops what it gets, until trace_to_database or duplicate_uri in siptraced.yaml says where to.", ""))
	}
	switch {
	case len(q.DuplicateURI) == 0 && len(p.params.DuplicateURI) > 0:
		out = append(out, fmt.Sprintf("Mirroring: nothing went to %s, and nothing does: hep_mode_on is 0 and the database on, and then only a sip_trace() that names an address sends a duplicate. duplicate_uri in siptraced.yaml would turn it on.", p.params.DuplicateURI[0]))
	case len(q.DuplicateURI) > 0:
		var form []string
		if p.sinks.hep {
			form = append(form, fmt.Sprintf("HEP%d", q.HEPVersion))
		}
		if p.sinks.sip {
			form = append(form, "SIP duplicates")
		}
		out = append(out, fmt.Sprintf("Mirroring: siptraced sends %s to %s.", strings.Join(form, " and "), strings.Join(q.DuplicateURI, ", ")))
	}
	out = append(out, p.switching(), "Statistics: send their readers to siptraced (siptraced rpc stats.fetch siptrace:): it counts what it traces.")
	if b, ok := p.eventBlock(); ok {
		at := p.place(b.Pos)
		if p.stays != nil {
			out = append(out, fmt.Sprintf("event_route[siptrace:msg] (%s) stays in the proxy, because siptraced can't run it: %v. What it drops is not mirrored, and so not stored.", at, p.stays))
		} else if p.core {
			out = append(out, fmt.Sprintf("event_route[siptrace:msg] (%s) runs in siptraced, for each message before it is stored and mirrored.", at))
		} else {
			out = append(out, fmt.Sprintf("event_route[siptrace:msg] (%s) never ran, because trace_mode is 0; in siptraced it would, so it is left out.", at))
		}
	}
	for _, s := range p.carried {
		what := "sets an AVP for siptrace in %s: the assignment"
		if s.calls {
			what = "names a collector in %s: the call"
		}
		out = append(out, fmt.Sprintf("%s "+what+" is in siptraced's event route as well, with the conditions around it, and with what ends the script before it.", p.place(s.pos), s.route))
	}
	if p.byRequest {
		out = append(out, "What this depends on differs between the messages of a transaction: siptraced asks it of the request as it comes in"+either(p.transactional(), ", and what that sets holds for the transaction (keep_trace())", ", which with its stateless replies is all that sip_trace() takes")+". What the proxy changes in the request before it gets there is not seen, and of a request that sip_trace() leaves out neither is what it sets.")
	}
	sock := "its address is not known here; siptraced mirrors from one that the host chooses"
	if from := p.sendFrom(); from != "" {
		sock = "siptraced mirrors from " + from + ", because the port is the proxy's own"
	}
	for _, l := range []struct{ name, text string }{
		{"trace_local_ip", "siptraced names the proxy's own end so, in rows and mirrors"},
		{"data_mode", either(p.params.AdvertisedData(), "siptraced puts the advertised addresses in, from the listen= lines", "off, in siptraced as well")},
		{"xheaders_write", either(p.params.XHeadersWrite, "siptraced writes the headers into its SIP duplicates", "off, in siptraced as well")},
		{"xheaders_read", either(p.params.XHeadersRead, "siptraced reads the headers", "off, in siptraced as well")},
		{"send_sock_name", sock},
		{"send_sock_addr", sock},
		{"force_send_sock", sock},
	} {
		if par, ok := p.set[l.name]; ok && (l.name != "trace_local_ip" || !p.localHere()) {
			out = append(out, fmt.Sprintf("%s (%s): %s.", l.name, p.place(par.Pos), l.text))
		}
	}
	return out
}

// switching says who has the switch of trace_on.
func (p *Plan) switching() string {
	if !p.switched() {
		return "Switching: trace_on is 0, and then the module traces those messages that have a user by traced_user_avp. It is 0 in siptraced too. To trace the others, switch both: kamcmd siptrace.status on, and siptraced rpc siptrace.status on."
	}
	text := fmt.Sprintf("Switching stays in the proxy, with its trace_on: kamcmd siptrace.status on, off and check work as before (at start: %s). siptraced has trace_on 1 and takes all that comes.", either(p.params.TraceOn, "on", "off"))
	switch {
	case p.params.TracedUserAVP != "":
		text += " While it is off, the module goes on to trace those who have a user by traced_user_avp, without the row that has none: for the same rows, switch siptraced as well (siptraced rpc siptrace.status off)."
	case p.gated():
		text += " While it is off, the proxy still mirrors the rest of the transactions that sip_trace() takes, as the module always did without storing it; the event route and trace_init_mode 2 in siptraced.yaml leave that out."
	case p.leaks():
		text += " While it is off, the proxy still mirrors the rest of the transactions that sip_trace() takes, as the module always did without storing it: to store nothing, switch siptraced off as well (siptraced rpc siptrace.status off)."
	}
	return text
}

func either(b bool, yes, no string) string {
	if b {
		return yes
	}
	return no
}

func (p *Plan) hidden() (out []string) {
	out = append(out, p.problems...)
	users := p.params.TracedUserAVP != "" || p.params.TraceTableAVP != ""
	if users && p.core {
		out = append(out, "With trace_mode the module never sees the AVPs of the script: it gave users to stateless replies only, once more than they were sent. siptraced gives them to every message that the assignments are for.")
	}
	for _, s := range p.missed {
		out = append(out, fmt.Sprintf("%s ends the way of some messages in %s before an AVP is set for siptrace, and which these are siptraced can't work out: %s. siptraced takes none for them, so they get the AVP all the same.\n%s",
			p.place(s.pos), s.route, s.why, strings.TrimSpace(s.text)))
	}
	for _, s := range p.left {
		if s.calls {
			out = append(out, fmt.Sprintf("%s names a collector in %s, and for which messages siptraced can't work out: %s. They go to the others only. Name it by a rule of siptraced (siptrace.trace.start with a filter and the destination).\n%s",
				p.place(s.pos), s.route, s.why, strings.TrimSpace(s.text)))
			continue
		}
		out = append(out, fmt.Sprintf("%s sets an AVP for siptrace in %s, and siptraced can't work it out: %s. Carry it by a rule of siptraced that needs only what is in the messages (siptrace.trace.start with a filter, and users or table); for those who read the mirrors, as the correlation id: sip_trace(\"\", VALUE, \"t\").\n%s",
			p.place(s.pos), s.route, s.why, strings.TrimSpace(s.text)))
	}
	if at := p.avpByFunction(); at != "" {
		out = append(out, fmt.Sprintf("A function fills or takes an AVP of siptrace (%s): what it puts there siptraced can't know. Name users and tables by a rule of siptraced (siptrace.trace.start).", at))
	}
	if users && len(p.carried) == 0 && len(p.left) == 0 {
		out = append(out, "traced_user_avp or trace_table_avp is set, but no route assigns it: where it gets its values (a database, a KEMI script) siptraced can't see. Name the users by a rule of siptraced.")
	}
	if p.params.TraceTableAVP != "" {
		out = append(out, "trace_table_avp: siptraced takes only the tables that the key rules.tables lists, the names that stand in kamailio.cfg; add those that the script works out. Another name falls back to the parameter table.")
	}
	if par, ok := p.set["trace_flag"]; ok && p.script {
		out = append(out, fmt.Sprintf("The flag of %s is never in a message: it does its work in the proxy, where sip_trace() stays. A rule of siptraced can't ask for it.", p.place(par.Pos)))
	}
	if len(p.dests) > 1 {
		var list []string
		for _, d := range p.dests {
			list = append(list, fmt.Sprintf("%s (%s)", d.uri, d.at))
		}
		out = append(out, fmt.Sprintf("Several addresses get mirrors: %s. duplicate_uri in siptraced.yaml has what gets those that the event route says nothing of. A message that two calls take comes to siptraced twice, and goes twice to each of their addresses.", strings.Join(list, ", ")))
	}
	if p.core && !p.sinks.db && p.params.TraceToDatabase && p.params.TraceSLAcks {
		out = append(out, "trace_mode stored nothing, but with trace_to_database on the module wrote rows of the ACKs for its own stateless replies; siptraced doesn't.")
	}
	if p.sinks.sip && p.sinks.db && p.script {
		out = append(out, "SIP duplicates: those of the proxy's own replies to what sip_trace() took, which the module left out, are sent too.")
	}
	if p.sinks.sip && p.core && p.params.XHeadersWrite {
		out = append(out, "xheaders_write with trace_mode: the module wrote no X-Siptrace headers, or with an event route such that its own reader refuses; siptraced writes them whole.")
	}
	if p.core && p.script {
		if _, ok := p.eventBlock(); ok {
			out = append(out, "In the proxy the event route ran for the copies of trace_mode only; in siptraced for those of sip_trace() as well: they can't be told apart.")
		}
	}
	if g, ok := p.kemi(); ok {
		out = append(out, fmt.Sprintf("%s: the routes are a KEMI script (%s), which is not read here. Its calls of KSR.siptrace keep working; change the address where it calls sip_trace_dst() and its kin, and move AVPs that it sets for siptrace to siptraced's event route.", p.place(g.Pos), g.Value.Str))
	}
	out = append(out, p.sockets()...)
	if p.listen.network == "udp" && !p.relay {
		tcp := address{"tcp", p.listen.host, p.listen.port}
		out = append(out, "A message whose HEP packet would be over 65,507 bytes never leaves the proxy over UDP: with --listen tcp:"+tcp.hostPort()+" it does"+either(p.reaches(tcp), ".", ", if the proxy has a TCP socket of that family (listen=): Kamailio mirrors from such a one only."))
	}
	for _, at := range p.idle() {
		out = append(out, fmt.Sprintf("%s is not in force (an #!ifdef that doesn't hold, or a comment) and is left as it is. Should it come into force, look at it again.", p.place(at)))
	}
	return out
}

// sockets tells what the listen= lines leave open.
func (p *Plan) sockets() (out []string) {
	if !p.listen.loopback() {
		out = append(out, fmt.Sprintf("If siptraced runs on another host than the proxy, have a copy of %s there, with all that it includes, or write in place of kamailio_cfg: local: [\"%s\"]", p.main, strings.Join(p.cfg.Local(), "\", \"")))
	}
	if len(p.cfg.Listens) == 0 {
		out = append(out, "Without listen= lines Kamailio listens on every address of its host; siptraced takes those of its own host for it. Elsewhere, name the proxy's sockets with the key local.")
	}
	for _, l := range p.cfg.Listens {
		if a := l.AdvertiseHost; a != "" && strings.Trim(a, "0123456789.:abcdef") != "" {
			out = append(out, fmt.Sprintf("%s advertises the name %s, which siptraced doesn't look up: add its address to the key local.", p.place(l.Pos), a))
		}
		named := strings.Trim(l.Host, "0123456789.:abcdef") != ""
		if wild := l.Host == "0.0.0.0" || l.Host == "::"; (wild || named) && !p.listen.loopback() {
			out = append(out, fmt.Sprintf("%s listens on %s, whose addresses only the proxy's host knows: add them to the key local.", p.place(l.Pos), l.Host))
		}
	}
	return out
}

func (p *Plan) steps() []string {
	return []string{
		"Write siptraced.yaml, readable for siptraced only; siptraced check -c siptraced.yaml; siptraced run -c siptraced.yaml. siptraced must be able to read " + p.main + ".",
		"Then patch, kamailio -c -f " + p.main + either(len(p.started.Defines)+len(p.started.Listens) > 0, " with its own -A and -l", "") + ", and restart Kamailio: mirrors sent before siptraced listens are lost.",
		fmt.Sprintf("To go back: the same patch in reverse, patch -R -p0 -d %q < PATCH (save what --patch prints now), brings kamailio.cfg back byte by byte; then restart Kamailio.", p.Dir),
	}
}

// callsOf lists the places where the functions are called, to send to siptraced.
func (p *Plan) callsOf(names ...string) string {
	var at []string
	for _, c := range p.calls {
		if s := p.place(c.pos); slices.Contains(names, c.fn) && !p.leftAlone(c) && !slices.Contains(at, s) {
			at = append(at, s)
		}
	}
	return strings.Join(at, ", ")
}

// avpInText finds AVPs within the strings that functions get.
var avpInText = regexp.MustCompile(`\$\(?avp\([^()]*\)`)

// avpByFunction lists calls of functions that name an AVP of the module in a
// string, other than those that print.
func (p *Plan) avpByFunction() string {
	avps := []string{avpName(p.params.TracedUserAVP), avpName(p.params.TraceTableAVP)}
	var at []string
	for _, b := range p.cfg.Blocks {
		fn := ""
		for i, t := range b.Tokens {
			switch {
			case t.Kind == '(' && i > 0 && b.Tokens[i-1].Kind == kamcfg.Word:
				fn = b.Tokens[i-1].Text
			case t.Kind == ';':
				fn = ""
			case t.Kind == kamcfg.String && fn != "" && !slices.Contains([]string{"xlog", "xdbg", "xinfo", "xnotice", "xwarn", "xerr", "log", "hlog", "sip_trace"}, fn):
				for _, m := range avpInText.FindAllString(t.Text, -1) {
					if n := avpName(m); n != "" && slices.Contains(avps, n) {
						at = append(at, fn+"(), "+p.place(t.Pos))
					}
				}
			}
		}
	}
	return strings.Join(slices.Compact(at), ", ")
}

var idleLine = regexp.MustCompile(`^\s*(?:modparamx?\s*\(\s*["'][^"']*siptrace|event_route\s*\[\s*["']?siptrace:msg)`)

// idle finds lines for siptrace that the preprocessor left out.
func (p *Plan) idle() (out []kamcfg.Pos) {
	for i, file := range p.cfg.Files {
		if slices.Contains(p.cfg.Files[:i], file) {
			continue
		}
		n := 0
		for l := range strings.Lines(string(p.files[file])) {
			n++
			at := kamcfg.Pos{File: file, Line: n}
			if idleLine.MatchString(l) && !slices.ContainsFunc(p.cfg.Params, func(par kamcfg.Param) bool { return par.Pos == at }) &&
				!slices.ContainsFunc(p.cfg.Blocks, func(b kamcfg.Block) bool { return b.Pos == at }) {
				out = append(out, at)
			}
		}
	}
	return out
}
