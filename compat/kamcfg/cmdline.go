package kamcfg

import (
	"net/netip"
	"regexp"
	"strconv"
	"strings"
)

// CommandLine is what Kamailio's own command line adds to its file.
type CommandLine struct {
	// Defines are those of -A, "NAME" or "NAME=VALUE". They hold before the file is
	// read, which can't define them again: #!trydef keeps them, #!redefine replaces
	// them.
	Defines []string
	// Listens are those of -l, "[proto:]host[:port][/advertised[:port]]" with a list
	// "(host, host)" in place of the host. They add to the listen lines of the file.
	Listens []string
	// Version of Kamailio, e.g. "6.1.4", for #!ifdef KAMAILIO_6 and the like.
	// Empty: DefaultVersion, with a note where the file asks for it.
	Version string
}

var (
	versionForm = regexp.MustCompile(`^[0-9]{1,3}\.[0-9]{1,3}(\.[0-9]{1,3})?([^0-9.].*)?$`)
	nameForm    = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)
)

// commandLine puts the defines in force, before the file is read.
func (l *lexer) commandLine() error {
	if v := l.opt.Version; v != "" && !versionForm.MatchString(v) {
		return fail(Pos{File: "--kamailio-version " + v}, `give it as "kamailio -v" prints it, e.g. 5.6.3`, "the version of Kamailio is malformed")
	}
	for _, d := range l.opt.Defines {
		name, value, _ := strings.Cut(d, "=")
		at := Pos{File: "--define " + name} // the value may be a password
		if !nameForm.MatchString(name) {
			return fail(at, "write NAME or NAME=VALUE without space around =; names are made of letters, digits and _", "there is no name to define")
		}
		if _, there := l.defs[name]; there {
			return fail(at, "give it once", "%s is already defined", name)
		}
		l.setDefine(name, value)
		l.given[name] = true
	}
	return nil
}

// alreadyDefined is the error for a name that the file defines again.
func (l *lexer) alreadyDefined(name, hint string, at Pos) error {
	if why, there := l.notUndefined[name]; there {
		hint = why
	}
	if l.given[name] {
		hint = "it is given by --define; Kamailio refuses it too, #!trydef lets the command line win"
	}
	return fail(at, hint, "%s is already defined", name)
}

// commandLine adds the sockets of -l, behind those of the file as Kamailio does.
func (p *parser) commandLine() error {
	for _, s := range p.lexer.opt.Listens {
		all, err := parseListen(s)
		if err != nil {
			return err
		}
		p.cfg.Listens = append(p.cfg.Listens, all...)
	}
	return nil
}

func parseListen(s string) ([]Listen, error) {
	at := Pos{File: "-l " + s}
	malformed := fail(at, "write [proto:]host[:port][/advertised[:port]] with udp, tcp, tls or sctp, IPv6 in brackets", "address is malformed")
	l := Listen{Pos: at}
	s, adv, advertised := strings.Cut(strings.ReplaceAll(s, " ", ""), "/")
	if proto, rest, ok := strings.Cut(s, ":"); ok && isProto(strings.ToLower(proto)) {
		l.Proto, s = strings.ToLower(proto), rest
	}
	var ok bool
	if advertised {
		if l.AdvertiseHost, l.AdvertisePort, ok = splitHostPort(adv); !ok {
			return nil, malformed
		}
	}
	hosts := []string{s}
	if list, rest, is := strings.Cut(strings.TrimPrefix(s, "("), ")"); is && s[0] == '(' {
		hosts = strings.Split(list, ",")
		for i := range hosts {
			hosts[i] += rest
		}
	}
	var all []Listen
	for _, h := range hosts {
		if l.Host, l.Port, ok = splitHostPort(h); !ok {
			return nil, malformed
		}
		l.noPort = l.Port == 0
		all = append(all, l)
	}
	return all, nil
}

// splitHostPort takes host[:port] apart; port 0 is none.
func splitHostPort(s string) (host string, port int, ok bool) {
	if rest, is := strings.CutPrefix(s, "["); is {
		inner, after, closed := strings.Cut(rest, "]")
		a, err := netip.ParseAddr(inner)
		if !closed || err != nil || a.Zone() != "" {
			return "", 0, false
		}
		host, s = a.String(), after
	} else {
		i := strings.IndexByte(s+":", ':')
		host, s = s[:i], s[i:]
		if host == "" || strings.ContainsAny(host, "()[],/") {
			return "", 0, false
		}
	}
	if digits, is := strings.CutPrefix(s, ":"); is {
		n, err := strconv.ParseUint(digits, 10, 16)
		return host, int(n), err == nil
	}
	return host, 0, s == ""
}
