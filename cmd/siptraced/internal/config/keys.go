package config

import (
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"siptraced/cmd/siptraced/internal/ingest"
	"siptraced/cmd/siptraced/internal/rules"
	"siptraced/cmd/siptraced/internal/spool"
	"siptraced/compat/kamcfg"
	"siptraced/compat/siptrace"
)

// module begins the names of the module's parameters.
const (
	moduleName = "siptrace"
	module     = moduleName + "."
)

// Keys lists every setting: the module's parameters, then the daemon's own.
func Keys() []Key {
	var params []Key
	for _, s := range siptrace.Specs() {
		params = append(params, param(s))
	}
	return slices.Concat(params, intakeKeys(), spoolKeys(), storeKeys(), ruleKeys(), mirrorKeys(), rpcKeys(), processKeys())
}

// Reasons for a restart.
const (
	socketAtStart = "the listening sockets are opened at start"
	spoolAtStart  = "the spool is opened at start"
	fileAtStart   = "the file is opened at start"
)

func intakeKeys() []Key {
	bounds := func(c *Config) error { return c.Ingest.Validate() }
	return []Key{
		{Name: keyKamailioCfg, Doc: "the proxy's configuration; the flag `--kamailio-cfg` wins", access: before(func(c *Config) any { return c.KamailioCfg })},
		{Name: keyDefines, List: true, Doc: "Kamailio's options `-A`: `NAME` or `NAME=VALUE`, defined before `kamailio_cfg` is read; the flag `--define` (`-A`), once for each, wins", access: shown(before(func(c *Config) any { return c.sources.kamailio.Defines }), showDefines)},
		{Name: keyKamailioListen, List: true, Doc: "Kamailio's options `-l`: sockets beside the `listen=` lines of `kamailio_cfg`; the flag `-l`, once for each, wins", access: before(func(c *Config) any { return c.sources.kamailio.Listens })},
		{Name: keyKamailioVersion, Doc: "the version of the proxy, for `#!ifdef KAMAILIO_6` and the like in `kamailio_cfg`; the flag `--kamailio-version` wins. Not set: " + kamcfg.DefaultVersion + ", or 5.7 where the file needs it", access: before(func(c *Config) any { return c.sources.kamailio.Version })},
		{Name: "openser", Doc: "1: `kamailio_cfg` is an openser.cfg of OpenSER 1.0 or 1.1, where `traced_user_avp` is 6843 if not set", access: boolean(func(c *Config) *bool { return &c.OpenSER })},
		{Name: "listen", List: true, Restart: socketAtStart, Doc: "where HEP and SIP come in, told apart by content: `udp:`, `tcp:`, `tls:host:port`", access: access{
			get: func(c *Config) any { return c.Ingest.Listen },
			set: func(c *Config, v []string) error {
				c.Ingest.Listen = nil
				for _, s := range v {
					a, err := ingest.ParseAddress(s)
					if err != nil {
						return err
					}
					c.Ingest.Listen = append(c.Ingest.Listen, a)
				}
				return nil
			},
			show: func(c *Config) string { return formatAll(c.Ingest.Listen) },
		}, check: bounds},
		{Name: "local", List: true, Doc: "the proxy's own sockets (`udp:192.0.2.1:5060`), beside its `listen=` lines; they decide the direction", access: access{
			get: func(c *Config) any { return c.local },
			set: func(c *Config, v []string) error {
				c.local = nil
				for _, s := range v {
					e, err := siptrace.ParseEndpoint(s)
					if err != nil {
						return err
					}
					c.local = append(c.local, e)
				}
				return nil
			},
			show: func(c *Config) string { return formatAll(c.local) },
		}},
		{Name: "receive_buffer", Restart: socketAtStart, Doc: "receive buffer of a UDP socket; a warning says when the kernel gives less", access: bytes(func(c *Config) *int { return &c.Ingest.ReceiveBuffer }), check: bounds},
		{Name: "max_connections", Doc: "TCP and TLS connections open at once", access: number(func(c *Config) *int { return &c.Ingest.MaxConnections }), check: bounds},
		{Name: "tls.certificate", Restart: socketAtStart, Doc: "PEM file with the certificate of `tls:` entries", access: text(func(c *Config) *string { return &c.tls.certificate })},
		{Name: "tls.private_key", Restart: socketAtStart, Doc: "PEM file with its key", access: text(func(c *Config) *string { return &c.tls.privateKey })},
		{Name: "tls.client_ca", Restart: socketAtStart, Doc: "PEM file with the authorities of client certificates; when it is set, clients need one", access: text(func(c *Config) *string { return &c.tls.ca })},
	}
}

// before is the access to what has been read before everything else.
func before(get func(*Config) any) access {
	return access{get: get, set: func(*Config, []string) error { return nil }}
}

func shown(a access, show func(*Config) string) access {
	a.show = show
	return a
}

// showDefines leaves out the values: they may be passwords.
func showDefines(c *Config) string {
	var names []string
	for _, d := range c.sources.kamailio.Defines {
		name, _, valued := strings.Cut(d, "=")
		if valued {
			name += "=" + masked
		}
		names = append(names, name)
	}
	return format(names)
}

// formatAll writes a list of values that can write themselves.
func formatAll[T fmt.Stringer](list []T) string {
	texts := make([]string, len(list))
	for i, e := range list {
		texts[i] = e.String()
	}
	return format(texts)
}

func spoolKeys() []Key {
	bounds := func(c *Config) error { return c.Spool.Validate() }
	interval := duration(func(c *Config) *time.Duration { return &c.Spool.SyncInterval })
	interval.show = func(c *Config) string {
		if c.Spool.SyncInterval == 0 {
			return always
		}
		return format(c.Spool.SyncInterval)
	}
	parsed := interval.set
	interval.set = func(c *Config, v []string) error {
		if v[0] != always {
			return parsed(c, v)
		}
		c.Spool.SyncInterval = 0
		return nil
	}
	return []Key{
		{Name: "spool.nats", Restart: spoolAtStart, Doc: "a NATS JetStream cluster (`nats://a,b,c`) in place of files", access: access{
			get:  func(c *Config) any { return c.Spool.NATS },
			set:  func(c *Config, v []string) error { c.Spool.NATS = v[0]; return checkURLs(v[0]) },
			show: func(c *Config) string { return format(maskUserinfo(c.Spool.NATS)) },
		}, check: bounds},
		{Name: "spool.dir", Restart: spoolAtStart, Doc: "directory of the spool; one process each", access: text(func(c *Config) *string { return &c.Spool.Dir }), check: bounds},
		{Name: "spool.credentials", Restart: spoolAtStart, Doc: "NATS credentials file", access: text(func(c *Config) *string { return &c.Spool.Credentials })},
		{Name: "spool.ca", Restart: spoolAtStart, Doc: "PEM file with the authorities of the cluster's certificates", access: text(func(c *Config) *string { return &c.Spool.CA })},
		{Name: "spool.monitor", Restart: spoolAtStart, Doc: "monitoring pages of the cluster's servers (`http://a:8222,http://b:8222`), which `check --live` reads; empty: port 8222 of each", access: access{
			get:  func(c *Config) any { return c.Spool.Monitor },
			set:  func(c *Config, v []string) error { c.Spool.Monitor = v[0]; return checkPages(v[0]) },
			show: func(c *Config) string { return format(maskUserinfo(c.Spool.Monitor)) },
		}},
		{Name: "spool.replicas", Restart: spoolAtStart, Doc: "copies of each log in a cluster", access: number(func(c *Config) *int { return &c.Spool.Replicas }), check: bounds},
		{Name: "spool.shards", Restart: spoolAtStart, Doc: "logs by Call-ID, and so writers per sink", access: number(func(c *Config) *int { return &c.Spool.Shards }), check: bounds},
		{Name: "spool.sync_interval", Restart: spoolAtStart, Doc: "how often the spool is synced to disk; `always`: before a message counts as spooled. A crash of siptraced alone loses nothing that is spooled", access: interval, check: bounds},
		{Name: "spool.max_bytes", Doc: "what may wait for the sinks; 0: no bound", access: bytes(func(c *Config) *int64 { return &c.Spool.MaxBytes }), check: bounds},
		{Name: "spool.max_age", Doc: "how long it may wait; 0s: no bound", access: duration(func(c *Config) *time.Duration { return &c.Spool.MaxAge }), check: bounds},
		{Name: "spool.full", Restart: spoolAtStart, Doc: "at `spool.max_bytes`: `" + spool.RefuseNew + "` or `" + spool.DropOldest + "`; either is counted", access: text(func(c *Config) *string { return &c.Spool.Full }), check: bounds},
		{Name: "spool.batch_bytes", Restart: spoolAtStart, Doc: "a batch closes at this size", access: bytes(func(c *Config) *int { return &c.Spool.BatchBytes }), check: bounds},
		{Name: "spool.batch_age", Restart: spoolAtStart, Doc: "or at this age", access: duration(func(c *Config) *time.Duration { return &c.Spool.BatchAge }), check: bounds},
	}
}

// always is spool.sync_interval before each acknowledgement.
const always = "always"

func storeKeys() []Key {
	bounds := func(c *Config) error { return c.Store.Validate() }
	return []Key{
		{Name: "timezone", Doc: "time zone of `time_stamp`: `Local`, `UTC`, or a name such as `America/New_York`", access: access{
			get: func(c *Config) any {
				if c.Store.Location == time.Local {
					return "Local" // whose own name is UTC with TZ=UTC
				}
				return c.Store.Location.String()
			},
			set: func(c *Config, v []string) (err error) {
				c.Store.Location, err = time.LoadLocation(v[0])
				return err
			},
		}},
		{Name: "store.batch_rows", Doc: "a transaction closes at so many rows", access: number(func(c *Config) *int { return &c.Store.BatchRows }), check: bounds},
		{Name: "store.batch_bytes", Doc: "or bytes of messages", access: bytes(func(c *Config) *int { return &c.Store.BatchBytes }), check: bounds},
		{Name: "store.batch_age", Doc: "or at this age", access: duration(func(c *Config) *time.Duration { return &c.Store.BatchAge }), check: bounds},
		{Name: "store.keep_bytes", Doc: "how large the file may be that siptraced made because nobody named a database: beyond it the oldest rows go, in small chunks, counted as `store.pruned.*`; 0: no bound. For a `siptrace.db_url` of your own it holds only where you set it, and only for SQLite", access: bytes(func(c *Config) *int64 { return &c.Store.KeepBytes }), check: bounds},
		{Name: "store.keep", Doc: "and how old rows may become there, by `time_stamp`, such as `7d`; what comes late (a capture that is replayed, a clock that is behind) stays as long from its arrival on; 0s: no bound", access: duration(func(c *Config) *time.Duration { return &c.Store.Keep }), check: bounds},
		{Name: "store.reject_file", Restart: fileAtStart, Doc: "gets the rows that the database refuses, and messages with a malformed set of `X-Siptrace` headers, with the reason and the packet", access: text(func(c *Config) *string { return &c.Store.RejectFile }), check: bounds},
		{Name: "store.reject_max_bytes", Doc: "how large that file may be; 0: no bound. Half of it is for malformed messages, the rest for rows, which wait in the spool when it is full", access: bytes(func(c *Config) *int64 { return &c.Store.RejectMaxBytes }), check: bounds},
	}
}

func ruleKeys() []Key {
	return []Key{
		{Name: "event_route", Doc: "file with `event_route[siptrace:msg]` in Kamailio's syntax, or its text; wins over the one of `kamailio_cfg`; empty: none, not that one either", access: access{
			get:  func(c *Config) any { return c.EventRoute },
			set:  func(c *Config, v []string) error { c.EventRoute = v[0]; return nil },
			show: func(c *Config) string { return format(c.describeRoute()) },
		}},
		{Name: "rules.list", Old: "rules", Doc: "list of rules, or a YAML file with one", List: true, access: access{
			get:  func(c *Config) any { return c.ruleList },
			from: func(c *Config, v setting) error { return c.readRules(v) },
			show: func(c *Config) string {
				if c.ruleList == nil {
					return unset
				}
				return fmt.Sprintf("%d rules", len(c.Rules.Rules))
			},
		}},
		{Name: "rules.state_file", Old: "rules_state", Doc: "keeps rules that were started by RPC over a restart; empty: they end with the process", access: text(func(c *Config) *string { return &c.Rules.StateFile })},
		{Name: "rules.tables", Old: "tables", List: true, Doc: "patterns of the tables that rules and `trace_table_avp` may name; default: those whose names begin with that of `table`", access: access{
			get: func(c *Config) any { return c.Rules.Tables },
			set: func(c *Config, v []string) error {
				c.Rules.Tables = v
				return rules.CheckTables(v)
			},
		}},
	}
}

func processKeys() []Key {
	bounds := func(c *Config) error { return c.validate() }
	return []Key{
		{Name: "log.level", Remote: true, Doc: "`debug`, `info`, `warn` or `error`", access: scalar(func(c *Config) *slog.Level { return &c.LogLevel }, parseLevel)},
		{Name: "memory_limit", Doc: "soft limit of the Go runtime's memory; the process stays under 128 MiB with the default", access: bytes(func(c *Config) *int64 { return &c.MemoryLimit }), check: bounds},
		{Name: "shutdown_timeout", Doc: "how long SIGTERM waits for the sinks", access: duration(func(c *Config) *time.Duration { return &c.ShutdownTimeout }), check: bounds},
	}
}

func parseLevel(s string) (l slog.Level, err error) {
	if l.UnmarshalText([]byte(s)) != nil {
		err = fmt.Errorf("%q is none of debug, info, warn, error", s)
	}
	return l, err
}
