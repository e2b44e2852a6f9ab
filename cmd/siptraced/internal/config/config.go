package config

import (
	"errors"
	"fmt"
	"log/slog"
	"maps"
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

// Config is the whole effective configuration. It is not changed once it is
// there: With and Adopt make others of it.
type Config struct {
	Params siptrace.Params
	Own    []siptrace.Socket // the proxy's sockets
	Ingest ingest.Config
	Spool  spool.Config
	Store  store.Config
	RPC    RPC
	// Rules are the event route and the filter rules; EventRoute is the key.
	Rules      rules.Config
	EventRoute string
	// OpenSER has the defaults of the module of 2006 hold.
	OpenSER bool
	// Mirror has the destinations. MirrorExplicit: duplicate_uri gets only what a
	// rule sends there.
	Mirror         mirror.Config
	MirrorExplicit bool

	LogLevel        slog.Level
	ShutdownTimeout time.Duration
	MemoryLimit     int64 // bytes

	// Values are the effective settings in a fixed order, Sockets the proxy's
	// with their places.
	Values  []Value
	Sockets []Value
	// Warnings say what would lose messages, or keeps them where nobody said so;
	// Notes what works otherwise than the operator may expect; Remarks what is as it
	// should be and may surprise all the same.
	Warnings, Notes, Remarks []string
	// KamailioCfg is the proxy's configuration that was read, or empty.
	KamailioCfg string

	// What the keys say that is of no use by itself.
	tls      tlsFiles
	local    []siptrace.Endpoint
	ruleList any // of the key rules.list, as it is written
	mirror   destination
	entries  []any // of the key destinations, as they are written
	// kept: what would go nowhere is stored all the same.
	kept bool

	sources sources
	// stored are the settings that the places have; remote are those that remote
	// control set, which win.
	stored, remote settings
	// derived are the origins of values that follow from other settings.
	derived map[string]string
	cache   *cache
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

// Origin is where the value of a key comes from, as in Value.
func (c *Config) Origin(key string) string { return c.place(key) }

// byDefault begins the origins of what nobody has set; why may follow.
const byDefault = "default"

func defaultFor(why string) string { return byDefault + ", " + why }

// IsDefault reports whether nobody has set it.
func (v Value) IsDefault() bool {
	return v.Origin == byDefault || strings.HasPrefix(v.Origin, defaultFor(""))
}

// Problem is one error in the configuration.
type Problem struct {
	Place string // file:line, or what stands for it
	Err   error
}

func (p *Problem) Error() string { return p.Place + ": " + p.Err.Error() }

// Unwrap gives what is wrong there.
func (p *Problem) Unwrap() error { return p.Err }

// Default is the configuration without any of its places: with the module's own
// parameters.
func Default() *Config {
	return &Config{
		Params: siptrace.DefaultParams(), Ingest: ingest.DefaultConfig(), Spool: spool.DefaultConfig(), Store: store.DefaultConfig(),
		RPC: defaultRPC(), Rules: rules.Config{StateFile: "siptraced.rules.json"}, mirror: defaultDestination(),
		LogLevel: slog.LevelInfo, ShutdownTimeout: 30 * time.Second, MemoryLimit: 96 << 20,
	}
}

// Load reads all places. The error joins every *Problem found.
func Load(src Sources) (*Config, error) {
	from, stored, err := read(src)
	if err != nil {
		return nil, err
	}
	return build(from, stored, nil, newCache())
}

// Set is a change of one setting by remote control, as text.
type Set struct{ Name, Text, Origin string }

// With is c after changes by remote control. It reads no file again.
func (c *Config) With(changes ...Set) (*Config, error) {
	remote := maps.Clone(c.remote)
	if remote == nil {
		remote = settings{}
	}
	for _, s := range changes {
		remote[s.Name] = setting{name: s.Name, value: s.Text, text: true, place: s.Origin}
	}
	return build(c.sources, c.stored, remote, c.cache)
}

// Remotely is the present value of a setting that remote control can change: an
// int64 or a string.
func (c *Config) Remotely(name string) (any, bool) {
	for _, k := range Keys() {
		if k.Name != name || !k.Remote {
			continue
		}
		switch v := k.get(c).(type) {
		case int64, string:
			return v, true
		default:
			return k.text(c), true
		}
	}
	return nil, false
}

// Remote are the settings that remote control has changed, as text.
func (c *Config) Remote() map[string]string {
	out := map[string]string{}
	for name, s := range c.remote {
		out[name] = fmt.Sprint(s.value)
	}
	return out
}

// build makes the configuration that the settings say.
func build(from sources, stored, remote settings, files *cache) (*Config, error) {
	c := Default()
	c.sources, c.stored, c.remote, c.cache = from, stored, remote, files
	c.KamailioCfg, c.derived = from.kamailioCfg, map[string]string{}
	var problems []error
	keys := Keys()
	for i := range keys {
		if err := c.readKey(&keys[i]); err != nil {
			problems = append(problems, err)
		}
	}
	c.settle(from.directories)
	problems = append(problems, c.readSockets()...)
	if len(problems) > 0 {
		return nil, errors.Join(problems...)
	}
	if err := c.finish(); err != nil {
		return nil, err
	}
	for i := range keys {
		k := &keys[i]
		c.Values = append(c.Values, Value{Name: k.Name, Text: k.text(c), Origin: c.place(k.Name), Note: k.note})
	}
	return c, nil
}

// readKey sets one key from the last place that has it.
func (c *Config) readKey(k *Key) error {
	s, ok := c.setting(k.Name)
	if !ok || s.value == nil {
		return nil
	}
	problem := func(err error) error { return &Problem{s.place, err} }
	if k.from != nil {
		if err := k.from(c, s); err != nil {
			return problem(err)
		}
		return nil
	}
	texts, err := s.texts(k.List)
	if err == nil {
		err = k.set(c, texts)
	}
	if err != nil {
		return problem(fmt.Errorf("%s: %w", k.Name, err))
	}
	if k.check == nil {
		return nil
	}
	if err := k.check(c); err != nil {
		// The others are checked with a good one in its place.
		reset(k, c)
		return problem(err)
	}
	return nil
}

// reset gives a key the default.
func reset(k *Key, c *Config) {
	text := k.text(Default())
	if text == unset {
		text = ""
	}
	texts := []string{text}
	if k.List {
		texts = split(text)
	}
	_ = k.set(c, texts) // it can be read
}

// setting is the value that wins for a key.
func (c *Config) setting(name string) (setting, bool) {
	if s, ok := c.remote[name]; ok {
		return s, true
	}
	s, ok := c.stored[name]
	return s, ok
}

// place is where a key's value comes from.
func (c *Config) place(name string) string {
	if origin, ok := c.derived[name]; ok {
		return origin
	}
	if s, ok := c.setting(name); ok {
		return s.place
	}
	return byDefault
}

// keyError is what is wrong with a key, found when its value was put to use.
type keyError struct {
	key string
	err error
}

func (e *keyError) Error() string { return e.key + ": " + e.err.Error() }
func (e *keyError) Unwrap() error { return e.err }

// problem adds the place of the key that err is about, or else of the key name.
func (c *Config) problem(name string, err error) error {
	var k *keyError
	if errors.As(err, &k) {
		name = k.key
	}
	return &Problem{c.place(name), err}
}

// finish derives what depends on several settings, and checks it.
func (c *Config) finish() error {
	c.applyDBMode()
	var problems []error
	add := func(name string, err error) {
		if err != nil {
			problems = append(problems, c.problem(name, err))
		}
	}
	add(module+"trace_init_mode", c.Params.Validate())
	if slices.ContainsFunc(c.Ingest.Listen, func(a ingest.Address) bool { return a.Net == "tls" }) || c.tls.certificate != "" {
		var err error
		c.Ingest.TLS, err = c.serverTLS()
		add("tls.certificate", err)
	}
	if ip := c.Params.LocalIP(); ip != "" {
		// Kamailio mirrors with this address already in place.
		if e, err := siptrace.ParseEndpoint(ip); err == nil {
			c.Own = append(c.Own, siptrace.Socket{Proto: e.Proto, Addr: e.Addr})
		}
	}
	c.Notes = append(c.Notes, c.sources.notes...)
	problems = append(problems, c.finishMirrors()...)
	problems = append(problems, c.finishStore()...)
	problems = append(problems, c.finishRules()...)
	problems = append(problems, c.finishRPC()...)
	c.note()
	return errors.Join(problems...)
}

// validate reports the first value of the process's own that can't work.
func (c *Config) validate() error {
	switch {
	case c.MemoryLimit < 32<<20:
		return fmt.Errorf("memory_limit is %s: at least 32MiB", size(c.MemoryLimit))
	case c.ShutdownTimeout < 0 || c.ShutdownTimeout > time.Hour:
		return fmt.Errorf("shutdown_timeout is %s: 0s to 1h are possible", c.ShutdownTimeout)
	}
	return nil
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
func (c *Config) applyDBMode() {
	m := c.Params.TraceDBMode
	if m == 0 {
		return
	}
	set := func(name string, value time.Duration, field *time.Duration) {
		if _, ok := c.setting(name); !ok {
			*field, c.derived[name] = value, fmt.Sprintf("trace_db_mode %d", m)
		}
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
	c.warnModule()
	c.noteSinks()
	c.noteExposed()
	if c.Spool.NATS != "" {
		c.Notes = append(c.Notes, "the spool is in a cluster (spool.nats): unless its servers have sync_interval: always, and neither compression nor encryption, they can lose what they acknowledged; check --live looks as far as that can be seen")
	}
	c.noteMirrors()
	c.noteRules()
	if k := &c.sources.kamailio; c.sources.proxy == nil && len(k.Defines)+len(k.Listens)+len(k.Version) > 0 {
		c.Notes = append(c.Notes, "defines, kamailio_listen and kamailio_version say how to read a kamailio.cfg, and none is named (key kamailio_cfg)")
	}
	if p.TraceLocalIP != "" && p.TraceMode != 0 {
		c.Notes = append(c.Notes, "trace_local_ip has no effect while trace_mode is set, as in the module")
	}
	if len(c.Own) == 0 {
		c.Notes = append(c.Notes, "no socket of the proxy is known: direction is judged by who sends the mirror; name its sockets (key local) or its kamailio.cfg")
	}
}

// Environ is the process's environment, for Sources.
func Environ() []string { return os.Environ() }
