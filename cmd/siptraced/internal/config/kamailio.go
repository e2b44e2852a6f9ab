package config

import (
	"fmt"
	"net/netip"

	"siptraced/compat/kamcfg"
	"siptraced/compat/siptrace"
)

// readKamailio reads the proxy's own configuration: the module's parameters and
// the sockets.
func (l *loader) readKamailio(path string) error {
	proxy, err := kamcfg.Parse(path, kamcfg.Options{})
	if err != nil {
		return err
	}
	l.proxy = proxy
	values, places := map[string]any{}, map[string]string{}
	for _, p := range proxy.Params {
		if !p.For("siptrace") {
			continue
		}
		if _, err := siptrace.Lookup(p.Name); err != nil {
			return &Problem{p.Pos.String(), err}
		}
		key := "siptrace." + p.Name
		values[key], places[key] = p.Value.Any(), p.Pos.String()
	}
	for _, n := range proxy.Notes {
		l.notes = append(l.notes, n.Pos.String()+": "+n.Msg)
	}
	return l.merge(values, origin{}, func(key string) string { return places[key] })
}

// sockets adds the proxy's listen= lines to its sockets.
func (l *loader) sockets(c *Config) (problems []error) {
	for _, s := range c.Own {
		c.Sockets = append(c.Sockets, Value{Name: "socket", Text: socketText(s), Origin: l.origin("local").place})
	}
	if l.proxy == nil {
		return nil
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
	return nil
}

func socketText(s siptrace.Socket) string {
	text := siptrace.Endpoint{Proto: s.Proto, Addr: s.Addr}.String()
	if s.Advertised.IsValid() {
		text += " advertise " + s.Advertised.String()
	}
	return text
}
