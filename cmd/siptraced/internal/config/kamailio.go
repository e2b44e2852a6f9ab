package config

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"

	fileprovider "github.com/knadh/koanf/providers/file"
	"github.com/knadh/koanf/v2"

	"siptraced/compat/kamcfg"
	"siptraced/compat/siptrace"
)

// readKamailio reads the proxy's own configuration: the module's parameters and
// the sockets.
func (l *loader) readKamailio(path string) error {
	parser := &kamcfg.Parser{Path: path, Options: kamcfg.Options{Interfaces: interfaces}}
	k := koanf.New(".")
	if err := k.Load(fileprovider.Provider(path), parser); err != nil {
		if perr := (*kamcfg.Error)(nil); !errors.As(err, &perr) {
			return &Problem{path, err}
		}
		return err
	}
	l.proxy = parser.Config()
	// The sockets stand beside the operator's own key local; see sockets.
	k.Delete("local")
	places := parser.Places()
	place := func(key string) string { return places[key][len(places[key])-1].String() }
	for _, n := range l.proxy.Notes {
		l.notes = append(l.notes, n.Pos.String()+": "+n.Msg)
	}
	if problems := l.known(settings(k), place); len(problems) > 0 {
		return errors.Join(problems...)
	}
	return l.mergeKoanf(k, origin{}, place)
}

// interfaces are this host's, for listen= lines that name one, or all.
func interfaces() ([]kamcfg.Interface, error) {
	list, err := net.Interfaces()
	if err != nil {
		return nil, err
	}
	var out []kamcfg.Interface
	for _, i := range list {
		addrs, err := i.Addrs()
		if err != nil {
			return nil, err
		}
		k := kamcfg.Interface{Name: i.Name}
		for _, a := range addrs {
			if p, err := netip.ParsePrefix(a.String()); err == nil {
				k.Addrs = append(k.Addrs, p.Addr())
			}
		}
		out = append(out, k)
	}
	return out, nil
}

// sockets adds the proxy's listen= lines to its sockets.
func (l *loader) sockets(c *Config) (problems []error) {
	for _, s := range c.Own {
		c.Sockets = append(c.Sockets, Value{Name: "socket", Text: socketText(s), Origin: l.origin("local").place})
	}
	if l.proxy == nil {
		return nil
	}
	if len(l.proxy.Listens) == 0 {
		// Kamailio then listens on every address of the host.
		for _, text := range l.proxy.Local() {
			e, err := siptrace.ParseEndpoint(text)
			if err != nil {
				problems = append(problems, &Problem{l.kamailioCfg, err})
				continue
			}
			c.Own = append(c.Own, siptrace.Socket{Proto: e.Proto, Addr: e.Addr})
			c.Sockets = append(c.Sockets, Value{Name: "socket", Text: e.String(), Origin: "default, there is no listen"})
		}
	}
	for _, li := range l.proxy.Listens {
		var adv netip.AddrPort
		if li.AdvertiseHost != "" {
			ip, err := netip.ParseAddr(li.AdvertiseHost)
			if err == nil {
				adv = netip.AddrPortFrom(ip, uint16(li.AdvertisePort))
			} else {
				c.Notes = append(c.Notes, fmt.Sprintf("%s: advertised name %q is not looked up: name its address with the key local", li.Pos, li.AdvertiseHost))
			}
		}
		proto, ok := siptrace.ParseProto(li.Proto)
		if !ok {
			proto = siptrace.Any
		}
		for _, a := range l.proxy.Expand(li) {
			s := siptrace.Socket{Proto: proto, Addr: a, Advertised: adv}
			c.Own = append(c.Own, s)
			c.Sockets = append(c.Sockets, Value{Name: "socket", Text: socketText(s), Origin: li.Pos.String()})
		}
	}
	return problems
}

// Learn takes the sockets that the proxy itself named, in place of those that it
// named before; it reports whether they are others.
func (c *Config) Learn(found []siptrace.Socket) bool {
	if slices.Equal(c.Learned, found) {
		return false
	}
	c.Learned = found
	return true
}

func socketText(s siptrace.Socket) string {
	text := siptrace.Endpoint{Proto: s.Proto, Addr: s.Addr}.String()
	if s.Advertised.IsValid() {
		text += " advertise " + s.Advertised.String()
	}
	return text
}
