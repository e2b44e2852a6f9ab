package config

import (
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"
	"time"
	_ "time/tzdata" // time zones on hosts without them

	"siptraced/cmd/siptraced/internal/ingest"
	"siptraced/cmd/siptraced/internal/mirror"
	"siptraced/cmd/siptraced/internal/rules"
	"siptraced/cmd/siptraced/internal/spool"
	"siptraced/cmd/siptraced/internal/store"
	"siptraced/compat/siptrace"
)

// Config is the whole effective configuration.
type Config struct {
	Params siptrace.Params
	Own    []siptrace.Socket // the proxy's sockets
	// Learned are those that the proxy itself named, see Learn.
	Learned []siptrace.Socket
	Ingest  ingest.Config
	Spool   spool.Config
	Store   store.Config
	RPC     RPC
	// Rules are the event route and the filter rules; EventRoute is the key.
	Rules      rules.Config
	EventRoute string
	// OpenSER has the defaults of the module of 2006 hold.
	OpenSER bool
	// Mirror has the destinations. MirrorExplicit: duplicate_uri gets only what a
	// rule sends there.
	Mirror         mirror.Config
	MirrorExplicit bool
	mirror         mirrorSettings

	TLSCertificate, TLSPrivateKey, TLSClientCA string
	LogLevel                                   slog.Level
	ShutdownTimeout                            time.Duration
	MemoryLimit                                int64 // bytes

	// Values are the effective settings in a fixed order, Sockets the proxy's
	// with their places.
	Values  []Value
	Sockets []Value
	// Notes say what works otherwise than the operator may expect.
	Notes []string
	// KamailioCfg is the proxy's configuration that was read, or empty.
	KamailioCfg string
}

// Value is one effective setting.
type Value struct {
	Name   string
	Text   string // secrets are masked
	Origin string // file:line, the environment's name, --set, default
	Note   string
}

func (v Value) String() string {
	s := fmt.Sprintf("%s = %s  (%s)", v.Name, v.Text, v.Origin)
	if v.Note != "" {
		s += "  # " + v.Note
	}
	return s
}

// Sources are the places to read.
type Sources struct {
	KamailioCfg string   // --kamailio-cfg
	File        string   // -c
	Set         []string // --set key=value
	Environ     []string // os.Environ()
}

// Problem is one error in the configuration.
type Problem struct {
	Place string // file:line, or what stands for it
	Err   error
}

func (p *Problem) Error() string { return p.Place + ": " + p.Err.Error() }

// Unwrap gives what is wrong there.
func (p *Problem) Unwrap() error { return p.Err }

// embedded is what holds when there is no kamailio.cfg: the main job, without
// any set-up.
var embedded = map[string]any{
	"siptrace.db_url":   "sqlite://siptraced.db",
	"siptrace.trace_on": int64(1),
}

// Load reads all places. The error joins every *Problem found.
func Load(src Sources) (*Config, error) {
	l := &loader{}
	if err := l.read(src); err != nil {
		return nil, err
	}
	c := &Config{
		Params: siptrace.DefaultParams(),
		Ingest: ingest.Config{},
		Spool:  spool.DefaultConfig(),
		Store:  store.DefaultConfig(),
	}
	var problems []error
	for _, s := range siptrace.Specs() {
		if err := l.param(c, s); err != nil {
			problems = append(problems, err)
		}
	}
	for _, k := range keys {
		if err := l.key(c, k); err != nil {
			problems = append(problems, err)
		}
	}
	problems = append(problems, l.sockets(c)...)
	if len(problems) > 0 {
		return nil, errors.Join(problems...)
	}
	if err := c.finish(l); err != nil {
		return nil, err
	}
	return c, nil
}

// param sets one siptrace parameter from the last place that has it.
func (l *loader) param(c *Config, s siptrace.Spec) error {
	name := "siptrace." + s.Name
	v, origin := l.get(name)
	var err error
	switch {
	case !origin.set: // the default is in place
	case origin.text:
		text, _ := v.(string)
		err = c.Params.SetText(s.Name, text)
	default:
		err = c.Params.Set(s.Name, v)
	}
	if err != nil {
		return &Problem{origin.place, err}
	}
	c.Values = append(c.Values, Value{Name: name, Text: show(s, &c.Params), Origin: origin.place, Note: s.Note})
	return nil
}

// show is a parameter's value as kamailio.cfg would have it.
func show(s siptrace.Spec, p *siptrace.Params) string {
	switch v := s.Value(p).(type) {
	case int64:
		return fmt.Sprint(v)
	case string:
		switch {
		case v == "":
			return "unset"
		case s.Name == "db_url":
			if u, err := siptrace.ParseDBURL(v); err == nil {
				v = u.Redacted()
			}
		case s.Secret:
			return "***"
		}
		return fmt.Sprintf("%q", v)
	}
	return ""
}

// key sets one of the other settings.
func (l *loader) key(c *Config, k key) error {
	v, origin := l.get(k.name)
	var list []string
	switch v := v.(type) {
	case nil:
		list = split(k.def, k.list)
	case []any:
		for _, e := range v {
			list = append(list, fmt.Sprint(e))
		}
	case []string:
		list = v
	default:
		list = split(fmt.Sprint(v), k.list)
	}
	if !k.list && len(list) != 1 {
		return &Problem{origin.place, fmt.Errorf("%s: want one value, not a list", k.name)}
	}
	if c.RPC.set == nil {
		c.RPC.set = map[string]bool{}
	}
	c.RPC.set[k.name] = origin.set
	if err := k.set(c, list); err != nil {
		return &Problem{origin.place, fmt.Errorf("%s: %w", k.name, err)}
	}
	text := strings.Join(list, ", ")
	switch {
	case text == "":
		text = "unset"
	case k.name == "rpc.token":
		text = "***"
	}
	c.Values = append(c.Values, Value{Name: k.name, Text: text, Origin: origin.place})
	return nil
}

func split(s string, list bool) []string {
	if !list {
		return []string{s}
	}
	var out []string
	for e := range strings.SplitSeq(s, ",") {
		if e = strings.TrimSpace(e); e != "" {
			out = append(out, e)
		}
	}
	return out
}

// addLocal adds one of the proxy's sockets, as proto:address[:port].
func (c *Config) addLocal(s string) error {
	e, err := siptrace.ParseEndpoint(s)
	if err != nil {
		return err
	}
	c.Own = append(c.Own, siptrace.Socket{Proto: e.Proto, Addr: e.Addr})
	return nil
}

// finish derives what depends on several settings, and checks it.
func (c *Config) finish(l *loader) error {
	c.KamailioCfg = l.kamailioCfg
	c.applyDBMode(l)
	var problems []error
	add := func(place string, err error) {
		if err != nil {
			problems = append(problems, &Problem{place, err})
		}
	}
	add(l.origin("siptrace.trace_init_mode").place, c.Params.Validate())
	u, err := siptrace.ParseDBURL(c.Params.DBURL)
	add(l.origin("siptrace.db_url").place, err)
	c.Store.URL, c.Store.Table, c.Store.Columns = u, c.Params.Table, c.Params.Columns
	add(l.origin("spool.dir").place, c.Spool.Validate())
	add(l.origin("store.batch_rows").place, c.Store.Validate())
	if len(c.Ingest.Listen) == 0 {
		add(l.origin("listen").place, errors.New("listen is empty: nothing would come in"))
	}
	if c.TLSCertificate != "" || slices.ContainsFunc(c.Ingest.Listen, func(a ingest.Address) bool { return a.Net == "tls" }) {
		c.Ingest.TLS, err = tlsConfig(c.TLSCertificate, c.TLSPrivateKey, c.TLSClientCA)
		add(l.origin("tls.certificate").place, err)
	}
	var mutual *tls.Config
	if c.TLSClientCA != "" {
		mutual = c.Ingest.TLS
	}
	if ip := c.Params.LocalIP(); ip != "" {
		// Kamailio mirrors with this address already in place.
		if e, err := siptrace.ParseEndpoint(ip); err == nil {
			c.Own = append(c.Own, siptrace.Socket{Proto: e.Proto, Addr: e.Addr})
		}
	}
	c.Notes = append(c.Notes, l.notes...)
	problems = append(problems, c.readRules(l)...)
	add(l.origin("rpc.ctl").place, c.RPC.finish(mutual))
	problems = append(problems, c.readMirrors(l)...)
	c.note()
	return errors.Join(problems...)
}

// dbModes are what trace_db_mode chooses between safety and load: how often the
// spool is synced, and how long rows gather for a transaction. The module asks
// for INSERT DELAYED with 1 and for an asynchronous INSERT with 2.
var dbModes = [...]struct{ sync, gather time.Duration }{
	1: {10 * time.Second, time.Second},
	2: {time.Second, 200 * time.Millisecond},
}

// applyDBMode puts trace_db_mode into force where the operator did not set what
// it stands for.
func (c *Config) applyDBMode(l *loader) {
	m := c.Params.TraceDBMode
	if m == 0 {
		return
	}
	set := func(name string, value time.Duration, field *time.Duration) {
		if l.origin(name).set {
			return
		}
		*field = value
		i := slices.IndexFunc(c.Values, func(v Value) bool { return v.Name == name })
		c.Values[i].Text, c.Values[i].Origin = value.String(), fmt.Sprintf("trace_db_mode %d", m)
	}
	set("spool.sync_interval", dbModes[m].sync, &c.Spool.SyncInterval)
	set("store.batch_age", dbModes[m].gather, &c.Store.BatchAge)
}

// note collects what works otherwise than the operator may expect.
func (c *Config) note() {
	p := &c.Params
	if !p.TraceOn {
		c.Notes = append(c.Notes, "trace_on is 0: nothing is traced until it is switched on")
	}
	if !p.Stores() {
		c.Notes = append(c.Notes, "trace_to_database is 0 and trace_mode lacks the value 2: no rows are written")
	}
	c.noteMirrors()
	c.noteRules()
	if p.TraceLocalIP != "" && p.TraceMode != 0 {
		c.Notes = append(c.Notes, "trace_local_ip has no effect while trace_mode is set, as in the module")
	}
	if len(c.Own) == 0 {
		c.Notes = append(c.Notes, "no socket of the proxy is known: direction is judged by who sends the mirror; name its sockets (key local) or its kamailio.cfg")
	}
}

// Environ is the process's environment, for Sources.
func Environ() []string { return os.Environ() }
