package migrate

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"siptraced/compat/kamcfg"
	"siptraced/compat/script"
	"siptraced/compat/siptrace"
)

// Options of New; the zero value works.
type Options struct {
	// Listen is where the proxy will find siptraced: udp:host:port or
	// tcp:host:port. Empty: a free choice on loopback, by the proxy's sockets.
	Listen string
	// Kamailio is what the proxy's command line adds to its file.
	Kamailio kamcfg.CommandLine
	// HostName is that of kamcfg.Options.
	HostName func(part string) (string, error)
}

// Plan is a migration worked out.
type Plan struct {
	// Dir is the directory that the paths in the patch start from.
	Dir string

	main      string // absolute path of kamailio.cfg
	started   kamcfg.CommandLine
	cfg       *kamcfg.Config
	params    siptrace.Params
	set       map[string]kamcfg.Param // what the module has in the end
	calls     []call
	core      bool // trace_mode mirrors all traffic
	byRequest bool // AVPs are set by the request that comes in
	script    bool // sip_trace() and its kin are called
	relay     bool // xheaders_read: the proxy passes on SIP duplicates of other nodes
	acks      bool // of stateless replies are traced, whatever trace_mode and the script do

	listen   address
	sinks    sinks
	dests    []dest
	apart    []string // addresses that sip_trace() of the proxy goes on to send to
	route    string   // event_route[siptrace:msg] of the sidecar, or empty
	users    string   // the routes that it calls to set AVPs
	carried  []statement
	left     []statement
	missed   []statement // conditions that are taken for not met
	stays    error       // why the proxy's event route stays there
	tables   []string    // that the script names
	files    map[string][]byte
	edits    map[string][]edit
	problems []string // for the notes
}

// ErrNothing is a configuration without the module.
var ErrNothing = errors.New("siptrace is not loaded: there is nothing to migrate; start siptraced run, it prints what to put into kamailio.cfg")

// marker is the comment that the patch leaves: a file that has it is done.
const marker = "# siptraced stores these messages and mirrors them on: see siptraced.yaml"

// New reads a kamailio.cfg and what it includes. Errors name file and line.
func New(path string, opt Options) (*Plan, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	p := &Plan{
		main: abs, started: opt.Kamailio, params: siptrace.DefaultParams(), set: map[string]kamcfg.Param{},
		files: map[string][]byte{}, edits: map[string][]edit{},
	}
	read := func(name string) ([]byte, error) {
		b, err := os.ReadFile(name)
		if err == nil {
			p.files[name] = b
		}
		return b, err
	}
	if p.cfg, err = kamcfg.Parse(abs, kamcfg.Options{CommandLine: opt.Kamailio, ReadFile: read, HostName: opt.HostName, Transform: script.Transform}); err != nil {
		return nil, err
	}
	for _, name := range p.cfg.Files {
		if i := strings.Index(string(p.files[name]), marker); i >= 0 {
			line := 1 + strings.Count(string(p.files[name][:i]), "\n")
			return nil, fmt.Errorf("%s:%d: this has been migrated already; take the lines below it back first", name, line)
		}
	}
	if err := p.readParams(); err != nil {
		return nil, err
	}
	p.readCalls()
	p.core = p.params.TraceMode != 0 && p.params.TraceInitMode != 2
	_, kemi := p.kemi()
	p.script = kemi || slices.ContainsFunc(p.calls, call.traces)
	p.relay = p.params.XHeadersRead && p.script
	p.acks = p.params.TraceSLAcks && p.loaded("sl")
	if err := p.chooseListen(opt.Listen); err != nil {
		return nil, err
	}
	p.destinations()
	p.readRoutes()
	p.change()
	return p, nil
}

// readParams takes the module's parameters, checked as siptraced checks them.
func (p *Plan) readParams() error {
	for _, par := range p.cfg.Params {
		if !par.For("siptrace") {
			continue
		}
		if par.Unresolved != nil {
			return par.Unresolved
		}
		if err := p.params.Set(par.Name, par.Value.Any()); err != nil {
			if near := kamcfg.Nearest(par.Name, siptrace.Names()); near != "" && near != par.Name {
				err = fmt.Errorf("%w: did you mean %q?", err, near)
			}
			return fmt.Errorf("%s: %w", par.Pos, err)
		}
		p.set[par.Name] = par
	}
	if p.loaded("siptrace") {
		return nil
	}
	for _, par := range p.cfg.Params {
		if par.Module == "siptrace" {
			return fmt.Errorf("%s: modparam(\"siptrace\", %q) without loadmodule \"siptrace.so\": Kamailio refuses the file (no module matching siptrace). Load the module there, or take its lines away", par.Pos, par.Name)
		}
	}
	return fmt.Errorf("%s: %w", p.main, ErrNothing)
}

func (p *Plan) loaded(module string) bool {
	return slices.ContainsFunc(p.cfg.Modules, func(m kamcfg.Module) bool { return m.Name == module })
}

// switched says that the proxy alone switches tracing by its trace_on, with
// siptrace.status. While that is 0, the module traces those who have users: then
// siptraced's own has to be 0 as well, so that no row is without one.
func (p *Plan) switched() bool { return p.params.TraceOn || p.params.TracedUserAVP == "" }

// leaks says that the proxy mirrors more than is to be stored, if its trace_on is 0:
// in 5.6.3 the callbacks of a transaction that sip_trace() took ask for trace_on
// where they store, but not where they mirror.
func (p *Plan) leaks() bool { return p.script && p.sinks.db }

// address is where siptraced listens.
type address struct {
	network    string // udp or tcp
	host, port string
}

func (a address) hostPort() string { return net.JoinHostPort(a.host, a.port) }

// uri is the address as the proxy's duplicate_uri.
func (a address) uri() string {
	port, _ := strconv.ParseUint(a.port, 10, 16) // chooseListen made sure that it is one
	return siptrace.MirrorURI(siptrace.Proto(a.network), a.host, uint16(port))
}

// loopback says that siptraced runs beside the proxy.
func (a address) loopback() bool {
	ip := net.ParseIP(a.host)
	return a.host == "localhost" || ip != nil && ip.IsLoopback()
}

// chooseListen finds an address that the proxy can send to and that nobody has.
func (p *Plan) chooseListen(want string) error {
	if want != "" {
		network, host, port := siptrace.SplitEndpoint(want)
		host, ok := siptrace.Unbracket(host)
		n, _ := strconv.ParseUint(port, 10, 16)
		ip := net.ParseIP(host)
		if !ok || n == 0 || host == "" || network != "udp" && network != "tcp" || ip != nil && ip.IsUnspecified() {
			return fmt.Errorf("--listen %q: want udp:host:port or tcp:host:port with the address that the proxy sends to", want)
		}
		p.listen = address{network, host, port}
		if !p.reaches(p.listen) {
			return fmt.Errorf("--listen %s: the proxy would not send there, because it listens on no socket of that transport and family, and Kamailio mirrors from such a one only (\"no corresponding listening socket\"): add one by listen=, or name an address that its sockets can reach", want)
		}
		if taken := p.taken(p.listen); taken != "" {
			return fmt.Errorf("--listen %s: %s is there already: siptraced would mirror to itself; choose another port", want, taken)
		}
		return nil
	}
	p.listen = address{network: "tcp", host: "::1"}
	if len(p.cfg.Listens) == 0 {
		p.listen = address{network: "udp", host: "127.0.0.1"}
	}
	for _, l := range p.cfg.Listens {
		// A mirror leaves from a socket of the same family.
		if ip := net.ParseIP(l.Host); ip == nil || ip.To4() != nil {
			p.listen.host = "127.0.0.1"
		}
		if l.Proto == "udp" || l.Proto == "" {
			p.listen.network = "udp"
		}
	}
	if !p.reaches(p.listen) {
		p.problems = append(p.problems, fmt.Sprintf("Kamailio mirrors from a socket of the same transport only, and the proxy has none for %s: add one by listen=, or name another address by --listen.", p.listen.network))
	}
	for port := 9060; ; port++ {
		p.listen.port = strconv.Itoa(port)
		taken := p.taken(p.listen)
		if taken == "" {
			return nil
		}
		p.problems = append(p.problems, fmt.Sprintf("Port %d is taken by %s, so siptraced listens on the next one.", port, taken))
	}
}

// reaches says that the proxy has a socket to send from: of the same transport, and of
// the same family if both are known.
func (p *Plan) reaches(a address) bool {
	tcp := true
	if g, ok := p.cfg.Global("disable_tcp"); ok {
		tcp = g.Value.Str == "no" || g.Value.Str == "off" || g.Value.IsInt && g.Value.Int == 0
	}
	if a.network == "tcp" && !tcp {
		return false
	}
	to := net.ParseIP(a.host)
	return len(p.cfg.Listens) == 0 || slices.ContainsFunc(p.cfg.Listens, func(l kamcfg.Listen) bool {
		from := net.ParseIP(l.Host)
		return (l.Proto == a.network || l.Proto == "") && (to == nil || from == nil || (to.To4() == nil) == (from.To4() == nil))
	})
}

// taken names what has that address: a destination of today's mirrors, or the
// proxy itself.
func (p *Plan) taken(a address) string {
	local := func(host string) bool {
		return a.loopback() && address{host: host}.loopback() || strings.EqualFold(host, a.host)
	}
	uris := slices.Clone(p.params.DuplicateURI)
	for _, c := range p.calls {
		if u, ok := c.address(); ok {
			uris = append(uris, u)
		}
	}
	for _, u := range uris {
		if host, port := hostPort(u); port == a.port && local(host) {
			return u
		}
	}
	for _, l := range p.cfg.Listens {
		if strconv.Itoa(l.Port) == a.port && (local(l.Host) || net.ParseIP(l.Host).IsUnspecified()) {
			return "the proxy's " + l.Pos.String()
		}
	}
	return ""
}

// hostPort takes them from a SIP URI; empty for anything else.
func hostPort(uri string) (host, port string) {
	u, err := siptrace.ParseSIPURI([]byte(uri))
	if err != nil {
		return "", ""
	}
	return u.HostName(), strconv.Itoa(int(u.Port))
}

// sinks are where the module puts messages, over all the ways it traces.
type sinks struct{ db, hep, sip bool }

// dest is an address that messages are mirrored to.
type dest struct {
	uri string
	at  string // place in kamailio.cfg
}

// destinations finds out where today's messages go.
func (p *Plan) destinations() {
	add := func(uri, at string) {
		if !slices.ContainsFunc(p.dests, func(d dest) bool { return d.uri == uri }) {
			p.dests = append(p.dests, dest{uri, at})
		}
	}
	have := len(p.params.DuplicateURI) > 0
	if p.core {
		m := p.params.TraceMode
		p.sinks.db = m&siptrace.ModeDatabase != 0
		p.sinks.hep = have && m&siptrace.ModeHEP != 0
		p.sinks.sip = have && m&siptrace.ModeSIP != 0
	}
	core := p.sinks
	if p.acks && !p.core && !p.script {
		p.sinks.db = p.params.TraceToDatabase
		p.sinks.hep = have && p.params.HEPModeOn
		p.sinks.sip = have && !p.params.HEPModeOn && !p.params.TraceToDatabase
	}
	for _, c := range p.calls {
		p.sinksOf(c, have)
	}
	if _, ok := p.kemi(); ok { // as if it called sip_trace()
		p.sinksOf(call{fn: "sip_trace"}, have)
	}
	p.apart = p.others()
	for _, c := range p.calls {
		switch uri, named := c.address(); {
		case !named || p.leftAlone(c):
		case strings.Contains(uri, "$"):
			p.problems = append(p.problems, fmt.Sprintf("%s: %s() works its address out while it runs; siptraced mirrors what it is about to the other destinations only. Give such messages their destination by a rule of siptraced.", p.place(c.pos), c.fn))
		case p.sinks.hep || p.sinks.sip:
			add(uri, p.place(c.pos))
		}
	}
	if (p.sinks.hep || p.sinks.sip) && p.duplicates() {
		for _, u := range p.params.DuplicateURI {
			add(u, p.place(p.set["duplicate_uri"].Pos))
		}
	}
	if p.core && p.script && core.db != p.sinks.db {
		p.problems = append(p.problems, "trace_mode mirrors all traffic without storing it, and the script stores some of it: siptraced can't tell the copies apart and stores all. Take trace_mode away, or drop in the event route what is not to be stored.")
	}
}

// kemi is the global that says that the routes are a KEMI script, which is not read.
func (p *Plan) kemi() (kamcfg.Global, bool) {
	g, ok := p.cfg.Global("cfgengine")
	return g, ok && g.Value.Str != "native" && g.Value.Str != "default"
}

// sinksOf adds the sinks that a call brings in the module.
func (p *Plan) sinksOf(c call, have bool) {
	if c.fn == "hlog" && have {
		p.sinks.hep = true
	}
	if !c.traces() {
		return
	}
	_, named := c.address()
	p.sinks.db = p.sinks.db || p.params.TraceToDatabase
	switch {
	case !named && !have:
	case p.params.HEPModeOn:
		p.sinks.hep = true
	case named || !p.params.TraceToDatabase:
		p.sinks.sip = true
	default: // with the database on, only an address named brings a SIP duplicate
	}
}

// others are the addresses of sip_trace() that the proxy goes on to send to by itself:
// as long as nothing is stored, siptraced is needed for one collector only, that of
// duplicate_uri, or else the first one that is named.
func (p *Plan) others() (out []string) {
	if p.sinks.db || !p.params.HEPModeOn || p.relay || p.listen.network == "tcp" && p.params.HEPVersion != 3 { // HEP1 and HEP2 have no streams
		return nil
	}
	var named []string
	for _, c := range p.calls {
		if uri, ok := c.address(); ok && !slices.Contains(named, uri) {
			named = append(named, uri)
		}
	}
	own := p.params.DuplicateURI
	if !p.duplicates() {
		if i := slices.IndexFunc(named, func(uri string) bool { return !strings.Contains(uri, "$") }); i >= 0 {
			own = named[i : i+1]
		}
	}
	return slices.DeleteFunc(named, func(uri string) bool { return slices.Contains(own, uri) })
}

// duplicates says that something goes to duplicate_uri.
func (p *Plan) duplicates() bool {
	_, kemi := p.kemi()
	return len(p.params.DuplicateURI) > 0 && (p.core || p.acks || kemi || slices.ContainsFunc(p.calls, func(c call) bool {
		uri, named := c.address()
		return !named && (c.traces() || c.fn == "hlog") || slices.Contains(p.params.DuplicateURI, uri)
	}))
}

// leftAlone says that a call goes on to send to its own address.
func (p *Plan) leftAlone(c call) bool {
	uri, named := c.address()
	return named && slices.Contains(p.apart, uri)
}

// place is a position with the path that the patch has.
func (p *Plan) place(at kamcfg.Pos) string {
	at.File = p.rel(at.File)
	return at.String()
}

func (p *Plan) rel(file string) string {
	if r, err := filepath.Rel(filepath.Dir(p.main), file); err == nil {
		return r
	}
	return file
}
