package control

import (
	"context"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"siptraced/rpc"
)

// Daemon is what the methods work on. Its methods are safe for concurrent use.
type Daemon interface {
	// Setting is the present value of a setting that can change at run time: an
	// int64 or a string. Names are keys of the configuration.
	Setting(name string) (any, bool)
	// Settings are the names of those settings, sorted.
	Settings() []string
	// Set changes one, and returns the value before.
	Set(name string, value any) (old any, err error)
	// Counters are all counters, by name. A gauge is a value of the moment.
	Counters() map[string]uint64
	IsGauge(name string) bool
	// Sockets are the listening sockets.
	Sockets() []Socket
	// Sources are the senders of mirrored packets.
	Sources() []Source
	// Sinks are the names with which the sinks' counters begin.
	Sinks() []string
	// Sink is how one of them does, by that name.
	Sink(name string) Sink
	// Spool is how much waits for all of them together.
	Spool() Spool
	// Reload reads the configuration again and says what changed.
	Reload() ([]string, error)
}

// Socket is one listening socket.
type Socket struct {
	Net  string // "udp", "tcp" or "tls"
	Addr netip.AddrPort
}

// Source is one sender of mirrored packets.
type Source struct {
	Addr                string
	Packets, Rejected   uint64
	Transport, Protocol string // "udp", "tcp" or "tls"; "hep1" to "hep3" or "sip", of the last packet
	FirstSeen, LastSeen time.Time
}

// Sink is one sink.
type Sink struct {
	Connected bool
	LastError string // empty while it works
	Since     time.Time
	// WaitingBytes estimates what waits for it in the spool.
	WaitingBytes int64
	// ByRules: it is here because rules name it, and not the configuration, or not any
	// more. It ends when they no longer do.
	ByRules bool
}

// Spool is how much waits for the sinks.
type Spool struct {
	Place           string // its directory, or the cluster
	Bytes, MaxBytes int64  // MaxBytes 0: no bound
	SharePercent    uint64 // of MaxBytes
	OldestSeconds   uint64 // age of the oldest message that waits for a sink
	// UnsyncedRows are the messages that a loss of power would cost now; the first of
	// them is UnsyncedSeconds old. Uncertain are those that could not be synced.
	UnsyncedRows, UnsyncedSeconds, Uncertain uint64
	DiskFree                                 uint64 // bytes; HasDisk is false in a cluster
	HasDisk, Full                            bool
	// Elsewhere are sinks of other processes that share it.
	Elsewhere []Elsewhere
}

// Elsewhere is a sink that another process runs, or that is gone for good, and for which
// the spool keeps messages.
type Elsewhere struct {
	Sink         string
	Pending      uint64
	WaitingBytes int64
	Moved        time.Time // when it last said how far it came
}

// TraceOn is the setting that siptrace.status switches.
const TraceOn = "siptrace.trace_on"

// Control answers the methods.
type Control struct {
	daemon  Daemon
	changed func(context.Context, rpc.Change)
	started time.Time
	build   Build

	mu    sync.Mutex // covers zeros
	zeros map[string]uint64
}

// New makes the methods of a daemon that started just now; changed is told of
// every change of a setting, and by whom.
func New(d Daemon, changed func(context.Context, rpc.Change)) *Control {
	return &Control{daemon: d, changed: changed, started: time.Now(), build: ReadBuild(), zeros: map[string]uint64{}}
}

// core are the methods that a Kamailio behind us answers for itself.
func (c *Control) core() []rpc.Method {
	return []rpc.Method{
		{Name: "core.version", Help: "Returns the version string of the server.", Handler: c.version},
		{Name: "core.uptime", Help: "Returns uptime of the server.", Handler: c.uptime},
		{Name: "core.info", Help: "Verbose info, including version number, compile flags, compiler, repository hash a.s.o.", Handler: c.info},
		{Name: "core.ps", Help: "Returns the description of running processes.", Array: true, Handler: c.ps},
		{Name: "core.psx", Help: "Returns the detailed description of running processes.", Array: true, Handler: c.psx},
		{Name: "core.sockets_list", Help: "List local sockets.", Array: true, Handler: c.socketsList},
		{Name: "corex.list_sockets", Help: "List the sockets that the server is listening on.", Array: true, Handler: c.listSockets},
	}
}

// Register adds the methods to a registry. With forwarding set up in it, those
// that describe the process are left to the Kamailio behind us.
func (c *Control) Register(r *rpc.Registry) error {
	methods := []rpc.Method{
		{Name: "siptrace.status", Help: "Get status or turn on/off siptrace. Parameters: on, off or check.", Handler: c.status},
		{Name: "siptrace.reload", Help: "Read the configuration again; returns what changed.", Array: true, Handler: c.reload},
		{Name: "siptrace.sinks", Help: "The sinks with what waits for them.", Array: true, Handler: c.sinks},
		{Name: "siptrace.sources", Help: "The senders of mirrored packets.", Array: true, Handler: c.sources},
		{Name: "siptrace.info", Help: "This siptraced: its process, version, sockets and spool.", Handler: c.self},
		{Name: "stats.get_statistics", Help: "Get the statistics: all, GROUP: or NAME.", Array: true, Handler: c.forwards(r, c.getStatistics)},
		{Name: "stats.fetch", Help: "Fetch the statistics as strings: all, GROUP: or NAME.", Handler: c.forwards(r, c.fetch(false))},
		{Name: "stats.fetchn", Help: "Fetch the statistics as numbers: all, GROUP: or NAME.", Handler: c.forwards(r, c.fetch(true))},
		{Name: "stats.reset_statistics", Help: "Reset the statistics: all, GROUP: or NAME.", Handler: c.forwards(r, c.resetStatistics)},
		{Name: "stats.clear_statistics", Help: "Clear the statistics: all, GROUP: or NAME.", Handler: c.forwards(r, c.clearStatistics)},
		{Name: "cnt.get", Help: "Get the value of a counter. Parameters: GROUP NAME.", Handler: c.forwards(r, c.counter)},
		{Name: "cnt.get_raw", Help: "Get the value of a counter. Parameters: GROUP NAME.", Handler: c.forwards(r, c.counter)},
		{Name: "cnt.grps_list", Help: "List all the counter groups.", Array: true, Handler: c.counterGroups(r)},
		{Name: "cnt.var_list", Help: "List the counters of a group. Parameters: GROUP.", Array: true, Handler: c.forwards(r, c.counterNames)},
		{Name: "cnt.grp_get_all", Help: "List the counters of a group with their values. Parameters: GROUP.", Handler: c.forwards(r, c.counterGroup)},
		{Name: "cnt.reset", Help: "Reset a counter. Parameters: GROUP NAME.", Handler: c.forwards(r, c.counterReset)},
		{Name: "cfg.list", Help: "List the settings that can change at run time.", Array: true, Handler: c.forwards(r, c.cfgList)},
		{Name: "cfg.get", Help: "Get the value of a setting. Parameters: GROUP NAME.", Handler: c.forwards(r, c.cfgGet)},
	}
	for _, name := range []string{"cfg.seti", "cfg.sets", "cfg.set", "cfg.set_now_int", "cfg.set_now_string"} {
		methods = append(methods, rpc.Method{Name: name, Help: "Set a setting. Parameters: GROUP NAME VALUE.", Handler: c.forwards(r, c.cfgSet)})
	}
	if r.Unknown == nil {
		methods = append(methods, c.core()...)
	}
	for _, m := range methods {
		if err := r.Register(m); err != nil {
			return err
		}
	}
	return nil
}

// forwards hands a call to the Kamailio behind us when it is about a group that
// is not ours.
func (c *Control) forwards(r *rpc.Registry, h rpc.Handler) rpc.Handler {
	return func(ctx context.Context, call *rpc.Call) (any, error) {
		if name, ok := call.Str(0); ok && r.Unknown != nil && !c.ours(name) {
			v, known, err := r.Unknown(ctx, call)
			if known || err != nil {
				return v, err
			}
		}
		return h(ctx, call)
	}
}

// ours reports whether a parameter names one of our groups or counters.
func (c *Control) ours(name string) bool {
	group, _, _ := strings.Cut(strings.TrimSuffix(name, ":"), ":")
	if _, ok := c.groups()[group]; ok {
		return true
	}
	for _, names := range c.groups() {
		if slices.Contains(names, name) {
			return true
		}
	}
	return false
}

// fault makes the module's faults.
func fault(code int, text string) error { return &rpc.Fault{Code: code, Text: text} }

// status is siptrace.status: the word is taken by its beginning, in any letter
// case.
func (c *Control) status(ctx context.Context, call *rpc.Call) (any, error) {
	word, ok := call.Str(0)
	if !ok {
		return nil, fault(500, "Not enough parameters (on, off or check)")
	}
	word = strings.ToLower(word)
	var err error
	switch {
	case strings.HasPrefix(word, "on"):
		err = c.set(ctx, call, TraceOn, int64(1))
	case strings.HasPrefix(word, "off"):
		err = c.set(ctx, call, TraceOn, int64(0))
	case !strings.HasPrefix(word, "check"):
		err = fault(500, "Bad parameter (on, off or check)")
	}
	if err != nil {
		return nil, err
	}
	if c.tracing() {
		return "Enabled", nil
	}
	return "Disabled", nil
}

func (c *Control) tracing() bool {
	v, _ := c.daemon.Setting(TraceOn)
	return v == int64(1)
}

// set changes a setting and tells who did.
func (c *Control) set(ctx context.Context, call *rpc.Call, name string, value any) error {
	old, err := c.daemon.Set(name, value)
	if err != nil {
		return fault(400, err.Error())
	}
	if now, _ := c.daemon.Setting(name); now != old {
		c.changed(ctx, rpc.Change{Method: call.Method, Peer: call.Peer, What: name, Old: old, New: now})
	}
	return nil
}

func (c *Control) version(context.Context, *rpc.Call) (any, error) {
	return c.build.Line(), nil
}

func platform() string {
	arch := map[string]string{"amd64": "x86_64", "arm64": "aarch64", "386": "i386"}[runtime.GOARCH]
	if arch == "" {
		arch = runtime.GOARCH
	}
	return arch + "/" + runtime.GOOS
}

func (c *Control) uptime(context.Context, *rpc.Call) (any, error) {
	now := time.Now()
	return rpc.Struct{
		{Name: "now", Value: now.Format(time.ANSIC)},
		{Name: "up_since", Value: c.started.Format(time.ANSIC)},
		{Name: "uptime", Value: int64(now.Sub(c.started).Seconds())},
	}, nil
}

func (c *Control) info(context.Context, *rpc.Call) (any, error) {
	return rpc.Struct{
		{Name: "version", Value: "siptraced " + c.build.Version},
		{Name: "id", Value: c.build.Revision + " " + c.build.state()},
		{Name: "compiler", Value: c.build.Go},
		{Name: "compiled", Value: c.build.compiled()},
		{Name: "flags", Value: "USE_TCP, USE_TLS"},
	}, nil
}

// self is siptrace.info. Unlike core.* it is never the Kamailio behind us that
// answers.
func (c *Control) self(context.Context, *rpc.Call) (any, error) {
	var listen rpc.List
	for _, s := range c.daemon.Sockets() {
		listen = append(listen, s.Net+":"+s.Addr.String())
	}
	return rpc.Struct{
		{Name: "version", Value: c.build.Version},
		{Name: "revision", Value: c.build.Revision + c.build.state()},
		{Name: "pid", Value: int64(os.Getpid())},
		{Name: "uid", Value: int64(os.Geteuid())},
		{Name: "up_since", Value: c.started.Format(time.ANSIC)},
		{Name: "spool", Value: c.daemon.Spool().path()},
		{Name: "listen", Value: listen},
	}, nil
}

const processName = "main process - siptraced"

func (c *Control) ps(context.Context, *rpc.Call) (any, error) {
	return rpc.List{int64(os.Getpid()), processName}, nil
}

func (c *Control) psx(context.Context, *rpc.Call) (any, error) {
	return rpc.List{rpc.Struct{
		{Name: "IDX", Value: int64(0)}, {Name: "PID", Value: int64(os.Getpid())}, {Name: "DSC", Value: processName},
	}}, nil
}

func (c *Control) socketsList(context.Context, *rpc.Call) (any, error) {
	var all rpc.Struct
	for _, s := range c.daemon.Sockets() {
		all = append(all, rpc.Member{Name: "socket", Value: rpc.Struct{
			{Name: "proto", Value: s.Net},
			{Name: "address", Value: s.host()},
			{Name: "ipaddress", Value: s.Addr.Addr().String()},
			{Name: "port", Value: s.port()},
			{Name: "mcast", Value: "no"},
			{Name: "mhomed", Value: "no"},
			{Name: "virtual", Value: "no"},
		}})
	}
	return all, nil
}

// host is the address as Kamailio writes it: IPv6 in brackets.
func (s Socket) host() string {
	if s.Addr.Addr().Is6() {
		return "[" + s.Addr.Addr().String() + "]"
	}
	return s.Addr.Addr().String()
}

func (s Socket) port() string { return strconv.Itoa(int(s.Addr.Port())) }

func (c *Control) listSockets(context.Context, *rpc.Call) (any, error) {
	var all rpc.List
	for _, s := range c.daemon.Sockets() {
		all = append(all, rpc.Struct{
			{Name: "PROTO", Value: s.Net},
			{Name: "NAME", Value: s.host()},
			{Name: "ADDRLIST", Value: rpc.Struct{{Name: "ADDR", Value: s.Addr.Addr().String()}}},
			{Name: "PORT", Value: s.port()},
			{Name: "MCAST", Value: "no"},
			{Name: "MHOMED", Value: "no"},
			{Name: "VIRTUAL", Value: "no"},
			{Name: "SOCKNAME", Value: "-"},
			{Name: "ADVERTISE", Value: "-"},
		})
	}
	return all, nil
}

func (c *Control) reload(context.Context, *rpc.Call) (any, error) {
	changed, err := c.daemon.Reload()
	if err != nil {
		return nil, fault(500, err.Error())
	}
	var out rpc.List
	for _, s := range changed {
		out = append(out, s)
	}
	return out, nil
}

// sinks lists, for each sink, the counters that begin with its name, and how it
// does; then those that other processes have. The last entry is the spool.
func (c *Control) sinks(context.Context, *rpc.Call) (any, error) {
	counters := c.daemon.Counters()
	var out rpc.List
	for _, sink := range c.daemon.Sinks() {
		if _, ok := counters[sink+".pending"]; !ok {
			continue
		}
		s := rpc.Struct{{Name: "sink", Value: sink}}
		for _, name := range slices.Sorted(maps.Keys(counters)) {
			if rest, ok := strings.CutPrefix(name, sink+"."); ok {
				s = append(s, rpc.Member{Name: rest, Value: int64(counters[name])})
			}
		}
		out = append(out, append(s, c.daemon.Sink(sink).members()...))
	}
	spool := c.daemon.Spool()
	for _, s := range spool.Elsewhere {
		out = append(out, s.members())
	}
	return append(out, spool.members()), nil
}

func (s Elsewhere) members() rpc.Struct {
	return rpc.Struct{
		{Name: "sink", Value: s.Sink},
		{Name: "elsewhere", Value: number(true)},
		{Name: "pending", Value: int64(s.Pending)},
		{Name: "waiting_bytes", Value: s.WaitingBytes},
		{Name: "moved", Value: s.Moved.Local().Format(time.ANSIC)},
	}
}

func (s Sink) members() rpc.Struct {
	named := "configuration"
	if s.ByRules {
		named = "rules"
	}
	return rpc.Struct{
		{Name: "connected", Value: number(s.Connected)},
		{Name: "last_error", Value: s.LastError},
		{Name: "since", Value: s.Since.Local().Format(time.ANSIC)},
		{Name: "waiting_bytes", Value: s.WaitingBytes},
		{Name: "named_by", Value: named},
	}
}

// path is the absolute path of its directory, or the cluster.
func (s Spool) path() string {
	if path, err := filepath.Abs(s.Place); err == nil && s.HasDisk {
		return path
	}
	return s.Place
}

func (s Spool) members() rpc.Struct {
	m := rpc.Struct{
		{Name: "spool", Value: s.Place},
		{Name: "bytes", Value: s.Bytes},
		{Name: "max_bytes", Value: s.MaxBytes},
		{Name: "share_percent", Value: int64(s.SharePercent)},
		{Name: "oldest_seconds", Value: int64(s.OldestSeconds)},
		{Name: "unsynced_rows", Value: int64(s.UnsyncedRows)},
		{Name: "unsynced_seconds", Value: int64(s.UnsyncedSeconds)},
		{Name: "uncertain", Value: int64(s.Uncertain)},
		{Name: "full", Value: number(s.Full)},
	}
	if s.HasDisk {
		m = append(m, rpc.Member{Name: "disk_free_bytes", Value: int64(s.DiskFree)})
	}
	return m
}

func number(yes bool) int64 {
	if yes {
		return 1
	}
	return 0
}

func (c *Control) sources(context.Context, *rpc.Call) (any, error) {
	var out rpc.List
	for _, s := range c.daemon.Sources() {
		out = append(out, rpc.Struct{
			{Name: "source", Value: s.Addr},
			{Name: "packets", Value: int64(s.Packets)},
			{Name: "last_seen", Value: s.LastSeen.Format(time.ANSIC)},
			{Name: "first_seen", Value: s.FirstSeen.Format(time.ANSIC)},
			{Name: "rejected", Value: int64(s.Rejected)},
			{Name: "transport", Value: s.Transport},
			{Name: "protocol", Value: s.Protocol},
		})
	}
	return out, nil
}
