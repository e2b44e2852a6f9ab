package kamcfg

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// Listen is one address of a listen= line or a socket={...} block; a line with
// several addresses gives several.
type Listen struct {
	Proto         string // udp, tcp, tls, sctp; "" is every protocol
	Host          string // address without brackets, interface, or name
	Port          int    // worked out: the default, where the line has none
	AdvertiseHost string // "" without advertise
	AdvertisePort int    // 0: as the socket's
	Name          string
	Pos           Pos

	noPort bool // the line has no port
}

// Interface is one network interface of this host.
type Interface struct {
	Name  string
	Addrs []netip.Addr
}

// address reads [proto:]host[:port], or several hosts in parentheses.
func (p *parser) address(what string) ([]Listen, error) {
	at := p.at(0).Pos
	l := Listen{Pos: at}
	if w := p.at(0); p.is(1, ':') && (w.Kind == '*' || w.Kind == tWord && isProto(w.Text)) {
		if p.is(2, ':') && p.at(1).Span.To == p.at(2).Span.From { // no define without value between
			return nil, fail(at, "write IPv6 in brackets, as in "+w.Text+":[::1]:5060", "address of %s is malformed", what)
		}
		if w.Kind == tWord {
			l.Proto = strings.ToLower(w.Text)
		}
		p.i += 2
	}
	var hosts []string
	if p.accept('(') {
		for {
			h, err := p.host(what)
			if err != nil {
				return nil, err
			}
			hosts = append(hosts, h)
			if p.accept(')') {
				break
			}
			if !p.accept(',') {
				return nil, p.unexpected("addresses in parentheses are separated by commas; protocol and port stand outside", "in the list of "+what)
			}
		}
	} else {
		h, err := p.host(what)
		if err != nil {
			return nil, err
		}
		hosts = append(hosts, h)
	}
	last := 0
	if p.is(0, ':') && what == "alias" && p.at(1).Unresolved != nil {
		p.i += p.run()
	}
	if p.accept(':') {
		var err error
		if l.Port, err = p.portNumber(); err != nil {
			return nil, err
		}
		if p.is(0, '-') && p.adjoins(0) && what == "bind" { // socket={ bind=udp:192.0.2.1:5060-5068 }
			p.i++
			if last, err = p.portNumber(); err != nil {
				return nil, err
			}
			if last < l.Port {
				return nil, fail(at, "write the lower port first", "range of ports is empty")
			}
		}
	}
	if (p.is(0, ':') || p.is(0, '.')) && p.adjoins(0) {
		hint := "write [proto:]host[:port] with udp, tcp, tls or sctp; websockets are tcp or tls"
		return nil, fail(at, hint, "address of %s is malformed", what)
	}
	l.noPort = l.Port == 0
	var all []Listen
	for _, l.Host = range hosts {
		all = append(all, l)
		for port := l.Port + 1; port <= last; port++ {
			n := l
			n.Port = port
			all = append(all, n)
		}
	}
	return all, nil
}

func isProto(s string) bool {
	switch s {
	case "udp", "tcp", "tls", "sctp", "UDP", "TCP", "TLS", "SCTP":
		return true
	}
	return false
}

func (p *parser) portNumber() (int, error) {
	if why := p.unknown(1); why != nil {
		return 0, unresolved(p.at(0).Pos, "the port", why)
	}
	n, ok, err := ParseInt(p.at(0).Text)
	if !p.is(0, tWord) || !ok {
		return 0, p.unexpected("write the port as a decimal number, without a 0 before it", "where a port should be")
	}
	if err != nil || n < 0 || n > 65535 {
		return 0, fail(p.at(0).Pos, "ports are 1 to 65535", "%s is not a port", p.at(0).Text)
	}
	p.i++
	return int(n), nil
}

// host reads an address, an interface or a name. IPv6 is in brackets, or a
// string.
func (p *parser) host(what string) (string, error) {
	at := p.at(0).Pos
	if why := p.unknown(max(1, p.word())); why != nil && what != "alias" {
		return "", unresolved(at, "the address of "+what, why)
	}
	switch {
	case p.is(0, tString):
		h := p.at(0).Text
		p.i++
		if a, err := netip.ParseAddr(strings.TrimSuffix(strings.TrimPrefix(h, "["), "]")); err == nil {
			return a.String(), nil
		}
		if what != "alias" && (h == "" || strings.ContainsAny(h, ":() \t\n")) {
			return "", fail(at, `only the host may be in quotes: udp:"192.0.2.1":5060`, "string is not an address or a name for %s", what)
		}
		return h, nil
	case p.accept('['):
		n := 0
		for p.is(n, tWord) || p.is(n, ':') || p.is(n, '.') {
			n++
		}
		a, err := netip.ParseAddr(p.joined(n))
		if !p.accept(']') || err != nil || !a.Is6() {
			return "", fail(at, "write it as [2001:db8::1], without zone", "IPv6 address of %s is malformed", what)
		}
		return a.String(), nil
	}
	if n, a := p.bareIPv6(); n > 0 {
		p.i += n
		return a.String(), nil
	}
	n := p.word()
	if n == 0 || n == 1 && slices.Contains(statements, p.at(0).Text) {
		hint := "write [proto:]host[:port], IPv6 in brackets"
		return "", p.unexpected(hint, "where a host of "+what+" should be")
	}
	h := p.joined(n)
	if strings.Trim(h, "0123456789.") == "" {
		if _, err := netip.ParseAddr(h); err != nil {
			return "", fail(at, "write [proto:]host[:port]", "%s is not an IPv4 address", h)
		}
	}
	return h, nil
}

// bareIPv6 counts the tokens of an IPv6 address without brackets: as many as are
// one, so that ::1:5060 has no port.
func (p *parser) bareIPv6() (tokens int, a netip.Addr) {
	text := ""
	for n := 0; (p.is(n, tWord) || p.is(n, ':')) && (n == 0 || p.adjoins(n)) && n < 16; n++ {
		text += p.at(n).Text
		if b, err := netip.ParseAddr(text); err == nil && b.Is6() {
			tokens, a = n+1, b
		}
	}
	return tokens, a
}

// more says whether the token at hand is another address rather than the next
// statement.
func (p *parser) more() bool {
	switch t := p.at(0); t.Kind {
	case tString, '(', '[':
		return true
	case '*':
		return p.is(1, ':')
	case ':':
		return p.is(1, ':') && p.adjoins(1)
	case tWord:
		n := p.word()
		return !slices.Contains(statements, t.Text) && !slices.Contains(listenWords, t.Text) &&
			!p.is(n, '=') && !p.is(n, '[') && !p.is(n, '{') && !p.is(n, '(')
	}
	return false
}

var listenWords = []string{"advertise", "ADVERTISE", "name", "NAME", "agname", "AGNAME", "virtual", "desc", "descr", "description"}

// addresses reads "=" and one address or more.
func (p *parser) addresses(what string) ([]Listen, error) {
	if !p.accept('=') {
		return nil, p.unexpected("write "+what+"=udp:192.0.2.1:5060", "after "+what)
	}
	all, err := p.address(what)
	for err == nil && p.more() {
		var next []Listen
		next, err = p.address(what)
		all = append(all, next...)
	}
	return all, err
}

// listen reads listen=ADDRESS... [advertise HOST[:PORT]] [name "N"] [virtual].
func (p *parser) listen(t token) error {
	all, err := p.addresses("listen")
	if err != nil {
		return err
	}
	word := func(w string) bool {
		if !p.is(0, tWord) || p.at(0).Text != w && p.at(0).Text != strings.ToUpper(w) {
			return false
		}
		p.i++
		return true
	}
	var adv []Listen
	if word("advertise") {
		if adv, err = p.address("advertise"); err != nil {
			return err
		}
	}
	name := ""
	for _, w := range []string{"name", "agname"} {
		if word(w) {
			if !p.is(0, tString) {
				return p.unexpected("put it in quotes", "as the "+w+" of a socket")
			}
			if w == "name" {
				name = p.at(0).Text
			}
			p.i++
		}
	}
	word("virtual")
	if p.is(0, tWord) && slices.Contains(listenWords, p.at(0).Text) {
		return p.unexpected("their order is: advertise, name, virtual", "at the end of a listen line")
	}
	return p.add(t.Pos, all, adv, name)
}

// add takes over the sockets of one line or block.
func (p *parser) add(at Pos, all, adv []Listen, name string) error {
	if len(adv) > 1 {
		return fail(at, "write advertise host:port; the protocol is the socket's", "advertise takes one host")
	}
	if len(adv) > 0 && adv[0].Proto != "" && p.lexer.version < withUndef {
		if p.lexer.opt.Version != "" {
			return fail(at, "write advertise host:port; the protocol is the socket's", "Kamailio before 6.2 refuses a protocol in advertise")
		}
		p.cfg.note(at, "Kamailio before 6.2 refuses a protocol in advertise%s", p.lexer.versionHint())
	}
	for _, l := range all {
		l.Pos, l.Name = at, name
		if len(adv) > 0 {
			l.AdvertiseHost, l.AdvertisePort = adv[0].Host, adv[0].Port
		}
		if l.noPort {
			l.Port = p.port
		}
		p.cfg.Listens = append(p.cfg.Listens, l)
	}
	return nil
}

// socket reads socket = { bind = ADDRESS; advertise = ...; name = "..."; ... },
// known since 6.0.
func (p *parser) socket(t token) error {
	p.i += 2
	var bind, adv []Listen
	name := ""
	for !p.accept('}') {
		k := p.at(0)
		if k.Kind == ';' {
			p.i++
			continue
		}
		p.i++
		if k.Kind != tWord || !p.accept('=') {
			p.i--
			return p.unexpected("write socket={ bind = udp:192.0.2.1:5060; name = \"s1\"; }", "in a socket block")
		}
		var err error
		switch k.Text {
		case "bind":
			bind, err = p.address("bind")
		case "advertise":
			adv, err = p.address("advertise")
		case "name", "agname", "virtual", "vrf", "workers":
			var v Value
			v, err = p.value("a name is in quotes, virtual is yes or no, workers is a number")
			if k.Text == "name" {
				name = v.Str
			}
		default:
			known := []string{"bind", "advertise", "name", "agname", "virtual", "vrf", "workers"}
			err = fail(k.Pos, suggest(k.Text, known, "known are "+strings.Join(known, ", ")), "socket has no attribute %s", k.Text)
		}
		if err != nil {
			return err
		}
	}
	if len(bind) == 0 {
		return fail(t.Pos, "add bind = udp:192.0.2.1:5060;", "socket without bind")
	}
	first := len(p.cfg.Listens)
	if err := p.add(t.Pos, bind, adv, name); err != nil {
		return err
	}
	if bind[0].Port != bind[len(bind)-1].Port { // a range: the name gets the port, the advertised port goes up
		for i, b := range bind {
			l := &p.cfg.Listens[first+i]
			if l.Name != "" {
				l.Name += strconv.Itoa(l.Port)
			}
			if l.AdvertisePort > 0 {
				if l.AdvertisePort += b.Port - bind[0].Port; l.AdvertisePort > 65535 {
					return fail(t.Pos, "advertise a lower port", "range of advertised ports goes beyond 65535")
				}
			}
		}
	}
	return nil
}

// alias reads alias=ADDRESS...
func (p *parser) alias(t token) error {
	all, err := p.addresses("alias")
	for _, a := range all {
		p.cfg.Aliases = append(p.cfg.Aliases, Alias{a.Proto, a.Host, a.Port, t.Pos})
	}
	return err
}

// sockets fills in what is known only at the end of the file: default ports and
// the host's addresses.
func (p *parser) sockets() error {
	c := p.cfg
	wild := len(c.Listens) == 0
	for i := range c.Listens {
		l := &c.Listens[i]
		if l.noPort {
			if l.Proto == "tls" {
				l.Port = c.tlsPort()
			} else if l.Port == 0 {
				l.Port = c.port()
			}
		}
		a, err := netip.ParseAddr(l.Host)
		wild = wild || err != nil || a.IsUnspecified()
	}
	if wild && p.lexer.opt.Interfaces != nil {
		var err error
		if c.ifaces, err = p.lexer.opt.Interfaces(); err != nil {
			return &Error{Pos: Pos{File: c.Files[0]}, Msg: "can't list this host's addresses for the listen lines", Err: err}
		}
	}
	for _, l := range c.Listens {
		if len(c.Expand(l)) == 0 {
			c.note(l.Pos, "the address of %s is not known here, neither as an address nor as an interface", l.Host)
		}
	}
	return nil
}

func (c *Config) number(def int, names ...string) int {
	if g, ok := c.Global(names...); ok && g.Value.IsInt {
		return int(g.Value.Int)
	}
	return def
}

func (c *Config) port() int { return c.number(5060, "port") }

func (c *Config) tlsPort() int { return c.number(5061, "tls_port_no") }

// Expand gives the addresses behind a listen line: the address itself; for
// 0.0.0.0 and [::] also all of this host's of that family (the proxy reports the
// wildcard itself in HEP); for an interface its own, IPv6 only with
// auto_bind_ipv6, as Kamailio does. Host "" is every interface. Names are not
// resolved, except localhost: nil.
func (c *Config) Expand(l Listen) []netip.AddrPort {
	var addrs []netip.Addr
	six := c.number(0, "auto_bind_ipv6") != 0
	a, err := netip.ParseAddr(l.Host)
	if err == nil {
		addrs = append(addrs, a)
	}
	for _, i := range c.ifaces {
		for _, own := range i.Addrs {
			own = own.Unmap()
			switch {
			case err == nil && a.IsUnspecified() && a.Is4() == own.Is4(),
				err != nil && (l.Host == "" || l.Host == i.Name) && (own.Is4() || six):
				addrs = append(addrs, own)
			}
		}
	}
	if len(addrs) == 0 && strings.EqualFold(l.Host, "localhost") {
		addrs = append(addrs, netip.AddrFrom4([4]byte{127, 0, 0, 1}))
	}
	var out []netip.AddrPort
	for _, a := range addrs {
		ap := netip.AddrPortFrom(a.WithZone(""), uint16(l.Port)) // a HEP packet has no zone
		if !slices.Contains(out, ap) {
			out = append(out, ap)
		}
	}
	return out
}

// Local lists the proxy's own sockets as "udp:192.0.2.1:5060", IPv6 in brackets:
// every listen line expanded, or, without any, what Kamailio then listens on.
func (c *Config) Local() []string {
	listens := c.Listens
	if len(listens) == 0 {
		listens = []Listen{{Port: c.port(), noPort: true}}
	}
	var out []string
	for _, l := range listens {
		for _, one := range c.Protocols(l) {
			for _, ap := range c.Expand(one) {
				if s := fmt.Sprintf("%s:%s", one.Proto, ap); !slices.Contains(out, s) {
					out = append(out, s)
				}
			}
		}
	}
	return out
}

// Protocols gives a listen line as one for each protocol that it is for: without
// one that is UDP, TCP unless disable_tcp, and with enable_tls also TLS on the next
// port.
func (c *Config) Protocols(l Listen) []Listen {
	if l.Proto != "" {
		return []Listen{l}
	}
	udp, tcp, tls := l, l, l
	udp.Proto, tcp.Proto, tls.Proto = "udp", "tcp", "tls"
	out := []Listen{udp}
	if c.number(0, "disable_tcp") == 0 {
		out = append(out, tcp)
	}
	if c.number(0, "enable_tls", "tls_enable") != 0 {
		if tls.Port++; l.noPort || tls.Port > 65535 {
			tls.Port = c.tlsPort()
		}
		out = append(out, tls)
	}
	return out
}
