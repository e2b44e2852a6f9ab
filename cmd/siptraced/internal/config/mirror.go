package config

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"time"

	"siptraced/cmd/siptraced/internal/ingest"
	"siptraced/cmd/siptraced/internal/mirror"
	"siptraced/compat/kamcfg"
	"siptraced/compat/siptrace"
)

// What the key mirror.mode says of duplicate_uri.
const (
	mirrorAll      = "all"      // it takes every traced message
	mirrorExplicit = "explicit" // it takes what a rule names, as the module from 5.3 on
)

// destination is an entry of destinations, and what the keys mirror.* say for all
// of them.
type destination struct {
	name, uri          string
	protocol           mirror.Protocol
	capture            captureID
	authKey            string
	time, ack          string
	xheaders           *bool // nil: as xheaders_write
	filter             string
	sockName, sockAddr string
	maxBytes           int64
	maxAge             time.Duration
	tls                tlsFiles
}

// captureID is hep_capture_id, the one that a message came with, or a number.
type captureID struct {
	incoming, number bool
	id               uint32
}

const (
	captureOwn      = "own"
	captureIncoming = "incoming"
)

func parseCaptureID(s string) (captureID, error) {
	switch s {
	case captureOwn:
		return captureID{}, nil
	case captureIncoming:
		return captureID{incoming: true}, nil
	}
	n, err := strconv.ParseUint(s, 10, 32)
	if err != nil {
		return captureID{}, fmt.Errorf("%q: want own, incoming, or a number from 0 to 4294967295", s)
	}
	return captureID{number: true, id: uint32(n)}, nil
}

func (c captureID) String() string {
	switch {
	case c.incoming:
		return captureIncoming
	case c.number:
		return strconv.FormatUint(uint64(c.id), 10)
	}
	return captureOwn
}

func defaultDestination() destination {
	return destination{time: mirror.TimeOriginal, ack: mirror.AckTCP, maxBytes: 1 << 30, maxAge: 24 * time.Hour}
}

// member is a member of an entry of destinations, which is a parameter as well
// where the entry is written as a URI.
type member struct {
	name string
	set  func(*destination, string) error
	// general is the key that holds for the entries that don't have the member;
	// empty: there is none.
	general string
}

// members lists what an entry can have.
func members() []member {
	plain := func(field func(*destination) *string) func(*destination, string) error {
		return func(d *destination, s string) error { *field(d) = s; return nil }
	}
	return []member{
		{"uri", plain(func(d *destination) *string { return &d.uri }), ""},
		{"name", plain(func(d *destination) *string { return &d.name }), ""},
		{"protocol", plain(func(d *destination) *string { return (*string)(&d.protocol) }), ""},
		{"capture_id", parsed(func(d *destination) *captureID { return &d.capture }, parseCaptureID), "mirror.capture_id"},
		{"auth_key", plain(func(d *destination) *string { return &d.authKey }), module + "auth_key"},
		{"time", plain(func(d *destination) *string { return &d.time }), "mirror.time"},
		{"xheaders", func(d *destination, s string) error {
			on, err := parseFlag(s)
			d.xheaders = &on
			return err
		}, module + "xheaders_write"},
		{"filter", plain(func(d *destination) *string { return &d.filter }), ""},
		{"send_sock_name", plain(func(d *destination) *string { return &d.sockName }), module + "send_sock_name"},
		{"send_sock_addr", plain(func(d *destination) *string { return &d.sockAddr }), module + "send_sock_addr"},
		{"max_bytes", parsed(func(d *destination) *int64 { return &d.maxBytes }, parseBytes), "mirror.max_bytes"},
		{"max_age", parsed(func(d *destination) *time.Duration { return &d.maxAge }, parseDuration), "mirror.max_age"},
		{"ack", plain(func(d *destination) *string { return &d.ack }), "mirror.ack"},
		{"ca", plain(func(d *destination) *string { return &d.tls.ca }), "mirror.tls.ca"},
		{"certificate", plain(func(d *destination) *string { return &d.tls.certificate }), "mirror.tls.certificate"},
		{"private_key", plain(func(d *destination) *string { return &d.tls.privateKey }), "mirror.tls.private_key"},
		{"server_name", plain(func(d *destination) *string { return &d.tls.serverName }), "mirror.tls.server_name"},
	}
}

func parsed[T any](field func(*destination) *T, parse func(string) (T, error)) func(*destination, string) error {
	return func(d *destination, s string) error {
		v, err := parse(s)
		if err == nil {
			*field(d) = v
		}
		return err
	}
}

func (d *destination) set(name, value string) error {
	var names []string
	for _, m := range members() {
		if m.name == name {
			if err := m.set(d, value); err != nil {
				return &keyError{name, err}
			}
			return nil
		}
		names = append(names, m.name)
	}
	err := fmt.Errorf("a destination has no %q", name)
	if near := kamcfg.Nearest(name, names); near != "" {
		err = fmt.Errorf("%w: did you mean %q?", err, near)
	}
	return err
}

func mirrorKeys() []Key {
	bounds := func(c *Config) error { return c.mirror.validate() }
	m := func(name, old, doc string, a access) Key {
		return Key{Name: "mirror." + name, Old: old, Doc: doc, access: a, check: bounds}
	}
	capture := scalar(func(c *Config) *captureID { return &c.mirror.capture }, parseCaptureID)
	return []Key{
		m("mode", "mirror", "what `duplicate_uri` takes: `all` traced messages, or `explicit`: those for which a rule or `sip_trace()` names an address, as the module from 5.3 on with `trace_to_database` 1, and what `trace_mode` 1 and 4 mirror", mirrorMode()),
		m("time", "mirror_time", "time in HEP: `original`, or `relay`: of sending it on, as the module does with SIP that it relays", text(func(c *Config) *string { return &c.mirror.time })),
		m("capture_id", "mirror_capture_id", "`own`: `hep_capture_id`; `incoming`: the one that a message came with; or a number", capture),
		m("max_bytes", "mirror_max_bytes", "what may wait for one destination, never more than half of `spool.max_bytes`; the oldest messages beyond it expire for that destination, and are counted", bytes(func(c *Config) *int64 { return &c.mirror.maxBytes })),
		m("max_age", "mirror_max_age", "how long it may wait", duration(func(c *Config) *time.Duration { return &c.mirror.maxAge })),
		m("ack", "mirror_ack", "over TCP and TLS a message is delivered when the peer's TCP has acknowledged it (`tcp`), or when the peer answered a HEP3 keep-alive behind it (`keepalive`), as another siptraced does when it is in its spool", text(func(c *Config) *string { return &c.mirror.ack })),
		m("tls.ca", "mirror_tls.ca", "PEM file with the authorities of destinations; default: the system's", text(func(c *Config) *string { return &c.mirror.tls.ca })),
		m("tls.certificate", "mirror_tls.certificate", "PEM file with our certificate for destinations that ask for one", text(func(c *Config) *string { return &c.mirror.tls.certificate })),
		m("tls.private_key", "mirror_tls.private_key", "PEM file with its key", text(func(c *Config) *string { return &c.mirror.tls.privateKey })),
		m("tls.server_name", "mirror_tls.server_name", "name in the destination's certificate; default: the host of its URI", text(func(c *Config) *string { return &c.mirror.tls.serverName })),
		{Name: "destinations", List: true, Doc: "mirrors beside `duplicate_uri`, each of which takes everything that is traced: URIs with members as parameters, or mappings", access: access{
			get:  func(c *Config) any { return c.entries },
			from: func(c *Config, s setting) error { return c.readDestinations(s) },
			show: func(c *Config) string { return c.describeDestinations() },
		}},
	}
}

func mirrorMode() access {
	return access{
		get: func(c *Config) any {
			if c.MirrorExplicit {
				return mirrorExplicit
			}
			return mirrorAll
		},
		set: func(c *Config, v []string) error {
			if v[0] != mirrorAll && v[0] != mirrorExplicit {
				return fmt.Errorf("%q: use %s or %s", v[0], mirrorAll, mirrorExplicit)
			}
			c.MirrorExplicit = v[0] == mirrorExplicit
			return nil
		},
	}
}

// validate reports the first of the general values that can't work.
func (d *destination) validate() error {
	m := mirror.Destination{Name: "all", Time: d.time, Ack: d.ack, MaxBytes: d.maxBytes, MaxAge: d.maxAge}
	m.Transport = siptrace.UDP
	if err := m.Validate(); err != nil {
		return fmt.Errorf("mirror.%w", err)
	}
	return nil
}

// readDestinations reads the entries of the key destinations. They take over
// general settings that may stand further down, so that they are made later.
func (c *Config) readDestinations(s setting) error {
	var entries []any
	switch v := s.value.(type) {
	case []any:
		entries = v
	case string:
		for _, e := range split(v) {
			entries = append(entries, e)
		}
	default:
		return fmt.Errorf("destinations: want a list, not %T", v)
	}
	c.entries = entries
	return nil
}

// finishMirrors makes the destinations of duplicate_uri and of the key
// destinations.
func (c *Config) finishMirrors() []error {
	p := &c.Params
	general := c.mirror
	general.authKey, general.sockName, general.sockAddr = p.AuthKey, p.SendSockName, p.SendSockAddr
	c.Mirror = mirror.Config{SpoolBytes: c.Spool.MaxBytes, Self: c.self}
	dynamic, err := c.makeDestination(general)
	if err != nil {
		return []error{c.generalProblem(err)}
	}
	dynamic.Protocol, dynamic.Version = mirror.ByRecord, p.HEPVersion
	c.Mirror.Dynamic = dynamic
	return append(c.finishDuplicates(), c.finishDestinations(general)...)
}

// generalProblem adds the place of the general key of a member.
func (c *Config) generalProblem(err error) error {
	var k *keyError
	if errors.As(err, &k) {
		for _, m := range members() {
			if m.name == k.key {
				return c.problem(m.general, &keyError{m.general, k.err})
			}
		}
	}
	return c.problem("destinations", err)
}

func (c *Config) finishDuplicates() (problems []error) {
	const key = module + "duplicate_uri"
	p := &c.Params
	_, remote := c.remote[key]
	var kept []string
	for _, uri := range p.DuplicateURI {
		d, err := c.Mirror.Dynamic.At(uri)
		self := err == nil && c.literalSelf(d.Target)
		if self && remote {
			err = fmt.Errorf("%s is siptraced itself: every message would come back", uri)
		}
		if err != nil {
			problems = append(problems, c.problem(key, fmt.Errorf("duplicate_uri: %w", err)))
			continue
		}
		if self {
			// The proxy's own file says where it mirrors to: here.
			c.Remarks = append(c.Remarks, fmt.Sprintf("duplicate_uri %s: that is siptraced's own listen address, not a mirror", uri))
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
	return problems
}

func (c *Config) finishDestinations(general destination) (problems []error) {
	s, _ := c.setting("destinations")
	for i, e := range c.entries {
		d, err := c.readEntry(general, e)
		if err == nil && c.plainSelf(d.Target) {
			err = fmt.Errorf("%s is siptraced itself: every message would come back", d.URI)
		}
		if err == nil && slices.ContainsFunc(c.Mirror.Destinations, func(x mirror.Destination) bool { return x.Static && x.Name == d.Name }) {
			err = fmt.Errorf("there are two of the name %s: give one of them another name", d.Name)
		}
		if err != nil {
			place := s.place
			for _, part := range []string{fmt.Sprintf("[%d]", i), memberPart(i, err)} {
				if at, ok := s.lines[part]; ok {
					place = at
				}
			}
			problems = append(problems, &Problem{place, fmt.Errorf("destinations: entry %d: %w", i+1, withoutKeys(err, e))})
			continue
		}
		c.Mirror.Destinations = append(c.Mirror.Destinations, d)
	}
	return problems
}

// memberPart is the part of the list that an error is about.
func memberPart(i int, err error) string {
	var k *keyError
	if errors.As(err, &k) {
		return fmt.Sprintf("[%d].%s", i, k.key)
	}
	return ""
}

// readEntry reads one entry of destinations: a mapping, or a URI with the members
// as its parameters.
func (c *Config) readEntry(general destination, e any) (d mirror.Destination, err error) {
	entry := general
	entry.protocol = mirror.HEP3
	switch e := e.(type) {
	case string:
		entry.uri = e
		_, params, err := mirror.ParseTarget(e)
		if err != nil {
			return d, err
		}
		for name, value := range params {
			if err := entry.set(name, value); err != nil {
				return d, err
			}
		}
	case map[string]any:
		for name, value := range e {
			if err := entry.set(name, fmt.Sprint(value)); err != nil {
				return d, err
			}
		}
	default:
		return d, fmt.Errorf("want a URI or a mapping, not %T", e)
	}
	if entry.uri == "" {
		return d, errors.New("it has no uri")
	}
	if d, err = c.makeDestination(entry); err != nil {
		return d, err
	}
	d.Static = true
	if d, err = d.At(entry.uri); err != nil {
		return d, err
	}
	d.URI = maskKeys(d.URI)
	if entry.name != "" {
		d.Name = entry.name
	}
	return d, d.Validate()
}

func (c *Config) describeDestinations() string {
	var texts []string
	for _, d := range c.Mirror.Destinations {
		if d.Static {
			texts = append(texts, d.Name+" "+d.Target.String()+" "+string(d.Protocol))
		}
	}
	return format(texts)
}

// makeDestination makes what is the same for all destinations with these settings.
// The keys of errors are members.
func (c *Config) makeDestination(e destination) (d mirror.Destination, err error) {
	d = mirror.Destination{
		Protocol: e.protocol, Version: c.Params.HEPVersion, CaptureID: c.Params.HEPCaptureID, Incoming: e.capture.incoming,
		Time: e.time, Ack: e.ack, XHeaders: c.Params.XHeadersWrite, MaxBytes: e.maxBytes, MaxAge: e.maxAge,
	}
	if e.authKey != "" {
		d.AuthKey = []byte(e.authKey)
	}
	if e.capture.number {
		d.CaptureID = e.capture.id
	}
	if e.xheaders != nil {
		d.XHeaders = *e.xheaders
	}
	if e.filter != "" {
		f, err := c.cache.filter(e.filter)
		if err != nil {
			return d, &keyError{"filter", err}
		}
		d.Filter = f
	}
	if d.Local, err = c.localAddr(e.sockName, e.sockAddr); err != nil {
		return d, err
	}
	if slices.ContainsFunc(c.Own, func(s siptrace.Socket) bool { return s.Addr == d.Local }) {
		// The proxy's own: it could not start again while we have the port.
		d.Local = netip.AddrPortFrom(d.Local.Addr(), 0)
	}
	d.TLS, err = c.cache.client(e.tls)
	return d, err
}

// localAddr is the address to send from; a name of a listen= line wins.
func (c *Config) localAddr(name, uri string) (netip.AddrPort, error) {
	if name != "" {
		if proxy := c.sources.proxy; proxy != nil {
			for _, li := range proxy.Listens {
				if li.Name == name {
					if all := proxy.Expand(li); len(all) > 0 {
						return all[0], nil
					}
				}
			}
		}
		return netip.AddrPort{}, &keyError{"send_sock_name", fmt.Errorf("there is no listen= line of the name %q", name)}
	}
	if uri == "" {
		return netip.AddrPort{}, nil
	}
	t, _, err := mirror.ParseTarget(uri)
	if err != nil {
		return netip.AddrPort{}, &keyError{"send_sock_addr", err}
	}
	ip, err := netip.ParseAddr(t.Host)
	if err != nil {
		return netip.AddrPort{}, &keyError{"send_sock_addr", fmt.Errorf("%q is not an IP address", t.Host)}
	}
	return netip.AddrPortFrom(ip, t.Port), nil
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
		family := ip.Is6() || addr.Addr().Unmap().Is4() // 0.0.0.0 takes IPv4 alone
		if err == nil && (ip.Unmap() == addr.Addr().Unmap() || ip.IsUnspecified() && family && ownAddress(addr.Addr())) {
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
		c.Notes = append(c.Notes, "mirror.mode is explicit: duplicate_uri gets only the messages for which a rule names an address")
	case p.TraceMode&(siptrace.ModeHEP|siptrace.ModeSIP) == 0 && !p.HEPModeOn && p.TraceToDatabase:
		c.Notes = append(c.Notes, "duplicate_uri with trace_to_database 1: every message is stored and mirrored as SIP; the module from 5.3 on mirrors only where sip_trace() names an address: set mirror.mode to explicit to have that")
	}
}
