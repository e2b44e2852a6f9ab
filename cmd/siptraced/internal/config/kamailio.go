package config

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"

	fileprovider "github.com/knadh/koanf/providers/file"
	"github.com/knadh/koanf/v2"

	"siptraced/compat/kamcfg"
	"siptraced/compat/script"
	"siptraced/compat/siptrace"
)

// Keys that say which kamailio.cfg to read, and how: they come before all others.
const (
	keyKamailioCfg     = "kamailio_cfg"
	keyDefines         = "defines"
	keyKamailioListen  = "kamailio_listen"
	keyKamailioVersion = "kamailio_version"
)

// flags are the settings that have flags of their own.
func (s *Sources) flags() (out []setting) {
	text := func(key, flag, value string) {
		if value != "" {
			out = append(out, setting{name: key, value: value, text: true, place: flag})
		}
	}
	list := func(key, flag string, values []string) {
		if len(values) > 0 {
			out = append(out, setting{name: key, value: values, place: flag})
		}
	}
	text(keyKamailioCfg, "--kamailio-cfg", s.KamailioCfg)
	list(keyDefines, "--define", s.Kamailio.Defines)
	list(keyKamailioListen, "-l", s.Kamailio.Listens)
	text(keyKamailioVersion, "--kamailio-version", s.Kamailio.Version)
	return out
}

// readProxy takes a setting that says which kamailio.cfg to read, and how.
func (f *sources) readProxy(s setting) error {
	var field *string
	switch s.name {
	case keyKamailioCfg:
		field = &f.kamailioCfg
	case keyKamailioVersion:
		field = &f.kamailio.Version
	case keyDefines, keyKamailioListen:
		values, err := s.texts(true)
		if s.name == keyDefines {
			f.kamailio.Defines = values
		} else {
			f.kamailio.Listens = values
		}
		return err
	default:
		return nil
	}
	values, err := s.texts(false)
	if err == nil {
		*field = values[0]
	}
	return err
}

// readKamailio reads the proxy's own configuration: the module's parameters and
// the sockets.
func (f *sources) readKamailio() ([]setting, error) {
	parser := &kamcfg.Parser{Path: f.kamailioCfg, Options: readAs(f.kamailio)}
	k := koanf.New(".")
	if err := k.Load(fileprovider.Provider(f.kamailioCfg), parser); err != nil {
		if perr := (*kamcfg.Error)(nil); !errors.As(err, &perr) {
			return nil, &Problem{f.kamailioCfg, err}
		}
		return nil, err
	}
	f.proxy = parser.Config()
	if err := f.withoutModule(); err != nil {
		return nil, err
	}
	// The sockets stand beside the operator's own key local; see readSockets.
	k.Delete("local")
	for _, n := range f.proxy.Notes {
		f.notes = append(f.notes, n.String())
	}
	places := parser.Places()
	return settingsOf(k, func(key string) setting {
		return setting{place: places[key][len(places[key])-1].String(), by: byProxy}
	}), nil
}

// withoutModule refuses parameters of a module that isn't loaded, as Kamailio does.
func (f *sources) withoutModule() error {
	if f.loadsModule() {
		return nil
	}
	for _, par := range f.proxy.Params {
		if par.Module == moduleName {
			return &Problem{par.Pos.String(), fmt.Errorf("modparam(%q, %q) without loadmodule \"siptrace.so\": Kamailio refuses the file (no module matching siptrace). %s", par.Module, par.Name, f.howToLoad("If the file is a part of another one, name that one"))}
		}
	}
	return nil
}

// howToLoad says what would load the module; otherwise is for a file without any
// loadmodule for it.
func (f *sources) howToLoad(otherwise string) string {
	for _, s := range f.proxy.Skipped {
		if s.Name != moduleName {
			continue
		}
		var within, flags []string
		for _, c := range s.Within {
			within = append(within, c.String())
			if name := c.Define(); name != "" {
				flags = append(flags, "--define "+name)
			}
		}
		text := fmt.Sprintf("It is loaded at %s only within %s", s.Pos, strings.Join(within, " and "))
		if len(flags) < len(within) {
			return text + ", which doesn't hold"
		}
		return text + ": if Kamailio is started with that (-A), say so here too: " + strings.Join(flags, " ")
	}
	return otherwise
}

// ProxyTraces reports whether the proxy's own configuration was read and has the
// module.
func (c *Config) ProxyTraces() bool {
	return c.sources.proxy != nil && c.sources.loadsModule()
}

// loadsModule reports whether the proxy has the module. One whose name isn't known may
// be it.
func (f *sources) loadsModule() bool {
	return f.proxy.Loads(moduleName) || slices.ContainsFunc(f.proxy.Modules, func(m kamcfg.Module) bool { return strings.Contains(m.Name, "$") })
}

// warnModule says that the proxy mirrors nothing yet.
func (c *Config) warnModule() {
	if c.sources.proxy != nil && !c.ProxyTraces() {
		c.Warnings = append(c.Warnings, fmt.Sprintf("siptrace is not loaded in %s: that proxy mirrors nothing. siptraced runs as without a kamailio.cfg, but for the sockets. %s",
			c.KamailioCfg, c.sources.howToLoad("Put the lines that siptraced run prints into it")))
	}
}

// readAs are those for reading a kamailio.cfg: the proxy is taken to run on
// this host.
func readAs(line kamcfg.CommandLine) kamcfg.Options {
	return kamcfg.Options{CommandLine: line, Interfaces: interfaces, HostName: HostName, Transform: script.Transform}
}

// HostName is $HN(part) as Kamailio's module ipops has it.
func HostName(part string) (string, error) {
	name, err := os.Hostname()
	if err != nil || part == "n" {
		return name, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), lookupTimeout)
	defer cancel()
	switch part {
	case "f", "d":
		full, err := net.DefaultResolver.LookupCNAME(ctx, name)
		if err != nil {
			return "", fmt.Errorf("the host's own name can't be looked up: %w", err)
		}
		full = strings.TrimSuffix(full, ".")
		if _, domain, _ := strings.Cut(full, "."); part == "d" {
			return domain, nil
		}
		return full, nil
	case "i":
		ips, err := net.DefaultResolver.LookupNetIP(ctx, "ip4", name)
		if err != nil {
			return "", fmt.Errorf("the host's own name can't be looked up: %w", err)
		}
		return ips[0].Unmap().String(), nil
	}
	return "", errors.New("$HN has n, f, d and i")
}

// lookupTimeout bounds the look-up of the host's own name, which is in its files
// as a rule.
const lookupTimeout = 2 * time.Second

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

// readSockets adds the proxy's listen= lines to its sockets.
func (c *Config) readSockets() (problems []error) {
	for _, e := range c.local {
		c.Own = append(c.Own, siptrace.Socket{Proto: e.Proto, Addr: e.Addr})
		c.Sockets = append(c.Sockets, Value{Name: "socket", Text: e.String(), Origin: c.place("local")})
	}
	proxy := c.sources.proxy
	if proxy == nil {
		return nil
	}
	if len(proxy.Listens) == 0 {
		// Kamailio then listens on every address of the host.
		for _, text := range proxy.Local() {
			e, err := siptrace.ParseEndpoint(text)
			if err != nil {
				problems = append(problems, &Problem{c.KamailioCfg, err})
				continue
			}
			c.Own = append(c.Own, siptrace.Socket{Proto: e.Proto, Addr: e.Addr})
			c.Sockets = append(c.Sockets, Value{Name: "socket", Text: e.String(), Origin: defaultFor("there is no listen")})
		}
	}
	for _, li := range proxy.Listens {
		var adv netip.AddrPort
		if li.AdvertiseHost != "" {
			ip, err := netip.ParseAddr(li.AdvertiseHost)
			if err == nil {
				adv = netip.AddrPortFrom(ip, uint16(li.AdvertisePort))
			} else {
				c.Notes = append(c.Notes, fmt.Sprintf("%s: advertised name %q is not looked up: name its address with the key local", li.Pos, li.AdvertiseHost))
			}
		}
		for _, one := range proxy.Protocols(li) {
			proto, ok := siptrace.ParseProto(one.Proto)
			if !ok {
				proto = siptrace.Any
			}
			for _, a := range proxy.Expand(one) {
				s := siptrace.Socket{Proto: proto, Addr: a, Advertised: adv}
				c.Own = append(c.Own, s)
				c.Sockets = append(c.Sockets, Value{Name: "socket", Text: socketText(s), Origin: li.Pos.String()})
			}
		}
	}
	return problems
}

func socketText(s siptrace.Socket) string {
	text := siptrace.Endpoint{Proto: s.Proto, Addr: s.Addr}.String()
	if s.Advertised.IsValid() {
		text += " advertise " + s.Advertised.String()
	}
	return text
}
