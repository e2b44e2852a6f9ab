package config

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"siptraced/cmd/siptraced/internal/ingest"
	"siptraced/cmd/siptraced/internal/mirror"
	"siptraced/compat/flexisip"
	"siptraced/compat/kamcfg"
	"siptraced/compat/siptrace"
)

// What the key mirror says of duplicate_uri.
const (
	mirrorAll      = "all"      // it takes every traced message
	mirrorExplicit = "explicit" // it takes what a rule names, as the module from 5.3 on
)

// mirrorSettings are the keys of mirrors, and the members of an entry of
// destinations; an entry takes over what it does not set.
type mirrorSettings struct {
	captureID, time, ack                    string
	maxBytes, maxAge                        string
	ca, certificate, privateKey, serverName string

	name, uri, protocol, authKey, xheaders, filter, sockName, sockAddr string
}

// mirrorKeys are the settings of mirrors.
var mirrorKeys = []key{
	{"mirror", false, mirrorAll, "what duplicate_uri takes: all traced messages, or explicit: those for which a rule names an address", func(c *Config, v []string) error {
		if v[0] != mirrorAll && v[0] != mirrorExplicit {
			return fmt.Errorf("%q: use %s or %s", v[0], mirrorAll, mirrorExplicit)
		}
		c.MirrorExplicit = v[0] == mirrorExplicit
		return nil
	}},
	{"mirror_time", false, mirror.TimeOriginal, "time in HEP: original, or relay (of sending it on)", mirrorText(func(m *mirrorSettings) *string { return &m.time })},
	{"mirror_capture_id", false, "own", "own (hep_capture_id), or incoming: the one that a message came with", mirrorText(func(m *mirrorSettings) *string { return &m.captureID })},
	{"mirror_max_bytes", false, "1GiB", "what may wait for one destination; the oldest beyond it are given up and counted", mirrorText(func(m *mirrorSettings) *string { return &m.maxBytes })},
	{"mirror_max_age", false, "24h", "how long it may wait", mirrorText(func(m *mirrorSettings) *string { return &m.maxAge })},
	{"mirror_ack", false, mirror.AckTCP, "over TCP and TLS a message is delivered when tcp acknowledged it, or keepalive: when another siptraced answered", mirrorText(func(m *mirrorSettings) *string { return &m.ack })},
	{"mirror_tls.ca", false, "", "PEM file with the authorities of destinations; default: the system's", mirrorText(func(m *mirrorSettings) *string { return &m.ca })},
	{"mirror_tls.certificate", false, "", "PEM file with our certificate for destinations that ask for one", mirrorText(func(m *mirrorSettings) *string { return &m.certificate })},
	{"mirror_tls.private_key", false, "", "PEM file with its key", mirrorText(func(m *mirrorSettings) *string { return &m.privateKey })},
	{"mirror_tls.server_name", false, "", "name in the destination's certificate; default: the host of its URI", mirrorText(func(m *mirrorSettings) *string { return &m.serverName })},
	{"destinations", true, "", "further mirrors, each of which takes everything that is traced", func(*Config, []string) error { return nil }},
}

func mirrorText(field func(*mirrorSettings) *string) func(*Config, []string) error {
	return func(c *Config, v []string) error { *field(&c.mirror) = v[0]; return nil }
}

// members are the members of an entry of destinations, and the parameters of
// one that is written as a URI.
var members = map[string]func(*mirrorSettings) *string{
	"uri":            func(m *mirrorSettings) *string { return &m.uri },
	"name":           func(m *mirrorSettings) *string { return &m.name },
	"protocol":       func(m *mirrorSettings) *string { return &m.protocol },
	"capture_id":     func(m *mirrorSettings) *string { return &m.captureID },
	"auth_key":       func(m *mirrorSettings) *string { return &m.authKey },
	"time":           func(m *mirrorSettings) *string { return &m.time },
	"xheaders":       func(m *mirrorSettings) *string { return &m.xheaders },
	"filter":         func(m *mirrorSettings) *string { return &m.filter },
	"send_sock_name": func(m *mirrorSettings) *string { return &m.sockName },
	"send_sock_addr": func(m *mirrorSettings) *string { return &m.sockAddr },
	"max_bytes":      func(m *mirrorSettings) *string { return &m.maxBytes },
	"max_age":        func(m *mirrorSettings) *string { return &m.maxAge },
	"ack":            func(m *mirrorSettings) *string { return &m.ack },
	"ca":             func(m *mirrorSettings) *string { return &m.ca },
	"certificate":    func(m *mirrorSettings) *string { return &m.certificate },
	"private_key":    func(m *mirrorSettings) *string { return &m.privateKey },
	"server_name":    func(m *mirrorSettings) *string { return &m.serverName },
}

func setMember(m *mirrorSettings, name, value string) error {
	field, ok := members[name]
	if !ok {
		var names []string
		for n := range members {
			names = append(names, n)
		}
		err := fmt.Errorf("a destination has no %q", name)
		if near := kamcfg.Nearest(name, names); near != "" {
			err = fmt.Errorf("%w: did you mean %q?", err, near)
		}
		return err
	}
	*field(m) = value
	return nil
}

// readMirrors makes the destinations of duplicate_uri and of the key
// destinations.
func (c *Config) readMirrors(l *loader) (problems []error) {
	add := func(place string, err error) {
		if err != nil {
			problems = append(problems, &Problem{place, err})
		}
	}
	p := &c.Params
	c.mirror.authKey, c.mirror.sockName, c.mirror.sockAddr = p.AuthKey, p.SendSockName, p.SendSockAddr
	c.Mirror = mirror.Config{SpoolBytes: c.Spool.MaxBytes, Self: c.self}
	dynamic, err := c.destination(l, c.mirror)
	if err != nil {
		return []error{&Problem{l.origin("mirror_tls.ca").place, err}}
	}
	dynamic.Protocol, dynamic.Version = mirror.ByRecord, p.HEPVersion
	c.Mirror.Dynamic = dynamic

	o := l.origin("siptrace.duplicate_uri")
	var kept []string
	for _, uri := range p.DuplicateURI {
		d, err := c.Mirror.Dynamic.At(uri)
		if err != nil {
			add(o.place, fmt.Errorf("duplicate_uri: %w", err))
			continue
		}
		if c.literalSelf(d.Target) {
			// The proxy's own file says where it mirrors to: here.
			c.Notes = append(c.Notes, fmt.Sprintf("duplicate_uri %s: that is siptraced's own listen address, not a mirror", uri))
			continue
		}
		kept = append(kept, uri)
		d.Duplicate = true
		if d.Stream() && p.HEPVersion < 3 {
			c.Notes = append(c.Notes, fmt.Sprintf("duplicate_uri %s: HEP%d packets can't be found again in a stream; HEP goes there as version 3", uri, p.HEPVersion))
		}
		if !slices.ContainsFunc(c.Mirror.Destinations, func(e mirror.Destination) bool { return e.Target == d.Target }) {
			c.Mirror.Destinations = append(c.Mirror.Destinations, d)
		}
	}
	p.DuplicateURI = kept
	problems = append(problems, c.readDestinations(l)...)
	return problems
}

func (c *Config) readDestinations(l *loader) (problems []error) {
	v, o := l.get("destinations")
	var entries []any
	switch v := v.(type) {
	case nil:
	case []any:
		entries = v
	case string:
		for _, s := range split(v, true) {
			entries = append(entries, s)
		}
	default:
		return []error{&Problem{o.place, fmt.Errorf("destinations: want a list, not %T", v)}}
	}
	var shown []string
	for i, e := range entries {
		d, err := c.entry(l, e)
		if err == nil && c.plainSelf(d.Target) {
			err = fmt.Errorf("%s is siptraced itself: every message would come back", d.URI)
		}
		if err == nil && slices.ContainsFunc(c.Mirror.Destinations, func(x mirror.Destination) bool { return x.Static && x.Name == d.Name }) {
			err = fmt.Errorf("there are two of the name %s: give one of them another name", d.Name)
		}
		if err != nil {
			problems = append(problems, &Problem{o.place, fmt.Errorf("destinations: entry %d: %w", i+1, err)})
			continue
		}
		shown = append(shown, d.Name+" "+d.Target.String()+" "+string(d.Protocol))
		c.Mirror.Destinations = append(c.Mirror.Destinations, d)
	}
	if shown != nil {
		c.value("destinations").Text = strings.Join(shown, ", ")
	}
	return problems
}

// entry reads one entry of destinations: a mapping, or a URI with the members as
// its parameters.
func (c *Config) entry(l *loader, e any) (mirror.Destination, error) {
	m := c.mirror
	m.protocol, m.xheaders = string(mirror.HEP3), ""
	switch e := e.(type) {
	case string:
		m.uri = e
		_, params, err := mirror.ParseTarget(e)
		if err != nil {
			return mirror.Destination{}, err
		}
		for name, value := range params {
			if err := setMember(&m, name, value); err != nil {
				return mirror.Destination{}, err
			}
		}
	case map[string]any:
		for name, value := range e {
			if err := setMember(&m, name, fmt.Sprint(value)); err != nil {
				return mirror.Destination{}, err
			}
		}
	default:
		return mirror.Destination{}, fmt.Errorf("want a URI or a mapping, not %T", e)
	}
	if m.uri == "" {
		return mirror.Destination{}, errors.New("it has no uri")
	}
	d, err := c.destination(l, m)
	if err != nil {
		return d, err
	}
	d.Static = true
	d, err = d.At(m.uri)
	if m.name != "" {
		d.Name = m.name
	}
	if err != nil {
		return d, err
	}
	return d, d.Validate()
}

// destination reads what is the same for all that have these settings.
func (c *Config) destination(l *loader, m mirrorSettings) (d mirror.Destination, err error) {
	d = mirror.Destination{
		Protocol: mirror.Protocol(m.protocol), Version: c.Params.HEPVersion, CaptureID: c.Params.HEPCaptureID,
		AuthKey: []byte(m.authKey), Time: m.time, Ack: m.ack, XHeaders: c.Params.XHeadersWrite,
	}
	if m.authKey == "" {
		d.AuthKey = nil
	}
	switch m.captureID {
	case "own":
	case "incoming":
		d.Incoming = true
	default:
		n, err := strconv.ParseUint(m.captureID, 10, 32)
		if err != nil {
			return d, fmt.Errorf("capture id %q: want own, incoming, or a number from 0 to 4294967295", m.captureID)
		}
		d.CaptureID = uint32(n)
	}
	if m.xheaders != "" {
		if d.XHeaders, err = strconv.ParseBool(m.xheaders); err != nil {
			return d, fmt.Errorf("xheaders: %q is neither 1 nor 0", m.xheaders)
		}
	}
	if d.MaxBytes, err = parseBytes(m.maxBytes); err != nil {
		return d, fmt.Errorf("max_bytes: %w", err)
	}
	if d.MaxAge, err = time.ParseDuration(m.maxAge); err != nil {
		return d, fmt.Errorf("max_age: %q is not a duration: write 10m, 24h", m.maxAge)
	}
	if m.filter != "" {
		f, err := flexisip.Compile(m.filter)
		if err != nil {
			return d, fmt.Errorf("filter: %w", err)
		}
		d.Filter = f
	}
	if d.Local, err = localAddr(l, m.sockName, m.sockAddr); err != nil {
		return d, err
	}
	if slices.ContainsFunc(c.Own, func(s siptrace.Socket) bool { return s.Addr == d.Local }) {
		// The proxy's own: it could not start again while we have the port.
		d.Local = netip.AddrPortFrom(d.Local.Addr(), 0)
	}
	d.TLS, err = mirrorTLS(m)
	return d, err
}

// localAddr is the address to send from; a name of a listen= line wins.
func localAddr(l *loader, name, uri string) (netip.AddrPort, error) {
	if name != "" {
		if l.proxy != nil {
			for _, li := range l.proxy.Listens {
				if li.Name == name {
					if all := l.proxy.Expand(li); len(all) > 0 {
						return all[0], nil
					}
				}
			}
		}
		return netip.AddrPort{}, fmt.Errorf("send_sock_name: there is no listen= line of the name %q", name)
	}
	if uri == "" {
		return netip.AddrPort{}, nil
	}
	t, _, err := mirror.ParseTarget(uri)
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("send_sock_addr: %w", err)
	}
	ip, err := netip.ParseAddr(t.Host)
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("send_sock_addr: %q is not an IP address", t.Host)
	}
	return netip.AddrPortFrom(ip, t.Port), nil
}

func mirrorTLS(m mirrorSettings) (*tls.Config, error) {
	c := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: m.serverName}
	if m.ca != "" {
		pem, err := os.ReadFile(m.ca)
		if err != nil {
			return nil, fmt.Errorf("ca: %w", err)
		}
		c.RootCAs = x509.NewCertPool()
		if !c.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("ca: %s holds no certificate", m.ca)
		}
	}
	if m.certificate != "" || m.privateKey != "" {
		pair, err := tls.LoadX509KeyPair(m.certificate, m.privateKey)
		if err != nil {
			return nil, fmt.Errorf("certificate, private_key: %w", err)
		}
		c.Certificates = []tls.Certificate{pair}
	}
	return c, nil
}

// literalSelf reports whether a target is plainly one of our own listening
// sockets; names are looked at when they are looked up.
func (c *Config) literalSelf(t mirror.Target) bool {
	host := t.Host
	if host == "localhost" {
		host = "127.0.0.1"
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && c.self(t.Transport, netip.AddrPortFrom(ip, t.Port))
}

// plainSelf reports whether a target is written just as one of our own listening
// sockets.
func (c *Config) plainSelf(t mirror.Target) bool {
	return slices.ContainsFunc(c.Ingest.Listen, func(l ingest.Address) bool {
		return l.Host == t.Host && l.Port == strconv.Itoa(int(t.Port)) && (l.Net == "udp") == (t.Transport == siptrace.UDP)
	})
}

// self reports whether siptraced listens on an address.
func (c *Config) self(transport siptrace.Proto, addr netip.AddrPort) bool {
	for _, l := range c.Ingest.Listen {
		n, err := net.LookupPort("tcp", l.Port)
		if err != nil || uint16(n) != addr.Port() || (l.Net == "udp") != (transport == siptrace.UDP) {
			continue
		}
		if l.Host == "" {
			if ownAddress(addr.Addr()) {
				return true
			}
			continue
		}
		if l.Host == "localhost" {
			if addr.Addr().IsLoopback() {
				return true
			}
			continue
		}
		ip, err := netip.ParseAddr(l.Host)
		if err == nil && (ip.Unmap() == addr.Addr().Unmap() || ip.IsUnspecified() && ownAddress(addr.Addr())) {
			return true
		}
	}
	return false
}

// ownAddress reports whether an address is this host's.
func ownAddress(ip netip.Addr) bool {
	if ip.IsLoopback() || ip.IsUnspecified() {
		return true
	}
	list, err := net.InterfaceAddrs()
	if err != nil {
		return false
	}
	return slices.ContainsFunc(list, func(a net.Addr) bool {
		p, err := netip.ParsePrefix(a.String())
		return err == nil && p.Addr().Unmap() == ip.Unmap()
	})
}

// noteMirrors says what works otherwise than the operator may expect.
func (c *Config) noteMirrors() {
	p := &c.Params
	if len(p.DuplicateURI) == 0 {
		return
	}
	switch {
	case c.MirrorExplicit:
		c.Notes = append(c.Notes, "mirror is explicit: duplicate_uri gets only the messages for which a rule names an address")
	case p.TraceMode&(siptrace.ModeHEP|siptrace.ModeSIP) == 0 && !p.HEPModeOn && p.TraceToDatabase:
		c.Notes = append(c.Notes, "duplicate_uri with trace_to_database 1: every message is stored and mirrored as SIP; the module from 5.3 on mirrors only where sip_trace() names an address: set mirror to explicit to have that")
	}
}
