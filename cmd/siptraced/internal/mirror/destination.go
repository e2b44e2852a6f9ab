package mirror

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"siptraced/cmd/siptraced/internal/loop"
	"siptraced/compat/sipmsg"
	"siptraced/compat/siptrace"
)

// Protocol is what a destination is spoken to in.
type Protocol string

// The protocols. ByRecord is that of duplicate_uri: each record says whether it
// goes as HEP, in the version of the parameters, as SIP, or as both.
const (
	ByRecord Protocol = ""
	HEP1     Protocol = "hep1"
	HEP2     Protocol = "hep2"
	HEP3     Protocol = "hep3"
	SIP      Protocol = "sip"
)

// What makes a message count as delivered over TCP and TLS.
const (
	AckTCP       = "tcp"       // the peer's TCP acknowledged it
	AckKeepAlive = "keepalive" // the peer answered a HEP3 keep-alive behind it
)

// Times in HEP.
const (
	TimeOriginal = "original" // of the message
	TimeRelay    = "relay"    // of sending it on, as the module does
)

// Filter chooses messages for a destination. Safe for concurrent use.
type Filter interface {
	Match(m *sipmsg.Message, rec *siptrace.Record) bool
}

// Destination is one mirror.
type Destination struct {
	// Name is unique, and part of the names of counters: letters, digits, '-',
	// '_' and '.'.
	Name string
	URI  string // as it was written
	Target
	Protocol Protocol
	Version  int // of HEP, where the record chooses the protocol
	// Static: it takes every traced message. Otherwise it takes what rules send there,
	// and, with Duplicate, what is meant for duplicate_uri.
	Static, Duplicate bool

	CaptureID uint32
	// Incoming keeps the capture id with which a message came by HEP.
	Incoming bool
	AuthKey  []byte
	Time     string // TimeOriginal or TimeRelay
	XHeaders bool   // SIP: write the X-Siptrace headers
	Filter   Filter // nil: everything
	// Local is the address to send from; a port that is taken is left to the
	// kernel. Zero: the kernel chooses.
	Local netip.AddrPort
	TLS   *tls.Config
	Ack   string
	// MaxBytes and MaxAge bound the backlog: what is beyond them expires, the oldest
	// first.
	MaxBytes int64
	MaxAge   time.Duration

	// marks is since when MarkedCopies counts the destination, if it does.
	marks time.Time
}

// Target is where a destination is.
type Target struct {
	Host      string // without brackets
	Port      uint16
	Transport siptrace.Proto // UDP, TCP, TLS
}

// String is the target in one form, whatever way its URI was written.
func (t Target) String() string {
	return "sip:" + net.JoinHostPort(t.Host, strconv.Itoa(int(t.Port))) + ";transport=" + string(t.Transport)
}

// ParseTarget reads a URI as [siptrace.ParseMirrorURI] does. Parameters other than
// transport are returned by name.
func ParseTarget(uri string) (Target, map[string]string, error) {
	u, err := siptrace.ParseMirrorURI([]byte(uri))
	if err != nil {
		return Target{}, nil, err
	}
	t := Target{Host: u.HostName(), Port: u.Port, Transport: u.Transport}
	params := map[string]string{}
	for p := range strings.SplitSeq(string(u.Params), ";") {
		name, value, _ := strings.Cut(p, "=")
		if name != "" {
			params[strings.ToLower(strings.TrimSpace(name))] = strings.TrimSpace(value)
		}
	}
	delete(params, "transport")
	if ip, err := netip.ParseAddr(t.Host); err == nil {
		t.Host = ip.Unmap().String()
	}
	return t, params, nil
}

// DefaultName is a name made of the target.
func (t Target) DefaultName() string {
	return CleanName(t.Host + "-" + strconv.Itoa(int(t.Port)) + "-" + string(t.Transport))
}

// CleanName replaces what a name can't have.
func CleanName(s string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case 'a' <= r && r <= 'z', 'A' <= r && r <= 'Z', '0' <= r && r <= '9', r == '-', r == '_', r == '.':
			return r
		}
		return '_'
	}, s)
}

// Stream reports whether the destination is reached over TCP or TLS.
func (t Target) Stream() bool { return t.Transport != siptrace.UDP }

// Validate reports the first value that can't work.
func (d *Destination) Validate() error {
	switch {
	case d.Name == "" || CleanName(d.Name) != d.Name || strings.Trim(d.Name, ".") != d.Name:
		return fmt.Errorf("name %q: letters, digits, '-', '_' and inner '.' are possible", d.Name)
	case !slices.Contains([]Protocol{ByRecord, HEP1, HEP2, HEP3, SIP}, d.Protocol):
		return fmt.Errorf("protocol %q: use hep1, hep2, hep3 or sip", d.Protocol)
	case d.Stream() && (d.Protocol == HEP1 || d.Protocol == HEP2):
		return fmt.Errorf("protocol %s over %s: the packets of HEP1 and HEP2 have no length, nobody finds them in a stream again; use hep3, or udp", d.Protocol, d.Transport)
	case d.Ack != AckTCP && d.Ack != AckKeepAlive:
		return fmt.Errorf("ack %q: use %s or %s", d.Ack, AckTCP, AckKeepAlive)
	case d.Time != TimeOriginal && d.Time != TimeRelay:
		return fmt.Errorf("time %q: use %s or %s", d.Time, TimeOriginal, TimeRelay)
	case d.MaxBytes < 1<<20:
		return fmt.Errorf("max_bytes is %d: at least 1 MiB", d.MaxBytes)
	case d.MaxAge < time.Second:
		return fmt.Errorf("max_age is %s: at least 1s", d.MaxAge)
	case d.Transport == siptrace.TLS && d.TLS == nil:
		return errors.New("no TLS settings")
	}
	return nil
}

// Config is what the mirrors need to know.
type Config struct {
	// Destinations are those of the configuration.
	Destinations []Destination
	// Dynamic has the settings of a destination that a rule names, or that
	// duplicate_uri names at run time: all but Name, URI and Target.
	Dynamic Destination
	// SpoolBytes is the spool's own bound; 0: none. Whatever waits for mirrors
	// stays under half of it, so that it never keeps new messages out.
	SpoolBytes int64
	// Loops is told of what is sent, and marks it; nil: nobody does. Open takes it.
	Loops *loop.Detector
	// Self reports whether an address is one that siptraced listens on.
	Self func(transport siptrace.Proto, addr netip.AddrPort) bool
	// Lookup finds the addresses of a host; nil: the system's name servers and hosts
	// file do. It is not called for an address.
	Lookup func(ctx context.Context, host string) ([]netip.Addr, error)
	// Dial connects from local, where that is a valid address, to a peer; network is
	// "tcp" or "udp". The result is a StreamConn or a *net.UDPConn. nil: the system
	// does. Open takes it.
	Dial func(ctx context.Context, network string, local, remote netip.AddrPort) (net.Conn, error)
}

// Validate reports the first destination that can't work.
func (c *Config) Validate() error {
	for _, d := range c.Destinations {
		if err := d.Validate(); err != nil {
			return fmt.Errorf("mirror %s: %w", d.URI, err)
		}
	}
	return nil
}

// WithDuplicateURI is c with other values of the parameters duplicate_uri and
// xheaders_write. Static destinations keep what they have.
func (c Config) WithDuplicateURI(uris []string, xheaders bool) (Config, error) {
	c.Dynamic.XHeaders = xheaders
	c.Destinations = slices.DeleteFunc(slices.Clone(c.Destinations), func(d Destination) bool { return !d.Static })
	var first []Destination
	for _, uri := range uris {
		d, err := c.dynamic(uri)
		if err != nil {
			return c, fmt.Errorf("duplicate_uri: %w", err)
		}
		if d.Duplicate = true; !slices.ContainsFunc(first, func(o Destination) bool { return o.Target == d.Target }) {
			first = append(first, d)
		}
	}
	c.Destinations = slices.Concat(first, c.Destinations)
	return c, nil
}

// MaxDynamic bounds the destinations that rules name.
const MaxDynamic = 64

// At is the destination with these settings at a URI, under the name that it has
// by default. It is not validated.
func (d Destination) At(uri string) (Destination, error) {
	t, _, err := ParseTarget(uri)
	if err != nil {
		return d, err
	}
	d.Name, d.URI, d.Target = t.DefaultName(), uri, t
	if t.Transport == siptrace.TLS {
		if d.TLS = d.TLS.Clone(); d.TLS == nil {
			d.TLS = &tls.Config{MinVersion: tls.VersionTLS12}
		}
		if d.TLS.ServerName == "" {
			d.TLS.ServerName = t.Host
		}
	}
	return d, nil
}

// dynamic makes a destination of a URI with the settings of Dynamic.
func (c *Config) dynamic(uri string) (Destination, error) {
	d, err := c.Dynamic.At(uri)
	if err != nil {
		return d, err
	}
	if ip, err := netip.ParseAddr(d.Host); err == nil && c.Self != nil && c.Self(d.Transport, netip.AddrPortFrom(ip, d.Port)) {
		return d, fmt.Errorf("%s: %w", uri, errSelf)
	}
	return d, d.Validate()
}
